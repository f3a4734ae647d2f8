"""`{kind: hub, dataset}`: a data set of the hub, with its audio inside or as files beside its rows.

What the known ones hold stands in datasets.yaml; for others, `fields` says it. Examples also go out
as such a data set, in a folder that `datasets.load_dataset` reads.
"""

import importlib
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import yaml

from storage.config import HubData
from storage.data.source import DataSource, Rows, clip_finder, examples_of
from storage.errors import PipelineError
from storage.hub import download_files, find_commit, lay_down, pinned
from storage.jsonl import Record, read_jsonl
from storage.mapping import RowMapping
from storage.tables import read_rows

KNOWN = Path(__file__).with_name("datasets.yaml")
ROWS_A_FILE = 1000  # of 10 s clips: 320 MB


class HubSource(DataSource, HubData):
    """Rows of a data set."""

    remedy: ClassVar[str] = (
        "In `data`, name one with audio inside, a folder of its files, or its file of `rows`"
    )

    kind: Literal["hub"] = "hub"
    rows: str | None = None
    """File of the rows in it, e.g. `data.jsonl`, beside files of clips; None: rows of `split`."""
    fields: RowMapping | None = None
    """What the rows hold; None: as known of this data set, else MMAU's keys."""

    def read(self, cache: Path) -> Rows:
        """Its examples; rows and clips are brought once."""
        commit = self.decides(cache)
        folder = cache / self.dataset.strip("/").replace("/", "--") / f"{self.split}-{commit[:8]}"
        if not self._file:
            rows = lay_down(self, commit, folder, audio_id=self._fields.audio_id)
        elif self.copy_folder:
            folder = self.copy_folder
            rows = read_rows(folder / self._file)
        else:
            download_files(self, commit, {self._file: folder / self._file})
            rows = read_rows(folder / self._file)
            self._bring_files(rows, commit, folder)
        return examples_of(rows, self._fields, self.label, clip_finder(folder))

    def decides(self, cache: Path) -> str:
        """Its commit."""
        return pinned(self, cache / "commits.json")

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

    def _bring_files(self, rows: list[Any], commit: str, folder: Path) -> None:
        """The files that the rows name: by path, else by a name that one file alone has."""
        files = set(find_commit(self).files)
        by_name = {Path(file).name: file for file in files}
        records = [cast("Record", row) for row in rows if isinstance(row, dict)]
        named = [str(row.get(self._fields.audio_id)).removeprefix("./") for row in records]
        wanted = {name if name in files else by_name.get(Path(name).name) for name in named}
        download_files(self, commit, {file: folder / file for file in wanted if file})


def write_dataset(splits: dict[str, Path], folder: Path) -> int:
    """Write lines, by split, with their audio as parquet into a new or empty folder; how many."""
    datasets: Any = importlib.import_module("datasets")  # 1.5 s, needed only here

    if folder.is_dir() and any(folder.iterdir()):
        raise PipelineError(f"{folder} is not empty: name a new folder")
    datasets.disable_progress_bars()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    num_rows = 0
    for split, path in splits.items():
        rows = read_jsonl(path)
        num_rows += len(rows)
        parts = [rows[begin : begin + ROWS_A_FILE] for begin in range(0, len(rows), ROWS_A_FILE)]
        for number, part in enumerate(parts):
            file = folder / "data" / f"{split}-{number:05d}-of-{len(parts):05d}.parquet"
            made = datasets.Dataset.from_list([_with_audio(row) for row in part])
            made.cast_column("audio", datasets.Audio(decode=False)).to_parquet(str(file))
    return num_rows


def _with_audio(row: Record) -> Record:
    clip = Path(row["audio_path"])
    audio = {"bytes": clip.read_bytes(), "path": clip.name}
    # Ids are numbers in AVQA and texts elsewhere, and a column has one type.
    return {**row, "id": str(row["id"]), "video_id": str(row["video_id"]), "audio": audio}
