"""Draw completions from prompts that were read: sampled for rollouts, greedy for evaluation.

Each token is drawn by looking up one uniform number in the cumulated probabilities. The numbers
come from a generator of the prompt's own, so a completion does not depend on which prompts share
its batch, device or process, and a resumed training draws what it would have drawn. The order of
filters is transformers': temperature, top-k, top-p.

The G completions of a prompt grow side by side in one row, as G queries that see the prompt and
each its own past. So the prompt's keys and values are kept and read once, not G times.

Axes: B prompts, P prompt tokens, G completions a prompt, C completion tokens, D width, V
vocabulary, K keys or words kept, N = B x G.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from model.network.family import family_of_network
from model.network.packed import Prefilled
from model.network.packing import completion_mask


class Sampling(NamedTuple):
    """How a rollout draws tokens."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_k: int = 50
    """Tokens kept; 0: all."""
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

    def take(self, rows: Sequence[int]) -> "Completions":
        """Those of some prompts, without the padding that none of them needs."""
        token_BGC, mask_BGC, finished_BG = (tensor[list(rows)] for tensor in self)
        longest = int(mask_BGC.sum(-1).max())
        return Completions(token_BGC[..., :longest], mask_BGC[..., :longest], finished_BG)


def join_completions(parts: Sequence[Completions], *, pad_id: int) -> Completions:
    """Those of several batches of prompts as one."""
    longest = max(part.token_BGC.shape[-1] for part in parts)
    missing = [longest - part.token_BGC.shape[-1] for part in parts]
    pairs = list(zip(parts, missing, strict=True))
    return Completions(
        torch.cat([pad(part.token_BGC, (0, number), value=pad_id) for part, number in pairs]),
        torch.cat([pad(part.mask_BGC, (0, number)) for part, number in pairs]),
        torch.cat([part.finished_BG for part in parts]),
    )


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
    model: PreTrainedModel,
    prefilled: Prefilled,
    *,
    stop_ids: Tensor,
    pad_id: int,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    uniform_BGC: Tensor | None = None,
    in_step: bool = False,
) -> Completions:
    """Continue each prompt until a stop token or the limit; the prompts' cache is used up.

    Args:
        model: The model, in evaluation mode (gradient checkpointing would switch the cache off).
        prefilled: The prompts, from `prefill`.
        stop_ids: Ids that end a completion.
        pad_id: Id written after the end.
        max_new_tokens: Limit, in tokens.
        sampling: How to draw; None: the likeliest token.
        uniform_BGC: Numbers in [0, 1) that draw the tokens, from `uniform_numbers`; needed to
            sample.
        in_step: Go on until every process is done: each layer of a sharded model is gathered by
            all of them at once.

    Raises:
        ValueError: If sampling is asked for without numbers.
    """
    if sampling is not None and uniform_BGC is None:
        msg = "sampling needs its uniform numbers: call uniform_numbers first"
        raise ValueError(msg)
    inner: Any = model
    as_mask = family_of_network(model).as_mask
    group_size = 1 if uniform_BGC is None else uniform_BGC.shape[1]
    num_prompts = prefilled.mask_BP.shape[0]
    device = prefilled.last_BD.device
    stop_ids = stop_ids.to(device)
    uniform_BGC = None if uniform_BGC is None else uniform_BGC.to(device)
    logits_BGV = inner.lm_head(prefilled.last_BD).float()[:, None].expand(-1, group_size, -1)
    position_B1 = prefilled.mask_BP.sum(-1, keepdim=True)
    hidden = torch.tensor(float("-inf"), dtype=prefilled.last_BD.dtype, device=device)
    # In numbers, to be added: of truth values each layer would make them anew.
    mask_BGK = torch.where(prefilled.mask_BP, 0, hidden)[:, None].expand(-1, group_size, -1)
    own_BGG = torch.where(torch.eye(group_size, dtype=torch.bool, device=device), 0, hidden)
    own_BGG = own_BGG.expand(num_prompts, -1, -1)
    done_BG = torch.zeros(num_prompts, group_size, dtype=torch.bool, device=device)
    tokens: list[Tensor] = []
    for t in range(max_new_tokens):
        if sampling is not None and t < sampling.min_new_tokens:
            logits_BGV = logits_BGV.index_fill(-1, stop_ids, float("-inf"))
        if sampling is None or uniform_BGC is None:
            token_BG = logits_BGV.argmax(-1)
        else:
            token_BG = draw(logits_BGV.flatten(0, 1), uniform_BGC[..., t].flatten(), sampling).view(
                num_prompts, group_size
            )
        token_BG = torch.where(done_BG, pad_id, token_BG)
        tokens.append(token_BG)
        done_BG = done_BG | torch.isin(token_BG, stop_ids)
        if t + 1 == max_new_tokens or _are_done(done_BG, in_step=in_step):
            break
        mask_BGK = torch.cat([mask_BGK, own_BGG], -1)
        hidden_BGD = inner.model.language_model(
            input_ids=token_BG,
            attention_mask=as_mask(mask_BGK[:, None]),
            position_ids=(position_B1 + t).expand(-1, group_size),
            past_key_values=prefilled.cache,
            use_cache=True,
        ).last_hidden_state
        logits_BGV = inner.lm_head(hidden_BGD).float()
    token_BGC = torch.stack(tokens, -1)
    mask_NC = completion_mask(token_BGC.flatten(0, 1), stop_ids)
    return Completions(token_BGC, mask_NC.view_as(token_BGC), done_BG)


def _are_done(done_BG: Tensor, *, in_step: bool) -> bool:
    num_open = (~done_BG).sum()
    if in_step:
        torch.distributed.all_reduce(num_open)
    return int(num_open) == 0


def draw(logits_NV: Tensor, uniform_N: Tensor, sampling: Sampling) -> Tensor:
    """Draw one token a row by inverting the cumulated probabilities in float64; int64, (N,)."""
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
