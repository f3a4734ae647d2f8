"""Training examples: lines of train.jsonl, and which of them can be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from transformers import ProcessorMixin

from model.config import TrainConfig
from model.network.family import family_of_processor
from model.network.features import (
    is_cut,
    num_frames_of,
    prompt_tokens,
    too_short,
)
from model.own_functions import call_own, import_function
from storage.audio import SAMPLE_RATE_HZ, AudioFacts, check_audio
from storage.errors import PipelineError
from storage.jsonl import Record, read_jsonl, write_jsonl
from storage.records.prompt import Prompt
from storage.records.question import as_audio_question


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
    weight: float = 1.0
    """How often it is drawn beside the others, 1 on average; from several sources' shares."""

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
    """One line of dropped.jsonl each: id, reason (`unreadable`, `too-short`, `too-long` or
    `left-out`), detail."""
    cut: list[str]
    """Ids of kept ones whose clip goes on beyond what the model hears."""


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
    examples: Sequence[Example], processor: ProcessorMixin, config: TrainConfig
) -> Checked:
    """Sort out clips that cannot be read and prompts that are too long; prompts are never cut.

    Raises:
        PipelineError: If more than `max_bad_share` cannot be read, or less than one batch is left.
    """
    facts = {
        clip: check_audio(clip)
        for clip in {example.clip for example in examples if example.repeats}
    }
    kept: list[Example] = []
    dropped: list[dict[str, object]] = []
    cut: list[str] = []
    for example in examples:
        if not example.repeats:
            detail = f"by example_repeats {config.example_repeats}"
            dropped.append({"id": example.id, "reason": "left-out", "detail": detail})
            continue
        fact = facts[example.clip]
        if not isinstance(fact, AudioFacts):
            dropped.append({"id": example.id, "reason": "unreadable", "detail": fact.reason})
            continue
        num_samples = round(fact.duration_s * SAMPLE_RATE_HZ)
        if fault := too_short(num_samples, processor):
            dropped.append({"id": example.id, "reason": "too-short", "detail": fault})
            continue
        length = _prompt_length(example, fact, processor, config.prompt)
        if length > config.max_prompt_tokens:
            detail = f"{length} tokens, max_prompt_tokens is {config.max_prompt_tokens}"
            dropped.append(
                {"id": example.id, "reason": "too-long", "detail": detail, "num_tokens": length}
            )
            continue
        if is_cut(num_samples, processor):
            cut.append(example.id)
        kept.extend([example] * example.repeats)
    unreadable = [drop for drop in dropped if drop["reason"] in {"unreadable", "too-short"}]
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
    return Checked(kept, dropped, cut)


def write_dropped(path: Path, checked: Checked) -> None:
    """Write dropped.jsonl, empty where everything can be used."""
    write_jsonl(path, checked.dropped)


def _example(record: Record, place: str) -> Example:
    try:
        choices = tuple(str(choice) for choice in record["multi_choice"])
        example = Example(
            id=str(record["id"]),
            question=as_audio_question(str(record["question_text"])),
            choices=choices,
            answer=choices[_index(record["answer"], len(choices))],
            clip=Path(str(record["audio_path"])),
            weight=float(record.get("weight", 1.0)),
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
        setting = f"example_repeats {path}"
        number = call_own(function, record, setting=setting, of=f"example {record['id']} ({place})")
        if not isinstance(number, int) or number < 0:
            msg = f"{place}: {setting} gives {number!r}; expected 0, 1, 2, ..."
            raise PipelineError(msg)
        return int(number)

    return num_repeats


def _index(value: object, num_choices: int) -> int:
    if not isinstance(value, int) or not 0 <= value < num_choices:
        msg = f"answer {value!r} is no index of {num_choices} choices"
        raise ValueError(msg)
    return value


def _prompt_length(
    example: Example, facts: AudioFacts, processor: ProcessorMixin, prompt: Prompt
) -> int:
    """Tokens of the prompt, audio included, without decoding the clip again."""
    num_samples = round(facts.duration_s * SAMPLE_RATE_HZ)
    num_frames = num_frames_of(num_samples, processor)
    text = prompt.fill(example.question, example.choices)
    num_tokens = family_of_processor(processor).num_audio_tokens
    # Few frames are few audio tokens, which are replaced by the clip's.
    tokens = prompt_tokens(processor, text, 4, system=prompt.system)
    return len(tokens) - num_tokens(4) + num_tokens(num_frames)
