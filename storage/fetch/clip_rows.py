"""A clip's row in the ledger; a clip of another length is another row, with its own wav."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from storage.records.clip import Clip

# `pending`: not tried, or given back while YouTube refused us; the others: storage/fetch/failures.
State = Literal["pending", "done", "invalid", "unconfirmed", "geo", "credentials", "retry"]
LOST: tuple[State, ...] = ("invalid", "geo", "credentials")


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
    bitrate_kbps: float | None = None
    """Mean bit rate of the download as announced."""
    language: str | None = None
    """Language of the track as announced."""
    source_duration_s: float | None = None
    """Length of the video as announced."""
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
