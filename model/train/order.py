"""The order of a run: which example is drawn where, and its micro-batches as tensors.

A draw is one use of an example at one position of the run. Everything about it (which example, the
order of its choices, the target of a warm start) follows from the seed and the position alone, so a
resumed run, and a run on another number of devices, sees the same draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import ProcessorMixin

from model.config import TrainConfig
from model.network.features import Batch, FeatureStore, Prompt, collate, join, prompt_tokens, take
from model.prompt import target_text
from model.train.examples import Example

# Names of the random streams, the second number of each generator's seed.
ORDER, CHOICES, TARGET, DROPOUT = 1, 2, 3, 4

KEPT_PROMPTS = 10_000  # token sequences kept in each process: 30 MB at 350 tokens
FEATURES_MB = 256.0  # features kept in each process, so that small data are decoded once
PREFETCHED = 4  # micro-batches that each worker reads ahead


@dataclass(frozen=True, slots=True)
class Draw:
    """One use of an example."""

    position: int
    """Place in the run, counted over all devices."""
    example: Example
    """With the choices in the order shown."""
    prompt: Prompt
    target: str
    """What supervised fine-tuning teaches."""
    dropout: int
    """What an adapter's dropout draws from, 62 bits."""


class Drawn(NamedTuple):
    """The draws of one micro-batch."""

    prompt: Batch
    positions: list[int]
    examples: list[Example]
    targets: list[str]

    @property
    def ids(self) -> list[str]:
        """Ids of the examples."""
        return [example.id for example in self.examples]

    def to(self, device: torch.device) -> "Drawn":
        """The same with its tensors on a device."""
        return self._replace(prompt={name: t.to(device) for name, t in self.prompt.items()})

    def take(self, rows: Sequence[int]) -> "Drawn":
        """Some of the prompts."""
        return Drawn(
            prompt=take(self.prompt, rows),
            positions=[self.positions[row] for row in rows],
            examples=[self.examples[row] for row in rows],
            targets=[self.targets[row] for row in rows],
        )


def as_batch(draws: Sequence[Draw], pad_id: int) -> Drawn:
    """One micro-batch, on the CPU; prompts are padded with `pad_id`."""
    return Drawn(
        prompt=collate([draw.prompt for draw in draws], pad_id)
        | {"draw": torch.tensor([draw.dropout for draw in draws])},
        positions=[draw.position for draw in draws],
        examples=[draw.example for draw in draws],
        targets=[draw.target for draw in draws],
    )


def join_drawn(parts: Sequence[Drawn]) -> Drawn:
    """Micro-batches one behind another."""
    return Drawn(
        prompt=join([part.prompt for part in parts]),
        positions=[position for part in parts for position in part.positions],
        examples=[example for part in parts for example in part.examples],
        targets=[target for part in parts for target in part.targets],
    )


class Draws(Dataset[Draw]):
    """All draws of a run by their position; those beyond its end are spare."""

    def __init__(
        self,
        examples: Sequence[Example],
        processor: ProcessorMixin,
        config: TrainConfig,
        *,
        num_draws: int,
    ) -> None:
        """Keep what every draw needs."""
        self._examples = list(examples)
        self._processor = processor
        self._config = config
        self._num_draws = num_draws
        self._order: tuple[int, Sequence[int]] = (-1, ())
        folder = None if config.feature_cache is None else Path(config.feature_cache)
        self._store = FeatureStore(processor, memory_mb=FEATURES_MB, folder=folder)
        self._tokens: dict[tuple[str, int], Tensor] = {}

    def __len__(self) -> int:
        """Draws of the whole run."""
        return self._num_draws

    def __getitem__(self, position: int) -> Draw:
        """Draw at a position of the run, or beyond its end."""
        example = self._shown(self._example_at(position), position)
        mel = self._store.features(example.clip)
        target = self._target(example, position)
        return Draw(
            position=position,
            example=example,
            prompt=Prompt(self._prompt_tokens(example, mel.num_frames), mel),
            target=target_text(target, example.choices, self._config.prompt),
            dropout=int(self._generator(DROPOUT, position).integers(1 << 62)),
        )

    def _prompt_tokens(self, example: Example, num_frames: int) -> Tensor:
        """Tokens of a prompt, kept: rendering the template takes longer than anything else here."""
        prompt = self._config.prompt
        text = prompt.fill(example.question, example.choices)
        tokens = self._tokens.get((text, num_frames))
        if tokens is None:
            tokens = prompt_tokens(self._processor, text, num_frames, system=prompt.system)
            if len(self._tokens) < KEPT_PROMPTS:
                self._tokens[text, num_frames] = tokens
        return tokens

    def _generator(self, stream: int, place: int) -> np.random.Generator:
        return np.random.default_rng([self._config.seed, stream, place])

    def _example_at(self, position: int) -> Example:
        epoch, place = divmod(position, len(self._examples))
        if self._order[0] != epoch:
            generator = self._generator(ORDER, epoch)
            order = generator.permutation(len(self._examples))
            weights = np.array([self._examples[index].weight for index in order])
            if np.ptp(weights):
                # Systematic sampling: each is drawn its weight's floor or ceiling of times.
                ends = np.cumsum(weights) / weights.sum() * len(order)
                places = np.arange(len(order)) + generator.random()
                drawn = np.searchsorted(ends, places).clip(max=len(order) - 1)
                order = generator.permutation(order[drawn])
            self._order = (epoch, order.tolist())
        return self._examples[self._order[1][place]]

    def _shown(self, example: Example, position: int) -> Example:
        if not self._config.shuffle_choices:
            return example
        generator = self._generator(CHOICES, position)
        order = generator.permutation(len(example.choices))
        return replace(example, choices=tuple(example.choices[i] for i in order))

    def _target(self, example: Example, position: int) -> str:
        generator = self._generator(TARGET, position)
        if generator.random() >= self._config.sft.random_target_share:
            return example.answer
        return example.choices[int(generator.integers(len(example.choices)))]


def read_batches(
    draws: Draws, config: TrainConfig, *, start: int, pad_id: int, rank: int, num_processes: int
) -> Iterator[Drawn]:
    """This process's micro-batches, in order, from a position on; workers read ahead.

    Micro-batch number n from there is drawn by process n modulo their number.
    """
    size = config.prompts_per_device
    firsts = range(start + rank * size, len(draws), num_processes * size)
    loader: DataLoader[Any] = DataLoader(
        draws,
        batch_sampler=[range(first, first + size) for first in firsts],  # pyright: ignore[reportArgumentType]  any iterable of indices does
        collate_fn=partial(as_batch, pad_id=pad_id),
        num_workers=config.dataloader_workers,
        prefetch_factor=PREFETCHED if config.dataloader_workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
