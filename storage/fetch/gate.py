"""The gate to a paced source: how fast it is asked, and what its answers say about us.

YouTube allows a guest about 300 videos an hour and answers excess with refusals that last an hour
(rate limit) to days (bot check); asking on prolongs them. So the budget is spaced evenly with
jitter, and at the first refusal every worker waits.

An answer may be about the clip (gone, private), about this address (refused), or about yt-dlp (out
of date). Only the first kind passes. After a refusal the video is asked for again after the others,
so that one that is always refused holds up nothing. Faults of yt-dlp in a row stop the run.

YouTube also hides videos from an address that it distrusts, with the same words as for a video that
is gone. So an ambiguous answer, and every twentieth loss in a row, is held against a canary: a
video that is known to be there.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from storage.errors import BLOCKED_EXIT_CODE, PipelineError
from storage.fetch.clip_rows import LOST
from storage.fetch.failures import Failure
from storage.fetch.ledger import Ledger
from storage.fetch.retries import EXTRACTOR_WAIT_S
from storage.fetch.sources import Answer
from storage.fetch.youtube import Downloader
from storage.records.clip import Clip

JITTER = 0.3  # each gap is 70% to 130% of the mean
RATE_LIMIT_WAIT_S = 3900.0  # YouTube says `up to an hour`
SHORTEST_WAIT_S = 1.0  # between two refusals of a mirror
MAX_EXTRACTOR_FAULTS = 5  # in a row: yt-dlp or its JS runtime no longer understands YouTube
# At the 20% of losses that VGG-Sound's users report, chance makes such a row once in 10^14 videos.
MAX_LOSSES = 20
NUM_CANARIES = 3  # a video that came last week may itself be gone by now


@dataclass
class Pace:
    """An even budget of videos an hour, shared by all workers; without one it never waits."""

    videos_per_hour: float | None
    _next_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, stop: threading.Event) -> None:
        """Wait for this worker's turn, or for the stop."""
        if self.videos_per_hour is None:
            return
        jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  not a secret
        with self._lock:
            turn_s = max(self._next_s, time.monotonic())
            self._next_s = turn_s + 3600 / self.videos_per_hour * jitter
        stop.wait(max(0.0, turn_s - time.monotonic()))

    def eta_s(self, num_videos: int) -> float | None:
        """Seconds that so many videos take at this budget; None without one."""
        return None if self.videos_per_hour is None else num_videos * 3600 / self.videos_per_hour


class Breaker:
    """Stops all workers while a source refuses this address.

    Each refusal after a wait waits longer, until a video is answered.
    """

    def __init__(
        self, waits_s: Sequence[float], on_pause: Callable[[Failure, float], None] | None = None
    ) -> None:
        """Take the growing waits, and who is told the refusal and the seconds of each."""
        self._waits_s = tuple(waits_s)
        self._on_pause = on_pause
        self._lock = threading.Lock()
        self._open_until_s = 0.0
        self._tripped_s = -math.inf
        self._num_trips = 0

    def admit(self, stop: threading.Event) -> float:
        """Wait while the breaker is open, or for the stop.

        Returns:
            The monotonic time of admission, for `trip` and `close`.
        """
        while (left_s := self._open_until_s - time.monotonic()) > 0 and not stop.wait(left_s):
            pass
        return time.monotonic()

    def close(self, *, admitted_s: float) -> None:
        """A video was answered: the waits begin anew at the next refusal.

        An answer to a request from before the refusal says nothing.
        """
        with self._lock:
            if admitted_s >= self._tripped_s:
                self._num_trips = 0

    def trip(self, failure: Failure, *, admitted_s: float) -> bool:
        """Pause all workers; a refusal of a request that began before the last one counts with it.

        Returns:
            Whether there was a wait left; without one, the run is over.
        """
        with self._lock:
            if admitted_s < self._tripped_s:
                return True
            self._tripped_s = time.monotonic()
            self._num_trips += 1
            if self._num_trips > len(self._waits_s):
                return False
            wait_s = self._wait_s(failure)
            self._open_until_s = self._tripped_s + wait_s
        if self._on_pause is not None:
            self._on_pause(failure, wait_s)
        return True

    def _wait_s(self, failure: Failure) -> float:
        wait_s = self._waits_s[self._num_trips - 1]
        if failure.reason == "rate-limit" and self._num_trips == 1:
            wait_s = min(max(wait_s, RATE_LIMIT_WAIT_S), max(self._waits_s))
        if failure.retry_after_s is None:
            return wait_s
        # A mirror's Retry-After is what it means; YouTube's may only prolong the wait.
        return max(failure.retry_after_s, wait_s if failure.is_youtube else SHORTEST_WAIT_S)


