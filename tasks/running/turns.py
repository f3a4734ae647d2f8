"""One at a time: whoever works on a unit holds its lock, before anything of it is looked at.

Two runs in one training folder destroy each other's checkpoints, two reports one folder
`site.part`. The lock says who holds it; child processes inherit it (tasks/running/child_process.py)
and keep it until the last of them is gone.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from storage.config import WhenBusy
from storage.errors import PipelineError
from storage.locks import holder, try_lock
from tasks.running.console import say

T = TypeVar("T")
WAIT_S = 2.0  # between two tries
REMIND_S = 600.0  # between two log lines about waiting

# File descriptors of the locks held in this context, for child processes to inherit.
held_locks: ContextVar[tuple[int, ...]] = ContextVar("held_locks", default=())
# Set when the flow is told to stop: a signal does not reach the threads of its tasks.
stop_event: ContextVar[threading.Event | None] = ContextVar("stop_event", default=None)


@contextmanager
def inherited(locks: Sequence[int]) -> Generator[None]:
    """Let the child processes started in this block hold these locks too, until they end."""
    token = held_locks.set((*held_locks.get(), *locks))
    try:
        yield
    finally:
        held_locks.reset(token)


@contextmanager
def turn(unit: str, path: Path, when_busy: WhenBusy = "wait") -> Generator[None]:
    """Be alone at a unit of work, e.g. `train/grpo`, while the block runs; or wait, or refuse."""

    def attempt() -> int | None:
        lock = try_lock(path, unit)
        if lock is None and when_busy == "refuse":
            msg = f"{unit} is busy: {holder(path)} is at it; wait for it, or stop it"
            raise PipelineError(msg)
        return lock

    lock = wait_for(attempt, lambda: f"waiting for {unit}: {holder(path)} is at it")
    try:
        with inherited([lock]):
            yield
    finally:
        os.close(lock)


def wait_for(attempt: Callable[[], T | None], describe: Callable[[], str]) -> T:
    """Try until it succeeds; says at the first failure, and every ten minutes, what for."""
    reminded_s = -REMIND_S
    while (taken := attempt()) is None:
        text = describe()
        if time.monotonic() - reminded_s >= REMIND_S:
            reminded_s = time.monotonic()
            say(text)
        pause(WAIT_S, text)
    return taken


def pause(seconds: float, text: str) -> None:
    """Wait a moment; a PipelineError says that the flow was told to stop while `text`."""
    if (stop_event.get() or threading.Event()).wait(seconds):
        msg = f"stopped with its flow while {text}"
        raise PipelineError(msg)
