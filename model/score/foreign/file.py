"""The rows of a file: JSON in the shapes that people have, JSON lines, CSV.

| shape | rows |
|---|---|
| `[{...}, ...]` | its items |
| `{"data": ...}`, `{"evaluation_data": [...]}` | what is inside |
| `{id: text}` | one an id, the text under `prediction` |
| `{id: {...}}` | one an id |
| a line an object | one a line |
| `.csv`, `.tsv` | one a line; comma, semicolon or tab, whichever the header has most of |

A row that cannot be read becomes a fault and hides no other.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from model.score.foreign.row import ID_KEYS, TEXT_KEYS, Fault
from storage.errors import PipelineError
from storage.jsonl import Record

LONGEST_CELL = 1 << 24  # characters; csv refuses above 131,072, which a model in a loop reaches
KINDS = "a JSON list of rows, an object by id, JSON lines or CSV"


class Raw(NamedTuple):
    """A row as it stands in the file."""

    place: str
    """`row 3`, from 0, or `line 4`, from 1."""
    fields: Record


def read_file(path: Path) -> tuple[list[Raw], list[Fault]]:
    """Read a file's rows, and the faults of those that cannot be read.

    Raises:
        PipelineError: If the file is missing, or none of the known kinds.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        msg = f"{path} is missing"
        raise PipelineError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} is not a text file ({error}): expected {KINDS}"
        raise PipelineError(msg) from error
    if path.suffix.lower() in {".csv", ".tsv"}:
        return _sort(_csv_rows(text, path))
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "\n" not in text.strip():
            msg = f"{path} is not JSON ({error}): expected {KINDS}"
            raise PipelineError(msg) from error
        found = _sort(_lines(text))
        if not found[0]:  # one broken document, of many lines
            msg = f"{path} is not JSON ({error}): expected {KINDS}"
            raise PipelineError(msg) from error
        return found
    rows = _rows_in(document)
    if rows is None:
        msg = f"{path} holds {type(document).__name__}: expected {KINDS}"
        raise PipelineError(msg)
    return _sort((f"row {index}", row) for index, row in enumerate(rows))


def _rows_in(document: Any) -> Sequence[object] | None:  # noqa: ANN401  decoded JSON
    """The rows of one JSON document; None where it holds none."""
    if isinstance(document, list):
        return cast("list[object]", document)
    if not isinstance(document, dict):
        return None
    fields = cast("Record", document)
    inner = fields.get("data")
    if isinstance(inner, list | dict) and not set(fields) & {*ID_KEYS, *TEXT_KEYS}:
        return _rows_in(inner)
    lists = [cast("list[Any]", value) for value in fields.values() if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
        return lists[0]
    if set(fields) & {*ID_KEYS, *TEXT_KEYS}:
        return [fields]  # JSON lines with one line
    return [
        {"id": name, **cast("Record", value)}
        if isinstance(value, dict)
        else {"id": name, "prediction": value}
        for name, value in fields.items()
    ]


def _lines(text: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", Fault("lines are not JSON", f"line {number}", str(error))


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, object]]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, list[str]())
        for cells in filter(None, reader):
            place = f"line {reader.line_num}"
            if len(cells) == len(header):
                yield place, dict(zip(header, cells, strict=True))
            else:
                told = f"{len(cells)}, expected {len(header)}"
                yield place, Fault("lines have another number of cells", place, told)
    except csv.Error as error:
        msg = f"{path}: line {reader.line_num} and what follows is not CSV: {error}"
        raise PipelineError(msg) from error


def _sort(found: Iterator[tuple[str, object]]) -> tuple[list[Raw], list[Fault]]:
    rows: list[Raw] = []
    faults: list[Fault] = []
    for place, value in found:
        if isinstance(value, Fault):
            faults.append(value)
        elif isinstance(value, dict):
            rows.append(Raw(place, cast("Record", value)))
        else:
            faults.append(Fault("rows are not objects", place, type(value).__name__))
    return rows, faults
