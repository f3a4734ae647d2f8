"""One prediction as any tool wrote it, in the words of MMAU's rows, and the faults of a file."""

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from storage.jsonl import Record
from storage.records.question import list_ids

# Read by the published scripts as they stand. MMAU's code reads the first, its README names the
# second; MMAR reads the third.
PUBLISHED_KEYS = ("model_output", "model_prediction", "answer_prediction")
COMPLETION_KEYS = ("completion", "response", "prediction", "pred", "model_answer", "output")
TEXT_KEYS = (*PUBLISHED_KEYS, *COMPLETION_KEYS, "filtered_resps")

ID_KEYS = ("id", "question_id", "uniq_id")
CLIP_KEYS = ("audio_id", "audio_path", "audio", "audios")
PROMPT_KEYS = ("prompt", "messages", "question", "query", "instruction", "input")
CHOICE_KEYS = ("choice_a", "choice_b", "choice_c", "choice_d")
GOLD_KEYS = ("answer_gt", "gt_answer", "ground_truth", "target")

LETTERED = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.):])\s*", re.IGNORECASE)
SPACE = re.compile(r"\s+")


class Fault(NamedTuple):
    """What is wrong with one row."""

    kind: str
    """As a message says it of several, e.g. `rows are not objects`."""
    place: str
    """The question's id, or e.g. `line 7`."""
    told: str = ""
    """What was found, and what was expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, whichever tool wrote it."""

    place: str
    """E.g. `row 3` (from 0) or `line 4` (from 1)."""
    id: str | None
    """As the row has it."""
    texts: Mapping[str, object]
    """What was predicted, by key; a null is left out."""
    clip: str
    """Name of its clip's file without suffix; empty where there is none."""
    prompt: str
    """What was asked, choices included; empty where the row does not say."""
    question: str | None
    """The question's text, where the row has it by itself."""
    choices: tuple[str, ...] | str
    """The row's own choices; text that is no list stays text; empty where it has none."""
    gold: object = None
    """The right choice as the row has it: text, letter or position; None where it does not say."""


def tell(faults: Iterable[Fault], num_rows: int) -> str:
    """Every kind of fault with the number of its rows, the first ten, and what the first holds."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    lines: list[str] = []
    for kind, listed in by_kind.items():
        told = f"; the first: {listed[0].told}" if listed[0].told else ""
        places = list_ids([fault.place for fault in listed])
        lines.append(f"{kind} ({len(listed)} of {num_rows}): {places}{told}")
    return "\n  ".join(lines)


def to_row(place: str, fields: Record, *, keys: Sequence[str] = TEXT_KEYS) -> Row:
    """Read a row with MMAU's keys, or others for the same things.

    Args:
        place: Where it stands in the file.
        fields: The decoded row.
        keys: Keys that may hold the prediction.
    """
    found = next((fields[key] for key in ID_KEYS if fields.get(key) not in (None, "")), None)
    question = fields.get("question")
    choices = read_choices(fields.get("choices", [fields[k] for k in CHOICE_KEYS if k in fields]))
    # `answer` beside choices is the benchmark's own; elsewhere it may be what was predicted.
    gold_keys = ("answer", *GOLD_KEYS) if choices else GOLD_KEYS
    return Row(
        place=place,
        id=None if found is None else str(found),
        texts={key: fields[key] for key in keys if fields.get(key) is not None},
        clip=_clip(fields),
        prompt=_prompt(fields, choices),
        question=question if isinstance(question, str) else None,
        choices=choices,
        gold=next((fields[key] for key in gold_keys if fields.get(key) not in (None, "")), None),
    )


def read_choices(value: Any) -> tuple[str, ...] | str:  # noqa: ANN401  decoded JSON
    """Choices as a list, a dict by letter, or the text of one; any other text as it is."""
    for decode in (json.loads, ast.literal_eval):  # a CSV may hold Python's form of a list
        if isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                value = decode(value)
    if isinstance(value, dict):
        by_letter = cast("dict[str, Any]", value)
        value = [by_letter[letter] for letter in sorted(by_letter)]
    if isinstance(value, list | tuple):
        return tuple(str(c) for c in cast("Sequence[Any]", value) if c is not None)
    return "" if value is None else str(value)


def without_letters(choices: Sequence[str]) -> tuple[str, ...]:
    """Choices without "(A) " or "A. ", where every one has its letter; else as they are."""
    matches = [LETTERED.match(choice) for choice in choices]
    letters = [(m.group(1) or m.group(2)).upper() if m else "" for m in matches]
    if letters != [chr(ord("A") + index) for index in range(len(choices))]:
        return tuple(choices)
    return tuple(LETTERED.sub("", choice, count=1) for choice in choices)


def plain(text: str) -> str:
    """A text without regard to spacing, and with the quotes that Python's repr escapes put back."""
    return SPACE.sub(" ", text.replace("\\'", "'").replace('\\"', '"')).strip()


def messages_text(messages: Sequence[Any]) -> str:
    """What the user's messages say; what the model answered is not the question."""
    return "\n".join(_content(message) for message in messages)


def _prompt(fields: Record, choices: tuple[str, ...] | str) -> str:
    for key in PROMPT_KEYS:
        value = fields.get(key)
        if isinstance(value, str):
            return "\n".join([value, *([choices] if isinstance(choices, str) else choices)])
        if isinstance(value, list):
            return messages_text(cast("list[Any]", value))
    return ""


def _content(message: Any) -> str:  # noqa: ANN401  decoded JSON
    if not isinstance(message, dict):
        return ""
    fields = cast("Record", message)
    content = fields.get("content")
    if fields.get("role") == "assistant":
        return ""
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  decoded JSON
    return str(content or "")


def _clip(fields: Record) -> str:
    for key in CLIP_KEYS:
        value = fields.get(key)
        if isinstance(value, list) and len(cast("list[Any]", value)) == 1:
            value = cast("list[Any]", value)[0]
        if isinstance(value, dict):  # as `datasets` holds a file: its bytes, and its name
            value = cast("Record", value).get("path")
        if isinstance(value, str) and value:
            return Path(value).stem
    return ""
