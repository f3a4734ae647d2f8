"""`{kind: lines, path}`: a file of rows with their clips in a folder.

R1-AQA's lines by default; with `fields` any rows: JSON, JSON lines, CSV or parquet, as benchmarks.
"""

from pathlib import Path
from typing import Literal

from storage.data.source import DataSource, Rows, clip_finder, examples_of
from storage.manifest import digest_of, file_digest
from storage.mapping import R1_AQA_FIELDS, RowMapping
from storage.tables import read_rows


class LinesSource(DataSource):
    """Rows of a file."""

    kind: Literal["lines"] = "lines"
    path: Path
    """JSON lines, a JSON list, CSV, TSV or parquet."""
    audio: Path | None = None
    """Folder of the clips, searched with its sub-folders; None: that of the file."""
    fields: RowMapping = R1_AQA_FIELDS
    """What the rows hold; R1-AQA's keys by default, where `answer` is an index."""

    @property
    def file(self) -> Path:
        """That of the rows."""
        return self.path.expanduser()

    @property
    def folder(self) -> Path:
        """That of the clips."""
        return (self.audio or self.file.parent).expanduser()

    def read(self, cache: Path) -> Rows:  # noqa: ARG002  all of it is here
        """Its examples."""
        rows = read_rows(self.file)
        return examples_of(rows, self.fields, self.label, clip_finder(self.folder))

    def decides(self, cache: Path) -> object:  # noqa: ARG002  all of it is here
        """The file's digest, and the clips by name and size."""
        clips = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        sizes = [(str(path.relative_to(self.folder)), path.stat().st_size) for path in clips]
        return [file_digest(self.file) if self.file.is_file() else None, digest_of(sizes)]
