"""Run a trainer or an evaluator as a child process that cannot be left behind on a GPU.

The child writes straight into its log file, and this side reads the file as it grows: nothing is
lost and nothing blocks when the flow process dies. storage/host/supervisor.py supervises the child;
between it and here runs the lifeline, a pipe that closes when this process is gone.

"Cancelled" in Prefect's UI does not free a GPU by itself. Call the task that comes here directly,
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
from pathlib import Path
from typing import BinaryIO

from storage.errors import BLOCKED_EXIT_CODE, PipelineError
from storage.host import supervisor
from tasks.running.turns import held_locks, pause, stop_event

POLL_S = 0.2  # between two looks at the log; a training step takes seconds
GRACE_S = 10.0  # between SIGTERM and SIGKILL
GRACE_VARIABLE = "R1_AQA_GRACE_S"  # for a trainer that needs longer to put itself away
SILENCE_LIMIT_S = 1800.0  # without a word: hung. Loading 7B from a cold disk takes minutes
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


def say_nothing(_line: str) -> None:
    """The log has it."""


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    on_line: Callable[[str], None] = say_nothing,
    silence_s: float | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a command to its end; on any way out of here, no process of it is left.

    Args:
        command: Program and arguments, e.g. `[sys.executable, "-m", "model.run_training", FILE]`.
        log: The child's whole output is appended to it.
        on_line: Called with each line of output; a progress bar's redraws are lines too.
        silence_s: Seconds without output after which the child is stopped as hung; None: never.
        env: Variables to set besides this process's own.

    Raises:
        PipelineError: If the child fails or hangs; quotes its last error line and names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    grace_s = float(os.environ.get(GRACE_VARIABLE, GRACE_S))
    with log.open("ab") as output, log.open("rb") as written:
        start_byte = written.seek(output.tell())
        with supervised(command, output, env=env, grace_s=grace_s) as child:
            for line in _lines(child, command, written, silence_s):
                if text := line.decode("utf-8", errors="replace").rstrip():
                    on_line(text)
    if child.returncode:
        raise _failure(command, log, start_byte, child.returncode)


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


@contextmanager
def supervised(
    command: Sequence[str],
    output: BinaryIO | None,
    *,
    grace_s: float,
    env: Mapping[str, str] | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """Start a command under its supervisor; on leaving, however that comes about, stop all of it.

    It writes into `output`, or where this process does; `grace_s` lie between SIGTERM and SIGKILL.

    Yields:
        The supervisor; it ends when the command has, with the command's exit code.
    """
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor.__file__, str(grace_s), *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        pass_fds=held_locks.get(),  # held until its last process is gone
        start_new_session=True,
    )
    try:
        yield child
    finally:
        if child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()  # the lifeline: the supervisor stops everything below it
        try:
            child.wait(grace_s + supervisor.GIVE_UP_S + 5)  # the supervisor needs no longer
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _lines(
    child: subprocess.Popen[bytes], command: Sequence[str], log: BinaryIO, silence_s: float | None
) -> Generator[bytes]:
    """What a child writes into its log, until it has ended and all was read."""
    torn, heard_s = b"", time.monotonic()
    told = f"its output is in {log.name}"
    while True:
        has_ended = child.poll() is not None  # before reading: what it wrote last is then read too
        if chunk := log.read():
            heard_s = time.monotonic()
            *lines, torn = re.split(rb"\r\n|\n|\r", torn + chunk)
            yield from lines
        elif has_ended:
            yield torn
            return
        elif silence_s is not None and time.monotonic() - heard_s > silence_s:
            msg = (
                f"{name_of(command)} wrote nothing for {silence_s:g} s and was stopped as hung; "
                f"running the stage again resumes it; {told}"
            )
            raise PipelineError(msg, is_transient=True)
        pause(0 if chunk else POLL_S, f"{name_of(command)} ran; {told}")


def _failure(command: Sequence[str], log: Path, start_byte: int, code: int) -> PipelineError:
    """What to tell of a failed child, and whether the same command may go well."""
    number = -code if code < 0 else code - 128  # of the signal that ended it, where one did
    how = f"exit code {code}"
    if number > 0:
        name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
        how = f"ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
    word = _last_error(log, start_byte)
    if word.startswith(EXPECTED):
        may_pass = "couldn't connect to" in word
    else:  # it was killed, lost its GPU, or could not connect
        may_pass = number in KILLED or PASSING.search(word) is not None
    said = f": {word.removeprefix(EXPECTED)}" if word else ""
    return PipelineError(
        f"{name_of(command)} failed ({how}){said}; its output is in {log}",
        exit_code=BLOCKED_EXIT_CODE if code == BLOCKED_EXIT_CODE else 1,
        is_transient=may_pass,
    )


def last_error_line(log: Path) -> str:
    """The last line of a log that names an error, else its last line; empty for a silent child."""
    return _last_error(log, 0).removeprefix(EXPECTED)


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
