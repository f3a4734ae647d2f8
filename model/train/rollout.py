"""One micro-batch of GRPO: prompts, their completions, what these earned, their share in the loss.

`sample` draws completions, `reward_completions` scores them, `weigh` makes the rollout: nothing in
it is known only later.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, ProcessorMixin

from model.config import GrpoConfig
from model.network.features import Batch
from model.network.packed import prefill
from model.network.policy import Policy
from model.network.sampling import Completions, Sampling, decode, uniform_numbers
from model.train.grpo import is_zero_variance, loss_denominator, loss_weights
from model.train.order import Drawn
from model.train.rewards import Reward
from model.train.step import count_tokens
from model.train.step_log import Means
from storage.records.training import Sampled


@dataclass(frozen=True, slots=True)
class Scored:
    """Completions of a micro-batch and what they earned."""

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


@dataclass(frozen=True, slots=True)
class Rollout:
    """A micro-batch to learn from."""

    scored: Scored
    """Completions and their rewards."""
    advantage_QG: Tensor
    """What each completion earned beyond its group's mean."""
    weight_QGC: Tensor
    """Weight of each token in the loss of the whole step over all devices."""
    reference_QGC: Tensor | None
    """Log-probabilities under the start model; None where beta is 0."""
    old_QGC: Tensor | None = None
    """Log-probabilities under the policy that sampled; None in the first step on a rollout, where
    that is the policy itself."""

    @property
    def ids(self) -> list[str]:
        """Ids of the examples."""
        return [str(example["id"]) for example in self.scored.examples]


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
    policy: Policy,
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
        policy: The network that samples.
        prompt: Tensors of the prompts.
        positions: Place of each prompt in the run.
        seed: Seed of the run.
        config: The sampler's settings.
        stop_ids: Ids that end a completion.
        pad_id: Id written after the end.
        in_step: Go on until every process is done, see `decode`.
    """

    def continue_prompts(network: PreTrainedModel) -> Completions:
        return decode(
            network,
            prefill(network, prompt),
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

    was_training = policy.training
    policy.eval()  # no dropout, and gradient checkpointing would switch the cache off
    completions = policy(continue_prompts)
    policy.train(was_training)
    return completions


def reward_completions(
    completions: Completions,
    drawn: Drawn,
    *,
    rewards: Sequence[Reward],
    processor: ProcessorMixin,
) -> Scored:
    """Score completions on the CPU.

    Args:
        completions: Of the micro-batch.
        drawn: Its prompts.
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
        for group, example in zip(texts, drawn.examples, strict=True)
    ]
    reward_QGR = torch.tensor(scores, dtype=torch.float32)
    weight_R = torch.tensor([reward.weight for reward in rewards])
    device = completions.token_BGC.device
    return Scored(
        prompt=drawn.prompt,
        examples=drawn.examples,
        positions=drawn.positions,
        completions=completions,
        texts=texts,
        reward_QGR=reward_QGR.to(device),
        reward_QG=(reward_QGR @ weight_R).to(device),
    )


def exchange(scored: Scored, rows: Sequence[int], spare: Scored) -> Scored:
    """Put the prompts of another micro-batch in place of some, padding whichever is shorter.

    Args:
        scored: To be changed; it stays as it is.
        rows: Its rows that go.
        spare: One prompt for each of these rows, in their order.
    """
    num_prompts = len(scored.texts)
    source = list(range(num_prompts))
    for place, row in enumerate(rows):
        source[row] = num_prompts + place
    own, other = scored.completions, spare.completions

    def mixed(mine: Sequence[Any], others: Sequence[Any]) -> list[Any]:
        both = [*mine, *others]
        return [both[row] for row in source]

    def stacked(mine: Tensor, others: Tensor, *, on_left: bool = False) -> Tensor:
        width = max(mine.shape[-1], others.shape[-1])
        both = torch.cat([_padded(mine, width, on_left), _padded(others, width, on_left)])
        return both[source]

    return Scored(
        prompt={
            "prompt_ids": stacked(
                scored.prompt["prompt_ids"], spare.prompt["prompt_ids"], on_left=True
            ),
            "prompt_mask": stacked(
                scored.prompt["prompt_mask"], spare.prompt["prompt_mask"], on_left=True
            ),
            "mel": stacked(scored.prompt["mel"], spare.prompt["mel"]),
            "num_frames": torch.cat([scored.prompt["num_frames"], spare.prompt["num_frames"]])[
                source
            ],
        },
        examples=mixed(scored.examples, spare.examples),
        positions=mixed(scored.positions, spare.positions),
        completions=Completions(
            token_BGC=stacked(own.token_BGC, other.token_BGC),
            mask_BGC=stacked(own.mask_BGC, other.mask_BGC),
            finished_BG=torch.cat([own.finished_BG, other.finished_BG])[source],
        ),
        texts=mixed(scored.texts, spare.texts),
        reward_QGR=torch.cat([scored.reward_QGR, spare.reward_QGR])[source],
        reward_QG=torch.cat([scored.reward_QG, spare.reward_QG])[source],
    )


def _padded(tensor: Tensor, width: int, on_left: bool) -> Tensor:  # noqa: FBT001  private
    """Zeros up to a width of the last axis; whatever lies under a mask of 0 counts nowhere."""
    missing = width - tensor.shape[-1]
    return pad(tensor, (missing, 0) if on_left else (0, missing))


def kept_prompts(scored: Scored, config: GrpoConfig) -> Tensor:
    """Prompts that count in the mean, (Q,)."""
    if config.zero_variance == "skip":
        return ~is_zero_variance(scored.reward_QG)
    return torch.ones_like(scored.reward_QG[:, 0], dtype=torch.bool)


def share_of_step(scored: Scored, config: GrpoConfig) -> Tensor:
    """What a micro-batch adds to the divisor of the step's loss: its completions, or its tokens."""
    return loss_denominator(
        scored.completions.mask_BGC,
        kept_prompts(scored, config),
        aggregation=config.loss_aggregation,
    )


def weigh(
    scored: Scored,
    config: GrpoConfig,
    *,
    advantage_QG: Tensor,
    step_total: Tensor,
    reference_QGC: Tensor | None,
) -> Rollout:
    """Make a rollout of scored completions.

    Args:
        scored: The completions.
        config: How tokens are weighed.
        advantage_QG: From `grpo.group_advantages`.
        step_total: Sum of `share_of_step` over the whole step and all devices.
        reference_QGC: Log-probabilities under the start model; None where beta is 0.
    """
    weight_QGC = loss_weights(
        scored.completions.mask_BGC,
        kept_prompts(scored, config),
        aggregation=config.loss_aggregation,
        max_completion_tokens=config.max_completion_tokens,
    )
    return Rollout(scored, advantage_QG, weight_QGC / step_total, reference_QGC)


def count_completions(means: Means, scored: Scored, rewards: Sequence[Reward]) -> None:
    """Count what was sampled and what it earned."""
    means.add("reward", scored.reward_QG)
    means.add("reward_std", scored.reward_QG.std(dim=1))
    for index, reward in enumerate(rewards):
        means.add(f"{reward.name}_reward", scored.reward_QGR[..., index])
    accuracy_QG = scored.reward_QGR[..., 0]
    means.add("zero_variance_share", is_zero_variance(scored.reward_QG).float())
    means.add("all_right_share", (accuracy_QG == 1).all(1).float())
    means.add("all_wrong_share", (accuracy_QG == 0).all(1).float())
    means.add("completion_length", scored.completions.mask_BGC.sum(-1).float())
    means.add("cut_off_share", (~scored.completions.finished_BG).float())
    count_tokens(means, scored.prompt, scored.completions.mask_BGC)


def sampled_records(
    scored: Scored, rewards: Sequence[Reward], *, step: int, num_prompts: int
) -> list[Sampled]:
    """The completions of a micro-batch's first prompts, as completions.jsonl has them."""
    names = [reward.name for reward in rewards]
    return [
        Sampled(
            step=step,
            id=str(example["id"]),
            question=str(example["question"]),
            choices=tuple(cast("list[str]", example["choices"])),
            answer=str(example["answer"]),
            completion=text,
            reward=float(scored.reward_QG[row, index]),
            rewards=dict(zip(names, scored.reward_QGR[row, index].tolist(), strict=True)),
            finished=bool(scored.completions.finished_BG[row, index]),
        )
        for row, example in enumerate(scored.examples[:num_prompts])
        for index, text in enumerate(scored.texts[row])
    ]
