"""Fetching clips: worker threads over a batch, every outcome in the ledger.

One run at a time in a workspace: who starts one holds its lock (flows/fetch.py). A kill after a
clip's rename leaves a good wav without a row, which the next start adopts.
"""

import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Self

from storage.config import FetchConfig, FolderSource, HuggingFaceSource, YoutubeSource
from storage.errors import BLOCKED_EXIT_CODE, PipelineError
from storage.fetch.avqa_hub import LaidOut, lay_out
from storage.fetch.cut import num_samples_of
from storage.fetch.failures import Failure
from storage.fetch.gate import Breaker, Gate, Pace, Session
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.reconcile import condemn_damaged, list_due
from storage.fetch.requirements import check_tools, tool_versions
from storage.fetch.sources import FolderAudio
from storage.fetch.worker import ClipWorker
from storage.fetch.youtube import AudioSource, Downloader
from storage.host.checks import GB, free_bytes
from storage.layout import Layout
from storage.records.clip import Clip
from storage.records.example import Example

MIN_FREE_BYTES = 128 << 20  # for the downloads in flight and SQLite's log
LAST_WORDS_S = 2.0  # for workers to break off and record; a stalled download takes half a minute


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to do."""

    batches: tuple[tuple[Clip, ...], ...]
    """Clips that are due now, those of one video together."""
    num_due: int
    """Clips in all batches."""
    eta_s: float | None
    """Seconds that their videos take at the budget; None without one."""
    num_reopened: int = 0
    """Losses among those due that a changed source or setting may serve."""
    reopened_by: tuple[str, ...] = ()
    """The sources that may."""


class FetchRun:
    """One run over a workspace; in its context `plan`, then `fetch_batch` for each batch."""

    def __init__(
        self,
        config: FetchConfig,
        layout: Layout,
        *,
        resume_command: str,
        rows: Sequence[Example] = (),
        on_clip: Callable[[ClipRow], None] = lambda _row: None,
        on_pause: Callable[[Failure, float], None] = lambda _refusal, _seconds: None,
    ) -> None:
        """Take the settings; nothing is opened yet.

        Args:
            config: Sources, clip length, pace.
            layout: Where the ledger and the clips lie.
            resume_command: What to type to go on after a block.
            rows: The annotations, by which rows of a Hugging Face source are known.
            on_clip: Told each clip's new row, from the worker threads.
            on_pause: Told the refusal and the seconds when all workers pause.
        """
        self.config = config
        self.layout = replace(layout, clip_length_s=config.clip_length_s)
        self.stop_event = threading.Event()
        self.pace = Pace(config.videos_per_hour)
        self.laid_out: list[LaidOut] = []
        self._resume_command = resume_command
        self._rows = rows
        self._on_clip = on_clip
        self._on_pause = on_pause

    def __enter__(self) -> Self:
        """Check the tools, open ledger and sources; PipelineError if one is missing."""
        check_tools(self.config)
        self.layout.clips.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            ledger = Ledger(self.layout.ledger, clip_length_s=self.config.clip_length_s)
            self.ledger = stack.enter_context(ledger)
            stack.callback(shutil.rmtree, self.layout.downloads, ignore_errors=True)
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close the run's row, remove temporary files."""
        with self._stack:
            if isinstance(error, PipelineError) and error.exit_code == BLOCKED_EXIT_CODE:
                outcome = "blocked"
            elif error is not None:
                outcome = "failed"
            else:
                outcome = "stopped" if self.stop_event.is_set() else "finished"
            self.ledger.end_run(self.run, outcome)

    def plan(self, clips: Sequence[Clip], *, deep: bool = False) -> Plan:
        """Register all clips, bring ledger and folder to agree, and cut what is due into batches.

        `deep` also compares the sha256 of each wav.

        Raises:
            PipelineError: If the disk has no room for what is due, or cannot tell names apart.
        """
        self._check_names(clips)
        self.ledger.add(clips)
        folder = self.layout.clips
        if deep:
            condemn_damaged(self.ledger, clips, folder)
        drop_silent = self.config.drop_silent
        found = list_due(self.ledger, clips, folder, self._sources, drop_silent=drop_silent)
        adopted = {row.clip: row for row in found.mended if row.state == "done"}
        self.ledger.write(list(adopted.values()), run=self.run)
        self.ledger.write([row for row in found.mended if row.clip not in adopted])
        due = [clip for clip in found.clips if clip not in adopted]
        self._check_disk(len(due))
        return Plan(
            _batches(due, self.config.batch_size),
            len(due),
            self.pace.eta_s(len({clip.video_id for clip in due})),
            num_reopened=found.num_reopened,
            reopened_by=found.reopened_by,
        )

    def fetch_batch(self, batch: Sequence[Clip]) -> None:
        """Fetch and cut a batch; each clip ends in the ledger as done, or with the reason why not.

        Raises:
            PipelineError: If YouTube refuses us for good (exit code 75), the disk is full, or
                yt-dlp is out of date.
        """
        self._check_disk(len(batch))
        self._fetch_videos(batch)
        # Those for which we were refused, once more after all the others.
        rows = self.ledger.rows(batch)
        self._fetch_videos([row.clip for row in rows if row.state == "pending"])

    def _fetch_videos(self, clips: Sequence[Clip]) -> None:
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="fetch")
        futures = [pool.submit(self._worker.fetch_video, clips) for clips in _by_video(clips)]
        try:
            for future in as_completed(futures):
                future.result()
        finally:
            # After an error or a signal the other workers may be in a pause of hours, or wait for a
            # server that says nothing: what they have is recorded, and nobody waits for more.
            if not all(future.done() for future in futures):
                self.stop_event.set()
            pool.shutdown(wait=False, cancel_futures=True)
            wait(futures, LAST_WORDS_S)

    def _open(self) -> None:
        # What a killed run left: downloads and cuts in flight.
        shutil.rmtree(self.layout.downloads, ignore_errors=True)
        self.layout.downloads.mkdir(parents=True)
        for source in self.config.sources:
            if isinstance(source, HuggingFaceSource):
                folder = self.layout.dataset(source.dataset, source.split)
                self.laid_out.append(lay_out(source, self._rows, folder))
        if self.config.keep_media:
            self.layout.media.mkdir(exist_ok=True)
        self._sources = open_sources(self.config, self.layout, self.stop_event)
        for source in self._sources:
            if isinstance(source, Downloader):
                source.check(self.layout.downloads)
        self.versions = tool_versions()
        self.run = self.ledger.begin_run(
            config=self.config.model_dump_json(exclude={"sources": {"__all__": {"ytdlp"}}}),
            versions=self.versions,
        )
        session = Session(
            self.config, self.layout, self.ledger, self.run, self.versions, self.stop_event
        )
        breaker = Breaker(self.config.block_waits_s, self._on_pause)
        gate = Gate(session, self.pace, breaker, self._resume_command)
        self._worker = ClipWorker(session, self._sources, gate, self._on_clip)

    def _check_disk(self, num_clips: int) -> None:
        needed = num_clips * 2 * num_samples_of(self.config.clip_length_s) + MIN_FREE_BYTES
        free = free_bytes(self.layout.workspace)
        if free < needed:
            msg = (
                f"{self.layout.workspace} has {free / GB:.1f} GB free; {num_clips} clips need "
                f"{needed / GB:.1f} GB. Free some space or name another folder: --workspace DIR"
            )
            raise PipelineError(msg)

    def _check_names(self, clips: Sequence[Clip]) -> None:
        """YouTube's ids are case-sensitive; on some file systems two of them would be one file."""
        ledger = self.layout.ledger
        if not ledger.with_name(ledger.name.upper()).exists():
            return
        by_name: dict[str, Clip] = {}
        for clip in clips:
            other = by_name.setdefault(clip.file_name.casefold(), clip)
            if other != clip:
                msg = (
                    f"{self.layout.workspace} lies on a file system that ignores case, where "
                    f"{other.file_name} and {clip.file_name} are one file: use another --workspace"
                )
                raise PipelineError(msg)


