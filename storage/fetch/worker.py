"""What a worker thread does with one video: ask the sources in order, cut, verify, record.

A clip's way: download to the thread's own folder, cut there, verify, flush, rename into `clips/`,
then the ledger's commit.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from storage.config import FetchConfig
from storage.errors import PipelineError
from storage.fetch.clip_rows import ClipRow
from storage.fetch.cut import SILENT_BELOW_DBFS, CutError, WavFacts, cut_clip
from storage.fetch.failures import LOCAL_ERRORS, Failure, Kind
from storage.fetch.gate import Gate
from storage.fetch.ledger import Ledger
from storage.fetch.reconcile import condemned, reopening
from storage.fetch.retries import after_failure, after_success, is_due
from storage.fetch.sources import NOT_THERE, Answer, Found, Media, VideoFacts
from storage.fetch.youtube import AudioSource, Downloader
from storage.records.clip import Clip

# Which failure is told when several sources failed: the one that leaves most hope.
HOPE = ("retry", "extractor", "unconfirmed", "credentials", "geo", "invalid")


@dataclass(frozen=True)
class ClipWorker:
    """Everything that the threads of a run share."""

    config: FetchConfig
    clips_dir: Path
    """Where the wavs go."""
    media_dir: Path | None
    """Where downloads are kept; None: nowhere."""
    ledger: Ledger
    run: int
    """The run's number in the ledger."""
    versions: dict[str, str]
    """Of yt-dlp and ffmpeg, for the ledger."""
    sources: Sequence[AudioSource]
    """Asked in this order."""
    gate: Gate
    """Before each paced source."""
    stop: threading.Event
    """Set when the run is to end."""
    on_clip: Callable[[ClipRow], None]
    """Told each clip's new row."""

    def fetch_video(self, clips: Sequence[Clip], folder: Path) -> None:
        """Fetch the clips of one video that are due; each ends in the ledger, unless stopped.

        Args:
            clips: All of one video.
            folder: This thread's own folder for downloads and cuts; left empty.

        Raises:
            PipelineError: On what stops the run: refusal for good, a full disk, an old yt-dlp.
        """
        now_s, began_s = time.time(), time.monotonic()
        rows = {row.clip_id: row for row in self.ledger.rows(clips)}
        failures: dict[str, Failure] = {}
        for source in self.sources:
            asking = [row for row in rows.values() if self._is_asked_of(source, row, now_s)]
            if not asking:
                continue
            failed = self._ask(source, asking, folder, began_s)
            if failed is None:
                return
            for row in asking:
                failure = failed.get(row.clip_id)
                if failure is None:
                    del rows[row.clip_id]
                    continue
                failures[row.clip_id] = _hopeful(failures.get(row.clip_id), failure)
                asked = filter(None, [*row.asked.split("\n"), source.key(row.clip)])
                rows[row.clip_id] = replace(row, asked="\n".join(dict.fromkeys(asked)))
        for clip_id, row in rows.items():
            if clip_id in failures:
                self._record(self._after_failure(row, failures[clip_id], now_s), began_s)

    def _is_asked_of(self, source: AudioSource, row: ClipRow, now_s: float) -> bool:
        """A clip that is due is asked of all, a loss only of what is new since."""
        drop_silent = self.config.drop_silent
        return is_due(row, now_s) or bool(reopening(row, [source], drop_silent=drop_silent))

    def _ask(
        self, source: AudioSource, rows: Sequence[ClipRow], folder: Path, began_s: float
    ) -> dict[str, Failure] | None:
        """Record what a source serves of these clips.

        Returns:
            Why it does not serve the others; None if the run was stopped, or we were refused.
        """
        if self.stop.is_set():
            return None
        clips = [row.clip for row in rows]
        try:
            if isinstance(source, Downloader):
                answers = self.gate.ask(source, clips, folder)
            else:
                answers = source.find(clips)
            if not answers:
                return None
            media = _media_in(answers)
            failed: dict[str, Failure] = {}
            for row in rows:
                outcome = self._cut(source, row, answers[row.clip_id], folder)
                if isinstance(outcome, Failure):
                    failed[row.clip_id] = outcome
                else:
                    self._record(outcome, began_s, media.facts if media else None)
            if media and self.media_dir and len(failed) < len(rows):
                media.path.replace(self.media_dir / f"{media.facts.video_id}{media.path.suffix}")
            return failed
        finally:
            _empty(folder)

    def _cut(
        self, source: AudioSource, row: ClipRow, answer: Answer, folder: Path
    ) -> ClipRow | Failure:
        if isinstance(answer, Failure):
            if answer.kind == "local":
                raise _local(row.clip, answer.message)
            return answer
        found, *others = answer
        cut = folder / f"cut-{row.clip.file_name}"
        target = self.clips_dir / row.clip.file_name
        try:
            facts = self._cut_one(source, row, found, cut)
            if facts.is_silent and self.config.drop_silent:
                message = f"peak {facts.peak_dbfs:g} dBFS, below {SILENT_BELOW_DBFS:g}"
                return Failure("invalid", "silent", message)
            _put_in_place(cut, target)
            condemned(target).unlink(missing_ok=True)
        except CutError as error:
            if others and error.reason in {"not-media", "no-audio"}:
                outcome = self._cut(source, row, others, folder)
                if not (isinstance(outcome, Failure) and outcome.reason == "not-media"):
                    return outcome
            return _cut_failure(source, error)
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                raise _local(row.clip, str(error)) from error
            raise
        versions = self.versions
        return after_success(
            row, facts, source.name, found.media, now_s=time.time(), versions=versions
        )

    def _cut_one(self, source: AudioSource, row: ClipRow, found: Found, cut: Path) -> WavFacts:
        """Cut, and hold YouTube's download against the length that it announced.

        One file, whole, that ends early in the same way a second time is as long as it is.
        """
        media = found.media if _is_youtube(source) else None
        clip_cut = partial(
            cut_clip, found.path, cut, start_s=found.start_s, clip_length_s=row.clip_length_s
        )
        if media is None or not media.duration_s:
            return clip_cut()
        try:
            return clip_cut(announced_s=media.duration_s, is_fragmented=media.is_fragmented)
        except CutError as error:
            is_again = (row.reason_code, row.message) == (error.reason, str(error))
            if media.is_fragmented or not is_again:
                raise
        return clip_cut()

    def _after_failure(self, row: ClipRow, failure: Failure, now_s: float) -> ClipRow:
        """The row after the failure; a loss that was reopened in vain stays what it was."""
        if not is_due(row, now_s):
            before = Failure(cast("Kind", row.state), row.reason_code, row.message)
            if _hopeful(before, failure) is before:
                return row
            row = replace(row, attempts=0)
        waits_s = self.config.retry_waits_s
        return after_failure(row, failure, now_s=time.time(), waits_s=waits_s)

    def _record(self, row: ClipRow, began_s: float, video: VideoFacts | None = None) -> None:
        seconds = time.monotonic() - began_s
        self.ledger.write([row], run=self.run, seconds=seconds, video=video)
        self.on_clip(row)


def _media_in(answers: Mapping[str, Answer]) -> Media | None:
    """The download behind the answers, which is the same for all clips."""
    found = (answer[0] for answer in answers.values() if not isinstance(answer, Failure))
    return next((each.media for each in found), None)


def _hopeful(first: Failure | None, second: Failure) -> Failure:
    """The failure to tell of two; `not there` of a folder says less than any other."""
    if first is None or first.reason == NOT_THERE:
        return second
    if second.reason == NOT_THERE:
        return first
    return min(first, second, key=lambda failure: HOPE.index(failure.kind))


def _is_youtube(source: AudioSource) -> bool:
    return isinstance(source, Downloader) and source.is_youtube


def _cut_failure(source: AudioSource, error: CutError) -> Failure:
    """YouTube's own files are sound: one that ffmpeg cannot read was broken on the way."""
    is_broken = _is_youtube(source) and error.reason in {"not-media", "truncated"}
    is_passing = is_broken or error.reason == "cut-timeout"
    return Failure("retry" if is_passing else "invalid", error.reason, str(error))


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
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "cookies.txt":
            path.unlink()
