"""Expected errors end a task Failed at once; what is transient is tried again."""

import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from storage.errors import PipelineError
from tasks.running.prefect_form import as_flow, as_task
from tasks.stage import run, task

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def server() -> Generator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.mark.parametrize(("is_transient", "num_tries"), [(True, 3), (False, 1)])
def test_only_a_transient_error_is_tried_again(
    tmp_path: Path, *, is_transient: bool, num_tries: int
) -> None:
    tries: list[int] = []

    @task("crash", goes_on=True)
    def crash() -> None:
        tries.append(1)
        msg = "the child was killed"
        raise PipelineError(msg, exit_code=75, is_transient=is_transient)

    def stage_flow(config: Any, workspace: Path) -> None:  # noqa: ARG001  read by Prefect's form
        at_once = as_task(crash).with_options(retry_delay_seconds=0)
        at_once(return_state=True).result()

    config = SimpleNamespace(experiment="demo", notify=None)
    state = as_flow(stage_flow)(config, tmp_path, return_state=True)
    assert state.name == "Failed"
    assert state.message == "the child was killed"
    with pytest.raises(PipelineError) as caught:
        state.result()
    assert caught.value.exit_code == 75
    assert len(tries) == num_tries


class LossyProxy(BaseHTTPRequestHandler):
    """Forwards to the server, and loses its first answer to a run's end, as busy ones do."""

    server: "Lossy"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = httpx.request(
            self.command, self.server.url + self.path, headers=dict(self.headers), content=body
        )
        ends = self.path.endswith("/set_state") and b"COMPLETED" in body
        is_lost = ends and not self.server.lost.is_set()
        if is_lost:
            self.server.lost.set()
        self.send_response(503 if is_lost else found.status_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found.content)))
        self.end_headers()
        self.wfile.write(found.content)

    do_GET = do_PATCH = do_PUT = do_DELETE = do_POST

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's
        pass


class Lossy(ThreadingHTTPServer):
    """The proxy's own."""

    url: str
    lost: threading.Event


def test_a_run_whose_end_the_server_tells_twice_has_ended(tmp_path: Path) -> None:
    """The second answer holds the state alone: a pipeline beside nine others failed by it."""

    def stage_flow(config: Any, workspace: Path) -> bool:  # noqa: ARG001  read by Prefect's form
        return True

    with Lossy(("127.0.0.1", 0), LossyProxy) as proxy:
        proxy.url, proxy.lost = str(PREFECT_API_URL.value()).removesuffix("/api"), threading.Event()
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{proxy.server_port}/api"}):
            run(stage_flow, SimpleNamespace(experiment="demo", notify=None), tmp_path)
        proxy.shutdown()
    assert proxy.lost.is_set()