def open_sources(
    config: FetchConfig, layout: Layout, stop: threading.Event | None = None
) -> list[AudioSource]:
    """The sources of a run, kept downloads first; nobody is asked, and nothing is written."""
    length_s = config.clip_length_s
    kept = FolderAudio(layout.media, name="kept", clip_length_s=length_s)
    opened: list[AudioSource] = [kept] if layout.media.is_dir() else []
    for source in config.sources:
        match source:
            case YoutubeSource():
                cache_dir = layout.ytdlp_cache
                opened.append(Downloader(source, config, cache_dir, stop or threading.Event()))
            case FolderSource():
                if not source.path.is_dir():
                    msg = (
                        f"fetch.sources: folder {source.path} is missing; name the one that holds "
                        "the media files"
                    )
                    raise PipelineError(msg)
                opened.append(FolderAudio(source.path, clip_length_s=length_s))
            case HuggingFaceSource():
                folder = layout.dataset(source.dataset, source.split)
                opened.append(FolderAudio(folder, name="huggingface", clip_length_s=length_s))
    return opened


def _by_video(clips: Iterable[Clip]) -> list[list[Clip]]:
    videos: dict[str, list[Clip]] = {}
    for clip in clips:
        videos.setdefault(clip.video_id, []).append(clip)
    return list(videos.values())


def _batches(clips: Iterable[Clip], batch_size: int) -> tuple[tuple[Clip, ...], ...]:
    """Batches of about that size, the clips of one video together: one download serves them."""
    batches: list[list[Clip]] = [[]]
    for video in _by_video(clips):
        if batches[-1] and len(batches[-1]) + len(video) > batch_size:
            batches.append([])
        batches[-1] += video
    return tuple(tuple(batch) for batch in batches if batch)
