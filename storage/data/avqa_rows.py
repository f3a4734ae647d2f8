"""One row of AVQA's annotations: every key checked, once."""

from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError

from storage.records.clip import Clip, parse_video_name
from storage.records.example import Dropped

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
EXPECTED = {
    "id": "a number",
    "video_id": "a number",
    "multi_choice": "a list of at least two texts",
    "answer": "an index",
}
Text = Annotated[str, Field(pattern=r"\S")]


class _Keys(BaseModel, strict=True):
    """What a row's keys hold."""

    id: int | str
    video_id: int | str
    video_name: Text
    question_text: Text
    question_relation: Text
    question_type: Text
    multi_choice: Annotated[list[str], Field(min_length=2)]
    answer: int


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


def parse_row(record: object, index: int) -> AvqaRow | Dropped:
    """Check one row; what is wrong with it is a value, so that it never stops the rest."""
    if not isinstance(record, dict):
        detail = f"row {index} is {type(record).__name__}, expected an object"
        return Dropped(None, None, "malformed:row", detail)
    fields = cast("dict[str, Any]", record)
    fault = _fault(fields)
    if fault is not None:
        row_id = fields.get("id")
        row_id = row_id if isinstance(row_id, int | str) else None
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
    try:
        row = _Keys.model_validate(fields)
        parse_video_name(row.video_name)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        return key, f"{key} is {fields[key]!r}, expected {EXPECTED.get(key, 'text')}"
    except ValueError as error:
        return "video_name", str(error)
    if not 0 <= row.answer < len(row.multi_choice):
        last = len(row.multi_choice) - 1
        return "answer", f"answer is {row.answer!r}, expected an index from 0 to {last}"
    return None
