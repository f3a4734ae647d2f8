"""The Prefect server of one command: started where PREFECT_API_URL names none, gone with it.

Prefect would start one by itself, in this process's group: Ctrl-C and a SIGTERM to the group reach
it first, and the command then waits for over a minute for a server that is gone (136 to 170 s and
175 lines of traceback, measured; a kill -9 of the command leaves it running). Ours has a session of
its own and dies with the command, however that ends (storage/host/supervisor.py).
"""

import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL

from flows.serving import prefect_server
from flows.serving.service import Service
from storage.errors import PipelineError

APPLICATION = "prefect.server.api.server:create_app"
LOOK_S = 1.0
GRACE_S = 2.0  # it has nothing to put away: its database is SQLite's
DRAIN_S = 20.0  # for what the run told last; a second, usually
ABORT_DRAIN_S = 1.5  # the same when a signal ended it
LOOPBACK = "127.0.0.1"


def check_answers() -> None:
    """Raise a PipelineError where no server answers at the address that is set."""
    told = PREFECT_API_URL.value() or ""
    if not prefect_server.answers(told.rstrip("/")):
        msg = (
            f"no Prefect server answers at {told} (PREFECT_API_URL); start it, or "
            "`unset PREFECT_API_URL`: the command then brings its own. What was done stays"
        )
        raise PipelineError(msg)


@contextmanager
def own_server(workspace: Path) -> Generator[None]:
    """Have a Prefect server for as long as the block runs; does nothing where one is set."""
    if told := PREFECT_API_URL.value():
        check_answers()
        prefect_server.check_login(told)
        yield
        return
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    api_url, login = f"http://{LOOPBACK}:{port}/api", prefect_server.new_login()
    server = Service(
        "Prefect server",
        [
            *(sys.executable, "-m", "uvicorn", "--factory", APPLICATION, "--lifespan", "on"),
            *("--host", LOOPBACK, "--port", str(port), "--log-level", "error"),
        ],
        log=workspace / "prefect" / "command-server.log",
        env={
            **prefect_server.server_environment(workspace, api_url, login),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",  # these three as Prefect sets them for its own
            "PREFECT__SERVER_FINAL": "1",
        },
        grace_s=GRACE_S,
    )
    over = threading.Event()

    def keep() -> None:
        with suppress(PipelineError):  # it does not stay up: the run tells that none answers
            while not over.wait(LOOK_S):
                server.revive()

    keeper = threading.Thread(target=keep, name="own-server", daemon=True)
    try:
        prefect_server.start_server(server, workspace, api_url)
        keeper.start()
        with prefect_server.asked_with(api_url, login):
            prefect_server.crash_dead_runs(workspace)
            drain_s = DRAIN_S
            try:
                yield
            except BaseException as error:
                drain_s = DRAIN_S if isinstance(error, Exception) else ABORT_DRAIN_S
                raise
            finally:
                for worker in (EventsWorker, APILogWorker):  # task runs' states are events
                    worker.drain_all(timeout=drain_s)
    finally:
        over.set()
        if keeper.is_alive():
            keeper.join()
        server.stop()
