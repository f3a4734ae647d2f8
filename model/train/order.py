"""The order of a run: which example is drawn where, and its micro-batches as tensors.

A draw is one use of an example at one position of the run. Everything about it (which example, the
order of its choices, the target of a warm start) follows from the seed and the position alone, so a
resumed run, and a run on another number of devices, sees the same draws.

Axes: B prompts, C target tokens; one target a prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import ProcessorMixin

from model.config import TrainConfig
from model.network.features import Batch, FeatureStore, Prompt, collate, prompt_tokens
from model.prompt import target_text
from model.train.examples import Example

# Names of the random streams, the second number of each generator's seed.
ORDER, CHOICES, TARGET, DROPOUT = 1, 2, 3, 4

KEPT_PROMPTS = 10_000  # token sequences kept in each process: 30 MB at 350 tokens
PREFETCHED = 4  # micro-batches that each worker reads ahead


@dataclass(frozen=True, slots=True)
class Draw:
    """One use of an example."""

    position: int
    """Place in the run, counted over all devices."""
    example: Example
    """With the choices in the order shown."""
    prompt: Prompt
    """What the model reads."""
    target: str
    """What supervised fine-tuning teaches here."""
    dropout: int
    """What an adapter's dropout draws from, 62 bits."""


class Drawn(NamedTuple):
    """The draws of one micro-batch."""

    prompt: Batch
    """What the model reads, as tensors."""
    positions: list[int]
    """Place of each in the run."""
    examples: list[dict[str, object]]
    """Each as rewards see it and logs show it."""
    target_ids: Tensor | None = None
    """(B, 1, C), what supervised fine-tuning teaches; None where completions are sampled."""
    target_mask: Tensor | None = None
    """(B, 1, C), True for the targets' tokens, their end included."""

    @property
    def ids(self) -> list[str]:
        """Ids of the examples."""
        return [str(example["id"]) for example in self.examples]

    def to(self, device: torch.device) -> "Drawn":
        """The same with its tensors on a device."""
        return self._replace(
            prompt={name: tensor.to(device) for name, tensor in self.prompt.items()},
            target_ids=None if self.target_ids is None else self.target_ids.to(device),
            target_mask=None if self.target_mask is None else self.target_mask.to(device),
        )


class Draws(Dataset[Draw]):
    """All draws of a run; item i is the draw at position `start + i`."""

    def __init__(
        self,
        examples: Sequence[Example],
        processor: ProcessorMixin,
        config: TrainConfig,
        *,
        num_draws: int,
        start: int = 0,
    ) -> None:
        """Keep what every draw needs; clips are read when drawn.

        Args:
            examples: In the order of the file.
            processor: Of the model.
            config: Of the training.
            num_draws: Draws of the whole run, over all devices.
            start: Draws that an earlier part of the run has used.
        """
        self._examples = list(examples)
        self._processor = processor
        self._config = config
        self._num_draws = num_draws
        self._start = start
        self._order: tuple[int, Sequence[int]] = (-1, ())
        self._tokens: dict[tuple[str, int], Tensor] = {}
        folder = None if config.feature_cache is None else Path(config.feature_cache)
        self._store = FeatureStore(processor, memory_mb=config.feature_memory_mb, folder=folder)

    def __len__(self) -> int:
        """Draws of the whole run: more than enough after a resume; what follows is spare."""
        return self._num_draws

    def __getitem__(self, index: int) -> Draw:
        """The draw at a place counted from the start of this part of the run."""
        return self.at(self._start + index)

    def at(self, position: int) -> Draw:
        """The draw at a position of the run; positions beyond its end give further draws."""
        example = self._shown(self._example_at(position), position)
        mel = self._store.features(example.clip)
        text = self._config.prompt.fill(example.question, example.choices)
        target = self._target(example, position)
        return Draw(
            position=position,
            example=example,
            prompt=Prompt(self._prompt_tokens(text, mel.num_frames), mel),
            target=target_text(target, example.choices, self._config.prompt),
            dropout=int(
                np.random.default_rng([self._config.seed, DROPOUT, position]).integers(1 << 62)
            ),
        )

    def _prompt_tokens(self, text: str, num_frames: int) -> Tensor:
        """Tokens of a prompt, kept: rendering the template takes longer than anything else here."""
        key = (text, num_frames)
        tokens = self._tokens.get(key)
        if tokens is None:
            system = self._config.prompt.system
            tokens = prompt_tokens(self._processor, text, num_frames, system=system)
            if len(self._tokens) < KEPT_PROMPTS:
                self._tokens[key] = tokens
        return tokens

    def _example_at(self, position: int) -> Example:
        epoch, place = divmod(position, len(self._examples))
        if self._order[0] != epoch:
            generator = np.random.default_rng([self._config.seed, ORDER, epoch])
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
        generator = np.random.default_rng([self._config.seed, CHOICES, position])
        order = generator.permutation(len(example.choices))
        return replace(example, choices=tuple(example.choices[i] for i in order))

    def _target(self, example: Example, position: int) -> str:
        generator = np.random.default_rng([self._config.seed, TARGET, position])
        if generator.random() >= self._config.sft.random_target_share:
            return example.answer
        return example.choices[int(generator.integers(len(example.choices)))]


class Collator:
    """Draws of one micro-batch as tensors; for supervised fine-tuning with their targets."""

    def __init__(self, processor: ProcessorMixin, *, target_end_id: int | None = None) -> None:
        """Keep the tokenizer.

        Args:
            processor: Of the model.
            target_end_id: Token that ends a target; None: no targets (they are sampled).
        """
        self._processor = processor
        self._target_end_id = target_end_id

    def __call__(self, draws: Sequence[Draw]) -> Drawn:
        """One micro-batch, on the CPU."""
        drawn = Drawn(
            prompt=collate([draw.prompt for draw in draws], self._pad_id)
            | {"draw": torch.tensor([draw.dropout for draw in draws])},
            positions=[draw.position for draw in draws],
            examples=[draw.example.as_record() for draw in draws],
        )
        if self._target_end_id is None:
            return drawn
        target_BC, mask_BC = self._targets([draw.target for draw in draws], self._target_end_id)
        return drawn._replace(target_ids=target_BC[:, None], target_mask=mask_BC[:, None])

    @cached_property
    def _pad_id(self) -> int:
        return int(self._processor.tokenizer.pad_token_id)

    def _targets(self, texts: Sequence[str], end_id: int) -> tuple[Tensor, Tensor]:
        rows = [[*self._processor.tokenizer(text)["input_ids"], end_id] for text in texts]
        longest = max(map(len, rows))
        padded = [row + [self._pad_id] * (longest - len(row)) for row in rows]
        mask_BC = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        return torch.tensor(padded, dtype=torch.long), mask_BC


def read_batches(
    draws: Draws, collator: Collator, config: TrainConfig, *, rank: int, num_processes: int
) -> Iterator[Drawn]:
    """This process's micro-batches, in order; workers read ahead.

    Micro-batch number n of the run is drawn by process n modulo their number.
    """
    size = config.prompts_per_device
    firsts = range(rank * size, len(draws), num_processes * size)
    loader: DataLoader[Any] = DataLoader(
        draws,
        batch_sampler=[range(first, first + size) for first in firsts],  # pyright: ignore[reportArgumentType]  any iterable of indices does
        collate_fn=collator,
        num_workers=config.dataloader_workers,
        prefetch_factor=PREFETCHED if config.dataloader_workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
