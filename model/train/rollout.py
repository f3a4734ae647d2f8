"""The rollout of a GRPO step: prompts, completions, what these earned; what is learned together.

All prompts of a step are sampled in one rollout, in groups that fit into the memory beside the
training: a decoding step reads all weights and starts all kernels, however many prompts it
continues. What is drawn depends on seed and position alone, so the groups change no token, and the
step's loss is a weighted sum over tokens, so it does not depend on its micro-batches.

Sharded layer by layer (fsdp), every process gathers each layer with all the others: there all take
the same groups and go on until all are done, and memory that runs out ends the run.

Axes: Q prompts, G completions a prompt, C completion tokens, R rewards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from model.network.capture import say_eager
from model.network.features import take
from model.network.kv_cache import in_groups, rows_that_fit
from model.network.packed import prefill
from model.network.sampling import (
    Completions,
    Sampling,
    decode,
    join_completions,
    uniform_numbers,
)
from model.train.estimates import compute_bytes, rollout_tokens
from model.train.grpo import is_zero_variance
from model.train.order import Drawn, join_drawn
from model.train.rewards import Reward
from model.train.session import Session
from model.train.sharding import is_sharded
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


class Sampler:
    """Samples completions; halves its groups when memory runs out, and remembers."""

    def __init__(self, session: Session, *, is_greedy: bool = False) -> None:
        """Keep the run; greedy, there is one completion, the likeliest tokens."""
        self._session = session
        self._is_greedy = is_greedy
        self._grpo = session.config.grpo
        self._in_step = session.config.sharding == "fsdp" and is_sharded(session.accelerator)
        if self._in_step and session.config.decode == "captured":
            say_eager("all processes gather each layer of a sharded network")
        self._most = math.inf  # prompts at once, since memory ran out
        self.pad_id = int(session.processor.tokenizer.pad_token_id)

    @torch.no_grad()
    def sample(self, drawn: Drawn) -> Completions:
        """G completions for each prompt."""
        length_Q = drawn.prompt["prompt_mask"].sum(-1).tolist()
        order = sorted(range(len(length_Q)), key=lambda row: -length_Q[row])  # least padding
        size = self._num_fitting(max(length_Q), len(order))
        policy = self._session.unwrapped
        was_training = policy.training
        policy.eval()  # no dropout, and gradient checkpointing would switch the cache off
        if self._in_step:
            groups = [order[first : first + size] for first in range(0, len(order), size)]
            parts = [self._group(drawn, rows) for rows in groups]
        else:
            parts, went_well = in_groups(order, size, partial(self._group, drawn))
            self._most = went_well if went_well < size else self._most
        policy.train(was_training)
        places = sorted(range(len(order)), key=order.__getitem__)  # back to the order of the draws
        return join_completions(parts, pad_id=self.pad_id).take(places)

    def _num_fitting(self, longest: int, num_prompts: int) -> int:
        """Prompts of a group, by the memory that is free now."""
        session = self._session
        device = session.accelerator.device
        network: Any = session.unwrapped.network
        fitting = rows_that_fit(
            network.config,
            device,
            num_tokens=rollout_tokens(session.config, longest),
            element_bytes=compute_bytes(session.config),
        )
        size = max(1, int(min(fitting, num_prompts, self._most)))
        if self._in_step:
            agreed = torch.tensor(size, device=device)
            torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MIN)
            size = int(agreed)
        return size

    def _group(self, drawn: Drawn, rows: Sequence[int]) -> Completions:
        prompt, positions = take(drawn.prompt, rows), [drawn.positions[row] for row in rows]
        session, grpo = self._session, self._grpo
        num_tokens, sampling, uniform_BGC = grpo.max_completion_tokens, None, None
        if not self._is_greedy:
            sampling = Sampling(
                temperature=grpo.temperature,
                top_k=grpo.top_k,
                top_p=grpo.top_p,
                min_new_tokens=grpo.min_new_tokens,
            )
            uniform_BGC = uniform_numbers(
                positions,
                seed=session.config.seed,
                group_size=grpo.group_size,
                num_tokens=num_tokens,
            )

        def continue_prompts(network: PreTrainedModel) -> Completions:
            return decode(
                network,
                prefill(network, prompt),
                stop_ids=session.stop_ids,
                pad_id=self.pad_id,
                max_new_tokens=num_tokens,
                sampling=sampling,
                uniform_BGC=uniform_BGC,
                way="in_step" if self._in_step else session.config.decode,
            )

        return session.unwrapped(continue_prompts)


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
