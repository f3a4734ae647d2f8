"""File locks that the kernel frees: shared or exclusive, signed by who holds them.

A lock (flock) belongs to the open file, not to the process: what was locked is free when the last
process that inherited the descriptor is gone, kill -9 included, and not before.
"""

import fcntl
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import PipelineError


def try_lock(
    path: Path, purpose: str = "", *, shared: bool = False, wait: bool = False
) -> int | None:
    """Take a lock if it is free; the descriptor that holds it, to be closed; None: another has it.

    Args:
        path: Its file, made where it is missing; stays when the lock is free.
        purpose: What for, as others who wait are told, e.g. `training grpo`; empty: not signed.
        shared: Let others share it.
        wait: Until it is free, without a word; for locks that nobody holds for long.

    Raises:
        PipelineError: If its file cannot be made or opened.
    """
    try:
        descriptor = _open(path)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another: --workspace DIR"
        raise PipelineError(msg) from error
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if purpose:
        since = time.strftime("%d %b %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()} for {purpose}, since {since}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    return descriptor


@contextmanager
def locked(
    path: Path, purpose: str = "", *, shared: bool = False, wait: bool = False
) -> Generator[int | None]:
    """Hold a lock while the block runs; yields None, and holds nothing, if another has it."""
    descriptor = try_lock(path, purpose, shared=shared, wait=wait)
    try:
        yield descriptor
    finally:
        if descriptor is not None:  # not unlocked: a child that lives on keeps its copy
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether anybody holds it, shared or not."""
    if not path.exists():
        return False
    with locked(path) as descriptor:
        return descriptor is None


def holder(path: Path) -> str:
    """Who signed a lock last: `process 4242 on HOST for training grpo, since 26 Nov 14:02:11`."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text or "another process"


def _open(path: Path) -> int:
    # Two steps: in a sticky folder Linux refuses O_CREAT on another user's file
    # (fs.protected_regular).
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
        os.fchmod(descriptor, 0o666)  # whatever the umask says, the next user locks it too
        return descriptor
