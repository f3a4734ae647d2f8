"""The vocabulary head where completion tokens are predicted, and nowhere else.

Over a whole prompt the logits of 156,032 words are most of a naive step's memory. Here they exist
for one chunk of positions at a time, in fp32, and are computed again in the backward pass.

Axes: B prompts, G completions a prompt, C completion tokens, S packed completion tokens, N chosen
positions, D width, V vocabulary.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

HEAD_CHUNK = 256  # positions a pass: 160 MB of fp32 logits at 156,032 words


class CompletionScores(NamedTuple):
    """What the packed pass says about each completion token; padding holds 0."""

    logprob_BGC: Tensor
    """Natural log of the token's probability, float32, differentiable."""
    entropy_BGC: Tensor
    """Entropy in nats of the distribution that the token is from, float32, without gradient."""


def score_tokens(
    head: nn.Module,
    *,
    first_BD: Tensor,
    rest_BSD: Tensor,
    slot_BGC: Tensor,
    completion_BGC: Tensor,
    mask_BGC: Tensor,
    head_chunk: int,
) -> CompletionScores:
    """Run the head where a completion token is predicted: on prompt ends and packed tokens."""
    logits_BV = head(first_BD).float()
    first_BG = logits_BV.log_softmax(-1).gather(1, completion_BGC[:, :, 0])
    first_entropy_B1 = entropy(logits_BV.detach()).unsqueeze(1)
    # Token t >= 1 is predicted at the packed place of token t - 1.
    prompt_N, group_N, before_N = mask_BGC[..., 1:].nonzero(as_tuple=True)
    hidden_ND = rest_BSD[prompt_N, slot_BGC[prompt_N, group_N, before_N]]
    target_N = completion_BGC[prompt_N, group_N, before_N + 1]
    logprob_N, entropy_N = _score_rows(head, hidden_ND, target_N, head_chunk)
    logprob_BGC = torch.zeros(mask_BGC.shape, dtype=torch.float32, device=mask_BGC.device)
    entropy_BGC = logprob_BGC.clone()
    entropy_BGC[..., 0] = first_entropy_B1
    entropy_BGC[prompt_N, group_N, before_N + 1] = entropy_N
    rest_BGC = logprob_BGC[..., 1:].index_put((prompt_N, group_N, before_N), logprob_N)
    return CompletionScores(torch.cat([first_BG.unsqueeze(-1), rest_BGC], -1), entropy_BGC)


def _score_rows(
    head: nn.Module, hidden_ND: Tensor, target_N: Tensor, head_chunk: int
) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's target and entropy of each row, chunk by chunk."""
    recompute = torch.is_grad_enabled() and hidden_ND.shape[0] > head_chunk
    parts = [
        checkpoint(_score_chunk, head, hidden, target, use_reentrant=False)
        if recompute
        else _score_chunk(head, hidden, target)
        for hidden, target in zip(
            hidden_ND.split(head_chunk), target_N.split(head_chunk), strict=True
        )
    ]
    pairs = cast("list[tuple[Tensor, Tensor]]", parts)
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])


def _score_chunk(head: nn.Module, hidden_ND: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
    logits_NV = head(hidden_ND).float()
    logprob_N = logits_NV.gather(1, target_N[:, None])[:, 0] - logits_NV.logsumexp(-1)
    return logprob_N, entropy(logits_NV.detach())


def entropy(logits_NV: Tensor) -> Tensor:
    """Entropy in nats of each row's softmax."""
    log_total_N = logits_NV.logsumexp(-1)
    mean_N = (logits_NV.softmax(-1) * logits_NV).sum(-1)
    return log_total_N - mean_N
