"""What a flow run does besides its work: it shows that it lives, heeds the server, tells its end.

A run holds a lock named by its id for as long as its process lives, so that one whose process was
killed can be told from one that works (`crash_dead_runs` in flows/serving/prefect_server.py). And
it reads its own state. The server may call it Crashed because the host slept, or Cancelled because
nobody heard that it was to be cancelled: Prefect's runner does not listen any more after an outage
of ten seconds (3.8.8, PrefectHQ/prefect 18840), nobody does for a command of a terminal. So the run
takes its state back, or ends. A server that is away ends no run: what only shows something is left
out, and what is done waits for it before it tells so. A webhook (`notify`) is told when it ends,
and when the disk runs short.
"""

import functools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, ParamSpec
from uuid import UUID

import httpx
import requests
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Cancelled, Running

from storage.config import reveal
from storage.errors import PipelineError
from storage.host.checks import GB, free_bytes
from storage.locks import locked
from storage.records.training import CHECKPOINT, CheckpointRecord
from storage.text import printable
from tasks.running.console import format_duration, say
from tasks.running.turns import wait_for

P = ParamSpec("P")
# How the messages of those begin who take a run for dead that they do not see.
NO_HEARTBEAT = "no heartbeat"
GONE = "its process is gone"
LOOK_S = 10.0
# A runner that hears of it ends the run in a few seconds; Prefect writes Cancelled after 300.
CANCELLING_S = 20.0
ASKED_ONCE_S = 5.0
AWAY_S = 600.0  # a server that is gone for good
WEBHOOK_S = 10.0
LONGEST = 1000  # characters of a message
LOW_BYTES = 1_000_000_000  # where there is no checkpoint yet: logs, answers, the database


def runs_folder(workspace: Path) -> Path:
    """Folder of the locks of live runs; a name that no experiment can have."""
    return workspace / "locks" / ".runs"


@contextmanager
def asked_once() -> Generator[None]:
    """Ask the server in the block for what the work does not need: once, answered or not.

    Prefect's client asks an absent one for a minute and then raises, which ended trainings.
    """
    once = temporary_settings(
        {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: ASKED_ONCE_S}
    )
    with suppress(PrefectException, httpx.HTTPError), once:
        yield


def await_server() -> None:
    """Wait until the server can be told what has been done; after ten minutes it is gone."""
    give_up_s = time.monotonic() + AWAY_S

    def answers() -> bool | None:
        with asked_once(), get_client(sync_client=True) as client:
            if client.api_healthcheck() is None:
                return True
        return time.monotonic() > give_up_s or None

    url = PREFECT_API_URL.value()
    wait_for(answers, lambda: f"waiting for Prefect's server at {url}, to tell what was done")


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
        place = None if is_inner else config.notify
        root = None if is_inner else workspace / config.experiment
        began_s = time.monotonic()
        with (
            locked(path, f"run {run.name}", wait=True),
            _watching(run, context.flow, config.notify, root),
        ):
            outcome: object = None
            try:
                outcome = function(*args, **kwargs)
            except BaseException as error:
                outcome = error
                raise
            finally:
                lasted = format_duration(time.monotonic() - began_s)
                _post(place, f"{run.name} {_end(outcome)} after {lasted}")
        path.unlink(missing_ok=True)
        return outcome

    return watched


@contextmanager
def _watching(
    run: FlowRun, flow: Flow[..., Any] | None, place: str | None, root: Path | None
) -> Generator[None]:
    """Read the run's state now and then, and look at the disk until it was told to be low."""
    over = threading.Event()

    def watch() -> None:
        is_told = root is None
        while not over.wait(LOOK_S):
            if root is not None and not is_told:
                is_told = tells_low_disk(place, run.name, root)
            with asked_once():  # the server is away or asks for another login: look again
                _look(run.id, flow, over)

    # In the run's own context: another one's Prefect has no server and would start one.
    context = copy_context()
    threading.Thread(target=context.run, args=[watch], name="watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _look(run_id: UUID, flow: Flow[..., Any] | None, over: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
        if state is None or over.is_set():
            return
        cancelling_s = time.time() - state.timestamp.timestamp()
        is_overdue = state.type is StateType.CANCELLING and cancelling_s > CANCELLING_S
        is_mistaken = (state.message or "").startswith((NO_HEARTBEAT, GONE))
        if state.type is StateType.CRASHED and is_mistaken:
            back = Running(message="was asleep or cut off from the server, goes on")
            client.set_flow_run_state(run_id, back, force=True)
        elif state.is_final() or is_overdue:
            over.set()
            if flow and state.type in {StateType.CANCELLING, StateType.CANCELLED}:
                flow.on_crashed(_set_cancelled)
            os.kill(os.getpid(), signal.SIGTERM)


def _set_cancelled(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  a hook of Prefect's
    """Prefect calls a run Crashed that ends by a SIGTERM which its runner did not announce."""
    with get_client(sync_client=True) as client:
        message = "ended by its own watch: nobody else heard that it was cancelled"
        client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)


def tells_low_disk(place: str | None, run_name: str, root: Path) -> bool:
    """Tell, here too, that the next checkpoint may find no room; whether that was so.

    The largest checkpoint in `root`, an experiment's folder, says what one takes.
    """
    wanted = LOW_BYTES
    with suppress(PipelineError, OSError):  # one is just being removed: the next look sees the rest
        for record in root.glob(f"training/*/*/{CHECKPOINT}"):
            wanted = max(wanted, sum(CheckpointRecord.read(record).files.values()))
    free = free_bytes(root)
    if free < wanted:
        text = (
            f"{free / GB:.1f} GB are free at {root.parent}, {wanted / GB:.1f} GB may be needed "
            "next; `python -m flows.prune` tells what may go"
        )
        say(f"low disk: {text}")
        _post(place, f"{run_name} runs out of disk: {text}")
    return free < wanted


def _post(place: str | None, text: str) -> None:
    """Post `{"text": ...}`, as Slack, Mattermost and their like take it; never fails a run."""
    if place is None:
        return
    text = f"{text} on {socket.gethostname()}"
    try:
        answer = requests.post(reveal(place), json={"text": text}, timeout=WEBHOOK_S)
        problem = "" if answer.ok else f"the webhook answers {answer.status_code}"
    except PipelineError as error:
        problem = str(error)
    except (requests.RequestException, ValueError) as error:
        problem = type(error).__name__  # its text holds the address, which is a secret
    if problem:
        say(f"notify: nobody was told ({problem})")


def _end(outcome: object) -> str:
    """How a run ended: by what the flow gave, a state of Prefect's where it failed, or raised."""
    if isinstance(outcome, State) and outcome.is_failed():
        return f"failed ({printable(outcome.message or '')[:LONGEST]})"
    if isinstance(outcome, Exception):
        return f"failed ({type(outcome).__name__}: {printable(str(outcome))[:LONGEST]})"
    return "was stopped" if isinstance(outcome, BaseException) else "ended well"
