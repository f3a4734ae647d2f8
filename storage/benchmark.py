"""A benchmark made ready to be asked: its questions checked, its clips there and decoded once.

```
benchmarks/<name>/
  questions.json     MMAU's schema; the published file itself, byte for byte, where that has it
  audio/             clips out of a data set (absent where the profile names a folder)
  clips.json         what decoding each clip found, so that the next run need not do it again
```
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from storage.audio import Unreadable, check_audio, find_clip
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.hub_audio import write_clips
from storage.jsonl import read_json, write_bytes, write_json
from storage.manifest import digest_of, file_digest
from storage.mmau import (
    MMAU_FIELDS,
    Question,
    from_validation,
    list_ids,
    parse_questions,
    read_questions,
    read_rows,
    write_questions,
)
from storage.published import HubAudio, PublishedBenchmark, find_published, list_published

DOWNLOAD_TIMEOUT_S = 60.0
NUM_THREADS = 4  # libsndfile and soxr work outside Python's lock
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

OnProgress = Callable[[str, int, int], None]


def _say_nothing(what: str, done: int, total: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark on disk, ready to be asked."""

    name: str
    """E.g. `mmau-test-mini-original`."""
    questions: tuple[Question, ...]
    """In the file's order."""
    questions_path: Path
    """The checked file, in MMAU's schema."""
    audio: Path | None
    """Folder of the clips; None with `silence`."""
    silence: bool
    """Zeros instead of clips."""
    digest: str
    """Changes when a question or a clip does."""
    unreadable: tuple[str, ...] = ()
    """Ids of questions whose clip cannot be used; they count as wrong."""
    is_test: bool = True
    """False for the validation examples, on which checkpoints are chosen."""

    @property
    def num_questions(self) -> int:
        """Questions in it."""
        return len(self.questions)


def prepare(
    config: BenchmarkConfig, folder: Path, on_progress: OnProgress = _say_nothing
) -> Benchmark:
    """Fetch and check a benchmark's questions and clips.

    Args:
        config: The profile's entry.
        folder: The benchmark's own folder, `Layout.benchmark(name)`.
        on_progress: Told (what, done, total) as clips are fetched and decoded.

    Raises:
        PipelineError: If the questions are not the published ones or fail a check, if clips are
            missing or cannot be used (all of them named by id), or nothing says where they are.
    """
    path = prepare_questions(config, folder)
    questions = read_questions(path)
    audio = None if config.silence else _prepare_audio(config, questions, folder, on_progress)
    return _with_clips(config, path, questions, folder=folder, audio=audio, on_progress=on_progress)


