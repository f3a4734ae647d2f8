"""The arithmetic of GRPO: advantages, KL estimate, loss. Pure functions of tensors.

Formula (arXiv 2402.03300, as in xiaomi-research/r1-aqa src/trainer/grpo_trainer.py):

    loss = mean over completions of mean over their tokens of -(ratio x A - beta x KL)
    ratio = exp(logprob - old), clipped as in PPO where a rollout serves several steps
    KL = exp(reference - logprob) - (reference - logprob) - 1    (the k3 estimate; never negative)
    A = (reward - mean) / (std + 1e-4), both within the group

Axes: Q prompts, G completions a prompt, C completion tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.config import AdvantageScale, GrpoConfig

KL_LIMIT = 20.0  # nats of one token; e^89 is no float32 number, and e^20 is far beyond any use
STD_FLOOR = 1e-4  # added to the standard deviation, as in R1-AQA


class TokenLoss(NamedTuple):
    """Loss of every completion token, with what it is made of."""

    loss_QGC: Tensor
    """-(clipped ratio x advantage - beta x KL); padding holds values that do not count."""
    kl_QGC: Tensor
    """The KL estimate, without gradient; zeros where there is no reference."""
    clipped_QGC: Tensor
    """True where the clip cuts the gradient off."""


def group_advantages(reward_QG: Tensor, *, scale: AdvantageScale = "group") -> Tensor:
    """Centre each reward within its prompt's group, and scale it.

    A group whose completions all score alike teaches nothing: its row is exactly zero. Computed in
    float64, as the rounding of a float32 mean, divided by `STD_FLOOR`, is no small advantage.

    Args:
        reward_QG: One reward a completion, float32, any range. For `batch`, all prompts of the
            step.
        scale: As in `GrpoConfig.advantage_scale`.

    Returns:
        Advantages, (Q, G) float32, unitless; each row has mean 0.
    """
    reward_QG = reward_QG.double()
    centred_QG = reward_QG - reward_QG.mean(dim=1, keepdim=True)
    centred_QG = centred_QG.masked_fill(is_zero_variance(reward_QG)[:, None], 0)
    if scale == "none":
        return centred_QG.float()
    std = centred_QG.std() if scale == "batch" else centred_QG.std(dim=1, keepdim=True)
    return (centred_QG / (std + STD_FLOOR)).float()


def is_zero_variance(reward_QG: Tensor) -> Tensor:
    """True for each group whose completions all score alike, (Q,)."""
    return (reward_QG == reward_QG[:, :1]).all(dim=1)


def token_loss(
    logprob_QGC: Tensor,
    config: GrpoConfig,
    *,
    old_QGC: Tensor,
    reference_QGC: Tensor | None,
    advantage_QG: Tensor,
) -> TokenLoss:
    """The loss of each token (arXiv 1707.06347, equation 7, with the KL term of arXiv 2402.03300).

    Args:
        logprob_QGC: Under the policy, with gradient.
        config: Clip range and beta.
        old_QGC: Under the policy that sampled; the detached `logprob_QGC` on the first step of a
            rollout.
        reference_QGC: Under the start model; None where beta is 0.
        advantage_QG: From `group_advantages`.
    """
    ratio_QGC = (logprob_QGC - old_QGC).exp()
    advantage_QG1 = advantage_QG.unsqueeze(-1)
    free_QGC = ratio_QGC * advantage_QG1
    bounded_QGC = ratio_QGC.clamp(1 - config.clip_low, 1 + config.clip_high) * advantage_QG1
    loss_QGC = -torch.minimum(free_QGC, bounded_QGC)
    kl_QGC = torch.zeros_like(logprob_QGC)
    if reference_QGC is not None:
        kl_QGC = kl_estimate(logprob_QGC, reference_QGC)
        loss_QGC = loss_QGC + config.beta * kl_QGC
    return TokenLoss(loss_QGC, kl_QGC.detach(), bounded_QGC < free_QGC)


def kl_estimate(logprob_QGC: Tensor, reference_QGC: Tensor) -> Tensor:
    """Unbiased, never negative estimate of KL(policy || reference) at each token.

    A token that the policy has all but lost adds what it has at `KL_LIMIT`, and no gradient.
    """
    difference_QGC = (reference_QGC - logprob_QGC).clamp(max=KL_LIMIT)
    return difference_QGC.exp() - difference_QGC - 1


def loss_weights(mask_QGC: Tensor, keep_Q: Tensor, config: GrpoConfig) -> Tensor:
    """Weight of every token: the loss of a step is the weighted sum over all its tokens.

    Args:
        mask_QGC: True for tokens that count.
        keep_Q: False for prompts left out of the mean.
        config: How tokens are weighed, see `loss_aggregation`.

    Returns:
        float32, (Q, G, C), zero on padding; to be divided by the step's `loss_denominator`.
    """
    weight_QGC = mask_QGC.float() * keep_Q.float()[:, None, None]
    if config.loss_aggregation == "sequence":
        return weight_QGC / mask_QGC.sum(-1, keepdim=True).clamp(min=1)
    if config.loss_aggregation == "constant":
        return weight_QGC / config.max_completion_tokens
    return weight_QGC


def loss_denominator(mask_QGC: Tensor, keep_Q: Tensor, config: GrpoConfig) -> Tensor:
    """What a step's weighted sum is divided by: its completions, or its tokens; a scalar."""
    if config.loss_aggregation == "token":
        return (mask_QGC & keep_Q[:, None, None]).sum().float()
    return (keep_Q.sum() * mask_QGC.shape[1]).float()
