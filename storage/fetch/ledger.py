"""The account of every clip that any experiment of a workspace asked for: one SQLite file.

States of a clip: `pending` (not tried, or given back while YouTube refused us), `done`, `invalid`,
`unconfirmed`, `geo`, `credentials`, `retry`. `blocked` is a state of a run, never of a clip.
Tables: `clip` (one row a clip and length), `video` (what a video says of itself), `attempt` (every
try, appended), `run` (every run, with its versions). A clip's row and its attempt are one
transaction, made after the wav has its final name: a kill leaves at most the clips in flight, which
are done again.
"""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, Self

from storage.errors import PipelineError
from storage.fetch.clip_rows import (
    COLUMNS,
    FORMAT,
    SCHEMA,
    STATES,
    ClipRow,
    State,
    as_row,
    upsert,
)
from storage.fetch.failures import Failure
from storage.fetch.youtube import VideoFacts
from storage.records.clip import Clip

MAX_VARIABLES = 900  # in one query; an old SQLite takes 999
BUSY_WAIT_S = 30.0  # for another program's transaction


class Ledger:
    """An open ledger; one connection, one writer at a time, safe between threads.

    It is read and written for clips of one length.
    """

    def __init__(self, path: Path, *, clip_length_s: float = 10.0) -> None:
        """Open or create it.

        Raises:
            PipelineError: If the file is no ledger, of another format, locked, or cannot be read or
                written; it is left as it was.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.clip_length_s = clip_length_s
        self._lock = threading.RLock()
        with self._told():
            is_new = _is_new(path)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA synchronous=FULL")
            if is_new:
                self._connection.execute("PRAGMA journal_mode=WAL")
                # All or nothing: tables without the format's number would be refused for ever.
                script = f"BEGIN;{SCHEMA}PRAGMA user_version={FORMAT};COMMIT;"
                self._connection.executescript(script)

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
        values = [(clip.clip_id, clip.video_id, clip.start_s, self.clip_length_s) for clip in clips]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO clip (clip_id, video_id, start_s, clip_length_s) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                values,
            )

    def rows(self, clips: Iterable[Clip] | None = None) -> list[ClipRow]:
        """Rows of these clips, in their order; None: of all of this length."""
        query = f"SELECT {COLUMNS} FROM clip WHERE clip_length_s = ?"  # noqa: S608  our own columns
        if clips is None:
            return [
                as_row(row) for row in self._read(f"{query} ORDER BY clip_id", self.clip_length_s)
            ]
        ids = [clip.clip_id for clip in clips]
        by_id: dict[str, ClipRow] = {}
        for begin in range(0, len(ids), MAX_VARIABLES):
            part = ids[begin : begin + MAX_VARIABLES]
            marks = ", ".join("?" * len(part))
            found = self._read(f"{query} AND clip_id IN ({marks})", self.clip_length_s, *part)
            by_id.update((row.clip_id, row) for row in map(as_row, found))
        return [by_id[clip_id] for clip_id in ids if clip_id in by_id]

    def videos(self, clips: Iterable[Clip]) -> dict[str, VideoFacts]:
        """What is known of the clips' videos, by video id."""
        wanted = {clip.video_id for clip in clips}
        found = (VideoFacts(*row) for row in self._read("SELECT * FROM video"))
        return {facts.video_id: facts for facts in found if facts.video_id in wanted}

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._lock, self._told():
            return self._connection.execute(query, values).fetchall()

    def write(
        self, row: ClipRow, *, run: int, seconds: float, video: VideoFacts | None = None
    ) -> None:
        """Record a try: the clip's row, one line of `attempt`, and its video's facts, together."""
        with self._transaction() as connection:
            upsert(connection, [row])
            _note_attempt(connection, row, run=run, seconds=seconds)
            if video is not None:
                statement = "INSERT OR REPLACE INTO video VALUES (?, ?, ?, ?, ?)"
                connection.execute(statement, astuple(video))

    def note_refusal(self, clip_id: str, *, run: int, failure: Failure) -> None:
        """Record that we were refused while asking for this clip; its state stays as it was."""
        values = (time.time(), run, clip_id, failure.reason, failure.message, failure.http_status)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO attempt VALUES (?, ?, ?, 'blocked', ?, ?, ?, '', 0)", values
            )
            connection.execute(
                "UPDATE clip SET reason_code = ?, message = ?, http_status = ? "
                "WHERE clip_id = ? AND clip_length_s = ? AND state = 'pending'",
                (*values[3:], clip_id, self.clip_length_s),
            )

    def replace(self, rows: Sequence[ClipRow], *, run: int | None = None) -> None:
        """Write rows in one transaction: adopted or reset clips.

        Args:
            rows: The new rows.
            run: The run that adopted them; None: no attempt is noted.
        """
        with self._transaction() as connection:
            upsert(connection, rows)
            for row in rows if run is not None else ():
                _note_attempt(connection, row, run=run or 0, seconds=0.0)

    def take_back(self, run: int, states: Sequence[State], *, next_try: float) -> int:
        """Put what a run lost since its last success back to `retry`: it was not the clips' fault.

        Returns:
            How many clips.
        """
        since = (
            "clip_id IN (SELECT clip_id FROM attempt WHERE run = ? AND rowid > (SELECT coalesce("
            "max(rowid), 0) FROM attempt WHERE run = ? AND state = 'done' AND source = 'youtube')) "
            "AND clip_length_s = ? AND instr(?, state)"
        )
        values = (run, run, self.clip_length_s, " ".join(states))
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO attempt SELECT ?, ?, clip_id, 'retry', 'taken-back', reason_code, "  # noqa: S608  our own names
                f"http_status, '', 0 FROM clip WHERE {since}",
                (time.time(), run, *values),
            )
            return connection.execute(
                "UPDATE clip SET state = 'retry', next_try = ?, attempts = max(0, attempts - 1), "  # noqa: S608  our own names
                f"asked = '' WHERE {since}",
                (next_try, *values),
            ).rowcount

    def losses(self, run: int) -> Counter[str]:
        """What a run counted as lost and still is, by reason."""
        query = (
            "SELECT reason_code, count(*) FROM clip WHERE clip_length_s = ? "
            "AND state IN ('invalid', 'geo', 'credentials') "
            "AND clip_id IN (SELECT clip_id FROM attempt WHERE run = ?) GROUP BY reason_code"
        )
        return Counter(dict(self._read(query, self.clip_length_s, run)))

    def retry(self, state: str) -> int:
        """Put all clips of a state back to pending.

        Returns:
            How many.

        Raises:
            PipelineError: If there is no such state.
        """
        allowed = [name for name in STATES if name not in {"pending", "done"}]
        if state not in allowed:
            msg = f"--retry {state}: expected one of {', '.join(allowed)}"
            raise PipelineError(msg)
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE clip SET state = 'pending', attempts = 0, next_try = NULL, asked = '' "
                "WHERE state = ? AND clip_length_s = ?",
                (state, self.clip_length_s),
            )
            return done.rowcount

    def merge(self, other: Path) -> int:
        """Take over what another ledger knows better: `done` before all, else the later try.

        Returns:
            How many rows were taken.

        Raises:
            PipelineError: If the other file is missing or no ledger.
        """
        if not other.is_file():
            msg = f"--merge {other}: there is no such ledger"
            raise PipelineError(msg)
        query = f"SELECT {COLUMNS} FROM clip"  # noqa: S608  our own columns
        with Ledger(other) as theirs:
            their_rows = [as_row(row) for row in theirs._read(query)]
            their_videos = theirs._read("SELECT * FROM video")
        mine = {(row.clip_id, row.clip_length_s): row for row in map(as_row, self._read(query))}
        taken = [
            row for row in their_rows if _is_better(row, mine.get((row.clip_id, row.clip_length_s)))
        ]
        with self._transaction() as connection:
            upsert(connection, taken)
            connection.executemany(
                "INSERT OR IGNORE INTO video VALUES (?, ?, ?, ?, ?)", map(tuple, their_videos)
            )
        return len(taken)

    def begin_run(self, *, config: str, versions: Mapping[str, str]) -> int:
        """Open a run's row; one that still says `running` was killed, as two never run at once.

        Returns:
            Its number.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE run SET outcome = 'killed', finished = (SELECT max(at) FROM attempt WHERE "
                "attempt.run = run.run) WHERE outcome = 'running'"
            )
            done = connection.execute(
                "INSERT INTO run (started, config, versions) VALUES (?, ?, ?)",
                (time.time(), config, json.dumps(dict(versions))),
            )
            return done.lastrowid or 0

    def end_run(self, run: int, outcome: str) -> None:
        """Close a run's row: `finished`, `stopped`, `blocked` or `failed`."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE run SET finished = ?, outcome = ? WHERE run = ?",
                (time.time(), outcome, run),
            )

    def last_done_videos(self, source: str, limit: int) -> list[str]:
        """The videos that a source served last: known to exist a while ago."""
        query = (
            "SELECT video_id FROM clip WHERE state = 'done' AND source = ? "
            "GROUP BY video_id ORDER BY max(last_try) DESC LIMIT ?"
        )
        return [str(row[0]) for row in self._read(query, source, limit)]

    def refused_clips(self) -> set[str]:
        """Clips for which a source refused us at some time."""
        query = "SELECT DISTINCT clip_id FROM attempt WHERE state = 'blocked'"
        return {str(row[0]) for row in self._read(query)}

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


