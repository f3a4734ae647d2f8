"""Data sets on the hub, or a local folder in their format: commit, files, rows, who asks what.

Audio columns are read undecoded: decoding in `datasets` needs torchcodec, and the bytes are what
one wants to keep.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from storage.errors import PipelineError
from storage.jsonl import Record, read_json, write_json
from storage.mapping import bare

AUDIO_COLUMNS = ("audio", "context")
QUESTION_COLUMNS = ("question", "instruction")
LETTERED = re.compile(r"^\s*[A-Z][.)]\s*(.*?)\s*$", re.MULTILINE)
CHOICES_AFTER = "Choices:"  # some copies append the choices to the question

Complaint = Callable[[Exception], PipelineError]


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
    plain = text.strip().casefold().replace("video", "audio")
    stripped = tuple(bare(choice).strip().casefold() for choice in choices)
    return Asked(plain, stripped, bare(answer).strip().casefold())


def asked_by(row: Record) -> Asked:
    """What a row of any of the copies of MMAU and AVQA asks."""
    found = next((row[key] for key in QUESTION_COLUMNS if isinstance(row.get(key), str)), "")
    text, mark, tail = str(found).partition(CHOICES_AFTER)
    choices = LETTERED.findall(tail) if mark else row.get("choices") or []
    if isinstance(choices, str):
        try:
            choices = json.loads(choices)
        except ValueError:
            choices = []
    listed = cast("list[Any]", choices) if isinstance(choices, list) else []
    return as_asked(text, map(str, listed), str(row.get("answer") or ""))


def find_commit(dataset: str, revision: str | None, complain: Complaint) -> Commit:
    """The data set as it is.

    Raises:
        PipelineError: That of `complain`, if the hub does not say.
    """
    folder = Path(dataset).expanduser()
    if folder.is_dir():  # a copy: what it holds, by name and size
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [str(path.relative_to(folder)) for path in files]
        sizes = [path.stat().st_size for path in files]
        digest = hashlib.sha256(repr(list(zip(names, sizes, strict=True))).encode()).hexdigest()
        return Commit(digest[:40], names)
    from huggingface_hub import HfApi  # noqa: PLC0415  slow to import, seldom needed

    try:
        found = HfApi().dataset_info(dataset, revision=revision)
    except (OSError, ValueError) as error:  # the hub's own errors are of the first kind
        raise complain(error) from error
    return Commit(found.sha or "", [sibling.rfilename for sibling in found.siblings or ()])


def pinned(dataset: str, revision: str | None, notes: Path, complain: Complaint) -> str | None:
    """The commit to read: the one named, else the one that the first download found and noted.

    Args:
        dataset: Name on the hub; a local folder has no commit.
        revision: Where one is known.
        notes: File of what was found, by data set.
        complain: Makes an error of the hub's.
    """
    if revision or Path(dataset).expanduser().is_dir():
        return revision
    known: dict[str, str] = read_json(notes) if notes.exists() else {}
    if dataset not in known:
        known[dataset] = find_commit(dataset, None, complain).name
        write_json(notes, known)
    return known[dataset]


def download_file(
    dataset: str, file: str, commit: str | None, folder: Path, complain: Complaint
) -> Path:
    """One file of a data set, brought into `folder` unless the data set is a local folder."""
    from huggingface_hub import (  # noqa: PLC0415  slow to import, seldom needed
        hf_hub_download,  # pyright: ignore[reportUnknownVariableType]  # partly typed
    )

    place = Path(dataset).expanduser()
    try:
        if place.is_dir():
            return (place / file).resolve(strict=True)
        found = hf_hub_download(
            dataset, file, repo_type="dataset", revision=commit, local_dir=folder
        )
    except (OSError, ValueError) as error:
        raise complain(error) from error
    return Path(found)


def stream_rows(
    dataset: str, split: str, commit: str | None, complain: Complaint, *, first_row: int = 0
) -> Iterator[Record]:
    """Rows in their order, audio as {bytes, path}; of a folder, all of its parquet files."""
    datasets: Any = importlib.import_module("datasets")  # 1.5 s, needed only to fetch
    errors: Any = importlib.import_module("datasets.exceptions")

    place = Path(dataset).expanduser()
    files = sorted(map(str, place.rglob("*.parquet"))) if place.is_dir() else []
    where: dict[str, Any] = {"path": dataset, "revision": None if place.is_dir() else commit}
    if files:
        where = {"path": "parquet", "data_files": {split: files}}
    try:
        stream = datasets.load_dataset(**where, split=split, streaming=True)
        features: dict[str, Any] = stream.features or {}
        for column, feature in features.items():
            if isinstance(feature, datasets.Audio):
                stream = stream.cast_column(column, datasets.Audio(decode=False))
        yield from cast("Iterable[Record]", stream.skip(first_row))
    except (OSError, ValueError, errors.DatasetsError) as error:
        raise complain(error) from error


def audio_in(row: Record) -> dict[str, Any] | None:
    """The value of a row's column of audio, {bytes, path}; None where it has none."""
    values = [row.get(column) for column in AUDIO_COLUMNS]
    return next((cast("Record", value) for value in values if isinstance(value, dict)), None)
