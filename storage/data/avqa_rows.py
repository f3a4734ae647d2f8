"""One row of AVQA's annotations: every key checked, once."""

from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError

from storage.mapping import BadRowError
from storage.records.clip import parse_video_name
from storage.records.example import KEYS, Dropped, Example

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


def parse_row(record: object, index: int) -> Example | Dropped:
    """Check one row; what is wrong with it is a value, so that it never stops the rest.

    An example of it has no `audio_path` yet.
    """
    if not isinstance(record, dict):
        detail = f"row {index} is {type(record).__name__}, expected an object"
        return Dropped(None, None, "malformed:row", detail)
    fields = cast("dict[str, Any]", record)
    try:
        keys = _checked(fields)
    except BadRowError as error:
        row_id, name = fields.get("id"), fields.get("video_name")
        row_id = row_id if isinstance(row_id, int | str) else None
        detail = f"row {index} (id {row_id}): {error}"
        reason = f"malformed:{error.key}"
        return Dropped(row_id, name if isinstance(name, str) else None, reason, detail)
    values: dict[str, Any] = {**keys.model_dump(), "multi_choice": tuple(keys.multi_choice)}
    return Example(**values, audio_path="", dataset_name="AVQA")


def _checked(fields: dict[str, Any]) -> _Keys:
    missing = next((key for key in KEYS[:-2] if key not in fields), None)
    if missing:
        raise BadRowError(missing, f"key {missing!r} is missing")
    try:
        keys = _Keys.model_validate(fields)
        parse_video_name(keys.video_name)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        problem = f"{key} is {fields[key]!r}, expected {EXPECTED.get(key, 'text')}"
        raise BadRowError(key, problem) from error
    except ValueError as error:
        raise BadRowError("video_name", str(error)) from error
    if not 0 <= keys.answer < len(keys.multi_choice):
        last = len(keys.multi_choice) - 1
        raise BadRowError(
            "answer", f"answer is {keys.answer!r}, expected an index from 0 to {last}"
        )
    return keys
