"""One row of AVQA's annotations and the clip it asks about: every key checked, once.

`video_name` follows VGG-Sound: 11 characters of YouTube id, `_`, six digits of start second. Ids
contain `_` and `-`, so the name is cut by position, never split.
"""

import re
from dataclasses import dataclass
from typing import Any, cast

from storage.jsonl import Record

VIDEO_NAME = re.compile(r"[A-Za-z0-9_-]{11}_[0-9]{6}")
ROW_KEYS = (
    "id",
    "video_name",
    "video_id",
    "question_text",
    "multi_choice",
    "answer",
    "question_relation",
    "question_type",
)


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """A stretch of one video that the annotations ask about."""

    clip_id: str
    """AVQA's `video_name`, e.g. `-HG3Omg_89c_000030`."""
    video_id: str
    """YouTube's id, 11 characters."""
    start_s: int
    """Second of the video at which the clip starts."""

    @property
    def file_name(self) -> str:
        """Name of its wav, as R1-AQA has it: `-HG3Omg_89c_30.wav`."""
        return f"{self.video_id}_{self.start_s}.wav"


@dataclass(frozen=True, slots=True)
class AvqaRow:
    """One question of AVQA about one clip, its types and ranges checked."""

    id: int | str
    """AVQA's number of the question, kept as it came."""
    video_id: int | str
    """AVQA's number of the video; not YouTube's id."""
    clip: Clip
    """What `video_name` says."""
    question_text: str
    """E.g. `What happened in the video?`."""
    multi_choice: tuple[str, ...]
    """Choices; four in AVQA."""
    answer: int
    """Index of the right choice."""
    question_relation: str
    """`View`, `Sound` or `Both`."""
    question_type: str
    """E.g. `Happening`."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An annotation row that did not become an example."""

    id: int | str | None
    """The row's id; None where it has none that can be read."""
    video_name: str | None
    """The row's clip; None where it has none that can be read."""
    reason: str
    """E.g. `malformed:answer` or `invalid:private`; what the account is grouped by."""
    detail: str
    """What was found."""

    def as_record(self) -> Record:
        """One line of dropped.jsonl."""
        return {
            "id": self.id,
            "video_name": self.video_name,
            "reason": self.reason,
            "detail": self.detail,
        }


def parse_video_name(video_name: str) -> Clip:
    """Cut a name into YouTube id and start second.

    Raises:
        ValueError: If it is not 11 characters of id, `_` and six digits; a name with a path in it
            is none.
    """
    if VIDEO_NAME.fullmatch(video_name) is None:
        msg = (
            f"video_name {video_name!r} is not 11 characters of YouTube id, '_' and six digits of "
            "start second, e.g. '-HG3Omg_89c_000030'"
        )
        raise ValueError(msg)
    return Clip(video_name, video_name[:-7], int(video_name[-6:]))


def parse_row(record: object, index: int) -> AvqaRow | Dropped:
    """Check one row; what is wrong with it is a value, so that it never stops the rest."""
    if not isinstance(record, dict):
        detail = f"row {index} is {type(record).__name__}, expected an object"
        return Dropped(None, None, "malformed:row", detail)
    fields = cast("dict[str, Any]", record)
    fault = _fault(fields)
    if fault is not None:
        row_id = fields.get("id") if _is_number_or_text(fields.get("id")) else None
        name = fields.get("video_name")
        key, problem = fault
        detail = f"row {index} (id {row_id}): {problem}"
        return Dropped(row_id, name if isinstance(name, str) else None, f"malformed:{key}", detail)
    return AvqaRow(
        id=fields["id"],
        video_id=fields["video_id"],
        clip=parse_video_name(fields["video_name"]),
        question_text=fields["question_text"],
        multi_choice=tuple(fields["multi_choice"]),
        answer=fields["answer"],
        question_relation=fields["question_relation"],
        question_type=fields["question_type"],
    )


def _fault(fields: dict[str, Any]) -> tuple[str, str] | None:
    """The first key at fault and what is wrong with it; None for a good row."""
    for key in ROW_KEYS:
        if key not in fields:
            return key, f"key {key!r} is missing"
    for key in ("id", "video_id"):
        if not _is_number_or_text(fields[key]):
            return key, f"{key} is {fields[key]!r}, expected a number"
    for key in ("video_name", "question_text", "question_relation", "question_type"):
        if not isinstance(fields[key], str) or not fields[key].strip():
            return key, f"{key} is {fields[key]!r}, expected text"
    try:
        parse_video_name(fields["video_name"])
    except ValueError as error:
        return "video_name", str(error)
    return _choices_fault(fields["multi_choice"], fields["answer"])


def _choices_fault(choices: object, answer: object) -> tuple[str, str] | None:
    if not isinstance(choices, list):
        return "multi_choice", f"multi_choice is {choices!r}, expected a list of at least two texts"
    texts = [each for each in cast("list[object]", choices) if isinstance(each, str)]
    if len(texts) < 2 or len(texts) != len(cast("list[object]", choices)):
        return "multi_choice", f"multi_choice is {choices!r}, expected a list of at least two texts"
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(texts):
        return "answer", f"answer is {answer!r}, expected an index from 0 to {len(texts) - 1}"
    return None


def _is_number_or_text(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)
