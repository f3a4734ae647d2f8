"""The benchmarks known by name, one small file each in `storage/benchmarks`, and their questions.

Adding a benchmark is adding a file there; its keys are the fields of `PublishedBenchmark`. A name
stands for one exact file of questions, by its sha256: "MMAU test-mini" alone names several, and the
two that count differ in 36% of their questions.
"""

import hashlib
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from storage.benchmarks.parse import (
    MMAU_FIELDS,
    FieldNames,
    as_file,
    parse_questions,
    rows_in,
)
from storage.config import BenchmarkConfig, Config
from storage.errors import PipelineError
from storage.jsonl import write_bytes
from storage.manifest import digest_of, file_digest
from storage.records.document import Document
from storage.records.model import DIGEST_CHARACTERS
from storage.records.question import VALIDATION, Question, benchmark_key, list_ids

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


class Pin(Document):
    """What an address gave, so that a published file is not asked for again."""

    what: ClassVar[str] = "a note of fetched questions"

    address: str
    """Path or address of the questions."""
    sha256: str
    """Of what it gave."""
    key: str
    """The benchmark that this is, a folder's name."""


def prepare_questions(config: BenchmarkConfig, root: Path) -> Path:
    """Bring a benchmark's questions to `<root>/<key>/questions.json`, checked.

    A benchmark is known by its questions: another file under the same name gets a folder of its
    own. A published file that was fetched before is not asked for again, and neither is what cannot
    be read any more.

    Args:
        config: The profile's entry.
        root: Folder of the benchmarks, `Layout.benchmarks`.

    Raises:
        PipelineError: If nothing says where they are, they cannot be had, they are not the
            published ones, or they fail a check.
    """
    if config.name == VALIDATION:
        msg = f"a benchmark cannot be named {VALIDATION}: these are the held-out training examples"
        raise PipelineError(msg)
    published = find_published(config.name)
    address = config.questions or (published and published.questions)
    if address is None:
        msg = (
            f"benchmark {config.name} is not a published one ({', '.join(list_published())}): "
            "give the path or address of its questions, `questions`"
        )
        raise PipelineError(msg)
    pin_path = _pin_path(config.name, address, root)
    kept = _kept(pin_path, root, published)
    is_url = urlsplit(address).scheme in {"http", "https"}
    if kept and is_url and config.questions is None:
        return kept
    try:
        content = _download(address, config.name) if is_url else _read(Path(address), config.name)
    except PipelineError:
        if kept is None:
            raise
        return kept
    questions = _parse(content, published, source=address)
    is_as_published = _fields(published) == MMAU_FIELDS and content.lstrip()[:1] == b"["
    ours = content if is_as_published else as_file(questions)
    key = benchmark_key(config.name, hashlib.sha256(ours).hexdigest())
    path = root / key / "questions.json"
    if not path.exists() or path.read_bytes() != ours:
        write_bytes(path, ours)
    Pin(address=address, sha256=hashlib.sha256(content).hexdigest(), key=key).write(pin_path)
    return path


def find_prepared(config: BenchmarkConfig, root: Path) -> Path | None:
    """The folder of a benchmark whose questions were brought here and would be again; else None."""
    published = find_published(config.name)
    address = config.questions or (published and published.questions)
    pin_path = _pin_path(config.name, address or "", root)
    path = _kept(pin_path, root, published)
    local = Path(config.questions or "").expanduser()
    if path and local.is_file() and file_digest(local) != Pin.read(pin_path).sha256:
        return None
    return path and path.parent


def read_benchmark(name: str, path: Path) -> list[Question]:
    """Read a benchmark's questions from a file, which must be the published one if the name is.

    Raises:
        PipelineError: If it is not, cannot be read, or fails a check.
    """
    return _parse(_read(path, name), find_published(name), source=str(path))


def _pin_path(name: str, address: str, root: Path) -> Path:
    return root / "fetched" / f"{benchmark_key(name, digest_of(address))}.json"


def _kept(pin_path: Path, root: Path, published: PublishedBenchmark | None) -> Path | None:
    """The questions that an address gave before, where they are whole and still the published."""
    if not pin_path.exists():
        return None
    pin = Pin.read(pin_path)
    path = root / pin.key / "questions.json"
    is_published = published is None or published.sha256 in (None, pin.sha256)
    is_whole = path.exists() and pin.key.endswith(f"-{file_digest(path)[:DIGEST_CHARACTERS]}")
    return path if is_published and is_whole else None


def _parse(content: bytes, published: PublishedBenchmark | None, *, source: str) -> list[Question]:
    rows = rows_in(content, source=source)
    questions = parse_questions(rows, source=source, fields=_fields(published))
    if published is not None:
        published.check(content, questions, source)
    return questions


def _fields(published: PublishedBenchmark | None) -> FieldNames:
    return published.fields if published else MMAU_FIELDS


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
