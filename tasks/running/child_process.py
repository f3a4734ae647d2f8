"""Run a trainer or an evaluator as a child process that cannot be left behind on a GPU.

The child writes straight into its log file, and this side reads the file as it grows: nothing is
lost and nothing blocks when the flow process dies, and the log reads the same as if the command had
been started by hand. storage/host/supervisor.py supervises the child; between it and here runs the
lifeline, a pipe that closes when this process is gone.

"Cancelled" in Prefect's UI does not free a GPU by itself: a task that only iterates over a silent
child's output leaves it running on cancel and on kill -9. Call the task that comes here directly,
or wait for submitted ones inside `stopping_children`: a signal does not reach their threads.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from storage.errors import BLOCKED_EXIT_CODE, PipelineError
from storage.host import supervisor
from tasks.running.turns import held_locks, stop_event

POLL_S = 0.2  # between two looks at the log; a training step takes seconds
GRACE_S = 10.0  # between SIGTERM and SIGKILL
GRACE_VARIABLE = "R1_AQA_GRACE_S"  # for a trainer that needs longer to put itself away
EXPECTED = "error: "  # how a child of ours begins the line of an expected error
ERROR_LINE = re.compile(r"^(error: |(\[rank\d+\]: )?[\w.]*(Error|Exception|Interrupt|Exit)\b(:|$))")
# What may pass by itself, so that the same is tried again: nothing else is.
PASSING = re.compile(
    r"Signal \d+ \(SIG(HUP|BUS|KILL|TERM)\) received|see different newest checkpoints"
    r"|CUDA error: (uncorrectable ECC|unspecified launch|the launch timed out)|busy or unavailable"
    r"|fallen off the bus|GPU is lost|NCCL|Dist(Network|Store|Backend)Error|couldn't connect to"
    r"|[Cc]onnection (closed|reset|refused|aborted)|name resolution|[Tt]imed out|Timeout"
)
KILLED = {signal.SIGHUP, signal.SIGBUS, signal.SIGKILL, signal.SIGTERM}
# torchrun sums up its ranks' deaths in this one, after the rank's own last word.
SUMMARY_LINE = "ChildFailedError"


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    on_line: Callable[[str], None],
    silence_s: float | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end; on any way out of here, no process of it is left.

    Args:
        command: Program and arguments, e.g. `[sys.executable, "-m", "model.run_training", FILE]`.
        log: The child's whole output is appended to it.
        on_line: Called with each line of output, without its newline; a progress bar's redraws are
            lines too.
        silence_s: Seconds without output after which the child is taken for hung and stopped; None:
            never.
        env: Variables to set besides this process's own.

    Raises:
        PipelineError: If the child fails or hangs; quotes its last error line and names
            the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        start_byte = output.tell()
        grace_s = float(os.environ.get(GRACE_VARIABLE, GRACE_S))
        with (
            supervised(command, output, env=env, grace_s=grace_s) as child,
            log.open("rb") as written,
        ):
            written.seek(start_byte)
            _follow(child, written, on_line, partial(_check, command, log, silence_s))
    if child.returncode:
        raise PipelineError(
            _describe(command, log, start_byte, child.returncode),
            exit_code=BLOCKED_EXIT_CODE if child.returncode == BLOCKED_EXIT_CODE else 1,
            is_transient=_may_pass(child.returncode, _last_error(log, start_byte)),
        )


def _may_pass(code: int, word: str) -> bool:
    """Whether the same command may go well: it was killed, lost its GPU, or could not connect."""
    if word.startswith(EXPECTED):
        return "couldn't connect to" in word
    return -code in KILLED or code - 128 in KILLED or PASSING.search(word) is not None


@contextmanager
def stopping_children() -> Generator[None]:
    """Around submitting tasks and waiting for them: a signal to the flow stops their children.

    Python hands a signal to the main thread alone. Prefect then waits for the tasks' threads, which
    know nothing of it: for 30 s on cancel, for ever on a bare SIGTERM or Ctrl-C.
    """
    stop = stop_event.get() or threading.Event()  # of a flow that has its own thread, that one's
    token = stop_event.set(stop)
    try:
        yield
    except Exception:
        raise  # one task's failure is no reason to stop the others
    except BaseException:
        stop.set()
        raise
    finally:
        stop_event.reset(token)


def _check(command: Sequence[str], log: Path, silence_s: float | None, silent_s: float) -> None:
    """Raise if a child has been silent for too long, or the flow was told to stop."""
    stop = stop_event.get()
    if stop is not None and stop.is_set():
        msg = f"{name_of(command)} was stopped with its flow; its output is in {log}"
        raise PipelineError(msg)
    if silence_s is not None and silent_s > silence_s:
        msg = (
            f"{name_of(command)} wrote nothing for {silence_s:g} s and was stopped as hung; "
            f"running the stage again resumes it; its output is in {log}"
        )
        raise PipelineError(msg, is_transient=True)


@contextmanager
def supervised(
    command: Sequence[str],
    output: BinaryIO | None,
    *,
    grace_s: float,
    env: Mapping[str, str] | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """Start a command under its supervisor; on leaving, however that comes about, stop all of it.

    Args:
        command: Program and arguments.
        output: Where it writes; None: where this process does.
        grace_s: Time between SIGTERM and SIGKILL when it is stopped.
        env: Variables to set besides this process's own.

    Yields:
        The supervisor; it ends when the command has, with the command's exit code.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor.__file__, str(grace_s), *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        pass_fds=held_locks(),  # held until its last process is gone
        start_new_session=True,
    )
    try:
        yield child
    finally:
        _stop(child, grace_s + supervisor.GIVE_UP_S + 5)  # the supervisor needs no longer