def prepare_questions(config: BenchmarkConfig, folder: Path) -> Path:
    """Bring the questions alone to `folder/questions.json`, checked.

    Raises:
        PipelineError: As `prepare`, where it speaks of questions.
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


def prepare_validation(
    examples: Iterable[Mapping[str, object]], folder: Path, on_progress: OnProgress = _say_nothing
) -> Benchmark:
    """Make a benchmark of held-out training examples, so that a checkpoint can be chosen on them.

    Its name is the folder's.

    Raises:
        PipelineError: If an example is malformed or a clip cannot be used.
    """
    questions = from_validation(examples)
    folders = {Path(question.audio_id).parent for question in questions}
    if len(folders) != 1:
        listed = ", ".join(map(str, sorted(folders)[:3]))
        msg = (
            f"the validation examples name clips in {len(folders)} folders ({listed}): expected one"
        )
        raise PipelineError(msg)
    path = folder / "questions.json"
    write_questions(path, questions)
    config = BenchmarkConfig(name=folder.name)
    return _with_clips(
        config,
        path,
        questions,
        folder=folder,
        audio=folders.pop(),
        on_progress=on_progress,
        is_test=False,
    )


def _with_clips(
    config: BenchmarkConfig,
    path: Path,
    questions: Sequence[Question],
    *,
    folder: Path,
    audio: Path | None,
    on_progress: OnProgress,
    is_test: bool = True,
) -> Benchmark:
    clips = (
        {} if audio is None else _check_clips(questions, audio, folder / "clips.json", on_progress)
    )
    reason_by_id = {name: clip["reason"] for name, clip in clips.items() if "reason" in clip}
    if reason_by_id and not config.allow_unreadable:
        _refuse_unreadable(config.name, reason_by_id, len(questions))
    contents = {name: clip.get("sha256") for name, clip in clips.items()}
    return Benchmark(
        name=config.name,
        questions=tuple(questions),
        questions_path=path,
        audio=audio,
        silence=config.silence,
        digest=digest_of([file_digest(path), config.silence, contents]),
        unreadable=tuple(reason_by_id),
        is_test=is_test,
    )


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


def _prepare_audio(
    config: BenchmarkConfig, questions: Sequence[Question], folder: Path, on_progress: OnProgress
) -> Path:
    """The folder of the clips, filled from a data set where there is none yet."""
    place = None if config.audio is None else Path(config.audio).expanduser()
    if place is not None and place.is_dir() and not any(place.rglob("*.parquet")):
        return place.absolute()
    published = find_published(config.name)
    if config.audio is None:
        sources = published.audio if published else ()
    elif (place is not None and place.is_dir()) or HUB_NAME.fullmatch(config.audio):
        known = published.audio if published else ()
        sources = tuple(s for s in known if s.dataset == config.audio) or (
            HubAudio(dataset=config.audio),
        )
    else:
        msg = (
            f"the audio of {config.name} is {config.audio}: no such folder, and no data set's name"
        )
        raise PipelineError(msg)
    if not sources:
        where = f"; it is at {published.audio_archive}" if published else ""
        msg = (
            f"nothing says where the clips of {config.name} are: set its `audio` to the folder "
            f"that holds them{where}, or set `silence: true` to try things without"
        )
        raise PipelineError(msg)
    audio = folder / "audio"
    for source in sources:
        told = partial(on_progress, f"clips of {source.dataset}")
        if not write_clips(questions, source, audio, told).missing:
            break
    audio.mkdir(parents=True, exist_ok=True)
    return audio


def _check_clips(
    questions: Sequence[Question], audio: Path, cache: Path, on_progress: OnProgress
) -> dict[str, dict[str, Any]]:
    """Decode each question's clip once; what an earlier run found of the same file is believed."""
    known: dict[str, Any] = read_json(cache) if cache.exists() else {}

    def check(question: Question) -> dict[str, Any]:
        clip = find_clip(audio, question.audio_id)
        if clip is None:
            return {"reason": f"{question.audio_id} is not in {audio}"}
        status = clip.stat()
        stamp = [str(clip), status.st_size, status.st_mtime_ns]
        before = known.get(question.id)
        if before is not None and before.get("stamp") == stamp:
            return before
        facts = check_audio(clip)
        if isinstance(facts, Unreadable):
            return {"stamp": stamp, "reason": facts.reason}
        found = {"duration_s": round(facts.duration_s, 3), "peak": round(facts.peak, 4)}
        return {"stamp": stamp, "sha256": file_digest(clip), **found}

    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for question, clip in zip(questions, pool.map(check, questions), strict=True):
            found[question.id] = clip
            on_progress("clips checked", len(found), len(questions))
    if found != known:
        write_json(cache, found)
    return found


def _refuse_unreadable(name: str, reason_by_id: Mapping[str, str], num_questions: int) -> None:
    first = next(iter(reason_by_id))
    msg = (
        f"{len(reason_by_id)} of {num_questions} clips of {name} cannot be used: "
        f"{list_ids(list(reason_by_id))}. The first: {reason_by_id[first]}. "
        "Get these clips, or set the benchmark's `allow_unreadable: true`: they then count as wrong"
    )
    raise PipelineError(msg)
