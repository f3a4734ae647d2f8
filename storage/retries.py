"""What a try does to a clip's row: pure functions from the old row and the outcome to the new row.

| outcome       | row afterwards                                                                              |
|---------------|---------------------------------------------------------------------------------------------|
| wav           | `done`                                                                                      |
| `retry`       | `retry` until the waits are used up (30 s, 5 min, 1 h, 24 h by default), then `unconfirmed` |
| `unconfirmed` | `unconfirmed` until a second failure a day after the first, then `invalid`                  |
| others        | their own state                                                                             |
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from storage.failures import Failure
from storage.ledger import ClipRow, State
from storage.wav import WavFacts, num_samples_of
from storage.youtube import Media

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Served:
    """A clip that was cut, and where from."""

    facts: WavFacts
    """What the wav holds."""
    source: str
    """Name of the source."""
    media: Media | None
    """The download it came from."""


def is_due(row: ClipRow, now_s: float) -> bool:
    """Whether a clip is to be tried: pending, or its wait is over."""
    if row.state == "pending":
        return True
    return (
        row.state in {"retry", "unconfirmed"} and row.next_try is not None and row.next_try <= now_s
    )


def after_success(
    row: ClipRow, served: Served, *, now_s: float, versions: dict[str, str]
) -> ClipRow:
    """The row of a clip whose wav lies in its place."""
    media = served.media
    return replace(
        _tried(row, now_s),
        state="done",
        reason_code="",
        message="",
        http_status=None,
        next_try=None,
        source=served.source,
        sha256=served.facts.sha256,
        duration_s=served.facts.duration_s,
        peak_dbfs=served.facts.peak_dbfs,
        rms_dbfs=served.facts.rms_dbfs,
        silent=served.facts.is_silent,
        short=served.facts.num_samples < num_samples_of(row.clip_length_s),
        format_id=media.format_id if media else None,
        bitrate_kbps=media.bitrate_kbps if media else None,
        language=media.language if media else None,
        source_duration_s=media.duration_s if media else None,
        source_bytes=media.size_bytes if media else None,
        ytdlp_version=versions["yt-dlp"] if media else "",
        ffmpeg_version=versions["ffmpeg"],
    )


def after_failure(
    row: ClipRow, failure: Failure, *, now_s: float, waits_s: Sequence[float], is_confirmed: bool
) -> ClipRow:
    """The row of a clip that was not had.

    Args:
        row: The row before.
        failure: Of a kind that is a clip's own, so neither `blocked`, `extractor` nor `local`.
        now_s: Seconds since 1970.
        waits_s: Waits before the tries after the first.
        is_confirmed: Whether a canary has just passed: what the source says of this clip is to be believed.
    """
    tried = replace(
        _tried(row, now_s),
        reason_code=failure.reason,
        message=failure.message,
        http_status=failure.http_status,
        next_try=None,
    )
    if failure.kind == "retry":
        if tried.attempts <= len(waits_s):
            wait_s = waits_s[tried.attempts - 1]
            return replace(tried, state="retry", next_try=now_s + wait_s * _jitter(row.clip_id))
        return replace(tried, state="unconfirmed", next_try=now_s + DAY_S)
    if failure.kind == "unconfirmed":
        if is_confirmed or _was_unconfirmed_a_day_ago(row, now_s):
            return replace(tried, state="invalid")
        return replace(tried, state="unconfirmed", next_try=now_s + DAY_S)
    return replace(tried, state=_own_state(failure))


def _own_state(failure: Failure) -> State:
    match failure.kind:
        case "invalid" | "geo" | "credentials":
            return failure.kind
        case _:
            msg = f"{failure.kind} is no state of a clip"
            raise ValueError(msg)


def _tried(row: ClipRow, now_s: float) -> ClipRow:
    first_try = row.first_try if row.first_try is not None else now_s
    return replace(row, attempts=row.attempts + 1, first_try=first_try, last_try=now_s)


def _was_unconfirmed_a_day_ago(row: ClipRow, now_s: float) -> bool:
    return row.state == "unconfirmed" and row.last_try is not None and now_s - row.last_try >= DAY_S


def _jitter(clip_id: str) -> float:
    """Half to all of a wait, so that clips that failed together do not come back together; fixed for a clip."""
    return random.Random(clip_id).uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret
