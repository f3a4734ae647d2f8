"""The gate to a paced source: one place where answers are read for what they say about us.

An answer may be about the clip (gone, private), about this address (refused), or about yt-dlp (out
of date). Only the first kind passes. After a refusal all workers wait, and the video is asked for
again after the others, so that one that is always refused holds up nothing. Faults of yt-dlp in a
row stop the run.

YouTube also hides videos from an address that it distrusts, with the same words as for a video that
is gone. So an ambiguous answer, and every twentieth loss in a row, is held against a canary: a
video that is known to be there.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeGuard

from storage.errors import PipelineError
from storage.fetch.clip_rows import LOST
from storage.fetch.failures import Failure
from storage.fetch.ledger import Ledger
from storage.fetch.pace import Breaker, Pace
from storage.fetch.retries import EXTRACTOR_WAIT_S
from storage.fetch.sources import Found
from storage.fetch.youtube import Downloader
from storage.records.clip import Clip

MAX_EXTRACTOR_FAULTS = 5  # in a row: yt-dlp or its JS runtime no longer understands YouTube
# At the 20% of losses that VGG-Sound's users report, chance makes such a row once in 10^14 videos.
MAX_LOSSES = 20
NUM_CANARIES = 3  # a video that came last week may itself be gone by now

Find = Callable[[Sequence[Clip], Path], dict[str, Found | Failure]]


@dataclass
class Gate:
    """What the workers of a run share about how the source answers."""

    pace: Pace
    """The budget of videos an hour."""
    breaker: Breaker
    """Pauses all workers."""
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
    _extractor_faults: int = 0
    _losses: int = 0
    _broken_wires: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(
        self, downloader: Downloader, find: Find, clips: Sequence[Clip], folder: Path
    ) -> dict[str, Found | Failure]:
        """Ask for one video when it is its turn.

        Args:
            downloader: The one behind `find`, for canaries.
            find: The source's own.
            clips: Clips of one video.
            folder: The calling thread's own.

        Returns:
            For each clip id the file or why there is none; nothing if the run was stopped or the
            source refused us.

        Raises:
            PipelineError: If the source refuses us for good (exit code 75) or yt-dlp is out of
                date.
        """
        self.pace.wait(self.stop)
        admitted_s = self.breaker.admit(self.stop)
        if self.stop.is_set():
            return {}
        found = find(clips, folder)
        if self.stop.is_set() and _is_interrupted(found):
            return {}
        refusal = self._refusal(downloader, found, folder)
        if refusal is not None:
            for clip in clips:
                self.ledger.note_refusal(clip.clip_id, run=self.run, failure=refusal)
            if refusal.kind == "network":
                raise self._network_stop(refusal)
            self.breaker.trip(refusal, admitted_s=admitted_s)
            return {}
        if not _is_broken(_answer(found)):
            self.breaker.close(admitted_s=admitted_s)
            self._count_extractor_faults(found)
        return self._confirmed(downloader, found, folder)

    def _refusal(
        self, downloader: Downloader, found: dict[str, Found | Failure], folder: Path
    ) -> Failure | None:
        """The answer if it is about us."""
        answer = _answer(found)
        if answer is not None and answer.kind in {"blocked", "network"}:
            return answer
        if _is_broken(answer):
            self.breaker.give_way()
            return self._broken_wire(downloader, answer)
        with self._lock:
            self._broken_wires = 0
        if self._is_suspicious(downloader, answer):
            return self._ask_canaries(downloader, folder)
        return None

    def _broken_wire(self, downloader: Downloader, answer: Failure) -> Failure | None:
        """A refusal if so many failed in a row that it is not for the videos' sake."""
        with self._lock:
            self._broken_wires += 1
            num_broken = self._broken_wires
        if not downloader.is_youtube or num_broken < MAX_LOSSES:
            return None
        message = f"{num_broken} downloads in a row broke: {answer.message}"
        return Failure("blocked", "broken-wire", message)

    def _is_suspicious(self, downloader: Downloader, answer: Failure | None) -> bool:
        """Whether so many videos in a row were lost that they may be hidden from us."""
        is_loss = answer is not None and answer.kind in {"invalid", "unconfirmed"}
        with self._lock:
            self._losses = self._losses + 1 if is_loss else 0
            return downloader.is_youtube and self._losses >= MAX_LOSSES

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

    def _confirmed(
        self, downloader: Downloader, found: dict[str, Found | Failure], folder: Path
    ) -> dict[str, Found | Failure]:
        """An ambiguous loss is believed at once if the settings name a canary and it is there."""
        answer = _answer(found)
        if answer is None or answer.kind != "unconfirmed" or self.canary_video_id is None:
            return found
        self.pace.wait(self.stop)
        if downloader.probe(self.canary_video_id, folder) is not None:
            return found
        return dict.fromkeys(found, replace(answer, kind="invalid"))

    def _count_extractor_faults(self, found: dict[str, Found | Failure]) -> None:
        answer = _answer(found)
        is_fault = answer is not None and answer.kind == "extractor"
        with self._lock:
            self._extractor_faults = self._extractor_faults + 1 if is_fault else 0
            num_faults = self._extractor_faults
        if answer is not None and num_faults >= MAX_EXTRACTOR_FAULTS:
            raise self._extractor_stop(num_faults, answer)

    def _extractor_stop(self, num_faults: int, answer: Failure) -> PipelineError:
        """The end of a run that YouTube gives no formats; what it lost meanwhile was no loss."""
        next_try = time.time() + EXTRACTOR_WAIT_S
        num_back = self.ledger.take_back(self.run, (*LOST, "unconfirmed"), next_try=next_try)
        back = f" {num_back} losses since the last video that came are tried again." * bool(
            num_back
        )
        msg = (
            f"{num_faults} videos in a row gave no formats ({answer.reason}: {answer.message}): "
            f"yt-dlp {self.ytdlp_version}, its JS runtime or this session no longer gets on with "
            f"YouTube. {self.account()}{back} Update yt-dlp, deno and yt-dlp-ejs "
            "(pip install -U yt-dlp yt-dlp-ejs deno), then run the same command again"
        )
        return PipelineError(msg)

    def _network_stop(self, refusal: Failure) -> PipelineError:
        msg = (
            f"this network or account hides videos (YouTube says: {refusal.message}). "
            f"{self.account()} Use a network without YouTube's Restricted Mode, a proxy or another "
            "account (`ytdlp` in fetch.sources), then run the same command again"
        )
        return PipelineError(msg)

    def account(self) -> str:
        """What the run has counted as lost, in a sentence."""
        return account_of(self.ledger.losses(self.run))


def account_of(losses: Counter[str]) -> str:
    """Losses by reason, in a sentence."""
    if not losses:
        return "No clip was counted as lost."
    parts = ", ".join(f"{reason} {count:,}" for reason, count in losses.most_common())
    return f"This run counted {losses.total():,} clips as lost: {parts}."


def _answer(found: dict[str, Found | Failure]) -> Failure | None:
    """What the source said of the video, if not the video itself; the same for all its clips."""
    return next((failure for failure in found.values() if isinstance(failure, Failure)), None)


def _is_broken(answer: Failure | None) -> TypeGuard[Failure]:
    """Whether the wire or the disk failed, which says nothing of how the source stands to us."""
    return answer is not None and answer.kind in {"retry", "local"}


def _is_interrupted(found: dict[str, Found | Failure]) -> bool:
    answer = _answer(found)
    return answer is not None and answer.reason == "stopped"
