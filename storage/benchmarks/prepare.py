"""A benchmark made ready to be asked: its questions checked, its clips there and decoded once.

```
benchmarks/<name>-<8 characters of the questions' digest>/
  questions.json     MMAU's schema; the published file itself, byte for byte, where that has it
  audio/             clips out of a data set (absent where the profile names a folder)
  clips.json         what decoding each clip found, so that the next run need not do it again
```
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from storage.audio import check_clips, common_folder, find_clip
from storage.benchmarks.hub_clips import write_clips
from storage.benchmarks.parse import as_file, from_validation, keep_questions, read_questions
from storage.benchmarks.published import (
    HubAudio,
    address_of,
    commit_notes,
    find_description,
    prepare_questions,
    rows_folder,
)
from storage.benchmarks.sample import sample_name, write_sample
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
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
    """Of that file."""
    audio: Path | None
    """Folder of the clips; None with `silence`."""
    silence: bool
    """Zeros instead of clips."""
    digest: str
    """Changes when a question or a clip does."""
    unreadable: tuple[str, ...] = ()
    """Ids of questions whose clip cannot be used; they count as wrong."""
    allow_unreadable: bool = False
    """Whether clips that cannot be used stop nothing."""
    is_test: bool = True
    """False for the validation examples, on which checkpoints are chosen."""

    @property
    def key(self) -> str:
        """Name of its folder, and of it in an evaluation's key."""
        return self.questions_path.parent.name

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
        root: Folder of the benchmarks, `Layout.benchmarks`.
        on_progress: Told (what, done, total) as clips are fetched and decoded.
        limit: Take a sample of so many questions; None: all.

    Raises:
        PipelineError: If the questions are not the published ones or fail a check, if clips are
            missing or cannot be used (all of them named by id), or nothing says where they are.
    """
    path = prepare_asked(config, root, limit)
    questions = read_questions(path)
    audio = None if config.silence else _prepare_audio(config, questions, path.parent, on_progress)
    benchmark = _with_clips(config, path, questions, audio=audio, on_progress=on_progress)
    return replace(benchmark, name=sample_name(config.name, limit))


def prepare_asked(config: BenchmarkConfig, root: Path, limit: int | None) -> Path:
    """The questions of a benchmark, or of a sample of it; otherwise as `prepare_questions`."""
    whole = prepare_questions(config, root)
    return whole if limit is None else write_sample(config.name, whole, limit)


class HeldOut(NamedTuple):
    """The questions that were made of held-out training examples."""

    path: Path
    """Their file."""
    questions: list[Question]
    audio: Path
    """Folder of their clips."""


def prepare_validation(
    examples: Iterable[Mapping[str, object]], root: Path, on_progress: OnProgress = _say_nothing
) -> Benchmark:
    """Make a benchmark of held-out training examples, so that a checkpoint can be chosen on them.

    Raises:
        PipelineError: If an example is malformed or a clip cannot be used.
    """
    path, questions, audio = prepare_validation_questions(examples, root)
    config = BenchmarkConfig(name=VALIDATION)
    return _with_clips(config, path, questions, audio=audio, on_progress=on_progress, is_test=False)


def prepare_validation_questions(examples: Iterable[Mapping[str, object]], root: Path) -> HeldOut:
    """Write the questions of held-out examples to `<root>/<key>/questions.json`.

    Raises:
        PipelineError: If an example is malformed.
    """
    questions = from_validation(examples)
    paths = [Path(question.clips[0]) for question in questions]
    folder = common_folder(map(str, paths))
    # Without that folder, so that they are the same questions when the workspace is moved.
    questions = [
        replace(question, clips=(str(path.relative_to(folder)),))
        for question, path in zip(questions, paths, strict=True)
    ]
    path = keep_questions(VALIDATION, as_file(questions), root)
    return HeldOut(path, questions, folder)


def _with_clips(
    config: BenchmarkConfig,
    path: Path,
    questions: Sequence[Question],
    *,
    audio: Path | None,
    on_progress: OnProgress,
    is_test: bool = True,
) -> Benchmark:
    cache = path.parent / "clips.json"
    clips = {} if audio is None else _check_clips(questions, audio, cache, on_progress)
    reason_by_id = {name: clip["reason"] for name, clip in clips.items() if "reason" in clip}
    if reason_by_id and not config.allow_unreadable:
        _refuse_unreadable(config.name, reason_by_id, len(questions))
    contents = {name: clip.get("sha256") for name, clip in clips.items()}
    return Benchmark(
        name=config.name,
        questions=tuple(questions),
        questions_path=path,
        questions_sha256=(sha256 := file_digest(path)),
        audio=audio,
        silence=config.silence,
        digest=digest_of([sha256, config.silence, contents]),
        unreadable=tuple(reason_by_id),
        allow_unreadable=config.allow_unreadable,
        is_test=is_test,
    )


def _prepare_audio(
    config: BenchmarkConfig, questions: Sequence[Question], folder: Path, on_progress: OnProgress
) -> Path:
    """The folder of the clips, filled from a data set where there is none yet."""
    place = None if config.audio is None else Path(config.audio).expanduser()
    if place is not None and place.is_dir() and not any(place.rglob("*.parquet")):
        return place.absolute()
    published = find_description(config)
    known = published.audio if published else ()
    if published and published.rows and not known and config.audio is None:
        return rows_folder(address_of(config, published), folder.parent)
    if config.audio is None:
        sources = known
    elif (place is not None and place.is_dir()) or HUB_NAME.fullmatch(config.audio):
        sources = tuple(s for s in known if s.dataset == config.audio) or (
            HubAudio(dataset=config.audio),
        )
    else:
        msg = (
            f"the audio of {config.name} is {config.audio}: no such folder, and no data set's name"
        )
        raise PipelineError(msg)
    if not sources:
        archive = published and published.audio_archive
        where = f"; they are at {archive}" if archive else ""
        msg = (
            f"nothing says where the clips of {config.name} are: set its `audio` to the folder "
            f"that holds them{where}, or set `silence: true` to try things without"
        )
        raise PipelineError(msg)
    audio = folder / "audio"
    for source in sources:
        told = partial(on_progress, f"clips of {source.dataset}")
        if not write_clips(questions, source, audio, commit_notes(folder.parent), told):
            break
    audio.mkdir(parents=True, exist_ok=True)
    return audio


def _check_clips(
    questions: Sequence[Question], audio: Path, cache: Path, on_progress: OnProgress
) -> dict[str, dict[str, Any]]:
    found = {question.id: find_clip(audio, question.clips[0]) for question in questions}
    there = {name: clip for name, clip in found.items() if clip}
    facts = check_clips(
        there, cache, lambda num_done: on_progress("clips checked", num_done, len(questions))
    )
    missing = {
        question.id: {"reason": f"{question.clips[0]} is not in {audio}"}
        for question in questions
        if found[question.id] is None
    }
    return {question.id: (facts | missing)[question.id] for question in questions}


def _refuse_unreadable(name: str, reason_by_id: Mapping[str, str], num_questions: int) -> None:
    first = next(iter(reason_by_id))
    msg = (
        f"{len(reason_by_id)} of {num_questions} clips of {name} cannot be used: "
        f"{list_ids(list(reason_by_id))}. The first: {reason_by_id[first]}. "
        "Get these clips, or set the benchmark's `allow_unreadable: true`: they then count as wrong"
    )
    raise PipelineError(msg)