def _note_attempt(
    connection: sqlite3.Connection, row: ClipRow, *, run: int, seconds: float
) -> None:
    connection.execute(
        "INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.last_try or time.time(),
            run,
            row.clip_id,
            row.state,
            row.reason_code,
            row.message,
            row.http_status,
            row.source,
            round(seconds, 3),
        ),
    )


def _is_new(path: Path) -> bool:
    """Whether there is no ledger yet; the file's format is looked at without writing to it.

    Raises:
        PipelineError: If it is another one.
    """
    if not path.exists() or path.stat().st_size == 0:
        return True
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if is_empty and not found:  # killed before the tables were made
        return True
    if found != FORMAT:
        msg = (
            f"{path} is a ledger of format {found}, this program's is {FORMAT}: move it away; "
            "whole wavs of 10 s in clips/ are adopted, so that only the losses are asked for again"
        )
        raise PipelineError(msg)
    return False


def _explain(path: Path, error: sqlite3.DatabaseError) -> str:
    """What SQLite's error means for the user."""
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


def _is_better(theirs: ClipRow, mine: ClipRow | None) -> bool:
    if mine is None:
        return True
    if (theirs.state == "done") != (mine.state == "done"):
        return theirs.state == "done"
    return mine.state != "done" and (theirs.last_try or 0.0) > (mine.last_try or 0.0)
