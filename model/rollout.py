"""One micro-batch of GRPO: prompts, their completions, what these earned, their share in the loss.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from model.config import GrpoConfig
from model.features import Batch
from model.qwen2_audio import prefill
from model.rewards import Reward
from model.sampling import Completions, Sampling, decode, uniform_numbers


@dataclass(slots=True)
class Rollout:
    """A micro-batch between its sampling and its last optimiser step."""

    prompt: Batch
    """Tensors of the prompts."""
    examples: Sequence[Mapping[str, object]]
    """One record a prompt."""
    positions: Sequence[int]
    """Place of each prompt in the run."""
    completions: Completions
    """G completions a prompt."""
    texts: list[list[str]]
    """The completions' text without special tokens."""
    reward_QGR: Tensor
    """Each reward before its weight, float32."""
    reward_QG: Tensor
    """The weighted sum."""
    advantage_QG: Tensor
    """Zero until the rewards of the whole step are known."""
    weight_QGC: Tensor
    """Weight of each token in the loss of the whole step; zero until all of it is known."""
    reference_QGC: Tensor | None = None
    """Log-probabilities under the start model; None where beta is 0."""
    old_QGC: Tensor | None = None
    """Log-probabilities under the policy that sampled, from the first step on this rollout."""


def sampling_of(config: GrpoConfig) -> Sampling:
    """The sampler's settings."""
    return Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_new_tokens=config.min_new_tokens,
    )


@torch.no_grad()
def sample(
    model: Qwen2AudioForConditionalGeneration,
    prompt: Batch,
    *,
    positions: Sequence[int],
    seed: int,
    config: GrpoConfig,
    stop_ids: Tensor,
    pad_id: int,
) -> Completions:
    """Sample G completions for each prompt; what is drawn depends on seed and position alone."""
    was_training = model.training
    model.eval()  # no dropout, and gradient checkpointing would switch the cache off
    completions = decode(
        model,
        prefill(model, **prompt),
        stop_ids=stop_ids,
        pad_id=pad_id,
        max_new_tokens=config.max_completion_tokens,
        sampling=sampling_of(config),
        uniform_BGC=uniform_numbers(
            positions,
            seed=seed,
            group_size=config.group_size,
            num_tokens=config.max_completion_tokens,
        ),
    )
    model.train(was_training)
    return completions


def earn(
    completions: Completions,
    batch: Mapping[str, Any],
    *,
    rewards: Sequence[Reward],
    processor: Qwen2AudioProcessor,
) -> Rollout:
    """Score completions on the CPU.

    Args:
        completions: Of the micro-batch.
        batch: From the collator: prompt, examples, positions.
        rewards: To be summed with their weights.
        processor: Turns tokens into text.
    """
    num_prompts, group_size, _ = completions.token_BGC.shape
    flat = processor.tokenizer.batch_decode(
        completions.token_BGC.flatten(0, 1).cpu(), skip_special_tokens=True
    )
    texts = [flat[row * group_size : (row + 1) * group_size] for row in range(num_prompts)]
    scores = [
        [[reward.score(text, example) for reward in rewards] for text in group]
        for group, example in zip(texts, batch["examples"], strict=True)
    ]
    reward_QGR = torch.tensor(scores, dtype=torch.float32)
    weight_R = torch.tensor([reward.weight for reward in rewards])
    device = completions.token_BGC.device
    reward_QG = (reward_QGR @ weight_R).to(device)
    return Rollout(
        prompt=batch["prompt"],
        examples=batch["examples"],
        positions=batch["positions"],
        completions=completions,
        texts=texts,
        reward_QGR=reward_QGR.to(device),
        reward_QG=reward_QG,
        advantage_QG=torch.zeros_like(reward_QG),
        weight_QGC=torch.zeros(completions.mask_BGC.shape, device=device),
    )
