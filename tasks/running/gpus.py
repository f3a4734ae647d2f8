"""Which GPUs a task may use, so that two trainings never meet on one.

Two guards. A file lock per GPU, in a folder that every user of the host shares, also holds back
runs that Prefect knows nothing of; child processes inherit it (tasks/running/child_process.py), so
it is
released by the kernel, and only when the last process that uses the GPU is gone. And where a
Prefect server is in use, the global concurrency limit `gpu-N`, which shows in its UI. `python -m
flows.serve` creates the limits; a missing one is an error, because Prefect would run unguarded.
"""

import fcntl
import os
import socket
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from storage.errors import PipelineError
from storage.host.gpus import Gpu, list_gpus
from tasks.running.console import say

LOCKS_VARIABLE = "R1_AQA_GPU_LOCKS"  # folder of the lock files, the same for all users of a host
# Name of a GPU's limit; `{host}` and `{gpu}` are replaced; empty: none.
LIMIT_VARIABLE = "R1_AQA_GPU_LIMIT"
LIMIT_NAME = "gpu-{gpu}"
# Renewed at three quarters of it; a run killed -9 blocks its limit for this long at most.
LEASE_S = 300.0
WAIT_S = 2.0  # between two tries for a GPU
REMIND_S = 600.0  # between two log lines about waiting

_locks: ContextVar[tuple[int, ...]] = ContextVar("_locks", default=())
# Set when the flow is told to stop: a signal does not reach the threads of its tasks.
stop_event: ContextVar[threading.Event | None] = ContextVar("stop_event", default=None)


def held_locks() -> tuple[int, ...]:
    """File descriptors of the locks held in this context, for child processes to inherit."""
    return _locks.get()


@contextmanager
def inherited(locks: Sequence[int]) -> Generator[None]:
    """Let the child processes started in this block hold these locks too, until they end."""
    token = _locks.set((*_locks.get(), *locks))
    try:
        yield
    finally:
        _locks.reset(token)


@contextmanager
def hold_gpus(count: int | None, purpose: str = "") -> Generator[list[str]]:
    """Hold free GPUs for oneself, waiting until enough are free; says for whom it waits.

    Args:
        count: GPUs to hold; None: all that this process may use. On a host without GPUs none are
            held: the work runs on its CPU.
        purpose: What for, as others who wait are told, e.g. `training grpo`.

    Yields:
        Their names for CUDA_VISIBLE_DEVICES; empty on a host without GPUs.

    Raises:
        PipelineError: If there are fewer GPUs than asked for, or a server is in use and their limit
            is not created.
    """
    gpus = list_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    count = len(gpus) if count is None or not gpus else count
    if count > len(gpus):
        msg = (
            f"{count} GPUs are asked for, this process may use {len(gpus)} "
            f"({', '.join(gpu.name for gpu in gpus)}); lower num_gpus or widen CUDA_VISIBLE_DEVICES"
        )
        raise PipelineError(msg)
    with ExitStack() as stack:
        held, locks = _wait_for(gpus, count, purpose)
        stack.callback(_close, locks)
        _enter_limits(stack, held)
        stack.enter_context(inherited(locks))
        yield [gpu.token for gpu in held]


def limit_name(gpu: Gpu) -> str:
    """Name of a GPU's global concurrency limit; empty where a cluster hands out the GPUs."""
    template = os.environ.get(LIMIT_VARIABLE, LIMIT_NAME)
    return template.format(host=socket.gethostname().lower(), gpu=gpu.name.lower())


def locks_folder() -> Path:
    """Folder of the lock files, writable for every user of the host."""
    default = Path(tempfile.gettempdir()) / "r1-aqa-gpu-locks"
    folder = Path(os.environ.get(LOCKS_VARIABLE, default))
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(
            0o1777
        )  # like the temporary folder itself: everyone creates, nobody deletes another's
    return folder


def _wait_for(gpus: Sequence[Gpu], count: int, purpose: str) -> tuple[list[Gpu], list[int]]:
    """Lock as many GPUs as asked for, all or none at a time, least used memory first."""
    reminded_s = -REMIND_S
    while True:
        held: list[Gpu] = []
        locks: list[int] = []
        for gpu in sorted(gpus, key=lambda gpu: gpu.used_bytes):
            if len(held) == count:
                break
            lock = _try_lock(gpu, purpose)
            if lock is not None:
                held.append(gpu)
                locks.append(lock)
        if len(held) == count:
            return held, locks
        holders = [_holder(gpu) for gpu in gpus if gpu not in held]
        _close(locks)
        stop = stop_event.get()
        if stop is not None and stop.is_set():
            msg = f"stopped while waiting for {count} GPU(s)"
            raise PipelineError(msg)
        if time.monotonic() - reminded_s >= REMIND_S:
            reminded_s = time.monotonic()
            say(
                f"waiting for {count} GPU(s){f' for {purpose}' if purpose else ''}: "
                f"{'; '.join(holders)}. To use others, set CUDA_VISIBLE_DEVICES; empty: the CPU"
            )
        time.sleep(WAIT_S)


def _try_lock(gpu: Gpu, purpose: str) -> int | None:
    """Lock a GPU's file and sign it; None if another process has it."""
    descriptor = _open_lock(locks_folder() / f"gpu-{gpu.name}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    signature = f"process {os.getpid()}" + (f" for {purpose}" if purpose else "")
    os.pwrite(descriptor, signature.encode(), 0)
    return descriptor


def _open_lock(path: Path) -> int:
    # Two steps: in a sticky folder Linux refuses O_CREAT on another user's file
    # (fs.protected_regular).
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
        os.fchmod(descriptor, 0o666)  # whatever the umask says, the next user locks it too
        return descriptor


def _holder(gpu: Gpu) -> str:
    path = locks_folder() / f"gpu-{gpu.name}.lock"
    return f"GPU {gpu.name} is held by {path.read_text(encoding='utf-8') or 'a process'}"


def _close(locks: Sequence[int]) -> None:
    # Not unlocked: a child that outlived everything keeps its copy, and so the GPU.
    for descriptor in locks:
        os.close(descriptor)


def _enter_limits(stack: ExitStack, gpus: Sequence[Gpu]) -> None:
    names = [name for gpu in gpus if (name := limit_name(gpu))]
    if (
        not names or not PREFECT_API_URL.value()
    ):  # a direct run has a server of its own, unseen by others
        return
    slots = concurrency(
        names,
        occupy=1,
        lease_duration=LEASE_S,
        strict=True,
        # A server that is away for a minute must not end a training of days; the file lock still
        # holds.
        raise_on_lease_renewal_failure=False,
    )
    try:
        stack.enter_context(slots)
    except ConcurrencySlotAcquisitionError as error:
        commands = " && ".join(f"prefect gcl create {name} --limit 1" for name in names)
        msg = (
            f"the Prefect server has no concurrency limit {', '.join(names)}; "
            f"`make serve` creates it, or: {commands}"
        )
        raise PipelineError(msg) from error
