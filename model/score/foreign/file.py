"""The rows of a file: JSON in the shapes that people have, JSON lines, CSV.

| shape | rows |
|---|---|
| `[{...}, ...]` | its items |
| `{"data": ...}`, `{"evaluation_data": [...]}` | what is inside, if the only list of objects |
| `{id: text}` | one an id, the text under `prediction` |
| `{id: {...}}` | one an id |
| `{"id": ..., ...}` | it is the only one, as of JSON lines with a single line |
| a line an object | one a line |
| `.csv`, `.tsv` | one a line; comma, semicolon or tab, whichever the header has most of |

A row that cannot be read becomes a fault and hides no other.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from model.score.foreign.row import ID_KEYS, Fault
from storage.errors import PipelineError
from storage.jsonl import Record

LONGEST_CELL = 1 << 24  # characters; csv refuses above 131,072, which a model in a loop reaches
KINDS = "a JSON list of rows, an object by id, JSON lines or CSV"


def read_file(path: Path) -> tuple[dict[str, Record], list[Fault]]:
    """Read a file's rows by place, and the faults of those that cannot be read.

    A place is e.g. `row 3`, from 0, or `line 4`, from 1.

    Raises:
        PipelineError: If the file is missing, or none of the known kinds.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not a text file ({error}): expected {KINDS}") from error
    if path.suffix.lower() in {".csv", ".tsv"}:
        return _sort(_csv_rows(text, path))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        rows, faults = _sort(_lines(text))
        if not rows:  # one broken document, of one line or many
            raise PipelineError(f"{path} is not JSON ({error}): expected {KINDS}") from error
        return rows, faults
    if not isinstance(document, list | dict):
        raise PipelineError(f"{path} holds {type(document).__name__}: expected {KINDS}")
    return _sort((f"row {index}", row) for index, row in enumerate(_rows_in(document)))


def _rows_in(document: Any) -> Iterable[object]:  # noqa: ANN401  decoded JSON
    """The rows of a JSON list, or of an object by id."""
    if isinstance(document, list):
        return cast("list[object]", document)
    fields = cast("Record", document)
    if any(key in fields for key in ID_KEYS):
        return [fields]
    lists = [cast("list[Any]", value) for value in fields.values() if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
        return lists[0]
    if isinstance(inner := fields.get("data"), list | dict):
        return _rows_in(inner)
    return [
        {"id": name, **(cast("Record", row) if isinstance(row, dict) else {"prediction": row})}
        for name, row in fields.items()
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


def _sort(found: Iterable[tuple[str, object]]) -> tuple[dict[str, Record], list[Fault]]:
    rows: dict[str, Record] = {}
    faults: list[Fault] = []
    for place, value in found:
        if isinstance(value, Fault):
            faults.append(value)
        elif isinstance(value, dict):
            rows[place] = cast("Record", value)
        else:
            faults.append(Fault("rows are not objects", place, type(value).__name__))
    return rows, faults
