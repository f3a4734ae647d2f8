"""Ctrl-C, SIGTERM and kill -9 as terminals and batch systems send them, on real commands."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import STOPPED
from flows.serving.own_server import own_server
from tests.flows.small_demo import SMALL
from tests.flows.test_serve import descendants
from tests.tasks.conftest import is_alive

ROOT = Path(__file__).parents[2]
LONG_TRAINING = ("train.1.max_steps=5000", "train.1.save_steps=5000", "train.1.method=sft")


class Ended(NamedTuple):
    """What a command that got a signal left."""

    code: int
    seconds: float
    errors: str
    left: list[int]


def command(stage: str, workspace: Path, *more: str, overrides: tuple[str, ...] = ()) -> list[str]:
    words = [word for override in (*SMALL, *overrides) for word in ("--set", override)]
    return [
        sys.executable, "-m", f"flows.{stage}", "--profile", "demo",
        "--workspace", str(workspace), *words, *more,
    ]  # fmt: skip


def start(words: list[str]) -> subprocess.Popen[str]:
    """As a shell starts it: in a process group of its own."""
    own = {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_SERVER_DATABASE_CONNECTION_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def send_after(
    process: subprocess.Popen[str], line: str, number: int, *, to_group: bool, wait_s: float
) -> Ended:
    """Send a signal some seconds after a line of output."""
    assert process.stdout is not None
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    for text in process.stdout if line else ():
        if line in text:
            break
    time.sleep(wait_s)
    below = descendants(process.pid)
    assert process.poll() is None, process.communicate()
    began_s = time.monotonic()
    (os.killpg if to_group else os.kill)(process.pid, number)
    process.wait()
    seconds = time.monotonic() - began_s
    watchdog.cancel()
    _, errors = process.communicate()
    give_up_s = time.monotonic() + 8  # a supervisor stops what is below a killed command
    while (left := [pid for pid in below if is_alive(pid)]) and time.monotonic() < give_up_s:
        time.sleep(0.1)
    return Ended(process.returncode, seconds, errors, left)


def states(workspace: Path) -> dict[str, str]:
    """The newest state of each run and task run by name, as the next command's server has them."""
    with (
        temporary_settings({PREFECT_API_URL: None}),
        own_server(workspace),
        get_client(sync_client=True) as client,
    ):
        runs = sorted(client.read_flow_runs(), key=lambda run: run.created)
        tasks = sorted(client.read_task_runs(), key=lambda run: run.created)
        return {run.name: run.state_name for run in (*runs, *tasks)}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything has been run once, by commands."""
    folder = tmp_path_factory.mktemp("signals") / "workspace"
    words = command("full_pipeline", folder, overrides=(f"world.port={free_port()}",))
    done = start(words)
    output, errors = done.communicate(timeout=400)
    assert done.returncode == 0, output + errors
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_ctrl_c_while_python_imports_is_one_line(tmp_path):
    ended = send_after(
        start(command("report", tmp_path)), "", signal.SIGINT, to_group=True, wait_s=0.4
    )
    assert (ended.code, ended.errors, ended.left) == (130, f"{STOPPED}\n", [])


class Case(NamedTuple):
    """A signal in the middle of a stage."""

    stage: str
    number: signal.Signals
    to_group: bool = True
    line: str = ""
    """Of the output, after which it is sent."""
    wait_s: float = 3.0
    overrides: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        return -9 if self.number == signal.SIGKILL else 128 + self.number


TRAIN = Case("train", signal.SIGINT, line="train grpo: ", overrides=LONG_TRAINING)
SLOWLY = ("evaluate.batch_size=1", "evaluate.max_new_tokens=200")
EVALUATE = Case("evaluate", signal.SIGINT, line="evaluate: 6 of 6", wait_s=1, overrides=SLOWLY)
CASES = [
    TRAIN,
    TRAIN._replace(number=signal.SIGTERM),
    TRAIN._replace(number=signal.SIGTERM, to_group=False),
    TRAIN._replace(number=signal.SIGKILL, to_group=False),
    EVALUATE,
    EVALUATE._replace(number=signal.SIGTERM),
    Case("report", signal.SIGINT, wait_s=3),  # while the server starts, or a little after
    Case("report", signal.SIGTERM, wait_s=7),
]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.stage}-{case.number.name}")
def test_a_signal_ends_a_command_within_seconds_in_one_line_and_leaves_nothing(
    workspace, tmp_path, case
):
    """Ctrl-C took 136 to 170 s and 175 lines, as Prefect's server died first of the group."""
    copy = tmp_path / "workspace"
    shutil.copytree(workspace, copy)
    process = start(command(case.stage, copy, "--force", overrides=case.overrides))
    ended = send_after(process, case.line, case.number, to_group=case.to_group, wait_s=case.wait_s)
    assert (ended.code, ended.left) == (case.code, [])
    assert ended.errors.splitlines() == ([] if case.code == -9 else [STOPPED])
    assert ended.seconds < 5
    known = states(copy)
    assert set(known.values()) <= {"Completed", "Skipped", "Crashed"}, known
    if case.line:
        assert known[f"{case.stage}-demo"] == "Crashed"
    log = (copy / "prefect" / "command-server.log").read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log


@pytest.mark.long
def test_of_two_commands_on_one_workspace_only_the_killed_one_is_called_crashed(
    workspace, tmp_path
) -> None:
    copy = tmp_path / "workspace"
    shutil.copytree(workspace, copy)
    words = command("train", copy, "--force", overrides=LONG_TRAINING)
    first = start(words)
    ended = send_after(first, "train grpo: ", signal.SIGKILL, to_group=False, wait_s=1)
    assert ended.left == []
    second = start(words)
    assert second.stdout is not None
    next(text for text in second.stdout if "train grpo: " in text)
    with (
        temporary_settings({PREFECT_API_URL: None}),
        own_server(copy),
        get_client(sync_client=True) as client,
    ):
        runs = [run for run in client.read_flow_runs() if run.name == "train-demo"]
        newest = sorted(runs, key=lambda run: run.created)[-2:]
        assert [run.state_name for run in newest] == ["Crashed", "Running"]
    second.kill()
    second.communicate()
