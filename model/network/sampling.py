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
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from model.config import DecodeWay
from model.network.capture import CapturedStep
from model.network.family import family_of_network
from model.network.kv_cache import make_room
from model.network.packed import Prefilled
from model.network.packing import completion_mask

CAPTURED_STEPS = 64  # of one recording, in which the attention looks at as many keys
CHECK_EVERY = 8  # captured steps: whether all are done is the only thing that the device is asked


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
    way: DecodeWay | Literal["in_step"] = "eager",
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
        way: `captured` gives the same tokens, see capture.py. `in_step`: eagerly, until every
            process is done, as each layer of a sharded model is gathered by all of them at once.

    Raises:
        ValueError: If sampling is asked for without numbers.
    """
    if sampling is not None and uniform_BGC is None:
        msg = "sampling needs its uniform numbers: call uniform_numbers first"
        raise ValueError(msg)
    group_size = 1 if uniform_BGC is None else uniform_BGC.shape[1]
    num_prompts, num_read = prefilled.mask_BP.shape
    is_captured = way == "captured"
    # Captured, the attention looks at as many keys for a while: that needs a recording each.
    span, check_every = (group_size * CAPTURED_STEPS, CHECK_EVERY) if is_captured else (1, 1)
    num_seen = [-(-(num_read + group_size * step) // span) * span for step in range(max_new_tokens)]
    steps = _Steps(
        model,
        prefilled,
        stop_ids,
        token_BGC=torch.full((num_prompts, group_size, max_new_tokens), pad_id),
        num_keys=num_seen[-1],
        sampling=sampling,
        uniform_BGC=uniform_BGC,
    )
    go_on = CapturedStep(steps.go_on, prefilled.last_BD.device) if is_captured else None
    steps.choose(steps.logits(prefilled.last_BD)[:, None].expand(-1, group_size, -1))
    for step in range(1, max_new_tokens):
        if (step - 1) % check_every == 0:
            num_open = (~steps.done_BG).sum()
            if way == "in_step":
                torch.distributed.all_reduce(num_open)
            if int(num_open) == 0:
                break
        steps.room.num_seen = num_seen[step]
        if go_on:
            go_on(num_seen[step])
        else:
            steps.go_on()
    mask_NC = completion_mask(steps.token_BGC.flatten(0, 1), steps.stop_ids)
    completions = Completions(steps.token_BGC, mask_NC.view_as(steps.token_BGC), steps.done_BG)
    return completions.take(range(num_prompts))


class _Steps:
    """A batch being continued, in tensors that stay where they are.

    A step reads and writes them alone and asks the device for nothing, so that it can be captured.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prefilled: Prefilled,
        stop_ids: Tensor,
        *,
        token_BGC: Tensor,
        num_keys: int,
        sampling: Sampling | None,
        uniform_BGC: Tensor | None,
    ) -> None:
        self._model: Any = model
        self._as_mask = family_of_network(model).as_mask
        self._cache = prefilled.cache
        self._sampling = sampling
        last_BD, mask_BP = prefilled.last_BD, prefilled.mask_BP
        device, (_, group_size, _) = last_BD.device, token_BGC.shape
        self.stop_ids = stop_ids.to(device)
        self.token_BGC = token_BGC.to(device)
        self.done_BG = torch.zeros_like(self.token_BGC[..., 0], dtype=torch.bool)
        self._uniform_BGC = None if uniform_BGC is None else uniform_BGC.to(device)
        self._step_1 = torch.zeros(1, dtype=torch.long, device=device)
        self._position_BG = mask_BP.sum(-1, keepdim=True).repeat(1, group_size)
        self.room = make_room(prefilled.cache, num_keys, group_size)
        # In numbers, to be added: of truth values each layer would make them anew.
        hidden = torch.tensor(float("-inf"), dtype=last_BD.dtype, device=device)
        # A kernel would copy a mask whose rows do not begin at a multiple of 16 bytes.
        self._mask_BGK = hidden.repeat(len(mask_BP), group_size, -(-num_keys // 8) * 8)
        self._mask_BGK[..., : mask_BP.shape[1]] = torch.where(mask_BP, 0, hidden)[:, None]
        is_own_GG = torch.eye(group_size, dtype=torch.bool, device=device)
        self._own_BGG = torch.where(is_own_GG, 0, hidden).expand(len(mask_BP), -1, -1)

    def go_on(self) -> None:
        """Read the last tokens, and choose the next."""
        place_G = self.room.place_G
        self._mask_BGK.index_copy_(-1, place_G, self._own_BGG)
        hidden_BGD = self._model.model.language_model(
            input_ids=self.token_BGC.index_select(-1, self._step_1)[..., 0],
            attention_mask=self._as_mask(self._mask_BGK[:, None, :, : self.room.num_seen]),
            position_ids=self._position_BG,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        place_G.add_(len(place_G))
        self._position_BG.add_(1)
        self._step_1.add_(1)
        self.choose(self.logits(hidden_BGD))

    def logits(self, hidden: Tensor) -> Tensor:
        """What the vocabulary head says, float32."""
        return self._model.lm_head(hidden).float()

    def choose(self, logits_BGV: Tensor) -> None:
        """Write down the next token of each completion."""
        if self._sampling and self._sampling.min_new_tokens:
            endless_BGV = logits_BGV.index_fill(-1, self.stop_ids, float("-inf"))
            is_early_1 = self._step_1 < self._sampling.min_new_tokens
            logits_BGV = torch.where(is_early_1, endless_BGV, logits_BGV)
        if self._sampling is None or self._uniform_BGC is None:
            token_BG = logits_BGV.argmax(-1)
        else:
            uniform_N = self._uniform_BGC.index_select(-1, self._step_1).flatten()
            token_N = draw(logits_BGV.flatten(0, 1), uniform_N, self._sampling)
            token_BG = token_N.view_as(self.done_BG)
        # What is not written yet is the padding.
        padding_BG1 = self.token_BGC[..., -1:]
        token_BG1 = torch.where(self.done_BG[..., None], padding_BG1, token_BG[..., None])
        self.token_BGC.index_copy_(-1, self._step_1, token_BG1)
        self.done_BG.logical_or_((token_BG1 == self.stop_ids).any(-1))


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
