"""A clip's row in the ledger, and what a try makes of it: pure functions to the new row.

A clip of another length is another row, with its own wav. By outcome:
- a wav: `done`;
- `retry`: `retry` until the waits are used up (30 s, 5 min, 1 h, 24 h), then `unconfirmed`;
- `unconfirmed`: `unconfirmed`; `invalid` at the second failure, a day later or more;
- `extractor`: `retry` an hour later, without counting the attempt;
- `invalid`, `geo`, `credentials`: the state of that name.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from storage.fetch.cut import WavFacts, num_samples_of
from storage.fetch.failures import Failure, Lost
from storage.fetch.sources import Media
from storage.records.clip import Clip

DAY_S = 86_400.0
CLOCK_TOLERANCE_S = 60.0
EXTRACTOR_WAIT_S = 3600.0  # a new yt-dlp is not out before
# `pending`: not tried, or given back while YouTube refused us; the others: storage/fetch/failures.
State = Literal["pending", "done", Lost, "unconfirmed", "retry"]
LOST: tuple[State, ...] = get_args(Lost)


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip's row; the names are the table's columns, times are seconds since 1970, UTC."""

    clip_id: str
    """AVQA's `video_name`."""
    video_id: str
    """YouTube's id."""
    start_s: int
    """Second of the video at which the clip starts."""
    clip_length_s: float
    """Length asked for."""
    state: State = "pending"
    """How it stands."""
    reason_code: str = ""
    """Why it is not done, e.g. `private`; see failures.py and cut.py beside this file."""
    message: str = ""
    """What the source said."""
    http_status: int | None = None
    """Status of the answer, where there was one."""
    attempts: int = 0
    """Tries that say something of the clip; refusals of our address are none."""
    first_try: float | None = None
    last_try: float | None = None
    next_try: float | None = None
    """When `retry` or `unconfirmed` is due again."""
    source: str = ""
    """Who served it: `youtube`, `mirror`, `folder`, `huggingface`, `kept` (a download kept by
    `fetch.keep_media`), or `adopted` from the clips' own folder."""
    asked: str = ""
    """The sources that a loss was had from, a line each, as their `key` names them."""
    sha256: str = ""
    """Digest of its wav."""
    duration_s: float | None = None
    """Length of its wav."""
    peak_dbfs: float | None = None
    """Highest sample, dB below full scale."""
    rms_dbfs: float | None = None
    """Root mean square, dB below full scale."""
    silent: bool = False
    """Whether the peak is below -60 dBFS."""
    short: bool = False
    """Whether the source ended inside the clip."""
    cancelled: bool = False
    """Whether the source's channels cancel each other in the mix-down."""
    format_id: str | None = None
    """YouTube's number of the format, e.g. `249`."""
    language: str | None = None
    """Language of the track as announced."""
    source_bytes: int | None = None
    """Bytes downloaded."""
    ytdlp_version: str = ""
    """The yt-dlp that downloaded it."""
    ffmpeg_version: str = ""
    """The ffmpeg that cut it."""

    @property
    def clip(self) -> Clip:
        """Which clip it is."""
        return Clip(self.clip_id, self.video_id, self.start_s)


COLUMNS: tuple[str, ...] = tuple(ClipRow.__dataclass_fields__)


def new_row(clip: Clip, clip_length_s: float) -> ClipRow:
    """The row of a clip that nobody has tried."""
    return ClipRow(clip.clip_id, clip.video_id, clip.start_s, clip_length_s)


def as_row(values: Sequence[Any]) -> ClipRow:
    """A row of the table `clip`, with all its columns; SQLite has no booleans."""
    row = ClipRow(*values)
    flags = {"silent": bool(row.silent), "short": bool(row.short), "cancelled": bool(row.cancelled)}
    return replace(row, **flags)


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
        language=media.language if media else None,
        source_bytes=media.size_bytes if media else None,
        ytdlp_version=versions["yt-dlp"] if media else "",
        ffmpeg_version=versions["ffmpeg"],
    )


def after_failure(
    row: ClipRow, failure: Failure, *, now_s: float, waits_s: Sequence[float]
) -> ClipRow:
    """The row of a clip that was not had; `waits_s` are those before the tries after the first."""
    tried = replace(
        _tried(row, now_s),
        reason_code=failure.reason,
        message=failure.message,
        http_status=failure.http_status,
        next_try=None,
    )
    match failure.kind:
        case "retry" if tried.attempts <= len(waits_s):
            # Clips that failed together do not come back together.
            jitter = random.Random(row.clip_id).uniform(0.5, 1.0)  # noqa: S311  not a secret
            wait_s = waits_s[tried.attempts - 1] * jitter
            return replace(tried, state="retry", next_try=now_s + wait_s)
        case "extractor":
            next_try = now_s + EXTRACTOR_WAIT_S
            return replace(tried, state="retry", attempts=row.attempts, next_try=next_try)
        case "unconfirmed" if row.state == "unconfirmed" and now_s - (row.last_try or 0.0) >= DAY_S:
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
