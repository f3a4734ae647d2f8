"""One micro-batch of GRPO: prompts, their completions, what these earned, their share in the loss.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Qwen2AudioProcessor

from model.config import GrpoConfig
from model.network.features import Batch
from model.network.qwen2_audio import PackedQwen2Audio, prefill
from model.network.sampling import Completions, Sampling, decode, uniform_numbers
from model.train.rewards import Reward


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
    model: nn.Module,
    prompt: Batch,
    *,
    positions: Sequence[int],
    seed: int,
    config: GrpoConfig,
    stop_ids: Tensor,
    pad_id: int,
    in_step: bool = False,
) -> Completions:
    """Sample G completions for each prompt; what is drawn depends on seed and position alone.

    Args:
        model: A `PackedQwen2Audio`, or a wrapper that passes `run` on to its forward.
        prompt: Tensors of the prompts.
        positions: Place of each prompt in the run.
        seed: Seed of the run.
        config: The sampler's settings.
        stop_ids: Ids that end a completion.
        pad_id: Id written after the end.
        in_step: Go on until every process is done, see `decode`.
    """

    def continue_prompts(policy: PackedQwen2Audio) -> Completions:
        return decode(
            policy,
            prefill(policy, **prompt),
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
            in_step=in_step,
        )

    was_training = model.training
    model.eval()  # no dropout, and gradient checkpointing would switch the cache off
    completions: Completions = model(run=continue_prompts)
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


def exchange(rollout: Rollout, rows: Sequence[int], spare: Rollout) -> Rollout:
    """Put the prompts of another rollout in place of some, padding whichever is shorter.

    Args:
        rollout: To be changed; it stays as it is.
        rows: Its rows that go.
        spare: One prompt for each of these rows, in their order.
    """
    num_prompts = len(rollout.texts)
    source = list(range(num_prompts))
    for place, row in enumerate(rows):
        source[row] = num_prompts + place
    own, other = rollout.completions, spare.completions

    def mixed(mine: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        both = [*mine, *others]
        return [both[row] for row in source]

    def stacked(mine: Tensor, others: Tensor, *, on_left: bool = False) -> Tensor:
        width = max(mine.shape[-1], others.shape[-1])
        both = torch.cat([_padded(mine, width, on_left), _padded(others, width, on_left)])
        return both[source]

    return Rollout(
        prompt={
            "prompt_ids": stacked(
                rollout.prompt["prompt_ids"], spare.prompt["prompt_ids"], on_left=True
            ),
            "prompt_mask": stacked(
                rollout.prompt["prompt_mask"], spare.prompt["prompt_mask"], on_left=True
            ),
            "mel": stacked(rollout.prompt["mel"], spare.prompt["mel"]),
            "num_frames": torch.cat([rollout.prompt["num_frames"], spare.prompt["num_frames"]])[
                source
            ],
        },
        examples=mixed(rollout.examples, spare.examples),
        positions=mixed(rollout.positions, spare.positions),
        completions=Completions(
            token_BGC=stacked(own.token_BGC, other.token_BGC),
            mask_BGC=stacked(own.mask_BGC, other.mask_BGC),
            finished_BG=torch.cat([own.finished_BG, other.finished_BG])[source],
        ),
        texts=mixed(rollout.texts, spare.texts),
        reward_QGR=torch.cat([rollout.reward_QGR, spare.reward_QGR])[source],
        reward_QG=torch.cat([rollout.reward_QG, spare.reward_QG])[source],
        advantage_QG=torch.zeros_like(rollout.advantage_QG),
        weight_QGC=torch.zeros_like(stacked(rollout.weight_QGC, spare.weight_QGC)),
    )


def _padded(tensor: Tensor, width: int, on_left: bool) -> Tensor:  # noqa: FBT001  private
    """Zeros up to a width of the last axis; whatever lies under a mask of 0 counts nowhere."""
    missing = width - tensor.shape[-1]
    return pad(tensor, (missing, 0) if on_left else (0, missing))
