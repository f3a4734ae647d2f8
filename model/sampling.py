"""Draw completions from a model that has read its prompts: sampled for rollouts, greedy for evaluation.

Each token is drawn by looking up one uniform number in the cumulated probabilities. The numbers come from a generator
of the prompt's own, so a completion does not depend on which prompts share its batch, device or process, and a
resumed training draws what it would have drawn. The order of filters is transformers': temperature, top-k, top-p.

Axes: B prompts, P prompt tokens, G completions a prompt, N = B x G, C completion tokens, V vocabulary, K words kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration

from model.packing import completion_mask
from model.qwen2_audio import Prefilled


class Sampling(NamedTuple):
    """How a rollout draws tokens."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int = 50
    """Words kept; 0: all."""
    top_p: float = 1.0
    """Smallest share of probability kept."""
    min_new_tokens: int = 0
    """Tokens before which a completion cannot end."""


class Completions(NamedTuple):
    """Completions of a batch of prompts."""

    token_BGC: Tensor
    """Token ids, int64; after the end the padding id."""
    mask_BGC: Tensor
    """True up to and including the end token."""
    finished_BG: Tensor
    """False where the length limit cut the completion off."""


def uniform_numbers(
    positions: Sequence[int], *, seed: int, group_size: int, num_tokens: int
) -> Tensor:
    """Numbers in [0, 1) for one rollout, a generator for each prompt.

    Args:
        positions: Place of each prompt in the run, the same number for the same draw on any device.
        seed: Seed of the run.
        group_size: Completions a prompt.
        num_tokens: Tokens a completion.

    Returns:
        float32, (B, G, C).
    """
    shape = (group_size, num_tokens)
    rows = [
        np.random.default_rng([seed, position]).random(shape, dtype=np.float32)
        for position in positions
    ]
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def decode(
    model: Qwen2AudioForConditionalGeneration,
    prefilled: Prefilled,
    *,
    stop_ids: Tensor,
    pad_id: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    uniform_BGC: Tensor | None = None,
) -> Completions:
    """Continue each prompt until a stop token or the limit; the prompts' cache is used up.

    Args:
        model: The model, in evaluation mode (gradient checkpointing would switch the cache off).
        prefilled: The prompts, from `prefill`.
        stop_ids: Ids that end a completion.
        pad_id: Id written after the end.
        max_new_tokens: Limit, in tokens.
        sampling: How to draw; None: the likeliest token.
        uniform_BGC: Numbers in [0, 1) that draw the tokens, from `uniform_numbers`; needed to sample.

    Raises:
        ValueError: If sampling is asked for without numbers.
    """
    if sampling is not None and uniform_BGC is None:
        msg = "sampling needs its uniform numbers: call uniform_numbers first"
        raise ValueError(msg)
    group_size = 1 if uniform_BGC is None else uniform_BGC.shape[1]
    num_prompts = prefilled.last_BD.shape[0]
    device = prefilled.last_BD.device
    stop_ids = stop_ids.to(device)
    uniform_NC = None if uniform_BGC is None else uniform_BGC.flatten(0, 1).to(device)
    cache, mask_NP = prefilled.cache, prefilled.mask_BP.repeat_interleave(group_size, 0)
    logits_NV = model.lm_head(prefilled.last_BD).float().repeat_interleave(group_size, 0)
    if group_size > 1:
        cache.batch_repeat_interleave(group_size)
    length_N = mask_NP.sum(-1)
    is_padded = not bool(mask_NP.all())
    done_N = torch.zeros_like(length_N, dtype=torch.bool)
    tokens: list[Tensor] = []
    for t in range(max_new_tokens):
        if sampling is not None and t < sampling.min_new_tokens:
            logits_NV = logits_NV.index_fill(1, stop_ids, float("-inf"))
        if sampling is None or uniform_NC is None:
            token_N = logits_NV.argmax(-1)
        else:
            token_N = draw(logits_NV, uniform_NC[:, t], sampling)
        token_N = torch.where(done_N, pad_id, token_N)
        tokens.append(token_N)
        done_N = done_N | torch.isin(token_N, stop_ids)
        if t + 1 == max_new_tokens or bool(done_N.all()):
            break
        mask_NP = torch.cat([mask_NP, mask_NP.new_ones(mask_NP.shape[0], 1)], 1)
        hidden = model.model.language_model(
            input_ids=token_N[:, None],
            attention_mask=mask_NP if is_padded else None,
            position_ids=(length_N + t)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits_NV = model.lm_head(hidden[:, -1]).float()
    token_BGC = torch.stack(tokens, 1).view(num_prompts, group_size, len(tokens))
    return Completions(
        token_BGC=token_BGC,
        mask_BGC=completion_mask(token_BGC, stop_ids),
        finished_BG=done_N.view(num_prompts, group_size),
    )


def draw(logits_NV: Tensor, uniform_N: Tensor, sampling: Sampling) -> Tensor:
    """Draw one token a row by inverting the cumulated probabilities in float64; ids, int64, (N,)."""
    scaled_NV = logits_NV / sampling.temperature
    num_words = scaled_NV.shape[-1]
    num_kept = min(sampling.top_k, num_words) if sampling.top_k else num_words
    if num_kept < num_words or sampling.top_p < 1:
        kept_NK, word_NK = scaled_NV.topk(num_kept)
    else:
        kept_NK, word_NK = scaled_NV, None
    probability_NK = kept_NK.double().softmax(-1)
    if sampling.top_p < 1:
        before_NK = probability_NK.cumsum(-1) - probability_NK
        probability_NK = probability_NK.masked_fill(before_NK >= sampling.top_p, 0.0)
    cumulated_NK = probability_NK.cumsum(-1)
    threshold_N1 = uniform_N.double()[:, None] * cumulated_NK[:, -1:]
    # right=True passes over words of probability 0, and no threshold reaches the total.
    place_N1 = torch.searchsorted(cumulated_NK, threshold_N1, right=True).clamp(max=num_kept - 1)
    return (place_N1 if word_NK is None else word_NK.gather(1, place_N1))[:, 0]
