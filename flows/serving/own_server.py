"""The Prefect server of one command: started where PREFECT_API_URL names none, gone with it.

Prefect would start one by itself, in this process's group: Ctrl-C and a SIGTERM to the group reach
it first, and the command then waits for over a minute for a server that is gone (136 to 170 s and
175 lines of traceback, measured; a kill -9 of the command leaves it running). Ours has a session of
its own and dies with the command, however that ends (storage/host/supervisor.py).
"""

import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL

from flows.serving.prefect_server import (
    answers,
    asked_with,
    check_login,
    crash_dead_runs,
    database_lock,
    new_login,
    server_environment,
)
from flows.serving.service import Service
from storage.errors import PipelineError
from storage.locks import locked

APPLICATION = "prefect.server.api.server:create_app"
START_S = 180.0  # 3.3 s warm, 10 s with a new database; a cold, busy laptop takes a minute
GRACE_S = 2.0  # it has nothing to put away: its database is SQLite's
DRAIN_S = 20.0  # for what the run told last; a second, usually
ABORT_DRAIN_S = 1.5  # the same when a signal ended it
LOOPBACK = "127.0.0.1"


@contextmanager
def own_server(workspace: Path) -> Generator[None]:
    """Have a Prefect server for as long as the block runs; does nothing where one is set.

    Raises:
        PipelineError: If it does not start; names its log.
    """
    if told := PREFECT_API_URL.value():
        if not answers(told.rstrip("/")):
            msg = (
                f"no Prefect server answers at {told} (PREFECT_API_URL); start it, or "
                "`unset PREFECT_API_URL`: the command then brings its own"
            )
            raise PipelineError(msg)
        check_login(told)
        yield
        return
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    api_url, login = f"http://{LOOPBACK}:{port}/api", new_login()
    server = Service(
        "Prefect server",
        [
            *(sys.executable, "-m", "uvicorn", "--factory", APPLICATION, "--lifespan", "on"),
            *("--host", LOOPBACK, "--port", str(port), "--log-level", "error"),
        ],
        log=workspace / "prefect" / "command-server.log",
        env={
            **server_environment(workspace, api_url, login),
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",  # these three as Prefect sets them for its own
            "PREFECT__SERVER_FINAL": "1",
        },
        grace_s=GRACE_S,
    )
    try:
        with locked(database_lock(workspace), wait=True):
            server.start()
            server.wait_until(lambda: answers(api_url), timeout_s=START_S)
        with asked_with(api_url, login):
            crash_dead_runs(workspace)
            drain_s = ABORT_DRAIN_S
            try:
                yield
                drain_s = DRAIN_S
            except PipelineError:
                drain_s = DRAIN_S
                raise
            finally:
                for worker in (EventsWorker, APILogWorker):  # task runs' states are events
                    worker.drain_all(timeout=drain_s)
    finally:
        server.stop()
