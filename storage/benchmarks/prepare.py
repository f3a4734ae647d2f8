"""A benchmark made ready to be asked: its questions checked, its clips there and decoded once.

```
benchmarks/<name>-<8 characters of the questions' digest>/
  questions.json     MMAU's schema; the published file itself, byte for byte, where that has it
  audio/             clips out of a data set (absent where the profile names a folder)
  clips.json         what decoding each clip found, so that the next run need not do it again
```

The copies of MMAU on the hub differ in their columns (known from public code, not from the data
sets' cards). `gamma-lab-umd/MMAU-test-mini` has `context` {bytes, path}, `instruction`, `choices`
with "(A) " and `other_attributes`, a JSON text with the id. `TwinkStart/MMAU` has `audio`,
`question`, `choices`, not always an id. A row is therefore matched by its id, else by its clip's
file name, else by its question and choices, where only one question has them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from storage.audio import check_clips, common_folder, find_clip
from storage.benchmarks.parse import (
    as_file,
    from_validation,
    keep_questions,
    read_questions,
    sample_name,
    write_sample,
)
from storage.benchmarks.published import (
    HubAudio,
    address_of,
    commit_notes,
    find_description,
    prepare_questions,
    rows_folder,
)
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.hub import (
    AUDIO_COLUMNS,
    Asked,
    as_asked,
    asked_by,
    audio_in,
    download_files,
    pinned,
    stream_rows,
)
from storage.jsonl import Record, decoded, write_bytes
from storage.manifest import digest_of, file_digest
from storage.records.question import VALIDATION, Question, list_ids

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

OnProgress = Callable[[str, int, int], None]


def _say_nothing(what: str, done: int, total: int) -> None:
    """No progress is reported."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark on disk, ready to be asked."""

    name: str
    """E.g. `mmau-test-mini-original`."""
    questions: tuple[Question, ...]
    """In the file's order."""
    questions_path: Path
    """The checked file, in MMAU's schema, in a folder of its own."""
    questions_sha256: str
    audio: Path | None
    """Folder of the clips; None with `silence`."""
    silence: bool
    """Zeros instead of clips."""
    digest: str
    """Changes when a question or a clip does."""
    allow_unreadable: bool = False
    """Whether clips that cannot be used stop nothing; their questions count as wrong."""

    @property
    def key(self) -> str:
        """Name of its folder, and of it in an evaluation's key."""
        return self.questions_path.parent.name

    @property
    def is_test(self) -> bool:
        """False for the validation examples, on which checkpoints are chosen."""
        return self.name != VALIDATION

    @property
    def num_questions(self) -> int:
        """Questions in it."""
        return len(self.questions)

    @property
    def has_answers(self) -> bool:
        """False where the answers are withheld: then predictions can be sent, not scored."""
        return self.questions[0].answer is not None


def prepare(
    config: BenchmarkConfig,
    root: Path,
    on_progress: OnProgress = _say_nothing,
    *,
    limit: int | None = None,
) -> Benchmark:
    """Fetch and check a benchmark's questions and clips.

    Args:
        config: The profile's entry.
        root: `Layout.benchmarks`.
        on_progress: Told (what, done, total) as clips are fetched and decoded.
        limit: Take a sample of so many questions; None: all.

    Raises:
        PipelineError: If the questions are not the published ones or fail a check, if clips are
            missing or cannot be used (all of them named by id), or nothing says where they are.
    """
    path = prepare_asked(config, root, limit)
    questions = read_questions(path)
    audio = None
    if not config.silence:
        audio = _prepare_audio(config, questions, path.parent, on_progress)
    named = config.model_copy(update={"name": sample_name(config.name, limit)})
    return _checked(named, path, questions, audio, on_progress)


def prepare_asked(config: BenchmarkConfig, root: Path, limit: int | None) -> Path:
    """The questions of a benchmark, or of a sample of it; otherwise as `prepare_questions`."""
    whole = prepare_questions(config, root)
    return whole if limit is None else write_sample(config.name, whole, limit)


def prepare_validation(
    examples: Sequence[Mapping[str, object]], root: Path, on_progress: OnProgress = _say_nothing
) -> Benchmark:
    """Make a benchmark of held-out training examples, on which a checkpoint can be chosen."""
    path = prepare_validation_questions(examples, root)
    audio = common_folder(str(example["audio_path"]) for example in examples)
    named = BenchmarkConfig(name=VALIDATION)
    return _checked(named, path, read_questions(path), audio, on_progress)


def prepare_validation_questions(examples: Sequence[Mapping[str, object]], root: Path) -> Path:
    """Write held-out examples to `<root>/<key>/questions.json`; PipelineError names a bad one."""
    questions = from_validation(examples)
    folder = common_folder(question.clips[0] for question in questions)
    # Without that folder, so that they are the same questions when the workspace is moved.
    moved = [
        replace(question, clips=(str(Path(question.clips[0]).relative_to(folder)),))
        for question in questions
    ]
    return keep_questions(VALIDATION, as_file(moved), root)


