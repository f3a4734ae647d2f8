"""Training examples: lines of train.jsonl, in an order that a seed decides for the whole run.

A draw is one use of an example at one position of the run. Everything about it (which example, the
order of its choices, the target of a warm start) follows from the seed and the position alone, so a
resumed run, and a run on another number of devices, sees the same draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Qwen2AudioProcessor

from model.config import PromptName, TrainConfig
from model.network.features import (
    FeatureStore,
    Prompt,
    collate,
    num_audio_tokens,
    num_frames_of,
    prompt_tokens,
)
from model.own_functions import import_function
from model.prompt import as_audio_question, question_text, target_text
from storage.audio import SAMPLE_RATE_HZ, AudioFacts, check_audio
from storage.errors import PipelineError
from storage.jsonl import Record, read_jsonl, write_jsonl

# Names of the random streams, the second number of each generator's seed.
ORDER, CHOICES, TARGET = 1, 2, 3

KEPT_PROMPTS = 10_000  # token sequences kept in each process: 30 MB at 350 tokens


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one clip."""

    id: str
    """AVQA's id, e.g. `183`."""
    question: str
    """As put to the model: about the audio, not the video."""
    choices: tuple[str, ...]
    """The options, in AVQA's order."""
    answer: str
    """The right option's text."""
    clip: Path
    """The wav file."""
    repeats: int = 1
    """Times it is seen in an epoch; 0: never."""

    def as_record(self) -> dict[str, object]:
        """The example as rewards see it and logs show it."""
        return {
            "id": self.id,
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.answer,
            "audio_path": str(self.clip),
        }


class Checked(NamedTuple):
    """Examples that can be used, and those that cannot."""

    kept: list[Example]
    dropped: list[dict[str, object]]
    """One line of dropped.jsonl each: id, reason (`unreadable`, `too-long` or `left-out`),
    detail."""


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


def read_examples(path: Path, repeats: str | None = None) -> list[Example]:
    """Read train.jsonl; order as in the file.

    Args:
        path: The file.
        repeats: Dotted path of the function that says how often an example is seen; None: once.

    Raises:
        PipelineError: If a line lacks a key, its answer is no index of its choices, or the function
            gives no number of times for it; names the line.
    """
    examples: list[Example] = []
    num_repeats = _repeats_by(repeats)
    for number, record in enumerate(read_jsonl(path), start=1):
        place = f"{path}:{number}"
        examples.append(replace(_example(record, place), repeats=num_repeats(record, place)))
    return examples


def check_examples(
    examples: Sequence[Example], processor: Qwen2AudioProcessor, config: TrainConfig
) -> Checked:
    """Sort out clips that cannot be read and prompts that are too long; prompts are never cut.

    Raises:
        PipelineError: If more than `max_bad_share` cannot be read, or less than one batch is left.
    """
    facts = {clip: check_audio(clip) for clip in {one.clip for one in examples if one.repeats}}
    kept: list[Example] = []
    dropped: list[dict[str, object]] = []
    for example in examples:
        if not example.repeats:
            detail = f"by example_repeats {config.example_repeats}"
            dropped.append({"id": example.id, "reason": "left-out", "detail": detail})
            continue
        fact = facts[example.clip]
        if not isinstance(fact, AudioFacts):
            dropped.append({"id": example.id, "reason": "unreadable", "detail": fact.reason})
            continue
        length = _prompt_length(example, fact, processor, config.prompt)
        if length > config.max_prompt_tokens:
            detail = f"{length} tokens, max_prompt_tokens is {config.max_prompt_tokens}"
            dropped.append(
                {"id": example.id, "reason": "too-long", "detail": detail, "num_tokens": length}
            )
            continue
        kept.extend([example] * example.repeats)
    unreadable = [drop for drop in dropped if drop["reason"] == "unreadable"]
    if len(unreadable) > config.max_bad_share * len(examples):
        msg = (
            f"{len(unreadable)} of {len(examples)} examples have audio that cannot be read, more "
            f"than max_bad_share {config.max_bad_share:g} allows; the first: id "
            f"{unreadable[0]['id']}, {unreadable[0]['detail']}; fetch the clips again or raise "
            "max_bad_share"
        )
        raise PipelineError(msg)
    if len(kept) < config.prompts_per_device:
        msg = (
            f"{len(kept)} of {len(examples)} examples can be used ({len(dropped)} dropped), fewer "
            f"than the {config.prompts_per_device} of one batch (prompts_per_device); add examples "
            "or lower it"
        )
        raise PipelineError(msg)
    return Checked(kept, dropped)


def write_dropped(path: Path, checked: Checked) -> None:
    """Write dropped.jsonl, empty where everything can be used."""
    write_jsonl(path, checked.dropped)


