"""The ledger's tables, and a clip's row in Python.

A clip of another length is another row, with its own wav. States: `pending` (not tried, or given
back while YouTube refused us), `done`, `invalid`, `unconfirmed`, `geo`, `credentials`, `retry` (see
storage/fetch/failures.py).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from storage.records.clip import Clip

State = Literal["pending", "done", "invalid", "unconfirmed", "geo", "credentials", "retry"]
STATES: tuple[State, ...] = get_args(State)
LOST: tuple[State, ...] = ("invalid", "geo", "credentials")
FORMAT = 2  # of the file, in its user_version; 1 had one row for all lengths of a clip
# Times are seconds since 1970, UTC; in SQL, datetime(last_try, 'unixepoch') shows them.
SCHEMA = """
CREATE TABLE IF NOT EXISTS clip (
  clip_id TEXT NOT NULL,
  video_id TEXT NOT NULL,
  start_s INTEGER NOT NULL,
  clip_length_s REAL NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending',
  reason_code TEXT NOT NULL DEFAULT '',
  message TEXT NOT NULL DEFAULT '',
  http_status INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  first_try REAL,
  last_try REAL,
  next_try REAL,
  source TEXT NOT NULL DEFAULT '',
  asked TEXT NOT NULL DEFAULT '',
  sha256 TEXT NOT NULL DEFAULT '',
  duration_s REAL,
  peak_dbfs REAL,
  rms_dbfs REAL,
  silent INTEGER NOT NULL DEFAULT 0,
  short INTEGER NOT NULL DEFAULT 0,
  cancelled INTEGER NOT NULL DEFAULT 0,
  format_id TEXT,
  bitrate_kbps REAL,
  language TEXT,
  source_duration_s REAL,
  source_bytes INTEGER,
  ytdlp_version TEXT NOT NULL DEFAULT '',
  ffmpeg_version TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (clip_id, clip_length_s)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS video (
  video_id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  channel TEXT NOT NULL,
  upload_date TEXT NOT NULL,
  licence TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempt (
  at REAL NOT NULL,
  run INTEGER NOT NULL,
  clip_id TEXT NOT NULL,
  state TEXT NOT NULL,
  reason_code TEXT NOT NULL,
  message TEXT NOT NULL,
  http_status INTEGER,
  source TEXT NOT NULL,
  seconds REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS run (
  run INTEGER PRIMARY KEY,
  started REAL NOT NULL,
  finished REAL,
  outcome TEXT NOT NULL DEFAULT 'running',
  config TEXT NOT NULL,
  versions TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip's row; the names are the table's columns."""

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
    """Seconds since 1970, UTC."""
    last_try: float | None = None
    """Seconds since 1970, UTC."""
    next_try: float | None = None
    """When `retry` or `unconfirmed` is due again, seconds since 1970, UTC."""
    source: str = ""
    """Who served it: `youtube`, `mirror`, `folder`, `huggingface`, `kept` (a download kept by
    `fetch.keep_media`), or `adopted` from the clips' own folder."""
    asked: str = ""
    """The sources that a loss was had from, a line each, as `AudioSource.keys` names them."""
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


_COLUMNS: tuple[str, ...] = tuple(ClipRow.__dataclass_fields__)
COLUMNS = ", ".join(_COLUMNS)
_FLAGS = [_COLUMNS.index(name) for name in ("silent", "short", "cancelled")]


def upsert(connection: sqlite3.Connection, rows: Sequence[ClipRow]) -> None:
    """Write rows over those of the same clips; the caller holds the transaction."""
    marks = ", ".join("?" * len(_COLUMNS))
    statement = f"INSERT OR REPLACE INTO clip ({COLUMNS}) VALUES ({marks})"  # noqa: S608  our own column names
    connection.executemany(statement, ([getattr(row, name) for name in _COLUMNS] for row in rows))


def as_row(found: Sequence[Any]) -> ClipRow:
    """Read a row of the table `clip`, selected by `COLUMNS`."""
    values = list(found)
    for index in _FLAGS:
        values[index] = bool(values[index])
    return ClipRow(*values)
