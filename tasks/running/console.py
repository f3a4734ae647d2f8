"""What a person sees while a stage runs.

A bar with count and ETA in a terminal, plain lines elsewhere. Everything said here also goes to the
run's log in Prefect; in a terminal, where Prefect's own lines are turned off, it is printed.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from storage.jsonl import Record
from storage.text import printable

Show = Callable[[int, str], None]  # `Meter.show`: how many are done, and a note
LINE_EVERY_S = 60.0  # without a terminal
_bar = threading.Lock()  # held by the one bar: two, in two threads, write over each other


def say(text: str) -> None:
    """Tell the user something."""
    text = printable(text)
    logger = _logger()
    if logger.isEnabledFor(logging.INFO):
        logger.info(text)
    else:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    if "prefect" in sys.modules:  # else no run can have begun
        from prefect.exceptions import MissingContextError  # noqa: PLC0415  who plans runs nothing
        from prefect.logging import get_run_logger  # noqa: PLC0415  the same

        with suppress(MissingContextError):
            return get_run_logger()
    return logging.getLogger(__name__)


class Meter:
    """Count of what is done out of what there is to do, and one time left."""

    def __init__(self, name: str, total: int, bar: Progress | None) -> None:
        """Start at nothing done; without a bar, a line comes now and then."""
        self._name = name
        self._total = total
        self._bar = bar
        self._task = bar.add_task(name, total=total, note="", eta_s=None) if bar else None
        self._started = self._said = time.monotonic()
        self._first_count: int | None = None

    def show(self, num_done: int, note: str = "", *, eta_s: float | None = None) -> None:
        """Show the count.

        Args:
            num_done: How many are done, not how many more.
            note: What else to show; a terminal cuts it off where the line is full.
            eta_s: Seconds left where the caller knows better than the speed so far.
        """
        note = printable(note)
        now = time.monotonic()
        if self._first_count is None:
            self._first_count, self._started = num_done, now
        if eta_s is None and num_done > self._first_count:
            rate = (num_done - self._first_count) / (now - self._started)
            eta_s = (self._total - num_done) / rate
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=num_done, note=note, eta_s=eta_s)
        elif now - self._said >= LINE_EVERY_S or num_done >= self._total:
            self._said = now
            is_over = num_done >= self._total
            left = "" if is_over or eta_s is None else f"{format_duration(eta_s)} left"
            parts = (f"  {self._name}", f"{num_done}/{self._total}", left, note)
            say("  ".join(part for part in parts if part))


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        eta_s = task.fields["eta_s"]
        return Text("" if eta_s is None else f"{format_duration(eta_s)} left")


@contextmanager
def meter(name: str, total: int, *, console: Console | None = None) -> Generator[Meter]:
    """Show progress for as long as the block runs.

    Args:
        name: Of the work.
        total: Of what is counted.
        console: Where; None: this process's stderr.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal or not _bar.acquire(blocking=False):
        yield Meter(name, total, None)
        return
    columns = (
        TextColumn("  {task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _TimeLeft(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[note]}",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            markup=False,
        ),
    )
    try:
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            yield Meter(name, total, bar)
    finally:
        _bar.release()


class RecordFile:
    """A file of JSON lines that a child writes: how many there are, and the newest."""

    def __init__(self, path: Path) -> None:
        """Begin before its first line; the file may be still to come."""
        self._path = path
        self._read_bytes = 0
        self.num_lines = 0
        self.new: list[Record] = []
        self.last: Record = {}

    def look(self) -> bool:
        """Read what has come since the last look; tells whether something has.

        A file that has become shorter was written anew. A line that is just being written is left
        for the next look.
        """
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size < self._read_bytes:
            self._read_bytes = self.num_lines = 0
        if size == self._read_bytes:
            return False
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._read_bytes += sum(map(len, whole))
        self.num_lines += len(whole)
        self.new = [json.loads(line) for line in whole]
        self.last = self.new[-1] if whole else self.last
        return bool(whole)


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: `45 s`, `12 min`, `5.5 h`, `6.6 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"
