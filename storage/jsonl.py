"""JSON and JSON lines on disk: whole files by rename, single lines by append.

A file written here is either the old one or the new one after a kill at any moment: the bytes go to
`NAME.PID.part`, are flushed to the disk, and the name changes last.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from storage.errors import PipelineError

Record = dict[str, Any]


def write_text(path: Path, text: str) -> None:
    """Replace a file's text in one step; lone surrogates (of a model's output) become `?`."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write one JSON document, indented; a NaN is refused because browsers cannot read it."""
    write_text(path, to_document(value))


def to_document(value: object) -> str:
    """One JSON document as `write_json` writes it."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Write JSON lines as one whole file."""
    write_text(path, "".join(to_line(record) for record in records))


def to_line(record: Mapping[str, object]) -> str:
    """One JSON line with its newline; text stays readable, not escaped to ASCII."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """Append one line and flush it; a kill in mid-write leaves at most one torn last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(to_line(record).encode("utf-8", errors="replace"))
        file.flush()


class AppendLog:
    """A file of JSON lines that grows by whole lines; a missing one is empty.

    Opening it cuts off a last line that a kill tore, or the next one would be glued to it and both
    be lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            whole = path.read_bytes().rfind(b"\n") + 1
            if whole < path.stat().st_size:
                os.truncate(path, whole)

    def append(self, record: Mapping[str, object]) -> None:
        """Add one line and flush it."""
        append_line(self.path, record)

    def read(self) -> list[Record]:
        """Every line, as `read_jsonl`."""
        return read_jsonl(self.path) if self.path.exists() else []


def read_json(path: Path) -> Any:  # noqa: ANN401  JSON is whatever was written; callers check it at the border
    """Read one JSON document; PipelineError if the file is missing or is not JSON."""
    try:
        return json.loads(read_file(path))
    except ValueError as error:
        raise PipelineError(f"{path} is not JSON: {error}") from error


def read_file(path: Path) -> bytes:
    """Read a file; PipelineError if it is missing, or a folder."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing") from error
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}") from error


def read_jsonl(path: Path) -> list[Record]:
    """Read JSON lines; PipelineError names a line that is no JSON object, or a missing file."""
    records: list[Record] = []
    for number, record in decode_lines(read_file(path).decode(), str(path)):
        if not isinstance(record, dict):
            msg = f"{path}:{number} is {type(record).__name__}, expected a JSON object"
            raise PipelineError(msg)
        records.append(cast("Record", record))
    return records


def decode_lines(text: str, source: str) -> Iterator[tuple[int, Any]]:
    """Number, from 1, and content of each line; PipelineError names one that is not JSON."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                place = f"{source}:{number}"
                msg = f"{place} is not JSON, neither a line nor part of one document: {error}"
                raise PipelineError(msg) from error


def as_array(content: bytes) -> bytes:
    """JSON lines as one JSON array, which is read three times as fast."""
    return b"[" + b",".join(line for line in content.split(b"\n") if line.strip()) + b"]"


def read_appended(path: Path) -> list[Record]:
    """Read a log of appended lines; a missing file is empty, a torn last line passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [record for record in map(decoded, lines) if isinstance(record, dict)]


def decoded(value: Any) -> Any:  # noqa: ANN401  JSON is of any shape
    """What a text of JSON holds, None where it is not JSON; any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
