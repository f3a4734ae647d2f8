"""The gate to a paced source: how fast it is asked, and what its answers say about us.

YouTube allows a guest about 300 videos an hour and answers excess with refusals that last an hour
(rate limit) to days (bot check); asking on prolongs them. So the budget is spaced evenly with
jitter, and at the first refusal every worker waits.

Only answers about the clip (gone, private) pass. After a refusal the video is asked for again after
the others, so that one that is always refused holds up nothing. Faults of yt-dlp stop the run.

YouTube also hides videos from an address that it distrusts, with the same words as for a video that
is gone. So an ambiguous answer, and every twentieth loss in a row, is held against a canary: a
video that is known to be there.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from storage.config import FetchConfig
from storage.errors import BLOCKED_EXIT_CODE, PipelineError
from storage.fetch.clip_rows import EXTRACTOR_WAIT_S, LOST
from storage.fetch.failures import Failure
from storage.fetch.ledger import Ledger
from storage.fetch.sources import Answer
from storage.fetch.youtube import Downloader
from storage.layout import Layout
from storage.records.clip import Clip

JITTER = 0.3  # each gap is 70% to 130% of the mean
RATE_LIMIT_WAIT_S = 3900.0  # YouTube says `up to an hour`
LONGEST_NAP_S = 3600.0  # a server may ask for more seconds than a wait can take
SHORTEST_WAIT_S = 1.0  # between two refusals of a mirror
MAX_EXTRACTOR_FAULTS = 5  # in a row: yt-dlp or its JS runtime no longer understands YouTube
# At the 20% of losses that VGG-Sound's users report, chance makes such a row once in 10^14 videos.
MAX_LOSSES = 20
ALIKE = {"invalid": "loss", "unconfirmed": "loss", "extractor": "extractor"}  # counted in a row
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


@dataclass
class Breaker:
    """Stops all workers while a source refuses this address, longer each time till it answers."""

    waits_s: Sequence[float]
    """The growing waits."""
    on_pause: Callable[[Failure, float], None] = lambda _refusal, _seconds: None
    """Told the refusal and the seconds of each."""
    _open_until_s: float = 0.0
    _tripped_s: float = -math.inf
    _num_trips: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, stop: threading.Event) -> float:
        """Wait while it is open, or for the stop; gives the monotonic time of admission."""
        while not stop.is_set() and time.monotonic() < self._open_until_s:
            stop.wait(min(self._open_until_s - time.monotonic(), LONGEST_NAP_S))
        return time.monotonic()

    def close(self, *, admitted_s: float) -> None:
        """A video was answered that was asked for after the refusal: the waits begin anew."""
        with self._lock:
            if admitted_s >= self._tripped_s:
                self._num_trips = 0

    def trip(self, failure: Failure, *, admitted_s: float) -> bool:
        """Pause all workers; False if no wait is left, and the run is over.

        A refusal of a request that began before the last one counts with it.
        """
        with self._lock:
            if admitted_s < self._tripped_s:
                return True
            self._tripped_s = time.monotonic()
            self._num_trips += 1
            if self._num_trips > len(self.waits_s):
                return False
            wait_s = self._wait_s(failure)
            self._open_until_s = self._tripped_s + wait_s
        self.on_pause(failure, wait_s)
        return True

    def _wait_s(self, failure: Failure) -> float:
        wait_s = self.waits_s[self._num_trips - 1]
        if failure.reason == "rate-limit" and self._num_trips == 1:
            wait_s = min(max(wait_s, RATE_LIMIT_WAIT_S), max(self.waits_s))
        if failure.retry_after_s is None:
            return wait_s
        # A mirror's Retry-After is what it means; YouTube's may only prolong the wait.
        return max(failure.retry_after_s, wait_s if failure.is_youtube else SHORTEST_WAIT_S)


@dataclass(frozen=True)
class Session:
    """What all parts of a run share."""

    config: FetchConfig
    layout: Layout
    ledger: Ledger
    run: int
    """Its number in the ledger."""
    versions: Mapping[str, str]
    """Of the tools."""
    stop: threading.Event
    """Set when it is to end."""


@dataclass
class Gate:
    """What the workers of a run share about how the source answers."""

    session: Session
    pace: Pace
    breaker: Breaker
    resume_command: str
    """What to type to go on after the last refusal."""
    _alike: str = ""
    _num_alike: int = 0
    """Answers of that sort in a row."""
    _num_broken: int = 0
    """Downloads in a row that broke."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, downloader: Downloader, clips: Sequence[Clip], folder: Path) -> dict[str, Answer]:
        """Ask for one video when it is its turn; nothing if stopped, or if the source refused us.

        Raises:
            PipelineError: If it refuses us for good (exit code 75) or yt-dlp is out of date.
        """
        session = self.session
        self.breaker.admit(session.stop)
        self.pace.wait(session.stop)  # behind it, so that not all workers ask at a pause's end
        admitted_s = self.breaker.admit(session.stop)
        if session.stop.is_set():
            return {}
        found = downloader.find(clips, folder)
        # The same for all its clips.
        failure = next((each for each in found.values() if isinstance(each, Failure)), None)
        if failure is not None and failure.reason == "stopped":
            return {}
        refusal = failure
        if failure is not None and failure.kind in {"retry", "local"}:
            # The wire or the disk failed: nothing about the video, nor, once, about us.
            refusal = self._broken_wire(downloader, failure)
            if refusal is None:
                return found
        elif failure is None or failure.kind not in {"blocked", "network"}:
            with self._lock:
                self._num_broken = 0
            refusal = self._hidden(downloader, failure, folder)
        if refusal is not None:
            session.ledger.note_refusal(clips, run=session.run, failure=refusal)
            if refusal.kind == "network" or not self.breaker.trip(refusal, admitted_s=admitted_s):
                raise self._stopped(refusal)
            return {}
        self.breaker.close(admitted_s=admitted_s)
        canary = session.config.canary_video_id
        if canary is None or failure is None or failure.kind != "unconfirmed":
            return found
        # An ambiguous loss is believed at once if the settings name a canary and it is there.
        is_there = self._probe(downloader, canary, folder) is None
        return dict.fromkeys(found, replace(failure, kind="invalid")) if is_there else found

    def _broken_wire(self, downloader: Downloader, failure: Failure) -> Failure | None:
        """A refusal, if so many downloads in a row broke that it is not for the videos' sake."""
        with self._lock:
            self._num_broken += 1
            num_broken = self._num_broken
        if not downloader.is_youtube or failure.kind == "local" or num_broken < MAX_LOSSES:
            return None
        message = f"{num_broken} downloads in a row broke: {failure.message}"
        return Failure("blocked", "broken-wire", message)

    def _hidden(
        self, downloader: Downloader, failure: Failure | None, folder: Path
    ) -> Failure | None:
        """The refusal that many losses in a row are, if the canaries are lost with them.

        Faults of yt-dlp in a row end the run.
        """
        alike = ALIKE.get(failure.kind, "") if failure else ""
        with self._lock:
            self._num_alike = self._num_alike + 1 if alike == self._alike else 1
            self._alike, num_alike = alike, self._num_alike
        if failure and alike == "extractor" and num_alike >= MAX_EXTRACTOR_FAULTS:
            raise self._extractor_stop(num_alike, failure)
        if not downloader.is_youtube or alike != "loss" or num_alike < MAX_LOSSES:
            return None
        named = self.session.config.canary_video_id
        known = self.session.ledger.last_done_videos("youtube", NUM_CANARIES)
        for video_id in [named] if named else known:
            answer = self._probe(downloader, video_id, folder)
            if answer is None:
                with self._lock:
                    self._num_alike = 0
                return None
            if answer.kind in {"blocked", "network"}:
                return answer
            if answer.kind == "extractor":
                raise self._extractor_stop(num_alike, answer)
        # They were told of videos that are there: none of them is to be believed.
        self.session.ledger.take_back(self.session.run, LOST, next_try=time.time())
        canaries = named or ", ".join(known) or "none has come yet; set fetch.canary_video_id"
        message = (
            f"{num_alike} videos in a row are unavailable, and so are those known to exist "
            f"({canaries})"
        )
        return Failure("blocked", "canary", message)

    def _probe(self, downloader: Downloader, video_id: str, folder: Path) -> Failure | None:
        self.pace.wait(self.session.stop)
        return downloader.probe(video_id, folder)

    def _extractor_stop(self, num_faults: int, answer: Failure) -> PipelineError:
        """The end of a run that YouTube gives no formats; what it lost meanwhile was no loss."""
        ledger, run = self.session.ledger, self.session.run
        next_try = time.time() + EXTRACTOR_WAIT_S
        num_back = ledger.take_back(run, (*LOST, "unconfirmed"), next_try=next_try)
        back = f" {num_back} losses since the last video that came are tried again."
        msg = (
            f"{num_faults} videos in a row gave no formats ({answer.reason}: {answer.message}): "
            f"yt-dlp {self.session.versions['yt-dlp']}, its JS runtime or this session no longer "
            f"gets on with YouTube. {self._account()}{back * bool(num_back)} Update yt-dlp, deno "
            "and yt-dlp-ejs (pip install -U yt-dlp yt-dlp-ejs deno), then run the same command "
            "again"
        )
        return PipelineError(msg)

    def _stopped(self, refusal: Failure) -> PipelineError:
        """The end of a run by what the source, or the network before it, says of us."""
        if refusal.kind == "network":
            msg = (
                f"this network or account hides videos (YouTube says: {refusal.message}). "
                f"{self._account()} Use a network without YouTube's Restricted Mode, a proxy or "
                "another account (`ytdlp` in fetch.sources), then run the same command again"
            )
            return PipelineError(msg)
        who = "YouTube" if refusal.is_youtube else "the source"
        remedy = "Wait some hours, or use another address (`ytdlp: {proxy: URL}` in fetch.sources)"
        msg = (
            f"{who} refuses this address ({refusal.reason}: {refusal.message}). "
            f"{self._account()} {remedy}, then go on with:\n  {self.resume_command}"
        )
        return PipelineError(msg, exit_code=BLOCKED_EXIT_CODE)

    def _account(self) -> str:
        losses = self.session.ledger.losses(self.session.run)
        if not losses:
            return "No clip was counted as lost."
        parts = ", ".join(f"{reason} {count:,}" for reason, count in losses.most_common())
        return f"This run counted {losses.total():,} clips as lost: {parts}."
