"""The kill matrix on a real server: whatever is killed, no process stays, and the state is true.

The trainer is silent and its rank deaf to SIGTERM: one that writes dies of a broken pipe by itself,
which hides the fault that this guards against. All cases run at once, on one server.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from flows.serving.prefect_server import (
    answers,
    create_limits,
    create_zombie_automation,
    server_environment,
)
from flows.serving.service import Service
from storage.errors import PipelineError
from storage.host.supervisor import _parents_from_proc
from tasks.running.child_process import supervised
from tasks.running.gpus import hold_gpus

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
# A flow in a file of its own, as a runner finds it.
FLOW = textwrap.dedent("""
    import json, os, sys
    from pathlib import Path
    from prefect import flow, serve, task
    from tasks.running.child_process import run_child, stopping_children

    @task
    def train(command: list[str], log: str, limits: dict[str, float]) -> None:
        run_child(command, log=Path(log), on_line=print, **limits)

    @flow(name="kill-matrix", flow_run_name="{case}")
    def kill_matrix(
        case: str, command: list[str], folder: str, submit: bool, limits: dict[str, float]
    ) -> None:
        Path(folder, "flow.pid").write_text(str(os.getpid()))
        log = str(Path(folder, "trainer.log"))
        if not submit:
            train(command, log, limits)
            return
        with stopping_children():
            train.submit(command, log, limits).result()

    if __name__ == "__main__":
        if sys.argv[1:]:
            kill_matrix(**json.loads(sys.argv[1]))
        else:
            serve(
                kill_matrix.to_deployment("kill-matrix"),
                limit=20, query_seconds=1, print_starting_message=False,
            )
""")


class Run:
    """One flow run, its folder and its trainer."""

    def __init__(self, client: SyncPrefectClient, name: str, folder: Path, trainer: Any) -> None:
        folder.mkdir()
        self.client, self.name, self.folder, self.trainer = client, name, folder, trainer

    def parameters(self, case: "Case") -> dict[str, Any]:
        return {
            "case": self.name,
            "command": self.trainer.command,
            "folder": str(self.folder),
            "submit": case.submit,
            "limits": case.limits,
        }

    @property
    def _found(self) -> Any:
        wanted = FlowRunFilter(name=FlowRunFilterName(any_=[self.name]))
        (found,) = self.client.read_flow_runs(flow_run_filter=wanted)
        return found

    def cancel(self) -> None:
        """As `prefect flow-run cancel` does."""
        self.client.set_flow_run_state(self._found.id, Cancelling())

    def send(self, number: int) -> None:
        os.kill(int((self.folder / "flow.pid").read_text()), number)

    def await_final_state(self, *, wait_s: float) -> Any:
        give_up_s = time.monotonic() + wait_s
        while not (state := self._found.state).is_final():
            assert time.monotonic() < give_up_s, f"{self.name} is still {state.name}"
            time.sleep(0.5)
        return state


@dataclass(frozen=True)
class Case:
    """One way of dying, and what Prefect must say of the run."""

    name: str
    kill: Callable[[Run], None]
    state: str
    message: str = ""
    submit: bool = False
    has_runner: bool = True
    limits: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", self.limits or {})


def wait(_: Run) -> None:
    """Its own limit stops it."""


def terminate(run: Run) -> None:
    run.send(signal.SIGTERM)


def kill(run: Run) -> None:
    run.send(signal.SIGKILL)


CASES = (
    Case("cancelled, called", Run.cancel, "Cancelled"),
    Case("cancelled, submitted", Run.cancel, "Cancelled", submit=True),
    Case("terminated, called", terminate, "Crashed"),
    Case("terminated, submitted", terminate, "Crashed", submit=True),
    Case("killed, called", kill, "Crashed"),
    Case("killed, submitted", kill, "Crashed", submit=True),
    Case("killed without a runner", kill, "Crashed", "no heartbeat", has_runner=False),
    Case("silence, called", wait, "Failed", "wrote nothing for 5 s", limits={"silence_s": 5}),
    Case("silence, submitted", wait, "Failed", "5 s", submit=True, limits={"silence_s": 5}),
)
SERVER_CASE = Case("the server killed, called", wait, "Completed")
RUNNER_CASE = Case("the runner killed, called", wait, "Crashed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Site"]:
    """A server, the automation on heartbeats, and a runner of the test's flow."""
    folder = tmp_path_factory.mktemp("kill-matrix")
    (folder / "kill_flow.py").write_text(FLOW)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api_url = f"http://127.0.0.1:{port}/api"
    login = "kill:matrix"
    environment = {
        **server_environment(folder, api_url, login),
        "PREFECT_API_AUTH_STRING": login,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api_url,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PYTHONPATH": str(ROOT),
        "R1_AQA_GRACE_S": "2",
    }
    (folder / "prefect").mkdir()
    flow = [sys.executable, str(folder / "kill_flow.py")]
    server = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("ab"))
        service = Service("server", server, log=folder / "server.log", env=environment)
        stack.callback(service.stop)
        service.start()
        service.wait_until(lambda: answers(api_url), timeout_s=180)
        stack.enter_context(
            temporary_settings({PREFECT_API_URL: api_url, PREFECT_API_AUTH_STRING: login})
        )
        client = stack.enter_context(get_client(sync_client=True))
        create_zombie_automation(["kill-matrix"], within=timedelta(seconds=40))
        runner = stack.enter_context(supervised(flow, log, grace_s=10, env=environment))
        yield Site(folder, client, service, runner, flow, environment)


