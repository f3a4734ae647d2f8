"""The account of every clip that any experiment of a workspace asked for: one SQLite file.

States of a clip: `pending` (not tried, or given back while YouTube refused us), `done`, `invalid`,
`unconfirmed`, `geo`, `credentials`, `retry`. `blocked` is a state of a run, never of a clip.
Tables: `clip` (one row a clip), `attempt` (every try, appended), `run` (every run, with its
versions). A clip's row and its attempt are one transaction, made after the wav has its final name:
a kill leaves at most the clips in flight, which are done again.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.data.avqa import Clip, ClipState
from storage.errors import PipelineError
from storage.fetch.clip_rows import SCHEMA, SCHEMA_VERSION, STATES, ClipRow, as_row, upsert
from storage.fetch.failures import Failure

MAX_VARIABLES = 900  # in one query; an old SQLite takes 999


class Ledger:
    """An open ledger; one connection, one writer at a time, safe between threads."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            PipelineError: If the file is no ledger, or one of a newer version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            msg = f"{path} is not a ledger ({error}); move it away, or restore it from a copy"
            raise PipelineError(msg) from error

    def _open(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            self._connection.close()
            msg = (
                f"{self.path} has schema {version}, this program knows {SCHEMA_VERSION}: update it"
            )
            raise PipelineError(msg)
        self._connection.executescript(SCHEMA)
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def __enter__(self) -> Self:
        """Give the ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def add(self, clips: Iterable[Clip], *, clip_length_s: float) -> None:
        """Ask for clips; those known keep their state, unless they were cut to another length."""
        values = [(clip.clip_id, clip.video_id, clip.start_s, clip_length_s) for clip in clips]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO clip (clip_id, video_id, start_s, clip_length_s) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (clip_id) DO UPDATE SET clip_length_s = excluded.clip_length_s, "
                "state = CASE WHEN state = 'done' THEN 'pending' ELSE state END "
                "WHERE clip_length_s != excluded.clip_length_s",
                values,
            )

    def rows(self, clips: Iterable[Clip] | None = None) -> list[ClipRow]:
        """Rows of these clips, in their order; None: of all."""
        if clips is None:
            with self._lock:
                found = self._connection.execute("SELECT * FROM clip ORDER BY clip_id").fetchall()
            return [as_row(row) for row in found]
        ids = [clip.clip_id for clip in clips]
        by_id: dict[str, ClipRow] = {}
        with self._lock:
            for begin in range(0, len(ids), MAX_VARIABLES):
                part = ids[begin : begin + MAX_VARIABLES]
                marks = ", ".join("?" * len(part))
                query = f"SELECT * FROM clip WHERE clip_id IN ({marks})"  # noqa: S608  marks only
                found = self._connection.execute(query, part)
                by_id.update((row["clip_id"], as_row(row)) for row in found)
        return [by_id[clip_id] for clip_id in ids if clip_id in by_id]

    def states(self, clips: Iterable[Clip]) -> dict[str, ClipState]:
        """How clips stand, by clip id."""
        return {
            row.clip_id: ClipState(row.state, row.reason_code, row.message)
            for row in self.rows(clips)
        }

    def write(self, row: ClipRow, *, run: int, seconds: float) -> None:
        """Record a try: the clip's row and one line of `attempt`, together."""
        with self._transaction() as connection:
            upsert(connection, [row])
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

    def note_refusal(self, clip_id: str, *, run: int, failure: Failure) -> None:
        """Record that we were refused while asking for this clip; its row stays as it was."""
        values = (time.time(), run, clip_id, failure.reason, failure.message, failure.http_status)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO attempt VALUES (?, ?, ?, 'blocked', ?, ?, ?, '', 0)", values
            )

    def replace(self, rows: Sequence[ClipRow]) -> None:
        """Write rows without an attempt, in one transaction: adopted or reset clips."""
        with self._transaction() as connection:
            upsert(connection, rows)

    def retry(self, state: str) -> int:
        """Put all clips of a state back to pending.

        Returns:
            How many.

        Raises:
            PipelineError: If there is no such state.
        """
        allowed = [each for each in STATES if each not in {"pending", "done"}]
        if state not in allowed:
            msg = f"--retry {state}: expected one of {', '.join(allowed)}"
            raise PipelineError(msg)
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE clip SET state = 'pending', attempts = 0, next_try = NULL WHERE state = ?",
                (state,),
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
        with Ledger(other) as theirs:
            their_rows = theirs.rows()
        mine = {row.clip_id: row for row in self.rows()}
        taken = [row for row in their_rows if _is_better(row, mine.get(row.clip_id))]
        self.replace(taken)
        return len(taken)

    def begin_run(self, *, config: str, versions: Mapping[str, str]) -> int:
        """Open a run's row.

        Returns:
            Its number.
        """
        with self._transaction() as connection:
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
        with self._lock:
            found = self._connection.execute(
                "SELECT video_id FROM clip WHERE state = 'done' AND source = ? "
                "GROUP BY video_id ORDER BY max(last_try) DESC LIMIT ?",
                (source, limit),
            ).fetchall()
        return [str(row[0]) for row in found]

    def refused_clips(self) -> set[str]:
        """Clips for which a source refused us at some time."""
        with self._lock:
            found = self._connection.execute(
                "SELECT DISTINCT clip_id FROM attempt WHERE state = 'blocked'"
            ).fetchall()
        return {str(row[0]) for row in found}

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    msg = (
                        f"{self.path} cannot be written ({error}); free some space on its disk, "
                        "then run the same command again"
                    )
                    raise PipelineError(msg) from error
                raise


def _is_better(theirs: ClipRow, mine: ClipRow | None) -> bool:
    if mine is None:
        return True
    if (theirs.state == "done") != (mine.state == "done"):
        return theirs.state == "done"
    return mine.state != "done" and (theirs.last_try or 0.0) > (mine.last_try or 0.0)