class Draws(Dataset[Draw]):
    """All draws of a run; item i is the draw at position `start + i`."""

    def __init__(
        self,
        examples: Sequence[Example],
        processor: Qwen2AudioProcessor,
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
        """Draws of the whole run: more than enough after a resume."""
        return self._num_draws

    def __getitem__(self, index: int) -> Draw:
        """The draw at a place counted from the start of this part of the run."""
        return self.at(self._start + index)

    @property
    def num_draws(self) -> int:
        """Draws of the whole run; positions from here on are spare, for resampling."""
        return self._num_draws

    def at(self, position: int) -> Draw:
        """The draw at a position of the run; positions beyond its end give further draws."""
        example = self._shown(self._example_at(position), position)
        mel = self._store.features(example.clip)
        text = question_text(example.question, example.choices, self._config.prompt)
        return Draw(
            position=position,
            example=example,
            prompt=Prompt(self._prompt_tokens(text, mel.num_frames), mel),
            target=target_text(self._target(example, position), self._config.prompt),
        )

    def _prompt_tokens(self, text: str, num_frames: int) -> Tensor:
        """Tokens of a prompt, kept: rendering the template takes longer than anything else here."""
        key = (text, num_frames)
        tokens = self._tokens.get(key)
        if tokens is None:
            tokens = prompt_tokens(self._processor, text, num_frames)
            if len(self._tokens) < KEPT_PROMPTS:
                self._tokens[key] = tokens
        return tokens

    def _example_at(self, position: int) -> Example:
        epoch, place = divmod(position, len(self._examples))
        if self._order[0] != epoch:
            order = np.random.default_rng([self._config.seed, ORDER, epoch]).permutation(
                len(self._examples)
            )
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

    def __init__(self, processor: Qwen2AudioProcessor, *, target_end_id: int | None = None) -> None:
        """Keep the tokenizer.

        Args:
            processor: Of the model.
            target_end_id: Token that ends a target; None: no targets (they are sampled).
        """
        self._processor = processor
        self._target_end_id = target_end_id

    def __call__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        """A micro-batch: `prompt` (tensors), `positions`, `examples` (records), and `target_ids`
        (B, 1, C) with `target_mask` where there are targets."""  # noqa: D205, D209  one sentence
        batch: dict[str, Any] = {
            "prompt": collate([draw.prompt for draw in draws], self._pad_id),
            "positions": [draw.position for draw in draws],
            "examples": [draw.example.as_record() for draw in draws],
        }
        if self._target_end_id is not None:
            target_BC, mask_BC = self._targets([draw.target for draw in draws], self._target_end_id)
            batch["target_ids"] = target_BC[:, None]
            batch["target_mask"] = mask_BC[:, None]
        return batch

    @cached_property
    def _pad_id(self) -> int:
        return int(self._processor.tokenizer.pad_token_id)

    def _targets(self, texts: Sequence[str], end_id: int) -> tuple[Tensor, Tensor]:
        rows = [[*self._processor.tokenizer(text)["input_ids"], end_id] for text in texts]
        longest = max(map(len, rows))
        padded = [row + [self._pad_id] * (longest - len(row)) for row in rows]
        mask_BC = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        return torch.tensor(padded, dtype=torch.long), mask_BC


def _example(record: Record, place: str) -> Example:
    try:
        choices = tuple(str(choice) for choice in record["multi_choice"])
        example = Example(
            id=str(record["id"]),
            question=as_audio_question(str(record["question_text"])),
            choices=choices,
            answer=choices[_index(record["answer"], len(choices))],
            clip=Path(str(record["audio_path"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            f"{place}: {type(error).__name__} {error}; expected R1-AQA's keys id, question_text, "
            "multi_choice (a list), answer (an index of it) and audio_path; run convert again"
        )
        raise PipelineError(msg) from error
    return example


def _repeats_by(path: str | None) -> Callable[[Record, str], int]:
    """How often the example of a line is seen, by the user's function."""
    if path is None:
        return lambda _record, _place: 1
    function = import_function(path, key="example_repeats", signature="(line: dict) -> int")

    def num_repeats(record: Record, place: str) -> int:
        number = function(record)
        if not isinstance(number, int) or number < 0:
            msg = f"{place}: example_repeats {path} gives {number!r}; expected 0, 1, 2, ..."
            raise PipelineError(msg)
        return int(number)

    return num_repeats


def _index(value: object, num_choices: int) -> int:
    if not isinstance(value, int) or not 0 <= value < num_choices:
        msg = f"answer {value!r} is no index of {num_choices} choices"
        raise ValueError(msg)
    return value


def _prompt_length(
    example: Example, facts: AudioFacts, processor: Qwen2AudioProcessor, prompt: PromptName
) -> int:
    """Tokens of the prompt, audio included, without decoding the clip again."""
    num_samples = round(facts.duration_s * SAMPLE_RATE_HZ)
    num_frames = num_frames_of(num_samples, processor)
    text = question_text(example.question, example.choices, prompt)
    # 4 frames are one audio token, which is replaced by the clip's.
    return (
        len(prompt_tokens(processor, text, 4)) - num_audio_tokens(4) + num_audio_tokens(num_frames)
    )
