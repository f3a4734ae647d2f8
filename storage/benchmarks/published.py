"""The benchmarks known by name, one small file each in `storage/benchmarks`, and their questions.

Adding a benchmark is adding a file there; its keys are the fields of `PublishedBenchmark`. A name
stands for one exact file of questions, by its sha256: "MMAU test-mini" alone names several, and the
two that count differ in 36% of their questions.
"""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from storage.benchmarks.parse import (
    MMAU_FIELDS,
    FieldNames,
    parse_questions,
    read_rows,
    write_questions,
)
from storage.config import BenchmarkConfig, Config
from storage.errors import PipelineError
from storage.jsonl import write_bytes
from storage.manifest import file_digest
from storage.records.question import Question, list_ids

FOLDER = Path(__file__).parent
DOWNLOAD_TIMEOUT_S = 60.0


class HubAudio(Config):
    """A data set on the hub whose rows hold the clips."""

    dataset: str
    """Name on the hub, e.g. `gamma-lab-umd/MMAU-test-mini`."""
    revision: str | None = None
    """Commit of the data set; None: its newest."""
    split: str = "test"
    """Split to read."""


class PublishedBenchmark(Config):
    """One version of a benchmark: where its questions and clips are, and how to know them."""

    name: str
    """As in the profile, and the name of its file."""
    title: str
    """As tables show it."""
    questions: str
    """Address of the questions' file, at a pinned commit."""
    sha256: str | None = None
    """Of that file; None where it is not known: then only the number and the ids are checked."""
    num_questions: int
    """Questions in it."""
    has_answers: bool = True
    """False where the answers are withheld: predictions are then written as a submission file."""
    tasks: tuple[str, ...] = ()
    """The tasks of its questions; empty: any."""
    fields: FieldNames = FieldNames()
    """The keys of its rows."""
    audio: tuple[HubAudio, ...] = ()
    """Data sets that hold its clips, tried in this order."""
    audio_archive: str | None = None
    """Where its clips are otherwise, to be unpacked by hand and given as a folder."""
    submit: str | None = None
    """Address of the service that scores submissions."""
    note: str = ""
    """What one should know about it."""

    def check(self, content: bytes, questions: list[Question], source: str) -> None:
        """Refuse a file that is not the one that the name stands for.

        Raises:
            PipelineError: Says what differs and what to do.
        """
        found = hashlib.sha256(content).hexdigest()
        if self.sha256 is not None and found != self.sha256:
            msg = (
                f"{source} is not {self.name}: sha256 {found}, expected {self.sha256}. "
                f"Take the file at {self.questions}, or give yours another name in the profile"
            )
            raise PipelineError(msg)
        if len(questions) != self.num_questions:
            msg = (
                f"{source} is not {self.name}: {len(questions)} questions, "
                f"expected {self.num_questions}. Take the file at {self.questions}"
            )
            raise PipelineError(msg)
        strange = [q.id for q in questions if self.tasks and q.task not in self.tasks]
        if strange:
            msg = f"{source}: task is none of {', '.join(self.tasks)}: {list_ids(strange)}"
            raise PipelineError(msg)


def list_published() -> list[str]:
    """Names of all published benchmarks."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_published(name: str) -> PublishedBenchmark | None:
    """The published benchmark of that name; None for a name of one's own.

    Raises:
        PipelineError: If its file is malformed; names the key.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in list_published():
        return None
    try:
        found = PublishedBenchmark.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        msg = f"{path}: {error}"
        raise PipelineError(msg) from error
    if found.name != name:
        msg = f"{path} is named {found.name!r} inside: expected {name!r}"
        raise PipelineError(msg)
    return found


def prepare_questions(config: BenchmarkConfig, folder: Path) -> Path:
    """Bring a benchmark's questions to `folder/questions.json`, checked.

    Raises:
        PipelineError: If nothing says where they are, they cannot be had, they are not the
            published ones, or they fail a check.
    """
    published = find_published(config.name)
    address = config.questions or (published and published.questions)
    if address is None:
        msg = (
            f"benchmark {config.name} is not a published one ({', '.join(list_published())}): "
            "give the path or address of its questions, `questions`"
        )
        raise PipelineError(msg)
    path = folder / "questions.json"
    upstream = folder / "upstream.json"
    is_url = urlsplit(address).scheme in {"http", "https"}
    if is_url and config.questions is None and path.exists() and _is_whole(path, published):
        return path
    content = _download(address, config.name) if is_url else _read(Path(address), config.name)
    write_bytes(upstream, content)
    try:
        _check_and_place(upstream, path, content, published=published, source=address)
    finally:
        upstream.unlink(missing_ok=True)
    return path


def read_benchmark(name: str, path: Path) -> list[Question]:
    """Read a benchmark's questions from a file, which must be the published one if the name is.

    Raises:
        PipelineError: If it is not, cannot be read, or fails a check.
    """
    published = find_published(name)
    fields = published.fields if published else MMAU_FIELDS
    content = _read(path, name)
    questions = parse_questions(read_rows(path), source=str(path), fields=fields)
    if published is not None:
        published.check(content, questions, str(path))
    return questions


def _is_whole(path: Path, published: PublishedBenchmark | None) -> bool:
    """Whether a file fetched before is still the published one; without a digest it is believed."""
    expected = published.sha256 if published and published.fields == MMAU_FIELDS else None
    return expected is None or file_digest(path) == expected


def _check_and_place(
    upstream: Path,
    path: Path,
    content: bytes,
    *,
    published: PublishedBenchmark | None,
    source: str,
) -> None:
    fields = published.fields if published else MMAU_FIELDS
    questions = parse_questions(read_rows(upstream), source=source, fields=fields)
    if published is not None:
        published.check(content, questions, source)
    if fields == MMAU_FIELDS and content.lstrip()[:1] == b"[":
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
    else:
        write_questions(path, questions)


def _download(url: str, name: str) -> bytes:
    import requests  # noqa: PLC0415  who has the file need not wait for it

    try:
        response = requests.get(url, timeout=DOWNLOAD_TIMEOUT_S)
        response.raise_for_status()
    except requests.RequestException as error:
        msg = (
            f"the questions of {name} cannot be downloaded from {url}: {error}. "
            "Try again, or set the benchmark's `questions` to a local copy"
        )
        raise PipelineError(msg) from error
    return response.content


def _read(path: Path, name: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        msg = f"the questions of {name} cannot be read: {path}: {error.strerror}"
        raise PipelineError(msg) from error
