"""What a worker thread does with one video: ask the sources in order, cut, verify, record.

A clip's way: download to the thread's own folder, cut there, verify, flush, rename into `clips/`,
then the ledger's commit.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.config import FetchConfig
from storage.data.avqa import Clip
from storage.errors import PipelineError
from storage.fetch.cut import SILENT_BELOW_DBFS, CutError, cut_clip
from storage.fetch.failures import LOCAL_ERRORS, Failure
from storage.fetch.gate import Gate
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.retries import Served, after_failure, after_success, is_due
from storage.fetch.sources import NOT_THERE, AudioSource, Found

# Which failure is told when several sources failed: the one that leaves most hope.
HOPE = ("retry", "extractor", "unconfirmed", "credentials", "geo", "invalid")

Outcome = Served | Failure


@dataclass(frozen=True)
class ClipWorker:
    """Everything that the threads of a run share."""

    config: FetchConfig
    """Clip length, waits, what to do with silence."""
    clips_dir: Path
    """Where the wavs go."""
    ledger: Ledger
    """Where the outcomes go."""
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
        now_s = time.time()
        began_s = time.monotonic()
        rows = [row for row in self.ledger.rows(clips) if is_due(row, now_s)]
        failures: dict[str, Failure] = {}
        for source in self.sources:
            if not rows:
                return
            outcomes = self._ask(source, [row.clip for row in rows], folder)
            if not outcomes:
                return
            for row in rows:
                outcome = outcomes[row.clip_id]
                if isinstance(outcome, Served):
                    self._record_success(row, outcome, seconds=time.monotonic() - began_s)
                else:
                    failures[row.clip_id] = _hopeful(failures.get(row.clip_id), outcome)
            rows = [row for row in rows if not isinstance(outcomes[row.clip_id], Served)]
        for row in rows:
            seconds = time.monotonic() - began_s
            self._record_failure(row, failures[row.clip_id], seconds=seconds)

    def _ask(self, source: AudioSource, clips: Sequence[Clip], folder: Path) -> dict[str, Outcome]:
        """What one source has of these clips; nothing if the run was stopped."""
        try:
            if source.downloader is None:
                found = {} if self.stop.is_set() else source.find(clips, folder)
            else:
                found = self.gate.ask(source.downloader, source.find, clips, folder)
            by_id = {clip.clip_id: clip for clip in clips}
            return {
                clip_id: self._cut(source, by_id[clip_id], each, folder)
                for clip_id, each in found.items()
            }
        finally:
            _empty(folder)

    def _cut(
        self, source: AudioSource, clip: Clip, found: Found | Failure, folder: Path
    ) -> Outcome:
        if isinstance(found, Failure):
            if found.kind == "local":
                raise _local(clip, found.message)
            return found
        cut = folder / f"cut-{clip.file_name}"
        length_s = self.config.clip_length_s
        try:
            facts = cut_clip(found.path, cut, start_s=found.start_s, clip_length_s=length_s)
            if facts.is_silent and self.config.drop_silent:
                message = f"peak {facts.peak_dbfs:g} dBFS, below {SILENT_BELOW_DBFS:g}"
                return Failure("invalid", "silent", message)
            _put_in_place(cut, self.clips_dir / clip.file_name)
        except CutError as error:
            return _cut_failure(source, error)
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                raise _local(clip, str(error)) from error
            raise
        return Served(facts, source.name, found.media)

    def _record_success(self, row: ClipRow, served: Served, *, seconds: float) -> None:
        new = after_success(row, served, now_s=time.time(), versions=self.versions)
        self.ledger.write(new, run=self.run, seconds=seconds)
        self.on_clip(new)

    def _record_failure(self, row: ClipRow, failure: Failure, *, seconds: float) -> None:
        waits_s = self.config.retry_waits_s
        new = after_failure(row, failure, now_s=time.time(), waits_s=waits_s)
        self.ledger.write(new, run=self.run, seconds=seconds)
        self.on_clip(new)


def _hopeful(first: Failure | None, second: Failure) -> Failure:
    """The failure to tell of two; `not there` of a folder says less than any other."""
    if first is None or first.reason == NOT_THERE:
        return second
    if second.reason == NOT_THERE:
        return first
    return min(first, second, key=lambda failure: HOPE.index(failure.kind))


def _cut_failure(source: AudioSource, error: CutError) -> Failure:
    """YouTube's own files are sound: one that ffmpeg cannot read was broken on the way."""
    is_from_youtube = source.downloader is not None and source.downloader.is_youtube
    is_passing = error.reason == "cut-timeout" or (
        is_from_youtube and error.reason in {"not-media", "truncated"}
    )
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
