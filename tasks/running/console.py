"""What a person sees while a stage runs.

A bar with count and ETA in a terminal, plain lines elsewhere. Everything said here also goes to the
run's log in Prefect; in a terminal, where Prefect's own lines are turned off, it is printed.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from storage.jsonl import Record, decoded
from storage.text import printable

Show = Callable[[int, str], None]  # `Meter.show`: how many are done, and a note
LINE_EVERY_S = 60.0  # without a terminal
_bar = threading.Lock()  # held by the one bar: two, in two threads, write over each other


def say(text: str) -> None:
    """Tell the user something."""
    text = printable(text)
    logger: logging.Logger | logging.LoggerAdapter[Any] = logging.getLogger(__name__)
    if "prefect" in sys.modules:  # else no run can have begun
        from prefect.exceptions import MissingContextError  # noqa: PLC0415  who plans runs nothing
        from prefect.logging import get_run_logger  # noqa: PLC0415  the same

        with suppress(MissingContextError):
            logger = get_run_logger()
    if logger.isEnabledFor(logging.INFO):
        logger.info(text)
    else:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class Meter:
    """Count of what is done out of what there is to do, and one time left."""

    def __init__(self, name: str, total: int, bar: Progress | None) -> None:
        """Start at nothing done; without a bar, a line comes now and then."""
        self._name = name
        self._total = total
        self._bar = bar
        self._task = bar.add_task(name, total=total, note="", left="") if bar else None
        self._said_s = time.monotonic()
        self._first: tuple[int, float] | None = None

    def show(self, num_done: int, note: str = "", *, eta_s: float | None = None) -> None:
        """Show the count.

        Args:
            num_done: How many are done, not how many more.
            note: What else to show; a terminal cuts it off where the line is full.
            eta_s: Seconds left where the caller knows better than the speed so far.
        """
        note = printable(note)
        now_s = time.monotonic()
        self._first = self._first or (num_done, now_s)
        first_count, started_s = self._first
        if eta_s is None and num_done > first_count:
            rate = (num_done - first_count) / (now_s - started_s)
            eta_s = (self._total - num_done) / rate
        left = "" if eta_s is None else f"{format_duration(eta_s)} left"
        is_over = num_done >= self._total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=num_done, note=note, left=left)
        elif now_s - self._said_s >= LINE_EVERY_S or is_over:
            self._said_s = now_s
            parts = (f"  {self._name}", f"{num_done}/{self._total}", "" if is_over else left, note)
            say("  ".join(filter(None, parts)))


@contextmanager
def meter(name: str, total: int, *, console: Console | None = None) -> Generator[Meter]:
    """Show progress for as long as the block runs, on a console; None: this process's stderr."""
    console = console or Console(stderr=True)
    if not console.is_terminal or not _bar.acquire(blocking=False):
        yield Meter(name, total, None)
        return
    whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("  {task.description}", table_column=whole),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[left]}", table_column=whole),
        TextColumn("{task.fields[note]}", table_column=cut, markup=False),
    )
    try:
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            yield Meter(name, total, bar)
    finally:
        _bar.release()


class RecordFile:
    """A file of JSON lines that a child writes, perhaps still to come; counts its lines."""

    def __init__(self, path: Path) -> None:
        """Begin before its first line."""
        self._path = path
        self._forget()

    def look(self) -> list[Record]:
        """The records that came since the last look, without a line that is just being written.

        A file that no longer holds the last line where it was read has been written anew, as by a
        training that goes on from a checkpoint: it is read from its first line.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self._forget()
            return []
        with file:
            file.seek(self._read_bytes - len(self._last_line))
            if file.read(len(self._last_line)) != self._last_line:
                self._forget()
                file.seek(0)
            lines = [line for line in file if line.endswith(b"\n")]
        self._read_bytes += sum(map(len, lines))
        self.num_lines += len(lines)
        self._last_line = lines[-1] if lines else self._last_line
        records = (decoded(line.decode("utf-8", errors="replace")) for line in lines)
        return [record for record in records if isinstance(record, dict)]

    def _forget(self) -> None:
        self._read_bytes = self.num_lines = 0
        self._last_line = b""


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: `45 s`, `12 min`, `5.5 h`, `6.6 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
