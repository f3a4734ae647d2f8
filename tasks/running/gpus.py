"""Which GPUs a task may use, so that two trainings never meet on one.

Two guards. A file lock per GPU, in a folder that every user of the host shares, also holds back
runs that Prefect knows nothing of; child processes inherit it (tasks/running/child_process.py), so
it is released by the kernel, and only when the last process that uses the GPU is gone. And where a
Prefect server is in use, the global concurrency limit `gpu-N`, which shows in its UI. `python -m
flows.serve` creates the limits; a missing one is an error, because Prefect would run unguarded.
"""

import os
import socket
import tempfile
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path

from storage.errors import PipelineError
from storage.host.gpus import Gpu, visible_gpus
from storage.locks import holder, is_locked, try_lock
from tasks.running.console import say
from tasks.running.turns import inherited, wait_for

LOCKS_VARIABLE = "R1_AQA_GPU_LOCKS"  # folder of the lock files, the same for all users of a host
# Name of a GPU's limit; `{host}` and `{gpu}` are replaced; empty: none.
LIMIT_VARIABLE = "R1_AQA_GPU_LIMIT"
LIMIT_NAME = "gpu-{gpu}"
# Renewed at three quarters of it; a run killed -9 blocks its limit for this long at most, and a
# little: Prefect looks every 15 s. The least that Prefect allows.
LEASE_S = 60.0
LEASE_TOLD_S = 3.0  # a free slot is had sooner


@contextmanager
def hold_gpus(count: int | None, purpose: str = "work") -> Generator[list[str]]:
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
    gpus = visible_gpus()
    count = len(gpus) if count is None or not gpus else count
    if count > len(gpus):
        msg = (
            f"{count} GPUs are asked for, this process may use {len(gpus)} "
            f"({', '.join(gpu.name for gpu in gpus)}); lower num_gpus or widen CUDA_VISIBLE_DEVICES"
        )
        raise PipelineError(msg)

    def describe() -> str:
        holders = [
            f"GPU {gpu.name} is held by {holder(gpu_lock(gpu))}"
            for gpu in gpus
            if is_locked(gpu_lock(gpu))
        ]
        return (
            f"waiting for {count} GPU(s) for {purpose}: {'; '.join(holders)}. "
            "To use others, set CUDA_VISIBLE_DEVICES; empty: the CPU"
        )

    before = {gpu: holder(gpu_lock(gpu)) for gpu in gpus}
    locks = wait_for(partial(_try_locks, gpus, count, purpose), describe)
    with ExitStack() as stack:
        stack.callback(_close, locks.values())
        _enter_limits(stack, {gpu: before[gpu] for gpu in locks})
        stack.enter_context(inherited(tuple(locks.values())))
        yield [gpu.token for gpu in locks]


def gpu_environment(gpus: Sequence[str]) -> dict[str, str]:
    """What tells a child the GPUs that are held for it; nothing on a host without any."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}


def is_any_free() -> bool:
    """Whether work would find a GPU at once; on a host without GPUs it has the CPU."""
    gpus = visible_gpus()
    return not gpus or not all(is_locked(gpu_lock(gpu)) for gpu in gpus)


def limit_name(gpu: Gpu) -> str:
    """Name of a GPU's global concurrency limit; empty where a cluster hands out the GPUs."""
    template = os.environ.get(LIMIT_VARIABLE, LIMIT_NAME)
    return template.format(host=socket.gethostname().lower(), gpu=gpu.name.lower())


def gpu_lock(gpu: Gpu) -> Path:
    """A GPU's lock file, in a folder that is writable for every user of the host."""
    default = Path(tempfile.gettempdir()) / "r1-aqa-gpu-locks"
    folder = Path(os.environ.get(LOCKS_VARIABLE, default))
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        # Like the temporary folder itself: everyone creates, nobody deletes another's.
        folder.chmod(0o1777)
    return folder / f"gpu-{gpu.name}.lock"


def _try_locks(gpus: Sequence[Gpu], count: int, purpose: str) -> dict[Gpu, int] | None:
    """Lock as many GPUs as asked for, all or none, least used memory first."""
    locks: dict[Gpu, int] = {}
    for gpu in sorted(gpus, key=lambda gpu: gpu.used_bytes):
        if len(locks) < count and (lock := try_lock(gpu_lock(gpu), purpose)) is not None:
            locks[gpu] = lock
    if len(locks) == count:
        return locks
    _close(locks.values())
    return None


def _close(locks: Iterable[int]) -> None:
    # Not unlocked: a child that outlived everything keeps its copy, and so the GPU.
    for descriptor in locks:
        os.close(descriptor)


def _enter_limits(stack: ExitStack, before: dict[Gpu, str]) -> None:
    """Take the server's limits of these GPUs; telling who had them before, where that lasts."""
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError  # noqa: PLC0415  who plans runs nothing
    from prefect.concurrency.sync import concurrency  # noqa: PLC0415  the same
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415  the same

    names = [name for gpu in before if (name := limit_name(gpu))]
    if not names or not PREFECT_API_URL.value():  # a direct run's own server is unseen by others
        return
    # A server that is away for a minute must not end a training of days; the file lock still holds.
    slots = concurrency(
        names, 1, lease_duration=LEASE_S, strict=True, raise_on_lease_renewal_failure=False
    )
    text = (
        f"waiting for {', '.join(names)} of the Prefect server, at most {LEASE_S + 15:.0f} s if "
        f"who had it was killed; last was {'; '.join(before.values())}"
    )
    telling = threading.Timer(LEASE_TOLD_S, copy_context().run, [say, text])
    telling.start()
    try:
        slots.__enter__()
        stack.callback(_leave, slots)
    except ConcurrencySlotAcquisitionError as error:
        commands = " && ".join(f"prefect gcl create {name} --limit 1" for name in names)
        msg = (
            f"the Prefect server has no concurrency limit {', '.join(names)}; "
            f"`make serve` creates it, or: {commands}"
        )
        raise PipelineError(msg) from error
    finally:
        telling.cancel()


def _leave(slots: AbstractContextManager[None]) -> None:
    """Give slots back; where the server is away they are free when their lease is over."""
    from tasks.running.alive import asked_once  # noqa: PLC0415  who plans runs nothing

    with asked_once():
        slots.__exit__(None, None, None)