@dataclass
class Gate:
    """What the workers of a run share about how the source answers."""

    pace: Pace
    breaker: Breaker
    stop: threading.Event
    """Set when the run is to end."""
    ledger: Ledger
    """Where refusals are noted, and where canaries come from."""
    run: int
    """The run's number in the ledger."""
    canary_video_id: str | None
    """The canary that the settings name."""
    ytdlp_version: str
    """For the message when it is out of date."""
    resume_command: str
    """What to type to go on after the last refusal."""
    _extractor_faults: int = 0
    _losses: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, downloader: Downloader, clips: Sequence[Clip], folder: Path) -> dict[str, Answer]:
        """Ask for one video when it is its turn.

        Args:
            downloader: The source.
            clips: Clips of one video.
            folder: The calling thread's own.

        Returns:
            By clip id; nothing if the run was stopped or the source refused us.

        Raises:
            PipelineError: If the source refuses us for good (exit code 75) or yt-dlp is out of
                date.
        """
        self.pace.wait(self.stop)
        admitted_s = self.breaker.admit(self.stop)
        if self.stop.is_set():
            return {}
        found = downloader.find(clips, folder)
        # The same for all its clips.
        failure = next((each for each in found.values() if isinstance(each, Failure)), None)
        if failure is not None and failure.reason == "stopped":
            return {}
        if failure is not None and failure.kind in {"retry", "local"}:
            return found  # the wire or the disk failed: nothing about how the source stands to us
        refusal = self._refusal(downloader, failure, folder)
        if refusal is not None:
            self.ledger.note_refusal(clips, run=self.run, failure=refusal)
            if refusal.kind == "network":
                raise self._network_stop(refusal)
            if not self.breaker.trip(refusal, admitted_s=admitted_s):
                raise self._refused(refusal)
            return {}
        self.breaker.close(admitted_s=admitted_s)
        self._count_extractor_faults(failure)
        if failure is None or failure.kind != "unconfirmed":
            return found
        return dict.fromkeys(found, self._confirmed(failure, downloader, folder))

    def _refusal(
        self, downloader: Downloader, failure: Failure | None, folder: Path
    ) -> Failure | None:
        """The answer if it is about us, or if so many were lost that they may be hidden from us."""
        if failure is not None and failure.kind in {"blocked", "network"}:
            return failure
        is_loss = failure is not None and failure.kind in {"invalid", "unconfirmed"}
        with self._lock:
            self._losses = self._losses + 1 if is_loss else 0
            if not downloader.is_youtube or self._losses < MAX_LOSSES:
                return None
        return self._ask_canaries(downloader, folder)

    def _ask_canaries(self, downloader: Downloader, folder: Path) -> Failure | None:
        """None if one of the canaries is there; else the refusal that this is taken for."""
        known = self.ledger.last_done_videos("youtube", NUM_CANARIES)
        canaries = [self.canary_video_id] if self.canary_video_id else known
        for video_id in canaries:
            self.pace.wait(self.stop)
            failure = downloader.probe(video_id, folder)
            if failure is None:
                with self._lock:
                    self._losses = 0
                return None
            if failure.kind in {"blocked", "network"}:
                return failure
            if failure.kind == "extractor":
                raise self._extractor_stop(self._losses, failure)
        # They were told of videos that are there: none of them is to be believed.
        self.ledger.take_back(self.run, LOST, next_try=time.time())
        message = (
            f"{self._losses} videos in a row are unavailable, and so are those known to exist "
            f"({', '.join(canaries) or 'none has come yet; set fetch.canary_video_id'})"
        )
        return Failure("blocked", "canary", message)

    def _confirmed(self, failure: Failure, downloader: Downloader, folder: Path) -> Failure:
        """An ambiguous loss is believed at once if the settings name a canary and it is there."""
        if self.canary_video_id is None:
            return failure
        self.pace.wait(self.stop)
        is_hidden = downloader.probe(self.canary_video_id, folder) is not None
        return failure if is_hidden else replace(failure, kind="invalid")

    def _count_extractor_faults(self, failure: Failure | None) -> None:
        is_fault = failure is not None and failure.kind == "extractor"
        with self._lock:
            self._extractor_faults = self._extractor_faults + 1 if is_fault else 0
            num_faults = self._extractor_faults
        if failure is not None and num_faults >= MAX_EXTRACTOR_FAULTS:
            raise self._extractor_stop(num_faults, failure)

    def _extractor_stop(self, num_faults: int, answer: Failure) -> PipelineError:
        """The end of a run that YouTube gives no formats; what it lost meanwhile was no loss."""
        next_try = time.time() + EXTRACTOR_WAIT_S
        num_back = self.ledger.take_back(self.run, (*LOST, "unconfirmed"), next_try=next_try)
        back = f" {num_back} losses since the last video that came are tried again."
        msg = (
            f"{num_faults} videos in a row gave no formats ({answer.reason}: {answer.message}): "
            f"yt-dlp {self.ytdlp_version}, its JS runtime or this session no longer gets on with "
            f"YouTube. {self._account()}{back * bool(num_back)} Update yt-dlp, deno and yt-dlp-ejs "
            "(pip install -U yt-dlp yt-dlp-ejs deno), then run the same command again"
        )
        return PipelineError(msg)

    def _network_stop(self, refusal: Failure) -> PipelineError:
        msg = (
            f"this network or account hides videos (YouTube says: {refusal.message}). "
            f"{self._account()} Use a network without YouTube's Restricted Mode, a proxy or "
            "another account (`ytdlp` in fetch.sources), then run the same command again"
        )
        return PipelineError(msg)

    def _refused(self, refusal: Failure) -> PipelineError:
        who = "YouTube" if refusal.is_youtube else "the source"
        remedy = "Wait some hours, or use another address (`ytdlp: {proxy: URL}` in fetch.sources)"
        msg = (
            f"{who} refuses this address ({refusal.reason}: {refusal.message}). "
            f"{self._account()} {remedy}, then go on with:\n  {self.resume_command}"
        )
        return PipelineError(msg, exit_code=BLOCKED_EXIT_CODE)

    def _account(self) -> str:
        """What the run has counted as lost, in a sentence."""
        losses = self.ledger.losses(self.run)
        if not losses:
            return "No clip was counted as lost."
        parts = ", ".join(f"{reason} {count:,}" for reason, count in losses.most_common())
        return f"This run counted {losses.total():,} clips as lost: {parts}."
