"""The benchmarks known by name, one small file each in `storage/benchmarks`, and their questions.

Adding a benchmark is adding a file there, or one of your own that a profile names; its keys are the
fields of `PublishedBenchmark`. A name stands for one exact file of questions, by its sha256: "MMAU
test-mini" alone names several, and the two that count differ in 36% of their questions.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError

from storage.benchmarks.parse import MMAU_FIELDS, as_file, keep_questions, parse_questions
from storage.config import BenchmarkConfig, Config, FileName, HubData
from storage.download import download
from storage.errors import PipelineError
from storage.hub import lay_down, pinned
from storage.jsonl import to_document
from storage.manifest import digest_of, file_digest
from storage.mapping import RowMapping
from storage.records.document import Document
from storage.records.model import DIGEST_CHARACTERS
from storage.records.question import VALIDATION, Question, benchmark_key, list_ids
from storage.tables import rows_in

FOLDER = Path(__file__).parent
REMEDY = "Try again, or set the benchmark's `questions` to a local copy"


class HubAudio(HubData):
    """A data set on the hub whose rows hold the clips."""

    remedy: ClassVar[str] = (
        "Try again later, or set the benchmark's `audio` to a folder that holds its clips"
    )

    split: FileName = "test"
    has_files: bool = False
    """Whether the clips are files of it, named by the questions, instead of a column."""


class PublishedBenchmark(Config):
    """One version of a benchmark: where its questions and clips are, and how to know them."""

    name: str = ""
    """As in the profile, and the name of its file."""
    title: str = ""
    """As tables show it."""
    family: str = ""
    """Of versions of one benchmark, which reports also compare on the questions they share."""
    questions: str | None = None
    """Address of the questions' file, at a pinned commit."""
    rows: HubAudio | None = None
    """Instead of a file, a data set whose rows are the questions, most often with their clips."""
    sha256: str | None = None
    """Of the file; None where it is not known: the first download is then noted and kept to."""
    num_questions: int | None = None
    tasks: dict[str, int | None] = Field(default_factory=dict)
    """The tasks of its questions, with their numbers of questions where known; empty: any."""
    fields: RowMapping = RowMapping()
    audio: tuple[HubAudio, ...] = ()
    """Data sets that hold its clips, tried in this order; empty: its rows, if they are one."""
    audio_archive: str | None = None
    """Where its clips are otherwise, to be unpacked by hand and given as a folder."""
    errata: dict[str, str] = Field(default_factory=dict)
    """What is wrong with a question, by id; in YAML the name of a file beside this one."""
    rule: Literal["mmsu"] | None = None
    """Its authors' own rule, where it is not MMAU's; its number is shown beside ours."""
    holds: tuple[str, ...] = ()
    """Data sets that its clips come from by construction, e.g. `Clotho`."""
    note: str = ""

    def check(self, content: bytes, questions: list[Question], source: str) -> None:
        """Refuse a file that is not the one that the name stands for."""
        digest = hashlib.sha256(content).hexdigest()
        fault = ""
        if self.sha256 not in (None, digest):
            fault = f"sha256 {digest}, expected {self.sha256}"
        elif self.num_questions not in (None, len(questions)):
            fault = f"{len(questions)} questions, expected {self.num_questions}"
        if fault:
            raise PipelineError(
                f"{source} is not {self.name}: {fault}. Take the file at {self.questions}, or give "
                "yours another name in the profile"
            )
        strange = [q.id for q in questions if self.tasks and q.task not in self.tasks]
        if strange:
            msg = f"{source}: task is none of {', '.join(self.tasks)}: {list_ids(strange)}"
            raise PipelineError(msg)


def list_published() -> list[str]:
    """Names of all published benchmarks."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_published(name: str) -> PublishedBenchmark | None:
    """The published benchmark of that name; None for a name of one's own."""
    return _read_description(FOLDER / f"{name}.yaml") if name in list_published() else None


def find_description(config: BenchmarkConfig) -> PublishedBenchmark:
    """What is known of a profile's benchmark: by its own file, as published, or but its name."""
    if config.file:
        return _read_description(Path(config.file))
    return find_published(config.name) or PublishedBenchmark(name=config.name)


def _read_description(path: Path) -> PublishedBenchmark:
    try:
        tree: Any = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
        if isinstance(tree.get("errata"), str):
            listed = path.parent / tree["errata"]
            tree["errata"] = yaml.safe_load(listed.read_text(encoding="utf-8"))
        return PublishedBenchmark.model_validate(tree)
    except (ValidationError, yaml.YAMLError, OSError, AttributeError) as error:  # no mapping
        raise PipelineError(f"{path}: {error}") from error


class Pin(Document):
    """What an address gave, so that a published file is not asked for again."""

    what: ClassVar[str] = "a note of fetched questions"

    address: str
    """Path or address of the questions."""
    sha256: str
    key: str
    """The benchmark that this is, a folder's name."""


