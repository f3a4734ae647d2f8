"""What an operator does with `make serve` over weeks: schedules, pauses, outages, cancels."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from flows.serving.prefect_server import answers, create_limits
from tasks.running.gpus import hold_gpus
from tests.flows.small_demo import SMALL
from tests.flows.test_serve import (
    ROOT,
    START_S,
    Serve,
    assert_no_errors,
    descendants,
    free_port,
)
from tests.tasks.conftest import is_alive

pytestmark = pytest.mark.long

OUTAGE_S = 15  # Prefect's own listener gave up for good after ten
MAIN = "full-pipeline/full-pipeline"
LONG_TRAINING = ["train.1.max_steps=50000", "train.1.save_steps=50000", "train.1.method=sft"]


@contextmanager
def serving(serve: Serve, *overrides: str) -> Iterator[subprocess.Popen[str]]:
    """`make serve` while the block runs, from when it says that it serves."""
    words = [word for override in (*SMALL, *overrides) for word in ("--set", override)]
    process = serve.start(*words)
    try:
        assert process.stdout is not None
        assert any("Ctrl-C" in line for line in process.stdout), process.communicate()
        yield process
        process.send_signal(signal.SIGINT)
        process.errors = process.communicate(timeout=90)[1]
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def program(pid: int, word: str) -> int:
    """The process below one that has a word in its command, and is not its supervisor."""
    found: list[int] = []

    def look() -> list[int]:
        for below in descendants(pid):
            with suppress(OSError):
                command = Path(f"/proc/{below}/cmdline").read_bytes().decode()
                if word in command and "supervisor.py" not in command:
                    found.append(below)
        return found

    await_true(look, wait_s=120)
    return found[0]


def with_gpu(folder: Path) -> dict[str, str]:
    """Variables of a process that sees one GPU, if no driver is asked."""
    tool = folder / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaa, NVIDIA H200, 143771, 0'\n")
    tool.chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "R1_AQA_GPU_LOCKS": str(folder / "locks"),
        # Prefect keeps a client for each name as long as a process lives: no other test's server.
        "R1_AQA_GPU_LIMIT": "operating-{gpu}",
    }


def told_of(serve: Serve) -> dict[str, str]:
    return {"PREFECT_API_URL": serve.client_settings["PREFECT_API_URL"]}


def train_directly(
    serve: Serve, *overrides: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """A training anew, by the command of a terminal, with a server of its own if `env` has none."""
    words = [word for override in (*SMALL, *overrides) for word in ("--set", override)]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "flows.train", "--profile", "demo", "--force"),
            *("--workspace", str(serve.workspace), *words),
        ],
        cwd=ROOT,
        env=serve.environment | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A workspace whose demo was trained once through the server, and a server for it."""
    workspace = tmp_path_factory.mktemp("operating") / "workspace"
    serve = Serve(workspace, free_port(), free_port())
    with serving(serve, f"world.port={free_port()}"):
        done = serve.run(
            *("deployment", "run", MAIN, "--watch"), *("-p", 'only=["fetch", "convert", "train"]')
        )
        assert done.returncode == 0, done.stdout + done.stderr
    settings = serve.client_settings
    ours = {
        PREFECT_API_URL: settings["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: settings["PREFECT_API_AUTH_STRING"],
    }
    with temporary_settings(ours):
        yield serve


def await_true(claim: Callable[[], object], *, wait_s: float) -> float:
    """Seconds until it held."""
    began_s = time.monotonic()
    while not claim():
        assert time.monotonic() - began_s < wait_s
        time.sleep(0.5)
    return time.monotonic() - began_s


def runs(client: SyncPrefectClient, name: str) -> list[FlowRun]:
    """Newest last."""
    found = [run for run in client.read_flow_runs() if run.name == name]
    return sorted(found, key=lambda run: run.created)


def status(serve: Serve) -> str:
    """The screen of `python -m flows.serve --status`."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "flows.serve", "--status", "--profile", "demo"),
            *("--workspace", str(serve.workspace), "--port", str(serve.port)),
        ],
        cwd=ROOT,
        env=serve.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_schedules_and_pauses_survive_restarts_and_a_cron_fires(serve: Serve) -> None:
    """Schedules made by CLI and pauses were gone after each restart of `make serve`."""
    with serving(serve, "schedule.cron='* * * * *'"), get_client(sync_client=True) as client:
        made = serve.run("deployment", "schedule", "create", "report/report", "--cron", "0 5 * * 0")
        assert made.returncode == 0, made.stdout + made.stderr
        paused = client.read_deployment_by_name("convert/convert")
        client.request("POST", f"/deployments/{paused.id}/pause_deployment")
        await_true(
            lambda: [
                run
                for run in runs(client, "full-pipeline-demo")
                if run.auto_scheduled and run.state_name in {"Running", "Completed"}
            ],
            wait_s=240,
        )
    with serving(serve, "schedule.cron=0 3 * * 6"), get_client(sync_client=True) as client:
        (kept,) = client.read_deployment_by_name("report/report").schedules
        assert kept.schedule.cron == "0 5 * * 0"
        assert client.read_deployment_by_name("convert/convert").paused
        (ours,) = client.read_deployment_by_name(MAIN).schedules
        await_true(lambda: "next       full-pipeline at Sat" in status(serve), wait_s=60)
        assert (ours.slug, ours.schedule.cron) == ("profile", "0 3 * * 6")
    with serving(serve), get_client(sync_client=True) as client:
        assert client.read_deployment_by_name(MAIN).schedules == []
        assert len(client.read_deployment_by_name("report/report").schedules) == 1
    assert_no_errors(serve.workspace)


def test_cancel_works_after_an_outage_and_a_false_crash_is_taken_back(serve: Serve) -> None:
    """After ten seconds without server, cancel never worked again."""
    api_url = f"http://127.0.0.1:{serve.port}/api"
    with serving(serve, *LONG_TRAINING) as process, get_client(sync_client=True) as client:
        server = program(process.pid, "server\0start")
        process.send_signal(signal.SIGSTOP)  # it would start the server again at once
        os.kill(server, signal.SIGKILL)
        time.sleep(OUTAGE_S)
        process.send_signal(signal.SIGCONT)
        await_true(lambda: not is_alive(server) and answers(api_url), wait_s=START_S)
        serve.run("deployment", "run", "train/train", "-p", "force=true")
        trainer = program(process.pid, "grpo/run.json")
        run = runs(client, "train-demo")[-1]
        client.set_flow_run_state(run.id, Crashed(message="no heartbeat for 300 s"), force=True)
        await_true(lambda: client.read_flow_run(run.id).state_name == "Running", wait_s=30)
        assert is_alive(trainer)
        screen = status(serve)
        assert f"server     {api_url}" in screen
        assert re.search(r"run +train-demo Running for .*, cancel works", screen)
        assert re.search(r"works +process \d+ on .* for train/grpo, since", screen)
        assert re.search(r"training +grpo: step \d+, \d+ s ago", screen)
        serve.run("flow-run", "cancel", str(run.id))
        await_true(lambda: client.read_flow_run(run.id).state_name == "Cancelled", wait_s=40)
        await_true(lambda: not is_alive(trainer), wait_s=5)
    assert "cancellation will fail" not in process.errors


def test_a_command_of_a_terminal_can_be_cancelled_on_the_server_s_page(serve: Serve) -> None:
    """Nobody listened: it stayed in Cancelling for five minutes and then ran on, as Cancelled."""
    with serving(serve), get_client(sync_client=True) as client:
        direct = train_directly(serve, *LONG_TRAINING, env=told_of(serve))
        program(direct.pid, "grpo/run.json")
        below = descendants(direct.pid)
        run = runs(client, "train-demo")[-1]
        assert run.state_name == "Running"
        serve.run("flow-run", "cancel", str(run.id))
        _, errors = direct.communicate(timeout=60)
        assert direct.returncode == 143, errors
        assert client.read_flow_run(run.id).state_name == "Cancelled"
        assert not [pid for pid in below if is_alive(pid)]


def test_a_training_ends_well_though_its_server_is_away_and_waits_to_tell_it(
    serve: Serve, tmp_path: Path
) -> None:
    """A server that was away for 75 s ended it: the call that shows how far it is raised."""
    with serving(serve) as process, get_client(sync_client=True) as client:
        create_limits(["operating-0"])
        direct = train_directly(serve, env=told_of(serve) | with_gpu(tmp_path))
        program(direct.pid, "grpo/run.json")
        server = program(process.pid, "server\0start")
        process.send_signal(signal.SIGSTOP)  # it would start the server again at once
        os.kill(server, signal.SIGKILL)
        assert direct.stdout is not None
        assert any(line.startswith("waiting for Prefect's server at ") for line in direct.stdout)
        process.send_signal(signal.SIGCONT)
        said, errors = direct.communicate(timeout=180)
        assert direct.returncode == 0, said + errors
        run = runs(client, "train-demo")[-1]
        assert run.state_name == "Completed"
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        await_true(
            lambda: (
                {task.state_name for task in client.read_task_runs(flow_run_filter=of_run)}
                == {"Completed"}
            ),
            wait_s=20,
        )


def test_a_command_s_own_server_that_is_killed_is_started_again(serve: Serve) -> None:
    direct = train_directly(serve)
    program(direct.pid, "grpo/run.json")
    os.kill(program(direct.pid, "prefect.server.api.server"), signal.SIGKILL)
    said, errors = direct.communicate(timeout=180)
    assert direct.returncode == 0, said + errors
    assert "the Prefect server ended by itself" in errors


def test_the_slot_of_a_killed_holder_is_waited_for_a_minute_and_told(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The next run waited 303 s in silence."""
    for name, value in with_gpu(tmp_path).items():
        monkeypatch.setenv(name, value)
    code = (
        "from tasks.running.gpus import hold_gpus\n"
        "with hold_gpus(1, 'training grpo'): print('held', flush=True); input()"
    )
    with serving(serve, f"world.port={free_port()}"):
        create_limits(["operating-0"])
        killed = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | serve.client_settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"held\n"
        killed.kill()
        killed.wait()
        began_s = time.monotonic()
        with hold_gpus(1, "evaluation"):
            assert 10 < time.monotonic() - began_s < 100
    said = capsys.readouterr().out
    assert "waiting for operating-0 of the Prefect server, at most 75 s" in said
    assert f"last was process {killed.pid} on " in said


def test_ten_runs_at_once_end_well_and_do_the_work_once(serve: Serve) -> None:
    """They destroyed each other: in a training's folder, on `site.part`, in one made world."""
    with serving(serve, f"world.port={free_port()}"), get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(MAIN)
        before = {run.id for run in client.read_flow_runs()}
        overrides = [[], ["evaluate.max_new_tokens=200"]] * 5
        began = [
            client.create_flow_run_from_deployment(found.id, parameters={"overrides": each})
            for each in overrides
        ]

        def ended() -> bool:
            states = [client.read_flow_run(run.id).state for run in began]
            return all(state is not None and state.is_final() for state in states)

        await_true(ended, wait_s=900)  # 140 s idle; SQLite's lock may cost minutes
        new = [run for run in client.read_flow_runs() if run.id not in before]
        ours = [run for run in new if not run.auto_scheduled]  # another test leaves a schedule
        assert len(ours) >= len(began)
        assert {run.state_name for run in ours} <= {"Completed", "Skipped"}
    assert_no_errors(serve.workspace)


def test_a_run_killed_alone_or_with_its_runner_is_crashed_with_its_tasks_within_a_minute(
    serve: Serve,
) -> None:
    """Of one whose runner saw it die, the tasks were Running, or Retrying, for ever."""
    locks = Path(serve.workspace, "locks", ".runs")
    with serving(serve, *LONG_TRAINING) as process, get_client(sync_client=True) as client:
        for killed in ("prefect.engine", "flows.serving.deployments"):
            serve.run("deployment", "run", "train/train", "-p", "force=true")
            program(process.pid, "grpo/run.json")
            run_id = runs(client, "train-demo")[-1].id
            os.kill(program(process.pid, killed), signal.SIGKILL)
            # Its lock goes right after its state and its tasks' are set.
            await_true(lambda: not list(locks.glob("*")), wait_s=60)
            assert client.read_flow_run(run_id).state_name == "Crashed"
            of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
            tasks = client.read_task_runs(flow_run_filter=of_run)
            assert tasks
            assert all(task.state is not None and task.state.is_final() for task in tasks)
