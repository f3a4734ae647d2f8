"""Long-running processes that one command keeps alive and takes down with it."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from storage.errors import PipelineError
from tasks.running.child_process import last_error_line, supervised

GRACE_S = 30.0  # a flow has to stop its own children and to report its state
QUICK_END_S = 60.0  # a service that ends within this never really ran
MAX_QUICK_ENDS = 3  # in a row
LOOK_EVERY_S = 0.2
REGULARLY_S = 10.0


@dataclass
class Service:
    """One process, started again when it ends by itself."""

    name: str
    """What the messages call it."""
    command: list[str]
    """Program and arguments."""
    log: Path | None
    """File of its output; None: this terminal."""
    env: Mapping[str, str]
    """Variables to set besides this process's own."""
    grace_s: float = GRACE_S
    """Time between SIGTERM and SIGKILL when it is stopped."""
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _child: Popen[bytes] | None = field(default=None, init=False)
    _started_s: float = field(default=0.0, init=False)
    _num_quick_ends: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it, after stopping what is left of it."""
        self.stop()
        output = None
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            output = self._stack.enter_context(self.log.open("ab"))
        child = supervised(self.command, output, env=self.env, grace_s=self.grace_s)
        self._child = self._stack.enter_context(child)
        self._started_s = time.monotonic()

    def stop(self) -> None:
        """Stop every process of it."""
        self._stack.close()

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait until it works.

        Raises:
            PipelineError: If it ends before or takes too long; quotes its last error line.
        """
        give_up_s = time.monotonic() + timeout_s
        while not is_ready():
            if self._has_ended():
                msg = f"the {self.name} ended at its start{self._last_words()}"
                raise PipelineError(msg)
            if time.monotonic() > give_up_s:
                msg = f"the {self.name} was not ready in {timeout_s:.0f} s{self._last_words()}"
                raise PipelineError(msg)
            time.sleep(LOOK_EVERY_S)

    def revive(self) -> None:
        """Start it again if it has ended.

        Raises:
            PipelineError: If it has ended within a minute three times in a row.
        """
        if not self._has_ended():
            return
        was_quick = time.monotonic() - self._started_s < QUICK_END_S
        self._num_quick_ends = self._num_quick_ends + 1 if was_quick else 1
        if self._num_quick_ends > MAX_QUICK_ENDS:
            msg = f"the {self.name} does not stay up{self._last_words()}"
            raise PipelineError(msg)
        sys.stderr.write(f"the {self.name} ended by itself{self._last_words()}; started again\n")
        self.start()

    def _has_ended(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def _last_words(self) -> str:
        if self.log is None:
            return "; it has said why above"
        words = last_error_line(self.log)
        return (f": {words}" if words else "") + f"; its output is in {self.log}"


def keep_running(services: Sequence[Service], look: Callable[[], None] = lambda: None) -> None:
    """Revive services as they end, and look at something now and then, until Ctrl-C comes."""
    looked_s = time.monotonic()
    while True:
        for service in services:
            service.revive()
        if time.monotonic() - looked_s > REGULARLY_S:
            look()
            looked_s = time.monotonic()
        time.sleep(LOOK_EVERY_S)
