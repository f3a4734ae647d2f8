"""Training examples: lines of train.jsonl, and which of them can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from transformers import ProcessorMixin

from model.config import TrainConfig
from model.network.family import family_of_processor
from model.network.features import is_cut, num_frames_of, prompt_tokens, too_short
from model.own_functions import call_own, import_function
from storage.audio import Unreadable, check_audio
from storage.errors import PipelineError
from storage.jsonl import Record, read_jsonl
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
    answer: str
    """The right option's text."""
    clip: Path
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
    """Lines of dropped.jsonl: id, reason (unreadable, too-short, too-long, left-out), detail."""
    cut: list[str]
    """Ids of kept ones whose clip goes on beyond what the model hears."""


def read_examples(path: Path, repeats: str | None = None) -> list[Example]:
    """Read train.jsonl; order as in the file. A PipelineError names the line that cannot be used.

    Args:
        path: The file.
        repeats: Dotted path of the function that says how often an example is seen; None: once.
    """
    own = None
    if repeats is not None:
        own = import_function(repeats, key="example_repeats", signature="(line: dict) -> int")
    examples: list[Example] = []
    for number, record in enumerate(read_jsonl(path), start=1):
        place = f"{path}:{number}"
        example = _example(record, place)
        if own is not None:
            setting, of = f"example_repeats {repeats}", f"example {example.id} ({place})"
            times = call_own(own, record, setting=setting, of=of)
            if not isinstance(times, int) or times < 0:
                msg = f"{place}: {setting} gives {times!r}; expected 0, 1, 2, ..."
                raise PipelineError(msg)
            example = replace(example, repeats=int(times))
        examples.append(example)
    return examples


def check_examples(
    examples: Sequence[Example], processor: ProcessorMixin, config: TrainConfig
) -> Checked:
    """Sort out clips that cannot be read and prompts that are too long; prompts are never cut.

    Raises:
        PipelineError: If more than `max_bad_share` cannot be read, or less than one batch is left.
    """
    clips = {example.clip for example in examples if example.repeats}
    lengths = {clip: check_audio(clip) for clip in clips}
    checked = Checked([], [], [])
    for example in examples:
        num_samples = lengths.get(example.clip)
        if fault := _fault(example, num_samples, processor, config):
            checked.dropped.append({"id": example.id, **fault})
            continue
        if isinstance(num_samples, int) and is_cut(num_samples, processor):
            checked.cut.append(example.id)
        checked.kept.extend([example] * example.repeats)
    _, dropped, _ = checked
    unreadable = [drop for drop in dropped if drop["reason"] in {"unreadable", "too-short"}]
    if len(unreadable) > config.max_bad_share * len(examples):
        msg = (
            f"{len(unreadable)} of {len(examples)} examples have audio that cannot be read, more "
            f"than max_bad_share {config.max_bad_share:g} allows; the first: id "
            f"{unreadable[0]['id']}, {unreadable[0]['detail']}; fetch the clips again or raise "
            "max_bad_share"
        )
        raise PipelineError(msg)
    if len(checked.kept) < config.prompts_per_device:
        msg = (
            f"{len(checked.kept)} of {len(examples)} examples can be used ({len(dropped)} dropped),"
            f" fewer than the {config.prompts_per_device} of one batch (prompts_per_device); add "
            "examples or lower it"
        )
        raise PipelineError(msg)
    return checked


def _example(record: Record, place: str) -> Example:
    try:
        choices = tuple(str(choice) for choice in record["multi_choice"])
        return Example(
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


def _index(value: object, num_choices: int) -> int:
    if not isinstance(value, int) or not 0 <= value < num_choices:
        msg = f"answer {value!r} is no index of {num_choices} choices"
        raise ValueError(msg)
    return value


def _fault(
    example: Example,
    num_samples: int | Unreadable | None,
    processor: ProcessorMixin,
    config: TrainConfig,
) -> dict[str, object]:
    """Why an example cannot be used, as dropped.jsonl says it; empty: it can."""
    if num_samples is None or not example.repeats:
        return {"reason": "left-out", "detail": f"by example_repeats {config.example_repeats}"}
    if isinstance(num_samples, Unreadable):
        return {"reason": "unreadable", "detail": num_samples.reason}
    if fault := too_short(num_samples, processor):
        return {"reason": "too-short", "detail": fault}
    length = _prompt_length(example, num_samples, processor, config.prompt)
    if length > config.max_prompt_tokens:
        detail = f"{length} tokens, max_prompt_tokens is {config.max_prompt_tokens}"
        return {"reason": "too-long", "detail": detail, "num_tokens": length}
    return {}


def _prompt_length(
    example: Example, num_samples: int, processor: ProcessorMixin, prompt: Prompt
) -> int:
    """Tokens of the prompt, audio included, without decoding the clip again."""
    text = prompt.fill(example.question, example.choices)
    num_tokens = family_of_processor(processor).num_audio_tokens
    # Few frames are few audio tokens, which are replaced by the clip's.
    tokens = prompt_tokens(processor, text, 4, system=prompt.system)
    return len(tokens) - num_tokens(4) + num_tokens(num_frames_of(num_samples, processor))
