"""Processes that do not outlive whoever wanted them.

A trainer that hangs in a collective writes nothing, hears no SIGTERM of its own accord and keeps
its GPU. Four bonds see to it that none is left behind, whatever is killed:

- run as a script (`python storage/host/supervisor.py GRACE_S COMMAND...`) this file starts the
  command in its own session and holds a lifeline, its standard input: when that closes (the parent
  is gone, kill -9 included) or a SIGTERM comes, it stops everything below it;
- it is a subreaper (Linux): a grandchild whose parent died becomes its child, so that it finds
  every descendant, also the ranks of torchrun, each of which has a session of its own;
- should it be killed -9 itself, the kernel sends its child a SIGTERM, on which torchrun stops its
  ranks;
- an entry point that calls `die_with_parent` gets SIGKILL when its own parent dies: a rank without
  torchrun.

The script uses the standard library alone and is started with `-I`, so it neither reads nor changes
the child's environment, but for one variable.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GIVE_UP_S = 20.0  # after SIGKILL: a process in a driver's call may be deaf even to that
# Set in what the supervisor starts; a trainer started by hand may outlive its shell.
SUPERVISED = "R1_AQA_SUPERVISED"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; for entry points of children.

    Does nothing in a process that no supervisor started, and nothing on systems other than Linux.
    """
    if SUPERVISED not in os.environ:
        return
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died between the two lines above, when nobody was told yet
        sys.exit("error: the parent process is gone")


def supervise(command: Sequence[str], *, grace_s: float) -> int:
    """Run a command until it ends, the lifeline on standard input closes, or a SIGTERM comes.

    Returns:
        Its exit code; 128 + N if signal N ended it; 143 if it was stopped from here, by SIGTERM and
        `grace_s` later SIGKILL.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    news = _signals_as_bytes(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=os.environ | {SUPERVISED: "1"},
            close_fds=False,  # a GPU stays locked while a process below has its lock file open
            start_new_session=True,
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509  one thread
        )
    except OSError as error:
        sys.stderr.write(f"error: cannot start {command[0]}: {error.strerror}\n")
        return 127
    status = _wait(child.pid, news)
    _stop_descendants(child.pid, news, grace_s)
    if status is None:
        return 143
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _signals_as_bytes(*numbers: signal.Signals) -> int:
    """A pipe that tells signals, so that one select waits for them and for the lifeline."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in numbers:
        signal.signal(number, lambda _number, _frame: None)  # the wakeup byte has told already
    return reader


def _wait(child: int, news: int) -> int | None:
    """The child's wait status; None when it has to be stopped."""
    while True:
        ready, _, _ = select.select([0, news], [], [])
        if news in ready:
            numbers = os.read(news, 4096)
            if set(numbers) - {signal.SIGCHLD}:
                return None
            statuses = _reap()
            if child in statuses:
                return statuses[child]
        if 0 in ready and not os.read(0, 4096):
            return None


def _stop_descendants(child: int, news: int, grace_s: float) -> None:
    """SIGTERM to the child's group, then to whatever is left, then SIGKILL; until all are gone."""
    started_s = time.monotonic()
    _reap()
    if _descendants():
        _send(signal.SIGTERM, [-child])
    has_told_all = False
    while descendants := _descendants():
        waited_s = time.monotonic() - started_s
        if waited_s > grace_s + GIVE_UP_S:
            numbers = ", ".join(map(str, descendants))
            sys.stderr.write(f"error: processes {numbers} do not die; their GPU is not free\n")
            return
        if waited_s > grace_s:
            _send(signal.SIGKILL, descendants)
        elif child not in descendants and not has_told_all:
            _send(signal.SIGTERM, descendants)
            has_told_all = True
        if select.select([news], [], [], 0.1)[0]:
            os.read(news, 4096)
        _reap()


def _descendants() -> list[int]:
    parent_of = _parents_from_proc() if sys.platform == "linux" else _parents_from_ps()
    below = {os.getpid()}
    while more := {pid for pid, parent in parent_of.items() if parent in below} - below:
        below |= more
    return sorted(below - {os.getpid()})


def _parents_from_proc() -> dict[int, int]:
    parent_of: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_bytes().rpartition(b")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parent_of[int(path.parent.name)] = int(fields[1])
    return parent_of


def _parents_from_ps() -> dict[int, int]:
    """For macOS; ps itself is in its list, but gone when it is read."""
    listing = subprocess.run(["/bin/ps", "-Ao", "pid=,ppid="], capture_output=True, check=True)
    pairs = [line.split() for line in listing.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent in pairs if int(pid) != os.getpid()}


def _reap() -> dict[int, int]:
    """Wait statuses of the children that have ended, adopted ones included."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses
        if pid == 0:
            return statuses
        statuses[pid] = status


def _send(number: signal.Signals, pids: Sequence[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value)


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[2:], grace_s=float(sys.argv[1])))
