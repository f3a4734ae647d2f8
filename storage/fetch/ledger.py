"""The account of every clip that any experiment of a workspace asked for: one SQLite file.

Tables: `clip` (one row a clip and length), `video` (what a video says of itself), `attempt` (every
try, appended), `run` (every run, with its versions). `blocked` is a state of a run, never of a
clip. A clip's row and its attempt are one transaction, made after the wav has its final name: a
kill leaves at most the clips in flight, which are done again.
"""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Self

from storage.errors import PipelineError
from storage.fetch.clip_rows import COLUMNS, LOST, ClipRow, State, as_row, new_row
from storage.fetch.failures import Failure
from storage.fetch.sources import VideoFacts
from storage.records.clip import Clip

BUSY_WAIT_S = 30.0  # for another program's transaction
FORMAT = 2  # of the file, in its user_version; 1 had one row for all lengths of a clip
NAMES = ", ".join(COLUMNS)
CLIP = f"clip ({NAMES})"
SELECT = f"SELECT {NAMES} FROM clip"  # noqa: S608  our own columns
# Times are seconds since 1970, UTC; in SQL, datetime(last_try, 'unixepoch') shows them.
SCHEMA = f"""
CREATE TABLE clip ({NAMES}, PRIMARY KEY (clip_id, clip_length_s)) WITHOUT ROWID;
CREATE TABLE video (video_id PRIMARY KEY, title, channel, upload_date, licence) WITHOUT ROWID;
CREATE TABLE attempt (at, run, clip_id, state, reason_code, message, http_status, source, seconds);
CREATE TABLE run (run INTEGER PRIMARY KEY, started, finished, outcome, config, versions);
"""