def prepare_questions(config: BenchmarkConfig, root: Path) -> Path:
    """Bring a benchmark's questions to `<root>/<key>/questions.json`, checked.

    A benchmark is known by its questions: another file under the same name gets a folder of its
    own. A published file that was fetched before is not asked for again, and neither is what cannot
    be read any more.

    Raises:
        PipelineError: If nothing says where they are, they cannot be had, they are not the
            published ones, or they fail a check.
    """
    if config.name == VALIDATION:
        msg = f"a benchmark cannot be named {VALIDATION}: these are the held-out training examples"
        raise PipelineError(msg)
    known = find_description(config)
    address = address_of(config, known)
    if not address:
        raise PipelineError(
            f"benchmark {config.name} is not a published one ({', '.join(list_published())}): "
            "give the path or address of its questions, `questions`"
        )
    pin_path = _pin_path(config.name, address, root)
    kept = _kept(pin_path, root, known)
    if kept and config.questions is None and not Path(address).exists():
        return kept
    try:
        content = _content(address, known, config.name, root)
    except PipelineError:
        if kept is None:
            raise
        return kept
    sha256 = hashlib.sha256(content).hexdigest()
    if not known.sha256 and config.questions is None and pin_path.exists():
        before = Pin.read(pin_path).sha256
        if sha256 != before:
            raise PipelineError(
                f"{address} gives other questions than at the first download: sha256 {sha256}, "
                f"then {before}. Give yours by `questions`, or remove {pin_path} to take the new "
                "ones"
            )
    questions = _parse(content, known, source=address)
    is_as_published = known.fields == MMAU_FIELDS and content.lstrip()[:1] == b"["
    path = keep_questions(config.name, content if is_as_published else as_file(questions), root)
    Pin(address=address, sha256=sha256, key=path.parent.name).write(pin_path)
    return path


def find_prepared(config: BenchmarkConfig, root: Path) -> Path | None:
    """The folder of a benchmark whose questions were brought here and would be again; else None."""
    known = find_description(config)
    pin_path = _pin_path(config.name, address_of(config, known), root)
    path = _kept(pin_path, root, known)
    local = Path(config.questions or "").expanduser()
    if path and local.is_file() and file_digest(local) != Pin.read(pin_path).sha256:
        return None
    return path and path.parent


def address_of(config: BenchmarkConfig, known: PublishedBenchmark) -> str:
    """A path, an address, or a data set's name; empty where none is known."""
    return config.questions or known.questions or (known.rows.dataset if known.rows else "")


def commit_notes(root: Path) -> Path:
    """File of the commits that the first downloads found, for data sets that name none."""
    return root / "fetched" / "commits.json"


def rows_folder(address: str, root: Path) -> Path:
    """Folder of the rows of a data set whose rows are the questions, with their clips."""
    return root / "fetched" / benchmark_key(Path(address).name, digest_of(address))


def read_benchmark(name: str, path: Path) -> list[Question]:
    """Read a benchmark's questions from a file, which must be the published one if the name is."""
    known = find_published(name) or PublishedBenchmark(name=name)
    return _parse(_read(path, name), known, source=str(path))


def _pin_path(name: str, address: str, root: Path) -> Path:
    return root / "fetched" / f"{benchmark_key(name, digest_of(address))}.json"


def _kept(pin_path: Path, root: Path, known: PublishedBenchmark) -> Path | None:
    """The questions that an address gave before, where they are whole and still the published."""
    if not pin_path.exists():
        return None
    pin = Pin.read(pin_path)
    path = root / pin.key / "questions.json"
    is_whole = path.exists() and pin.key.endswith(f"-{file_digest(path)[:DIGEST_CHARACTERS]}")
    return path if is_whole and known.sha256 in (None, pin.sha256) else None


def _content(address: str, known: PublishedBenchmark, name: str, root: Path) -> bytes:
    if urlsplit(address).scheme in {"http", "https"}:
        return download(address, f"the questions of {name}", REMEDY)
    if known.rows and not Path(address).expanduser().is_file():
        source = known.rows.model_copy(update={"dataset": address})
        commit = pinned(source, commit_notes(root))
        folder = rows_folder(address, root)
        rows = lay_down(source, commit, folder, audio_id=known.fields.audio_id)
        return to_document(rows).encode("utf-8", "replace")
    return _read(Path(address), name)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        msg = f"the questions of {name} cannot be read: {path}: {error.strerror}"
        raise PipelineError(msg) from error


def _parse(content: bytes, known: PublishedBenchmark, *, source: str) -> list[Question]:
    rows = rows_in(content, source=source)
    questions = parse_questions(rows, source=source, fields=known.fields, errata=known.errata)
    known.check(content, questions, source)
    return questions
