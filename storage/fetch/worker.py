"""What a worker thread does with one video: ask the sources in order, cut, verify, record.

A clip's way: download to the thread's own folder, cut there, verify, flush, rename into `clips/`,
then the ledger's commit.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from storage.errors import PipelineError
from storage.fetch.clip_rows import ClipRow, after_failure, after_success, is_due
from storage.fetch.cut import SILENT_BELOW_DBFS, CutError, WavFacts, cut_clip
from storage.fetch.failures import LOCAL_ERRORS, Failure, Kind
from storage.fetch.gate import Gate, Session
from storage.fetch.reconcile import condemned, reopening
from storage.fetch.sources import NOT_THERE, Answer, Found, VideoFacts
from storage.fetch.youtube import AudioSource, Downloader
from storage.records.clip import Clip

# Which failure is told when several sources failed: the one that leaves most hope.
HOPE = ("retry", "extractor", "unconfirmed", "credentials", "geo", "invalid")


@dataclass(frozen=True)
class ClipWorker:
    """Everything that the threads of a run share."""

    session: Session
    sources: Sequence[AudioSource]
    """Asked in this order."""
    gate: Gate
    """Before each paced source."""
    on_clip: Callable[[ClipRow], None]
    """Told each clip's new row."""

    def fetch_video(self, clips: Sequence[Clip]) -> None:
        """Fetch clips of one video that are due; each ends in the ledger, unless stopped.

        Raises:
            PipelineError: On what stops the run: refusal for good, a full disk, an old yt-dlp.
        """
        if self.session.stop.is_set():
            return
        folder = self.session.layout.downloads / f"worker-{threading.get_ident()}"
        folder.mkdir(exist_ok=True)
        now_s, began_s = time.time(), time.monotonic()
        rows = {row.clip_id: row for row in self.session.ledger.rows(clips)}
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
        drop_silent = self.session.config.drop_silent
        return is_due(row, now_s) or bool(reopening(row, [source], drop_silent=drop_silent))

    def _ask(
        self, source: AudioSource, rows: Sequence[ClipRow], folder: Path, began_s: float
    ) -> dict[str, Failure] | None:
        """Record what a source serves; why not the rest, or None if stopped or refused."""
        clips = [row.clip for row in rows]
        try:
            is_paced = isinstance(source, Downloader)
            answers = self.gate.ask(source, clips, folder) if is_paced else source.find(clips)
            if not answers:
                return None
            # One download for all of them.
            files = (answer for answer in answers.values() if not isinstance(answer, Failure))
            media = next((found[0].media for found in files), None)
            outcomes = {
                row.clip_id: self._cut(source, row, answers[row.clip_id], folder) for row in rows
            }
            done = [row for row in outcomes.values() if isinstance(row, ClipRow)]
            if media and self.session.config.keep_media and done:  # once done, none asks for it
                name = f"{media.facts.video_id}{media.path.suffix}"
                media.path.replace(self.session.layout.media / name)
            for row in done:
                self._record(row, began_s, media.facts if media else None)
            return {
                name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Failure)
            }
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
        target = self.session.layout.clips / row.clip.file_name
        try:
            facts = self._cut_one(source, row, found, cut)
            if facts.is_silent and self.session.config.drop_silent:
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
        versions = self.session.versions
        return after_success(
            row, facts, source.name, found.media, now_s=time.time(), versions=versions
        )

    def _cut_one(self, source: AudioSource, row: ClipRow, found: Found, cut: Path) -> WavFacts:
        """Cut, and hold YouTube's download against the length that it announced.

        One file, whole, that ends early in the same way a second time is as long as it is.
        """
        media = found.media if source.is_youtube else None
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
        waits_s = self.session.config.retry_waits_s
        return after_failure(row, failure, now_s=time.time(), waits_s=waits_s)

    def _record(self, row: ClipRow, began_s: float, video: VideoFacts | None = None) -> None:
        seconds = time.monotonic() - began_s
        self.session.ledger.write([row], run=self.session.run, seconds=seconds, video=video)
        self.on_clip(row)


def _hopeful(first: Failure | None, second: Failure) -> Failure:
    """The failure to tell of two; `not there` of a folder says less than any other."""
    if first is None or first.reason == NOT_THERE:
        return second
    if second.reason == NOT_THERE:
        return first
    # A file that is no medium, a picture or a description, says less than an answer.
    return min(first, second, key=lambda told: (HOPE.index(told.kind), told.reason == "not-media"))


def _cut_failure(source: AudioSource, error: CutError) -> Failure:
    """YouTube's own files are sound: one that ffmpeg cannot read was broken on the way."""
    is_broken = source.is_youtube and error.reason in {"not-media", "truncated"}
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
