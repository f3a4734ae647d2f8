"""Rows of a file as people keep them: JSON, JSON lines, CSV, TSV or parquet."""

import csv
import io
import json
from pathlib import Path
from typing import Any, cast

from storage.errors import PipelineError
from storage.jsonl import Record, decode_lines, read_file

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: Path) -> list[Any]:
    """Read a file's rows, as `rows_in` tells them; PipelineError if it is missing."""
    return rows_in(read_file(path), source=str(path))


def rows_in(content: bytes, *, source: str) -> list[Any]:
    """The rows in a file's content: parquet by its first bytes, CSV and TSV by the file's name.

    Else a JSON list, JSON lines, or a JSON object that holds one list. PipelineError if it is none
    of these; names the file by `source`, its path or address.
    """
    if content[:4] == b"PAR1":
        import pyarrow.parquet as pq  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]  slow to import; no stubs

        return cast("list[Any]", cast("Any", pq).read_table(io.BytesIO(content)).to_pylist())
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{source} is not a text file of JSON or JSON lines: {error}"
        raise PipelineError(msg) from error
    delimiter = DELIMITERS.get(Path(source).suffix.lower())
    if delimiter:
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:  # nested too deeply
        if "\n" not in text.strip():
            raise PipelineError(f"{source} is not JSON: {error}") from error
        return [row for _, row in decode_lines(text, source)]
    if isinstance(document, list):
        return cast("list[Any]", document)
    if isinstance(document, dict):
        fields = cast("Record", document)
        lists = [cast("list[Any]", value) for value in fields.values() if isinstance(value, list)]
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
            return lists[0]
        return [fields]  # JSON lines with one line
    raise PipelineError(f"{source} holds {type(document).__name__}, expected a list of rows")
