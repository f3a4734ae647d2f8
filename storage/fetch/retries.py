"""What a try does to a clip's row: pure functions from the old row and the outcome to the new row.

- A wav: `done`.
- `retry`: `retry` until the waits are used up (30 s, 5 min, 1 h, 24 h), then `unconfirmed`.
- `unconfirmed`: `unconfirmed`; `invalid` at the second failure, a day later or more.
- `extractor`: `retry` an hour later, without counting the attempt.
- `invalid`, `geo`, `credentials`: the state of that name.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from storage.fetch.clip_rows import ClipRow
from storage.fetch.cut import WavFacts, num_samples_of
from storage.fetch.failures import Failure
from storage.fetch.sources import Media

DAY_S = 86_400.0
CLOCK_TOLERANCE_S = 60.0
EXTRACTOR_WAIT_S = 3600.0  # a new yt-dlp is not out before


def is_due(row: ClipRow, now_s: float) -> bool:
    """Whether a clip is to be tried: pending, or its wait is over.

    A try in the future was made when this host's clock was ahead; its waits mean nothing.
    """
    if row.state == "pending":
        return True
    if row.state not in {"retry", "unconfirmed"} or row.next_try is None:
        return False
    return row.next_try <= now_s or (row.last_try or 0.0) > now_s + CLOCK_TOLERANCE_S


def done(row: ClipRow, facts: WavFacts, source: str) -> ClipRow:
    """The row of a clip whose wav lies in its place, and what was measured of it."""
    return replace(
        row,
        state="done",
        reason_code="",
        message="",
        http_status=None,
        next_try=None,
        asked="",
        source=source,
        sha256=facts.sha256,
        duration_s=facts.duration_s,
        peak_dbfs=facts.peak_dbfs,
        rms_dbfs=facts.rms_dbfs,
        silent=facts.is_silent,
        short=facts.num_samples < num_samples_of(row.clip_length_s),
        cancelled=facts.is_cancelled,
    )


def after_success(
    row: ClipRow,
    facts: WavFacts,
    source: str,
    media: Media | None,
    *,
    now_s: float,
    versions: Mapping[str, str],
) -> ClipRow:
    """The row of a clip that a source served, of a download if there was one."""
    return replace(
        done(_tried(row, now_s), facts, source),
        format_id=media.format_id if media else None,
        bitrate_kbps=media.bitrate_kbps if media else None,
        language=media.language if media else None,
        source_duration_s=media.duration_s if media else None,
        source_bytes=media.size_bytes if media else None,
        ytdlp_version=versions["yt-dlp"] if media else "",
        ffmpeg_version=versions["ffmpeg"],
    )


def after_failure(
    row: ClipRow, failure: Failure, *, now_s: float, waits_s: Sequence[float]
) -> ClipRow:
    """The row of a clip that was not had.

    Args:
        row: The row before.
        failure: About the clip or its video, so neither `blocked` nor `local`.
        now_s: Seconds since 1970.
        waits_s: Waits before the tries after the first.
    """
    tried = replace(
        _tried(row, now_s),
        reason_code=failure.reason,
        message=failure.message,
        http_status=failure.http_status,
        next_try=None,
    )
    match failure.kind:
        case "retry" if tried.attempts <= len(waits_s):
            wait_s = waits_s[tried.attempts - 1] * _jitter(row.clip_id)
            return replace(tried, state="retry", next_try=now_s + wait_s)
        case "extractor":
            next_try = now_s + EXTRACTOR_WAIT_S
            return replace(tried, state="retry", attempts=row.attempts, next_try=next_try)
        case "unconfirmed" if _was_unconfirmed_a_day_ago(row, now_s):
            return replace(tried, state="invalid")
        case "retry" | "unconfirmed":
            return replace(tried, state="unconfirmed", next_try=now_s + DAY_S)
        case "invalid" | "geo" | "credentials":
            return replace(tried, state=failure.kind)
        case "blocked" | "network" | "local":
            msg = f"{row.clip_id}: {failure.kind} is about the run, not about a clip"
            raise ValueError(msg)


def _tried(row: ClipRow, now_s: float) -> ClipRow:
    first_try = row.first_try if row.first_try is not None else now_s
    return replace(row, attempts=row.attempts + 1, first_try=first_try, last_try=now_s)


def _was_unconfirmed_a_day_ago(row: ClipRow, now_s: float) -> bool:
    return row.state == "unconfirmed" and row.last_try is not None and now_s - row.last_try >= DAY_S


def _jitter(clip_id: str) -> float:
    """Half to all of a wait, so that clips that failed together do not come back together.

    Fixed for a clip.
    """
    return random.Random(clip_id).uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret
