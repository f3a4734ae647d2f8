"""The rollout of a GRPO step: prompts, completions, what these earned, their share in the loss.

The sampler draws completions for the whole step, `reward_completions` scores them, `micro_batches`
says which prompts are learned from together. The step's loss is a weighted sum over tokens, so it
does not depend on the parts.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import ProcessorMixin

from model.network.sampling import Completions, join_completions
from model.train.grpo import is_zero_variance
from model.train.order import Drawn, join_drawn
from model.train.rewards import Reward
from model.train.step_log import Means, count_tokens
from storage.records.training import Sampled


@dataclass(frozen=True, slots=True)
class Scored:
    """Completions and what they earned."""

    drawn: Drawn
    completions: Completions
    texts: list[list[str]]
    """The completions' text without special tokens."""
    reward_QGR: Tensor
    """Each reward before its weight, float32."""
    reward_QG: Tensor
    """The weighted sum."""

    def take(self, rows: Sequence[int]) -> "Scored":
        """Some of the prompts."""
        return Scored(
            drawn=self.drawn.take(rows),
            completions=self.completions.take(rows),
            texts=[self.texts[row] for row in rows],
            reward_QGR=self.reward_QGR[list(rows)],
            reward_QG=self.reward_QG[list(rows)],
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """A micro-batch to learn from."""

    scored: Scored
    advantage_QG: Tensor
    weight_QGC: Tensor
    """Weight of each token in the loss of the whole step over all devices."""
    reference_QGC: Tensor | None
    """Log-probabilities under the start model; None where beta is 0."""

    @property
    def drawn(self) -> Drawn:
        """The prompts."""
        return self.scored.drawn


def reward_completions(
    completions: Completions,
    drawn: Drawn,
    *,
    rewards: Sequence[Reward],
    processor: ProcessorMixin,
) -> Scored:
    """Score completions of prompts on the CPU; rewards are summed with their weights."""
    num_prompts, group_size, _ = completions.token_BGC.shape
    flat = processor.tokenizer.batch_decode(
        completions.token_BGC.flatten(0, 1).cpu(), skip_special_tokens=True
    )
    texts = [flat[row * group_size : (row + 1) * group_size] for row in range(num_prompts)]
    records = [example.as_record() for example in drawn.examples]
    scores = [
        [[reward.score(text, record) for reward in rewards] for text in group]
        for group, record in zip(texts, records, strict=True)
    ]
    reward_QGR = torch.tensor(scores, dtype=torch.float32)
    weight_R = torch.tensor([reward.weight for reward in rewards])
    device = completions.token_BGC.device
    return Scored(
        drawn=drawn,
        completions=completions,
        texts=texts,
        reward_QGR=reward_QGR.to(device),
        reward_QG=(reward_QGR @ weight_R).to(device),
    )


def replace_rows(scored: Scored, rows: Sequence[int], spare: Scored, *, pad_id: int) -> Scored:
    """The same with those of `spare`, in their order, in place of some rows."""
    source = list(range(len(scored.texts)))
    for place, row in enumerate(rows):
        source[row] = len(scored.texts) + place
    both = Scored(
        drawn=join_drawn([scored.drawn, spare.drawn]),
        completions=join_completions([scored.completions, spare.completions], pad_id=pad_id),
        texts=scored.texts + spare.texts,
        reward_QGR=torch.cat([scored.reward_QGR, spare.reward_QGR]),
        reward_QG=torch.cat([scored.reward_QG, spare.reward_QG]),
    )
    return both.take(source)


def micro_batches(scored: Scored, size: int) -> list[list[int]]:
    """The rows that share a micro-batch: of like length where there are several, else as drawn.

    How long a packed row is, the prompt and all completions, is known after the rollout alone.
    """
    prompt_Q = scored.drawn.prompt["prompt_mask"].sum(-1)
    lengths = (prompt_Q + scored.completions.mask_BGC.sum((1, 2))).tolist()
    rows = list(range(len(lengths)))
    if 1 < size < len(rows):
        rows.sort(key=lambda row: -lengths[row])
    return [rows[first : first + size] for first in range(0, len(rows), size)]


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
    count_tokens(means, scored.drawn.prompt, scored.completions.mask_BGC)


def sampled_records(
    scored: Scored, rewards: Sequence[Reward], *, step: int, num_prompts: int
) -> list[Sampled]:
    """The completions of the first prompts, as completions.jsonl has them."""
    names = [reward.name for reward in rewards]
    return [
        Sampled(
            step=step,
            id=example.id,
            question=example.question,
            choices=example.choices,
            answer=example.answer,
            completion=text,
            reward=float(scored.reward_QG[row, index]),
            rewards=dict(zip(names, scored.reward_QGR[row, index].tolist(), strict=True)),
            finished=bool(scored.completions.finished_BG[row, index]),
        )
        for row, example in enumerate(scored.drawn.examples[:num_prompts])
        for index, text in enumerate(scored.texts[row])
    ]
