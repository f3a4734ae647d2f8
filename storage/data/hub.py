"""`{kind: hub, dataset}`: a data set of the hub, with its audio inside or as files beside its rows.

What the known ones hold stands in datasets.yaml; for others, `fields` says it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from storage.data.source import DataSource, Rows, clip_finder, examples_of
from storage.errors import PipelineError
from storage.hub import audio_in, download_file, find_commit, pinned, stream_rows
from storage.jsonl import Record, read_jsonl, write_bytes, write_jsonl
from storage.mapping import RowMapping
from storage.tables import read_rows

KNOWN = Path(__file__).with_name("datasets.yaml")
ROWS = "rows.jsonl"  # as they came, without their audio
NUM_DOWNLOADS = 8  # files of some hundred kB each: the round trip takes longer than the bytes


class HubSource(DataSource):
    """Rows of a data set."""

    kind: Literal["hub"] = "hub"
    dataset: str
    """Name on the hub, or a local folder in the same format."""
    split: str = "train"
    """Split to read."""
    revision: str | None = None
    """Commit; None: the newest at the first download, which is noted and kept to."""
    rows: str | None = None
    """File of the rows in it, e.g. `data.jsonl`, beside files of clips; None: rows of `split`."""
    fields: RowMapping | None = None
    """What the rows hold; None: as known of this data set, else MMAU's keys."""

    def read(self, cache: Path) -> Rows:
        """Its examples; rows and clips are brought once."""
        commit = self.decides(cache)
        folder = cache / self.dataset.strip("/").replace("/", "--") / f"{self.split}-{commit[:8]}"
        is_copy = Path(self.dataset).expanduser().is_dir()
        if self._file:
            path = download_file(self.dataset, self._file, commit, folder, self._complain)
            rows = read_rows(path)
            if not is_copy:
                self._bring_files(rows, commit, folder)
        else:
            if not (folder / ROWS).exists():
                write_jsonl(folder / ROWS, self._bring_rows(commit, folder))
            rows = read_jsonl(folder / ROWS)
        place = Path(self.dataset).expanduser() if is_copy and self._file else folder
        return examples_of(rows, self._fields, self.label, clip_finder(place))

    def decides(self, cache: Path) -> str:
        """Its commit; of a local folder, a digest of its files' names and sizes."""
        found = pinned(self.dataset, self.revision, cache / "commits.json", self._complain)
        return found or find_commit(self.dataset, None, self._complain).name

    @cached_property
    def _known(self) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = yaml.safe_load(KNOWN.read_text(encoding="utf-8"))
        return known.get(self.dataset, {})

    @property
    def _file(self) -> str | None:
        return self.rows or self._known.get("rows")

    @property
    def _fields(self) -> RowMapping:
        return self.fields or RowMapping.model_validate(self._known.get("fields", {}))

    def _bring_rows(self, commit: str, folder: Path) -> Iterator[Record]:
        """Rows without their audio, which is written to a file each."""
        stream = stream_rows(self.dataset, self.split, commit, self._complain)
        for index, row in enumerate(stream):
            audio = audio_in(row)
            if audio is None:
                columns = ", ".join(row)
                error = ValueError(f"row {index} has no audio inside, its columns are {columns}")
                raise self._complain(error)
            name = f"{index:06d}{Path(audio.get('path') or '').suffix or '.wav'}"
            if not (folder / name).exists():
                write_bytes(folder / name, audio.get("bytes") or b"")
            yield {key: value for key, value in row.items() if value is not audio} | {
                self._fields.audio_id: name
            }

    def _bring_files(self, rows: list[Any], commit: str, folder: Path) -> None:
        """The files that the rows name: by path, else by a name that one file alone has."""
        files = find_commit(self.dataset, commit, self._complain).files
        by_name = {Path(file).name: file for file in files}
        records = [cast("Record", row) for row in rows if isinstance(row, dict)]
        named = [str(row.get(self._fields.audio_id)).removeprefix("./") for row in records]
        wanted = {name if name in files else by_name.get(Path(name).name) for name in named}
        missing = [file for file in wanted if file and not (folder / file).exists()]
        bring = partial(
            download_file, self.dataset, commit=commit, folder=folder, complain=self._complain
        )
        with ThreadPoolExecutor(NUM_DOWNLOADS) as pool:
            list(pool.map(bring, missing))

    def _complain(self, error: Exception) -> PipelineError:
        msg = (
            f"data: the data set {self.dataset} (split {self.split}) cannot be read: {error}. "
            "Name one on the hub with audio inside, a folder of its files, or its file of `rows`"
        )
        return PipelineError(msg)