@dataclass(frozen=True)
class Site:
    folder: Path
    client: SyncPrefectClient
    server: Service
    runner: subprocess.Popen[bytes]
    flow: list[str]
    environment: dict[str, str]

    def start(self, case: Case, trainer_class: type) -> Run:
        folder = self.folder / case.name.replace(" ", "-")
        run = Run(self.client, case.name, folder, trainer_class(folder / "pids"))
        if case.has_runner:
            await_true(self.is_served, "the deployment", wait_s=60)
            deployment = self.client.read_deployment_by_name("kill-matrix/kill-matrix")
            self.client.create_flow_run_from_deployment(
                deployment.id, parameters=run.parameters(case)
            )
        else:
            command = [*self.flow, json.dumps(run.parameters(case))]
            subprocess.Popen(command, env=os.environ | self.environment)
        return run

    def is_served(self) -> bool:
        try:
            self.client.read_deployment_by_name("kill-matrix/kill-matrix")
        except ObjectNotFound:
            return False
        return True


def await_true(claim: Callable[[], bool], subject: str, *, wait_s: float) -> None:
    give_up_s = time.monotonic() + wait_s
    while not claim():
        assert time.monotonic() < give_up_s, f"{subject} was not there in {wait_s} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def runs(site: Site, trainer_class: type) -> dict[str, Run]:
    """Every case's run, killed in its way once its trainer runs."""
    started = [(case, site.start(case, trainer_class)) for case in CASES]
    for case, run in started:
        run.trainer.pids(wait_s=180)
        case.kill(run)
    return {case.name: run for case, run in started}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_process_is_left_and_the_state_in_prefect_is_true(case: Case, runs: dict[str, Run]):
    run = runs[case.name]
    run.trainer.await_death(wait_s=20)
    state = run.await_final_state(wait_s=90)
    assert state.name == case.state
    assert case.message in (state.message or "")


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with one GPU, as nvidia-smi tells it."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaa, NVIDIA H200, 143771, 0'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("R1_AQA_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("site", "one_gpu")
def test_a_missing_limit_is_told_with_the_command_that_creates_it():
    remedy = "no concurrency limit gpu-0; `make serve` creates it, or: prefect gcl create gpu-0"
    with pytest.raises(PipelineError, match=remedy), hold_gpus(1):
        pass


@pytest.mark.usefixtures("one_gpu")
def test_a_server_that_dies_for_half_a_minute_costs_no_run_and_no_gpu(
    site: Site,
):
    """With leases in the server's memory, Prefect's default, a GPU's slot would stay taken."""
    create_limits(["gpu-0"])
    create_zombie_automation(["kill-matrix"])  # with the window that `make serve` sets
    with hold_gpus(1):
        assert site.client.read_global_concurrency_limit_by_name("gpu-0").active_slots == 1
        run = site.start(SERVER_CASE, Waiting)
        await_true((run.folder / "flow.pid").exists, "the flow", wait_s=90)
        parents = _parents_from_proc()
        assert site.server._child is not None
        (server_pid,) = [pid for pid, of in parents.items() if of == site.server._child.pid]
        os.kill(server_pid, signal.SIGKILL)
        time.sleep(30)
        site.server.start()
        api_url = site.environment["PREFECT_API_URL"]
        site.server.wait_until(lambda: answers(api_url), timeout_s=180)
    assert site.client.read_global_concurrency_limit_by_name("gpu-0").active_slots == 0
    run.trainer.file.touch()
    assert run.await_final_state(wait_s=90).name == "Completed"


@dataclass(frozen=True)
class Waiting:
    """A child that works until a file comes."""

    file: Path

    @property
    def command(self) -> list[str]:
        return ["sh", "-c", f"until [ -e '{self.file}' ]; do sleep 0.2; done"]


def test_a_killed_runner_takes_its_runs_along_and_their_state_is_told(
    site: Site, runs: dict[str, Run], trainer_class: type
):
    """Before, flow and trainer lived on, in the state Running, and could not be cancelled."""
    assert runs
    run = site.start(RUNNER_CASE, trainer_class)
    run.trainer.pids(wait_s=60)
    parents = _parents_from_proc()
    (runner_pid,) = [pid for pid, parent in parents.items() if parent == site.runner.pid]
    os.kill(runner_pid, signal.SIGKILL)
    run.trainer.await_death(wait_s=20)
    assert run.await_final_state(wait_s=90).name == RUNNER_CASE.state
