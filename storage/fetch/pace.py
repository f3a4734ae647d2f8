"""How fast, and when not at all: the budget of videos an hour and the circuit breaker.

Both are shared by all workers of a process. YouTube allows a guest about 300 videos an hour and
answers excess with refusals that last an hour (rate limit) to days (bot check); asking on prolongs
them. So the budget is spaced evenly with jitter, and at the first refusal every worker waits.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from storage.errors import BLOCKED_EXIT_CODE, PipelineError
from storage.fetch.failures import Failure

JITTER = 0.3  # each gap is 70% to 130% of the mean
RATE_LIMIT_WAIT_S = 3900.0  # YouTube says `up to an hour`
SHORTEST_WAIT_S = 1.0  # between two refusals of a mirror
LONGEST_NAP_S = 0.5  # how soon a stop is seen during a wait


@dataclass
class Pace:
    """An even budget of videos an hour; without a budget it never waits."""

    videos_per_hour: float | None
    """None: no limit."""
    seed: int = 0
    """Seed of the jitter."""
    _next_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Start the jitter's generator."""
        self._random = random.Random(self.seed)  # noqa: S311  jitter, not a secret

    def wait(self, stop: threading.Event) -> None:
        """Wait for this worker's turn, or for the stop."""
        if self.videos_per_hour is None:
            return
        gap_s = 3600 / self.videos_per_hour * self._random.uniform(1 - JITTER, 1 + JITTER)
        with self._lock:
            turn_s = max(self._next_s, time.monotonic())
            self._next_s = turn_s + gap_s
        stop.wait(max(0.0, turn_s - time.monotonic()))

    def eta_s(self, num_videos: int) -> float | None:
        """Seconds that so many videos take at this budget; None without one."""
        return None if self.videos_per_hour is None else num_videos * 3600 / self.videos_per_hour


class Breaker:
    """Stops all workers while YouTube refuses this address; afterwards one tries first.

    Each refusal after a wait waits longer; when the waits are used up it stops the run with exit
    code 75.
    """

    def __init__(
        self,
        waits_s: Sequence[float],
        *,
        resume_command: str,
        account: Callable[[], str] = str,
        on_pause: Callable[[Failure, float], None] | None = None,
    ) -> None:
        """Take the settings.

        Args:
            waits_s: The growing waits; none: stop at the first refusal.
            resume_command: What to type to go on after the last of them.
            account: Says what the run has counted as lost, when it is over.
            on_pause: Told the refusal and the seconds of each pause.
        """
        self._waits_s = tuple(waits_s)
        self._resume_command = resume_command
        self._account = account
        self._on_pause = on_pause
        self._changed = threading.Condition()
        self._open_until_s: float | None = None
        self._prober: int | None = None
        self._trips: list[tuple[float, Failure]] = []
        self._fatal: PipelineError | None = None

    def admit(self, stop: threading.Event) -> float:
        """Wait while the breaker is open; after the wait one worker goes first, alone.

        Returns:
            The monotonic time of admission, for `trip`.

        Raises:
            PipelineError: If the run is over (exit code 75).
        """
        with self._changed:
            while not stop.is_set():
                if self._fatal is not None:
                    raise self._fatal
                if self._open_until_s is None:
                    break
                left_s = self._open_until_s - time.monotonic()
                if left_s <= 0 and self._prober in {None, threading.get_ident()}:
                    self._prober = threading.get_ident()
                    break
                self._changed.wait(min(LONGEST_NAP_S, left_s) if left_s > 0 else LONGEST_NAP_S)
        return time.monotonic()

    def close(self, *, admitted_s: float) -> None:
        """A video was answered: all workers go on, and the waits begin anew at the next refusal.

        An answer to a request from before the refusal says nothing.
        """
        with self._changed:
            if self._is_older_than_refusal(admitted_s):
                return
            self._open_until_s = None
            self._prober = None
            self._trips.clear()
            self._changed.notify_all()

    def trip(self, failure: Failure, *, admitted_s: float) -> None:
        """Pause all workers; a refusal of a request that began before the last one counts with it.

        Raises:
            PipelineError: If all waits are used up.
        """
        with self._changed:
            if self._is_older_than_refusal(admitted_s):
                return
            self._prober = None
            self._trips.append((time.monotonic(), failure))
            if len(self._trips) > len(self._waits_s):
                self._fatal = self._stopped(failure)
                self._changed.notify_all()
                raise self._fatal
            wait_s = self._waits_s[len(self._trips) - 1]
            if failure.reason == "rate-limit" and len(self._trips) == 1:
                wait_s = min(max(wait_s, RATE_LIMIT_WAIT_S), max(self._waits_s))
            wait_s = _asked_for_s(failure, wait_s)
            self._open_until_s = time.monotonic() + wait_s
            self._changed.notify_all()
        if self._on_pause is not None:
            self._on_pause(failure, wait_s)

    def give_way(self) -> None:
        """The worker that went first learnt nothing, as the wire failed: let another try."""
        with self._changed:
            if self._prober == threading.get_ident():
                self._prober = None
                self._changed.notify_all()

    def _is_older_than_refusal(self, admitted_s: float) -> bool:
        return bool(self._trips) and admitted_s < self._trips[-1][0]

    def _stopped(self, failure: Failure) -> PipelineError:
        who = "YouTube" if failure.is_youtube else "the source"
        remedy = "Wait some hours, or use another address (`ytdlp: {proxy: URL}` in fetch.sources)"
        msg = (
            f"{who} refuses this address ({failure.reason}: {failure.message}). "
            f"{self._account()} {remedy}, then go on with:\n  {self._resume_command}"
        )
        return PipelineError(msg, exit_code=BLOCKED_EXIT_CODE)


def _asked_for_s(failure: Failure, wait_s: float) -> float:
    """A mirror's Retry-After is what it means; YouTube's may only prolong the wait."""
    if failure.retry_after_s is None:
        return wait_s
    return max(failure.retry_after_s, wait_s if failure.is_youtube else SHORTEST_WAIT_S)