class Ledger:
    """An open ledger, for clips of one length; one connection, safe between threads."""

    def __init__(self, path: Path, *, clip_length_s: float = 10.0) -> None:
        """Open or create it; PipelineError if it is none, of another format, locked, read-only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.clip_length_s = clip_length_s
        self._lock = threading.RLock()
        with self._told():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_WAIT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._check_format()
            except BaseException:
                self.close()
                raise

    def _check_format(self) -> None:
        ((found,),) = self._connection.execute("PRAGMA user_version")
        ((num_tables,),) = self._connection.execute("SELECT count(*) FROM sqlite_master")
        self._connection.execute("PRAGMA synchronous=FULL")
        if found == FORMAT:
            return
        if found or num_tables:
            msg = (
                f"{self.path} is a ledger of format {found}, this program's is {FORMAT}: move it "
                "away; whole wavs of 10 s in clips/ are adopted, so that only the losses are asked "
                "for again"
            )
            raise PipelineError(msg)
        self._connection.execute("PRAGMA journal_mode=WAL")
        # All or nothing: tables without the format's number would be refused for ever.
        self._connection.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version={FORMAT};COMMIT;")

    @contextmanager
    def _told(self) -> Generator[None]:
        """SQLite's errors as messages that say what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise PipelineError(_explain(self.path, error)) from error

    def __enter__(self) -> Self:
        """Give the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def add(self, clips: Iterable[Clip]) -> None:
        """Ask for clips; those known keep their state."""
        rows = (new_row(clip, self.clip_length_s) for clip in clips)
        with self._transaction() as connection:
            _insert(connection, f"OR IGNORE INTO {CLIP}", map(_values, rows))

    def rows(self, clips: Iterable[Clip] | None = None) -> list[ClipRow]:
        """Rows of these clips, in their order; None: of all of this length."""
        query = f"{SELECT} WHERE clip_length_s = ?"
        if clips is None:
            return self._rows(f"{query} ORDER BY clip_id", self.clip_length_s)
        ids = [clip.clip_id for clip in clips]
        query += " AND clip_id IN (SELECT value FROM json_each(?))"
        found = {row.clip_id: row for row in self._rows(query, self.clip_length_s, json.dumps(ids))}
        return [found[clip_id] for clip_id in ids if clip_id in found]

    def videos(self, clips: Iterable[Clip]) -> dict[str, VideoFacts]:
        """What is known of the clips' videos, by video id."""
        ids = json.dumps([clip.video_id for clip in clips])
        query = "SELECT * FROM video WHERE video_id IN (SELECT value FROM json_each(?))"
        return {row[0]: VideoFacts(*row) for row in self._read(query, ids)}

    def _rows(self, query: str, *values: object) -> list[ClipRow]:
        return [as_row(row) for row in self._read(query, *values)]

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock, self._told():
            return self._connection.execute(query, values).fetchall()

    def write(
        self,
        rows: Sequence[ClipRow],
        *,
        run: int | None = None,
        seconds: float = 0.0,
        video: VideoFacts | None = None,
    ) -> None:
        """Write rows over those of the same clips, and what their video says, in one transaction.

        Of a `run` that tried or adopted them, each gets a line of `attempt`.
        """
        with self._transaction() as connection:
            _insert(connection, f"OR REPLACE INTO {CLIP}", map(_values, rows))
            if run is not None:
                attempts = (_attempt(row, run, seconds) for row in rows)
                _insert(connection, "INTO attempt", attempts)
            if video is not None:
                _insert(connection, "OR REPLACE INTO video", [astuple(video)])

    def note_refusal(self, clips: Iterable[Clip], *, run: int, failure: Failure) -> None:
        """Record that we were refused while asking for these; their state stays as it was."""
        told = (failure.reason, failure.message, failure.http_status)
        with self._transaction() as connection:
            for clip in clips:
                line = (time.time(), run, clip.clip_id, "blocked", *told, "", 0.0)
                _insert(connection, "INTO attempt", [line])
                connection.execute(
                    "UPDATE clip SET reason_code = ?, message = ?, http_status = ? "
                    "WHERE clip_id = ? AND clip_length_s = ? AND state = 'pending'",
                    (*told, clip.clip_id, self.clip_length_s),
                )

    def take_back(self, run: int, states: Sequence[State], *, next_try: float) -> int:
        """Put what a run lost since its last success back to `retry`; tells how many clips."""
        last_success = (
            "SELECT coalesce(max(rowid), 0) FROM attempt "
            "WHERE run = ? AND state = 'done' AND source = 'youtube'"
        )
        with self._lock:
            ((since,),) = self._read(last_success, run)
            lost = [row for row in self._tried(run, since=since) if row.state in states]
            again = [
                replace(row, state="retry", next_try=next_try, attempts=max(0, row.attempts - 1))
                for row in lost
            ]
            self.write(again, run=run)
        return len(lost)

    def losses(self, run: int) -> Counter[str]:
        """What a run counted as lost and still is, by reason."""
        return Counter(row.reason_code for row in self._tried(run) if row.state in LOST)

    def _tried(self, run: int, *, since: int = 0) -> list[ClipRow]:
        tried = "clip_id IN (SELECT clip_id FROM attempt WHERE run = ? AND rowid > ?)"
        return self._rows(
            f"{SELECT} WHERE {tried} AND clip_length_s = ?", run, since, self.clip_length_s
        )

    def retry(self, state: str) -> int:
        """Put all clips of a state back to pending; tells how many."""
        return self._change(
            "UPDATE clip SET state = 'pending', attempts = 0, next_try = NULL, asked = '' "
            "WHERE state = ? AND clip_length_s = ?",
            state,
            self.clip_length_s,
        ).rowcount

    def merge(self, other: Path) -> int:
        """Take over the rows of which another ledger knows more; tells how many."""
        with Ledger(other) as theirs:
            rows, videos = theirs._rows(SELECT), theirs._read("SELECT * FROM video")
        mine = {(row.clip_id, row.clip_length_s): row for row in self._rows(SELECT)}
        taken = [
            row for row in rows if _known(row) > _known(mine.get((row.clip_id, row.clip_length_s)))
        ]
        with self._transaction() as connection:
            _insert(connection, f"OR REPLACE INTO {CLIP}", map(_values, taken))
            _insert(connection, "OR IGNORE INTO video", videos)
        return len(taken)

    def begin_run(self, *, config: str, versions: Mapping[str, str]) -> int:
        """Open a run's row and give its number.

        One that still says `running` was killed, as two never run at once.
        """
        self._change(
            "UPDATE run SET outcome = 'killed', finished = (SELECT max(at) FROM attempt WHERE "
            "attempt.run = run.run) WHERE outcome = 'running'"
        )
        query = "INSERT INTO run (started, outcome, config, versions) VALUES (?, 'running', ?, ?)"
        return self._change(query, time.time(), config, json.dumps(dict(versions))).lastrowid or 0

    def end_run(self, run: int, outcome: str) -> None:
        """Close a run's row: `finished`, `stopped`, `blocked` or `failed`."""
        query = "UPDATE run SET finished = ?, outcome = ? WHERE run = ?"
        self._change(query, time.time(), outcome, run)

    def last_done_videos(self, source: str, limit: int) -> list[str]:
        """The videos that a source served last: known to exist a while ago."""
        query = (
            "SELECT video_id FROM clip WHERE state = 'done' AND source = ? "
            "GROUP BY video_id ORDER BY max(last_try) DESC LIMIT ?"
        )
        return [str(row[0]) for row in self._read(query, source, limit)]

    def _change(self, query: str, *values: object) -> sqlite3.Cursor:
        with self._lock, self._told():
            return self._connection.execute(query, values)

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock, self._told():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _insert(connection: sqlite3.Connection, into: str, rows: Iterable[Sequence[object]]) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT {into} VALUES ({marks})", row)  # noqa: S608  our own names


def _values(row: ClipRow) -> list[object]:
    return [getattr(row, name) for name in COLUMNS]


def _attempt(row: ClipRow, run: int, seconds: float) -> tuple[object, ...]:
    told = (row.state, row.reason_code, row.message, row.http_status, row.source)
    return (time.time(), run, row.clip_id, *told, round(seconds, 3))


def _explain(path: Path, error: sqlite3.DatabaseError) -> str:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return (
            f"{path} is locked by another program for more than {BUSY_WAIT_S:g} s ({error}); close "
            "what has it open (a database browser, a copy under way), then run again"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return (
            f"{path} cannot be opened for writing ({error}); set the permissions of the file and "
            "of its folder, or name another --workspace"
        )
    if name.startswith("SQLITE_NOTADB"):
        return f"{path} is not a ledger ({error}); move it away, or restore it from a copy"
    if name.startswith("SQLITE_CORRUPT"):
        return (
            f"{path} is damaged ({error}); restore it from a copy, or move it away with its -wal "
            "and -shm files: whole wavs are adopted, and only the losses are asked for again"
        )
    return (
        f"{path} cannot be written ({error}); free some space on its disk, then run the same "
        "command again"
    )


def _known(row: ClipRow | None) -> tuple[bool, float]:
    """How much a row knows: `done` before all, else the later try."""
    if row is None:
        return False, -1.0
    return row.state == "done", 0.0 if row.state == "done" else row.last_try or 0.0
