"""What a worker thread does with one video: ask the sources in order, cut, verify, record.

A clip's way: download to the thread's own folder, cut there, verify, flush, rename into `clips/`,
then the ledger's commit.
"""

import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from storage.config import FetchConfig
from storage.errors import PipelineError
from storage.fetch.cut import SILENT_BELOW_DBFS, Announced, CutError, WavFacts, cut_clip
from storage.fetch.failures import LOCAL_ERRORS, Failure, Kind
from storage.fetch.gate import Gate
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.reconcile import condemned
from storage.fetch.retries import (
    Served,
    after_failure,
    after_success,
    asked_with,
    is_due,
    reopening,
)
from storage.fetch.sources import NOT_THERE, AudioSource, Found, Keys
from storage.records.clip import Clip

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
    media_dir: Path | None
    """Where downloads are kept; None: nowhere."""
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
        rows = [row for row in self.ledger.rows(clips) if self.is_wanted(row, now_s)]
        failures: dict[str, Failure] = {}
        asked: dict[str, list[Keys]] = defaultdict(list)
        for source in self.sources:
            # A loss is asked only of what is new since; a clip that is due, of all.
            asking = [row for row in rows if is_due(row, now_s) or source in self.reopening(row)]
            if not asking:
                continue
            outcomes = self._ask(source, asking, folder)
            if not outcomes:
                return
            for row in asking:
                outcome = outcomes[row.clip_id]
                if isinstance(outcome, Served):
                    self._record_success(row, outcome, seconds=time.monotonic() - began_s)
                else:
                    failures[row.clip_id] = _hopeful(failures.get(row.clip_id), outcome)
                    asked[row.clip_id].append(source.keys(row.clip))
            rows = [row for row in rows if not isinstance(outcomes.get(row.clip_id), Served)]
        for row in rows:
            told = replace(row, asked=asked_with(row, asked[row.clip_id]))
            seconds = time.monotonic() - began_s
            self._record_failure(told, failures[row.clip_id], now_s=now_s, seconds=seconds)

    def is_wanted(self, row: ClipRow, now_s: float) -> bool:
        """Whether a clip is due, or was lost to sources or settings that have changed since."""
        return is_due(row, now_s) or (row.state != "done" and bool(self.reopening(row)))

    def reopening(self, row: ClipRow) -> list[AudioSource]:
        """The sources that may serve a loss after all."""
        return reopening(row, self.sources, drop_silent=self.config.drop_silent)

    def _ask(
        self, source: AudioSource, rows: Sequence[ClipRow], folder: Path
    ) -> dict[str, Outcome]:
        """What one source has of these clips; nothing if the run was stopped."""
        clips = [row.clip for row in rows]
        try:
            if source.downloader is None:
                found = {} if self.stop.is_set() else source.find(clips, folder)
            else:
                found = self.gate.ask(source.downloader, source.find, clips, folder)
            outcomes = {
                row.clip_id: self._cut(source, row, found[row.clip_id], folder)
                for row in rows
                if row.clip_id in found
            }
            self._keep(outcomes.values())
            return outcomes
        finally:
            _empty(folder)

    def _cut(
        self, source: AudioSource, row: ClipRow, found: Found | Failure, folder: Path
    ) -> Outcome:
        if isinstance(found, Failure):
            if found.kind == "local":
                raise _local(row.clip, found.message)
            return found
        cut = folder / f"cut-{row.clip.file_name}"
        try:
            facts = self._cut_one(source, row, found, cut)
            if facts.is_silent and self.config.drop_silent:
                message = f"peak {facts.peak_dbfs:g} dBFS, below {SILENT_BELOW_DBFS:g}"
                return Failure("invalid", "silent", message)
            target = self.clips_dir / row.clip.file_name
            _put_in_place(cut, target)
            condemned(target).unlink(missing_ok=True)
        except CutError as error:
            if found.others and error.reason in {"not-media", "no-audio"}:
                rest = replace(found, path=found.others[0], others=found.others[1:])
                return self._cut(source, row, rest, folder)
            return _cut_failure(source, error)
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                raise _local(row.clip, str(error)) from error
            raise
        return Served(facts, source.name, found.media)

    def _cut_one(self, source: AudioSource, row: ClipRow, found: Found, cut: Path) -> WavFacts:
        """Cut, and hold YouTube's download against the length that it announced.

        One file, whole, that ends early in the same way a second time is as long as it is.
        """
        media = found.media
        announced = None
        if media and media.duration_s and source.downloader and source.downloader.is_youtube:
            announced = Announced(media.duration_s, media.is_fragmented)
        length_s = self.config.clip_length_s
        try:
            return cut_clip(
                found.path,
                cut,
                start_s=found.start_s,
                clip_length_s=length_s,
                announced=announced,
            )
        except CutError as error:
            is_believed = announced is not None and not announced.is_fragmented
            if not is_believed or (row.reason_code, row.message) != (error.reason, str(error)):
                raise
        return cut_clip(found.path, cut, start_s=found.start_s, clip_length_s=length_s)

    def _keep(self, outcomes: Iterable[Outcome]) -> None:
        """Move a download that served a clip to the kept ones."""
        if self.media_dir is None:
            return
        for outcome in outcomes:
            if isinstance(outcome, Served) and outcome.media and outcome.media.path.exists():
                path = outcome.media.path
                path.replace(self.media_dir / f"{outcome.media.facts.video_id}{path.suffix}")

    def _record_success(self, row: ClipRow, served: Served, *, seconds: float) -> None:
        new = after_success(row, served, now_s=time.time(), versions=self.versions)
        video = served.media.facts if served.media else None
        self.ledger.write(new, run=self.run, seconds=seconds, video=video)
        self.on_clip(new)

    def _record_failure(
        self, row: ClipRow, failure: Failure, *, now_s: float, seconds: float
    ) -> None:
        if row.state != "pending" and not is_due(row, now_s):
            before = Failure(cast("Kind", row.state), row.reason_code, row.message)
            if _hopeful(before, failure) is before:
                self.ledger.write(row, run=self.run, seconds=seconds)
                self.on_clip(row)
                return
            row = replace(row, attempts=0)
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
