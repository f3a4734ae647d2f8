"""What a flow run knows of itself: that it lives, and what the server says of it meanwhile.

A run holds a lock named by its id for as long as its process lives, so that one whose process was
killed can be told from one that works (flows/serving/dead_runs.py). And it reads its own state. The
server may call it Crashed because the host slept, or Cancelled because nobody heard that it was
to be cancelled: Prefect's runner does not listen any more after an outage of ten seconds (3.8.8,
PrefectHQ/prefect 18840), nobody does for a command of a terminal. So the run takes its state back,
or ends.
"""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, ParamSpec
from uuid import UUID

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Running

from storage.locks import locked
from tasks.running.notify import notify, tells_low_disk

P = ParamSpec("P")
# How the messages of those begin who take a run for dead that they do not see.
NO_HEARTBEAT = "no heartbeat"
GONE = "its process is gone"
LOOK_S = 10.0
# A runner that hears of it ends the run in a few seconds; Prefect writes Cancelled after 300.
CANCELLING_S = 20.0


def runs_folder(workspace: Path) -> Path:
    """Folder of the locks of live runs; a name that no experiment can have."""
    return workspace / "locks" / ".runs"


def alive(function: Callable[P, Any]) -> Callable[P, Any]:
    """Around a flow's function: hold the run's lock, and heed what the server says of the run."""

    @functools.wraps(function)
    def watched(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  whatever the function returns
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:  # called as a plain function
            return function(*args, **kwargs)
        run, parameters = context.flow_run, context.parameters or {}
        workspace, config = Path(str(parameters["workspace"])).absolute(), parameters["config"]
        path = runs_folder(workspace) / f"{run.id}.lock"
        is_inner = run.parent_task_run_id is not None
        began_s = time.monotonic()
        look = functools.partial(
            tells_low_disk, config.notify, run.name, workspace / config.experiment
        )
        watch = _Watch(run.id, context.flow, None if is_inner else look)
        with locked(path, f"run {run.name}", wait=True), watch:
            outcome: object = None
            try:
                outcome = function(*args, **kwargs)
            except BaseException as error:
                outcome = error
                raise
            finally:
                seconds = time.monotonic() - began_s
                notify(None if is_inner else config.notify, run.name, outcome, seconds=seconds)
        path.unlink(missing_ok=True)
        return outcome

    return watched


class _Watch(threading.Thread):
    """Reads the run's state now and then, and looks at the disk until it was told to be low."""

    def __init__(
        self,
        run_id: UUID,
        flow: Flow[..., Any] | None,
        tells_low_disk: Callable[[], bool] | None,
    ) -> None:
        # In the run's own context: another one's Prefect has no server and would start one.
        super().__init__(name="watch", daemon=True, target=copy_context().run, args=[self._watch])
        self._run_id = run_id
        self._over = threading.Event()
        self._flow = flow
        self._tells_low_disk = tells_low_disk

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_error: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            if self._tells_low_disk and self._tells_low_disk():
                self._tells_low_disk = None
            # The server is away or asks for another login: look again.
            with suppress(PrefectException, httpx.HTTPError):
                self._look()

    def _look(self) -> None:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(self._run_id).state
            if state is None or self._over.is_set():
                return
            if state.type is StateType.CRASHED and _is_mistaken(state):
                back = Running(message="was asleep or cut off from the server, goes on")
                client.set_flow_run_state(self._run_id, back, force=True)
            elif state.is_final() or _is_overdue(state):
                self._over.set()
                if self._flow and state.type in {StateType.CANCELLING, StateType.CANCELLED}:
                    self._flow.on_crashed(_set_cancelled)
                os.kill(os.getpid(), signal.SIGTERM)


def _set_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  a hook of Prefect's
    """Prefect calls a run Crashed that ends by a SIGTERM which its runner did not announce."""
    with get_client(sync_client=True) as client:
        message = "ended by its own watch: nobody else heard that it was cancelled"
        client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)


def _is_mistaken(state: State[Any]) -> bool:
    return (state.message or "").startswith((NO_HEARTBEAT, GONE))


def _is_overdue(state: State[Any]) -> bool:
    since_s = time.time() - state.timestamp.timestamp()
    return state.type is StateType.CANCELLING and since_s > CANCELLING_S
