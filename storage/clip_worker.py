"""What a worker thread does with one video: ask the sources in order, cut, verify, put in place, tell the ledger."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.avqa import Clip
from storage.config import FetchConfig
from storage.errors import PipelineError
from storage.failures import LOCAL_ERRORS, Failure
from storage.ledger import ClipRow, Ledger
from storage.pace import Breaker, Pace
from storage.retries import Served, after_failure, after_success, is_due
from storage.sources import AudioSource, Found
from storage.wav import SILENT_BELOW_DBFS, CutError, cut_clip

MAX_EXTRACTOR_FAULTS = 5  # in a row: yt-dlp or its JS runtime no longer understands YouTube
# Which failure is told when several sources failed: the one that leaves most hope.
_HOPE = ("retry", "unconfirmed", "credentials", "geo", "invalid")
_GIVEN_BACK = ("blocked", "extractor")

Outcome = Served | Failure


@dataclass
class ClipWorker:
    """Everything that the threads of a run share."""

    config: FetchConfig
    clips_dir: Path
    ledger: Ledger
    run: int
    versions: dict[str, str]
    sources: Sequence[AudioSource]
    pace: Pace
    breaker: Breaker
    stop: threading.Event
    on_clip: Callable[[ClipRow], None]
    _extractor_faults: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetch_video(self, clips: Sequence[Clip], folder: Path) -> None:
        """Fetch the clips of one video that are due; each ends in the ledger.

        Args:
            clips: All of one video.
            folder: This thread's own folder for downloads and cuts; left empty.

        Raises:
            PipelineError: On what stops the run: refusal for good, a full disk, a yt-dlp out of date.
        """
        now_s = time.time()
        rows = [row for row in self.ledger.rows(clips) if is_due(row, now_s)]
        began_s = time.monotonic()
        failures: dict[str, Failure] = {}
        for source in self.sources:
            if not rows or self.stop.is_set():
                return
            outcomes = self._ask(source, [row.clip for row in rows], folder)
            left: list[ClipRow] = []
            for row in rows:
                outcome = outcomes.get(row.clip_id)
                if isinstance(outcome, Served):
                    self._record_success(row, outcome, time.monotonic() - began_s)
                elif outcome is not None:
                    failures[row.clip_id] = _hopeful(failures.get(row.clip_id), outcome)
                    left.append(row)
            rows = left
        for row in rows:
            self._record_failure(row, failures[row.clip_id], time.monotonic() - began_s)

    def _ask(self, source: AudioSource, clips: Sequence[Clip], folder: Path) -> dict[str, Outcome]:
        """What one source has of these clips; none of them if the run was stopped before an answer."""
        while not self.stop.is_set():
            admitted_s = 0.0
            if source.downloader is not None:
                admitted_s = self.breaker.admit(self.stop)
                self.pace.wait(self.stop)
                if self.stop.is_set():
                    break
            try:
                found = source.find(clips, folder)
                answer = next((each for each in found.values() if isinstance(each, Failure)), None)
                if source.downloader is not None and self._is_refused(answer, clips, admitted_s):
                    continue
                return self._cut_all(source, clips, found, folder)
            finally:
                _empty(folder)
        return {}

    def _is_refused(self, answer: Failure | None, clips: Sequence[Clip], admitted_s: float) -> bool:
        """Tell breaker and fault counter of an answer; True if the video is to be asked for again."""
        kind = None if answer is None else answer.kind
        if answer is not None and kind == "blocked":
            for clip in clips:
                self.ledger.note_refusal(
                    clip.clip_id, run=self.run, reason=answer.reason, message=answer.message
                )
            self.breaker.trip(answer, admitted_s=admitted_s)
            return True
        if kind == "retry":
            self.breaker.give_way()
            return False
        self.breaker.close()
        with self._lock:
            self._extractor_faults = self._extractor_faults + 1 if kind == "extractor" else 0
            faults = self._extractor_faults
        if answer is not None and faults >= MAX_EXTRACTOR_FAULTS:
            msg = (
                f"{faults} videos in a row gave no formats ({answer.message}): yt-dlp {self.versions['yt-dlp']} or its JS "
                "runtime no longer understands YouTube. Update them: pip install -U yt-dlp yt-dlp-ejs deno; then run again"
            )
            raise PipelineError(msg)
        return False

    def _cut_all(
        self,
        source: AudioSource,
        clips: Sequence[Clip],
        found: dict[str, Found | Failure],
        folder: Path,
    ) -> dict[str, Outcome]:
        return {
            clip.clip_id: self._cut(source, clip, found[clip.clip_id], folder) for clip in clips
        }

    def _cut(
        self, source: AudioSource, clip: Clip, found: Found | Failure, folder: Path
    ) -> Outcome:
        if isinstance(found, Failure):
            if found.kind == "local":
                raise _local(clip, found.message)
            return found
        cut = folder / f"cut-{clip.file_name}"
        try:
            facts = cut_clip(
                found.path, cut, start_s=found.start_s, clip_length_s=self.config.clip_length_s
            )
            if facts.is_silent and self.config.drop_silent:
                message = f"peak {facts.peak_dbfs} dBFS, below {SILENT_BELOW_DBFS:g}"
                return Failure("invalid", "silent", message)
            _put_in_place(cut, self.clips_dir / clip.file_name)
        except CutError as error:
            is_broken_download = source.downloader is not None and source.downloader.is_youtube
            is_passing = error.reason == "cut-timeout" or (
                is_broken_download and error.reason in {"not-media", "truncated"}
            )
            return Failure("retry" if is_passing else "invalid", error.reason, str(error))
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                raise _local(clip, str(error)) from error
            raise
        return Served(facts, source.name, found.media)

    def _record_success(self, row: ClipRow, served: Served, seconds: float) -> None:
        new = after_success(row, served, now_s=time.time(), versions=self.versions)
        self.ledger.write(new, run=self.run, seconds=seconds)
        self.on_clip(new)

    def _record_failure(self, row: ClipRow, failure: Failure, seconds: float) -> None:
        if failure.kind in _GIVEN_BACK:
            self.ledger.note_refusal(
                row.clip_id, run=self.run, reason=failure.reason, message=failure.message
            )
            return
        new = after_failure(
            row, failure, now_s=time.time(), waits_s=self.config.retry_waits_s, is_confirmed=False
        )
        self.ledger.write(new, run=self.run, seconds=seconds)
        self.on_clip(new)


def _hopeful(first: Failure | None, second: Failure) -> Failure:
    """The failure to tell of two; `not in the folder` says less than any other."""
    if first is None or first.kind in _GIVEN_BACK or first.reason == "not-in-folder":
        return second
    if second.reason == "not-in-folder" or second.kind in _GIVEN_BACK:
        return first
    return min(first, second, key=lambda failure: _HOPE.index(failure.kind))


def _put_in_place(cut: Path, target: Path) -> None:
    """Rename, and flush the folder so that the name outlives a power cut."""
    cut.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _local(clip: Clip, message: str) -> PipelineError:
    msg = (
        f"{clip.clip_id}: cannot write ({message}). Nothing was counted as lost. "
        "Free some space or set the folder's permissions, then run the same command again"
    )
    return PipelineError(msg)


def _empty(folder: Path) -> None:
    """Remove downloads and cuts; the thread's cookies stay."""
    for path in folder.iterdir():
        if path.name != "cookies.txt":
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