def _checked(
    config: BenchmarkConfig,
    path: Path,
    questions: Sequence[Question],
    audio: Path | None,
    on_progress: OnProgress,
) -> Benchmark:
    sha256 = file_digest(path)
    clips = _check_clips(questions, audio, path.parent, on_progress) if audio else {}
    reason_by_id = {name: clip["reason"] for name, clip in clips.items() if "reason" in clip}
    if reason_by_id and not config.allow_unreadable:
        raise PipelineError(
            f"{len(reason_by_id)} of {len(questions)} clips of {config.name} cannot be used: "
            f"{list_ids(list(reason_by_id))}. The first: {next(iter(reason_by_id.values()))}. "
            "Get these clips, or set the benchmark's `allow_unreadable: true`: they then count as "
            "wrong"
        )
    contents = {name: clip.get("sha256") for name, clip in clips.items()}
    return Benchmark(
        name=config.name,
        questions=tuple(questions),
        questions_path=path,
        questions_sha256=sha256,
        audio=audio,
        silence=config.silence,
        digest=digest_of([sha256, config.silence, contents]),
        allow_unreadable=config.allow_unreadable,
    )


def _check_clips(
    questions: Sequence[Question], audio: Path, folder: Path, on_progress: OnProgress
) -> dict[str, dict[str, Any]]:
    found = {question.id: find_clip(audio, question.clips[0]) for question in questions}
    facts = check_clips(
        {name: clip for name, clip in found.items() if clip},
        folder / "clips.json",
        lambda num_done: on_progress("clips checked", num_done, len(questions)),
    )
    missing = {
        question.id: {"reason": f"{question.clips[0]} is not in {audio}"}
        for question in questions
        if found[question.id] is None
    }
    known = facts | missing
    return {name: known[name] for name in found}


def _prepare_audio(
    config: BenchmarkConfig, questions: Sequence[Question], folder: Path, on_progress: OnProgress
) -> Path:
    """The folder of the clips, filled from a data set where there is none yet."""
    named = config.audio
    place = Path(named).expanduser() if named and Path(named).expanduser().is_dir() else None
    if place and not any(place.rglob("*.parquet")):
        return place.absolute()
    described = find_description(config)
    sources = described.audio
    if named and not place and not HUB_NAME.fullmatch(named):
        msg = f"the audio of {config.name} is {named}: no such folder, and no data set's name"
        raise PipelineError(msg)
    if named:
        known = tuple(source for source in sources if source.dataset == named)
        sources = known or (HubAudio(dataset=named),)
    elif described.rows and not sources:
        return rows_folder(address_of(config, described), folder.parent)
    if not sources:
        archive = described.audio_archive
        where = f"; they are at {archive}" if archive else ""
        raise PipelineError(
            f"nothing says where the clips of {config.name} are: set its `audio` to the folder "
            f"that holds them{where}, or set `silence: true` to try things without"
        )
    audio = folder / "audio"
    audio.mkdir(exist_ok=True)
    for source in sources:
        if _write_clips(questions, source, audio, commit_notes(folder.parent), on_progress):
            break
    return audio


def _write_clips(
    questions: Sequence[Question],
    source: HubAudio,
    folder: Path,
    notes: Path,
    on_progress: OnProgress,
) -> bool:
    """Write the clips of a data set's rows that are not there yet; whether all are there then."""
    paths = {question.id: folder / Path(question.clips[0]).name for question in questions}
    wanted = {question.id: question for question in questions if not paths[question.id].exists()}
    if not wanted:
        return True
    commit = pinned(source, notes)
    if source.has_files:
        files = {q.clips[0].removeprefix("./"): paths[q.id] for q in wanted.values()}
        download_files(source, commit, files)
        return True
    find = _matcher(list(wanted.values()))
    for row in stream_rows(source, commit):
        name = find(row)
        if name not in wanted:
            continue
        content = (audio_in(row) or {}).get("bytes")
        if not isinstance(content, bytes):
            raise PipelineError(
                f"the data set {source.dataset} has columns {', '.join(row)}: expected one of "
                f"{' or '.join(AUDIO_COLUMNS)} that holds the clip's bytes"
            )
        write_bytes(paths[name], content)
        del wanted[name]
        num_there = len(questions) - len(wanted)
        on_progress(f"clips of {source.dataset}", num_there, len(questions))
        if not wanted:
            break
    return not wanted


def _matcher(questions: Sequence[Question]) -> Callable[[Record], str]:
    """Finds the id of the question that a row is about; empty: of none."""
    ids = {question.id for question in questions}
    by_file = {Path(question.clips[0]).stem: question.id for question in questions}
    by_asked: dict[Asked, list[str]] = defaultdict(list)
    for question in questions:
        by_asked[as_asked(question.question, question.choices)].append(question.id)

    def find(row: Record) -> str:
        for name in _names(row):
            found = name if name in ids else by_file.get(Path(name).stem)
            if found is not None:
                return found
        alike = by_asked.get(asked_by(row)._replace(answer=""), [])
        return alike[0] if len(alike) == 1 else ""

    return find


def _names(row: Record) -> Iterator[str]:
    """The names that a row gives itself: its id, its attributes' id, its clip's file name."""
    for holder in (row, decoded(row.get("other_attributes"))):
        if isinstance(holder, dict):
            fields = cast("Record", holder)
            yield from (str(fields[key]) for key in ("id", "audio_id") if fields.get(key))
    if path := (audio_in(row) or {}).get("path"):
        yield str(path)
