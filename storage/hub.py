"""Data sets on the hub, or a local folder in their format: commit, files, rows, who asks what.

Audio columns are read undecoded: decoding in `datasets` needs torchcodec, and the bytes are what
one wants to keep.
"""

import hashlib
import importlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

from storage.config import HubData
from storage.errors import PipelineError
from storage.jsonl import AppendLog, Record, decoded, read_json, write_bytes, write_json
from storage.mapping import bare
from storage.records.question import as_audio_question

AUDIO_COLUMNS = ("audio", "context")
QUESTION_COLUMNS = ("question", "instruction")
LETTERED = re.compile(r"^\s*[A-Z][.)]\s*(.*?)\s*$", re.MULTILINE)
CHOICES_AFTER = "Choices:"  # some copies append the choices to the question

ROWS = "rows.jsonl"  # as they came, without their audio
COMMIT = "commit.json"
WHOLE = "whole.json"  # number of rows, where all are there
NUM_DOWNLOADS = 8  # of some hundred kB each: the round trip takes longer than the bytes


class Commit(NamedTuple):
    """A data set at one commit."""

    name: str
    """The commit; of a local folder, a digest of its files' names and sizes."""
    files: list[str]


class Asked(NamedTuple):
    """What a row is known by: question, choices and answer, without case and outer space."""

    text: str
    choices: tuple[str, ...]
    answer: str = ""


def as_asked(text: str, choices: Iterable[str], answer: str = "") -> Asked:
    """The form in which two rows are compared."""
    # R1-AQA's readers turn `video` into `audio`; it must not matter who did.
    plain = as_audio_question(text.strip().casefold())
    stripped = tuple(bare(choice).strip().casefold() for choice in choices)
    return Asked(plain, stripped, bare(answer).strip().casefold())


def asked_by(row: Record) -> Asked:
    """What a row of any of the copies of MMAU and AVQA asks."""
    found = next((row[key] for key in QUESTION_COLUMNS if isinstance(row.get(key), str)), "")
    text, mark, tail = str(found).partition(CHOICES_AFTER)
    choices = LETTERED.findall(tail) if mark else decoded(row.get("choices"))
    listed = cast("list[Any]", choices) if isinstance(choices, list) else []
    return as_asked(text, map(str, listed), str(row.get("answer") or ""))


def unreadable(source: HubData, error: Exception) -> PipelineError:
    """What the user is told where a data set gives nothing."""
    place = f"the data set {source.dataset} (split {source.split})"
    return PipelineError(f"{place} cannot be read: {error}. {source.remedy}")


def find_commit(source: HubData) -> Commit:
    """The data set as it is; PipelineError if the hub does not say."""
    from huggingface_hub import HfApi  # noqa: PLC0415  slow to import, seldom needed

    if folder := source.copy_folder:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = [(str(path.relative_to(folder)), path.stat().st_size) for path in files]
        digest = hashlib.sha256(repr(sizes).encode()).hexdigest()
        return Commit(digest[:40], [name for name, _ in sizes])
    try:
        found = HfApi().dataset_info(source.dataset, revision=source.revision)
    except (OSError, ValueError) as error:  # the hub's own errors are of the first kind
        raise unreadable(source, error) from error
    return Commit(found.sha or "", [sibling.rfilename for sibling in found.siblings or ()])


def pinned(source: HubData, notes: Path) -> str:
    """The commit to read: the one named, else the one that the first download noted in `notes`."""
    if source.revision or source.copy_folder:
        return source.revision or find_commit(source).name
    known: dict[str, str] = read_json(notes) if notes.exists() else {}
    if source.dataset not in known:
        known[source.dataset] = find_commit(source).name
        write_json(notes, known)
    return known[source.dataset]


def download_files(source: HubData, commit: str, wanted: Mapping[str, Path]) -> None:
    """Bring files of a data set to where they are wanted, unless they are there."""
    from huggingface_hub import (  # noqa: PLC0415  slow to import, seldom needed
        hf_hub_download,  # pyright: ignore[reportUnknownVariableType]  # partly typed
    )

    def bring(file: str) -> None:
        target = wanted[file]
        try:
            if source.copy_folder:
                write_bytes(target, (source.copy_folder / file).read_bytes())
                return
            found = hf_hub_download(
                source.dataset,
                file,
                repo_type="dataset",
                revision=commit,
                local_dir=target.parent / "hub",
            )
            Path(found).replace(target)
        except (OSError, ValueError) as error:
            raise unreadable(source, error) from error

    with ThreadPoolExecutor(NUM_DOWNLOADS) as pool:
        list(pool.map(bring, (file for file, target in wanted.items() if not target.exists())))


def stream_rows(source: HubData, commit: str, *, first_row: int = 0) -> Iterator[Record]:
    """Rows in their order, audio undecoded as {bytes, path}; of a folder, all its parquet files."""
    datasets: Any = importlib.import_module("datasets")  # 1.5 s, needed only to fetch
    errors: Any = importlib.import_module("datasets.exceptions")

    folder = source.copy_folder
    files = sorted(map(str, folder.rglob("*.parquet"))) if folder else []
    where: dict[str, Any] = {"path": source.dataset, "revision": None if folder else commit}
    if files:
        where = {"path": "parquet", "data_files": {source.split: files}}
    try:
        stream = datasets.load_dataset(**where, split=source.split, streaming=True)
        features: dict[str, Any] = stream.features or {}
        for column, feature in features.items():
            if isinstance(feature, datasets.Audio):
                stream = stream.cast_column(column, datasets.Audio(decode=False))
        yield from cast("Iterable[Record]", stream.skip(first_row))
    except (OSError, ValueError, errors.DatasetsError) as error:
        raise unreadable(source, error) from error


def lay_down(
    source: HubData, commit: str, folder: Path, *, audio_id: str = "clip", suffix: str = ""
) -> list[Record]:
    """Lay every row's audio down, named by row; after a kill it goes on at the next row.

    Args:
        source: The data set.
        commit: At which it is read.
        folder: Where files and rows go; whole ones are taken as they are.
        audio_id: Key under which a row, without its audio, then names its file.
        suffix: Of the files; empty: that of the row's own name for it.
    """
    if (folder / COMMIT).exists() and read_json(folder / COMMIT) != commit:
        shutil.rmtree(folder)  # rows of two commits are not mixed
    write_json(folder / COMMIT, commit)
    log = AppendLog(folder / ROWS)
    rows = log.read()
    if (folder / WHOLE).exists():
        return rows
    stream = stream_rows(source, commit, first_row=len(rows))
    for index, row in enumerate(stream, start=len(rows)):
        audio = audio_in(row)
        if audio is None:
            fault = f"row {index} has no audio inside, its columns are {', '.join(row)}"
            raise unreadable(source, ValueError(fault))
        name = f"row-{index:06d}{suffix or Path(audio.get('path') or '').suffix or '.wav'}"
        write_bytes(folder / name, audio.get("bytes") or b"")
        kept = {key: value for key, value in row.items() if value is not audio}
        rows.append({**kept, audio_id: name})
        log.append(rows[-1])
    write_json(folder / WHOLE, len(rows))
    return rows


def audio_in(row: Record) -> dict[str, Any] | None:
    """The value of a row's column of audio, {bytes, path}; None where it has none."""
    values = [row.get(column) for column in AUDIO_COLUMNS]
    return next((cast("Record", value) for value in values if isinstance(value, dict)), None)