def _stop(child: subprocess.Popen[bytes], wait_s: float) -> None:
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()  # the lifeline: the supervisor stops everything below it
    try:
        child.wait(wait_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _follow(
    child: subprocess.Popen[bytes],
    written: BinaryIO,
    on_line: Callable[[str], None],
    check: Callable[[float], None],
) -> None:
    """Hand over lines until the child has ended and all that it wrote was read.

    Args:
        child: Its supervisor.
        written: Its log, where its output begins.
        on_line: Takes a line.
        check: Raises if it is to be stopped; takes the seconds of its silence.
    """
    torn, heard_s = b"", time.monotonic()
    while True:
        has_ended = child.poll() is not None  # before reading: what it wrote last is then read too
        if not has_ended:
            check(time.monotonic() - heard_s)
        if chunk := written.read():
            heard_s = time.monotonic()
            *lines, torn = re.split(rb"\r\n|\n|\r", torn + chunk)
            for line in lines:
                _hand_over(line, on_line)
        elif has_ended:
            _hand_over(torn, on_line)
            return
        else:
            time.sleep(POLL_S)


def _hand_over(line: bytes, on_line: Callable[[str], None]) -> None:
    if text := line.decode("utf-8", errors="replace").rstrip():
        on_line(text)


def _describe(command: Sequence[str], log: Path, start_byte: int, code: int) -> str:
    """What to tell of a failed child, in one or two lines."""
    how = f"exit code {code}"
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
        how = f"ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
    said = last_error_line(log, start_byte)
    return (
        f"{name_of(command)} failed ({how})"
        + (f": {said}" if said else "")
        + f"; its output is in {log}"
    )


def last_error_line(log: Path, start_byte: int = 0) -> str:
    """The last line of a log that names an error, else its last line; empty for a silent child.

    Args:
        log: File of a child's output.
        start_byte: Where this run's output begins.
    """
    return _last_error(log, start_byte).removeprefix(EXPECTED)


def _last_error(log: Path, start_byte: int) -> str:
    with log.open("rb") as file:
        file.seek(start_byte)
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip("=- \t")]
    errors = [line for line in lines if ERROR_LINE.match(line) and SUMMARY_LINE not in line]
    # What one process dies of, others tell as a connection that was closed.
    expected = [line for line in errors if line.startswith(EXPECTED)]
    own = [line for line in errors if not PASSING.search(line)]
    return (expected or own or errors or lines or [""])[-1]


def name_of(command: Sequence[str]) -> str:
    """A command's short name: its module (`model.run_training`), else its program."""
    modules = [word for flag, word in itertools.pairwise(command) if flag == "-m"]
    return modules[-1] if modules else Path(command[0]).name
