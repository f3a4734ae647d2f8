import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint

from flows import is_loopback
from flows.pipeline_config import PipelineConfig, load_config
from flows.serve import choose_api_url
from flows.serving.deployments import deployments
from flows.serving.prefect_flows import FLOWS
from flows.serving.prefect_server import answers
from flows.serving.service import Service, keep_running
from storage.errors import PipelineError
from storage.host.supervisor import _parents_from_proc
from tests.flows.small_demo import SMALL
from tests.storage.wire import wait_until
from tests.tasks.conftest import is_alive

ROOT = Path(__file__).parents[2]
START_S = 240  # a cold server on a loaded machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Serve:
    """One `python -m flows.serve`."""

    workspace: Path
    port: int
    report_port: int

    @property
    def environment(self) -> dict[str, str]:
        own = {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_API_AUTH_STRING"}
        kept = {name: value for name, value in os.environ.items() if name not in own}
        return kept | {
            # A home of its own: the tests do not touch the user's Prefect profile.
            "HOME": str(self.workspace.parent),
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # 60 is too long here
        }

    @property
    def client_settings(self) -> dict[str, str]:
        """What `make serve` prints to be exported."""
        login = (self.workspace / "prefect" / "login").read_text()
        url = f"http://127.0.0.1:{self.port}/api"
        return {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": login}

    def start(self, *more: str, settings: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "flows.serve", "--profile", "demo",
            "--workspace", str(self.workspace),
            "--port", str(self.port), "--report-port", str(self.report_port), *more,
        ]  # fmt: skip
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment | (settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fail(self, *more: str, settings: dict[str, str] | None = None) -> str:
        """What it says when it cannot start: one line, and no traceback."""
        process = self.start(*more, settings=settings)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 1, output
        assert "Traceback" not in errors
        # Prefect itself warns where it cannot make its folder, before our code comes to speak.
        return errors.strip().splitlines()[-1]

    def start_with(self, settings: dict[str, str]) -> str:
        """What a stage's command says under other settings, when it fails."""
        command = [sys.executable, "-m", "flows.convert", "--workspace", str(self.workspace)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | self.client_settings | settings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 1, done
        return done.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `prefect` command, as a user types it in another terminal."""
        command = [str(Path(sys.executable).with_name("prefect")), *arguments]
        return subprocess.run(
            command,
            env=self.environment | self.client_settings,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )


class Served(NamedTuple):
    """The real server, runner and report server, and what they said at their start."""

    serve: Serve
    process: subprocess.Popen[str]
    lines: list[str]
    errors: list[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Everything that `python -m flows.serve` starts, for the smallest demo in a new workspace."""
    workspace = tmp_path_factory.mktemp("serve") / "workspace"
    serve = Serve(workspace, free_port(), free_port())
    overrides = [*SMALL, f"world.port={free_port()}"]
    process = serve.start(*(word for override in overrides for word in ("--set", override)))
    lines: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[str] = []
    threading.Thread(target=errors.extend, args=[process.stderr], daemon=True).start()
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    watchdog.cancel()
    yield Served(serve, process, lines, errors)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.mark.long
def test_serve_starts_everything_and_prints_addresses_and_commands(served):
    serve, lines = served.serve, served.lines
    text = "".join(lines)
    assert f"http://127.0.0.1:{serve.port}/api" in text
    assert f"http://127.0.0.1:{serve.report_port}/" in text
    assert "deployment run full-pipeline/full-pipeline --watch" in text
    assert answers(f"http://127.0.0.1:{serve.port}/api")
    assert (serve.workspace / "prefect" / "prefect.db").exists()


@pytest.mark.long
def test_the_server_asks_for_a_login_that_its_owner_alone_can_read(served):
    """Any local user, and any web page, could have a shell script run as the person serving."""
    serve = served.serve
    login = serve.workspace / "prefect" / "login"
    assert login.stat().st_mode & 0o777 == 0o600
    assert login.read_text() not in "".join(served.lines)
    assert f'export PREFECT_API_AUTH_STRING="$(cat {login})"' in "".join(served.lines)
    url = f"http://127.0.0.1:{serve.port}/api/deployments/filter"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(url, b"{}", method="POST"), timeout=30)
    asked = {"Origin": "http://attacker.example", "Access-Control-Request-Method": "PATCH"}
    preflight = urllib.request.Request(url, headers=asked, method="OPTIONS")
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(preflight, timeout=30)
    assert "Access-Control-Allow-Origin" not in refused.value.headers
    other = serve.start_with({"PREFECT_API_AUTH_STRING": "r1-aqa:wrong"})
    assert 'wants a login: export PREFECT_API_AUTH_STRING="$(cat' in other


@pytest.mark.long
def test_every_stage_is_a_deployment_that_shows_its_settings(served):
    serve = served.serve
    listed = serve.run("deployment", "ls").stdout
    for flow in FLOWS:
        assert f"{flow.name}/{flow.name}" in listed
    shown = serve.run("deployment", "inspect", "train/train").stdout
    assert "Completions sampled per prompt, G." in " ".join(shown.split())


@pytest.mark.long
def test_a_schedule_gets_its_runs_and_the_server_logs_no_error(served):
    """Under SQLAlchemy 2.1.9 no schedule fired: Prefect's scheduler failed in each loop."""
    serve = served.serve
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()  # no run starts here
    every_day = ("--interval", "86400", "--anchor-date", tomorrow)
    made = serve.run("deployment", "schedule", "create", "report/report", *every_day)
    assert made.returncode == 0, made.stdout + made.stderr
    listed = ("flow-run", "ls", "--flow-name", "report", "--state", "Scheduled", "-o", "json")
    wait_until(lambda: len(json.loads(serve.run(*listed).stdout)) > 1, timeout_s=60)
    cleared = serve.run("deployment", "schedule", "clear", "report/report", "--accept-yes")
    assert cleared.returncode == 0, cleared.stdout + cleared.stderr
    log = (serve.workspace / "prefect" / "server.log").read_text(encoding="utf-8")
    assert not [line for line in log.splitlines() if "| ERROR" in line or "Traceback" in line]


@pytest.mark.long
def test_a_deployment_s_run_is_watched_to_its_end_and_an_expected_failure_is_told(served):
    """Convert before fetch: the run fails with the stage's own message, and the command with 1."""
    serve = served.serve
    done = serve.run("deployment", "run", "convert/convert", "--watch")
    assert done.returncode == 1
    assert "Flow run finished in state 'Failed'" in done.stdout


@pytest.mark.long
def test_a_bad_value_or_name_is_refused_before_anything_runs(served):
    serve = served.serve
    refused = serve.run("deployment", "run", "train/train", "-p", "config={}")
    assert refused.returncode == 1
    assert "'experiment' is a required property" in refused.stdout + refused.stderr
    unknown = serve.run("deployment", "run", "train/nope")
    assert unknown.returncode == 1
    assert "not found" in unknown.stdout + unknown.stderr


@pytest.mark.long
def test_a_second_serve_on_the_workspace_says_so_in_one_line(served):
    serve = served.serve
    line = Serve(serve.workspace, free_port(), free_port()).fail()
    assert line.startswith(f"error: serving {serve.workspace} is busy: process ")


@pytest.mark.long
def test_a_second_workspace_on_the_same_server_says_so_in_one_line(served, tmp_path):
    serve = served.serve
    other = Serve(tmp_path / "other", serve.port, free_port())
    assert "wants a login" in other.fail()
    line = other.fail(settings=serve.client_settings)
    assert f"served already, for {serve.workspace}; stop that `make serve`, or start" in line


@pytest.fixture(scope="module")
def finished(served: Served) -> Served:
    """The same after what a user of `make serve` types."""
    done = served.serve.run("deployment", "run", "full-pipeline/full-pipeline", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Flow run finished successfully in 'Completed'" in done.stdout
    return served


@pytest.mark.long
def test_the_whole_pipeline_run_as_a_deployment_leaves_a_report_that_is_served(finished):
    serve = finished.serve
    address = f"http://127.0.0.1:{serve.report_port}/demo/"
    with urllib.request.urlopen(address, timeout=30) as response:
        assert "grpo-step-4" in response.read().decode()
    with (serve.workspace / "demo" / "site" / "leaderboard.csv").open(encoding="utf-8") as file:
        models = {row["model"] for row in csv.DictReader(file)}
    assert models == {"warm-start-step-3", "grpo-step-2", "grpo-step-4"}


@pytest.mark.long
def test_an_evaluation_that_stands_is_seen_as_skipped(finished):
    again = finished.serve.run("deployment", "run", "evaluate/evaluate", "--watch")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Flow run finished successfully in 'Skipped'" in again.stdout


@pytest.mark.long
def test_one_setting_is_changed_for_one_run_of_a_deployment(finished):
    """A rerun with another setting took a whole configuration as a parameter."""
    serve = finished.serve
    words = ("deployment", "run", "evaluate/evaluate", "--watch", "-p")
    again = serve.run(*words, 'overrides=["evaluate.max_new_tokens=9"]')
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Flow run finished successfully in 'Completed'" in again.stdout
    runs = (serve.workspace / "demo" / "evaluation").rglob("run.json")
    current = [run for run in runs if ".replaced-" not in str(run)]
    lengths = {json.loads(run.read_text())["decoding"]["max_new_tokens"] for run in current}
    assert lengths == {9}
    wrong = serve.run(*words, 'overrides=["evaluate.batchsize=30"]')
    assert wrong.returncode == 1
    listed = serve.run(
        "flow-run", "ls", "--flow-name", "evaluate", "--state", "Failed", "-o", "json"
    )
    (refused,) = json.loads(listed.stdout)
    assert "there is no such key; the nearest is evaluate.batch_size" in refused["state"]["message"]
    shapeless = serve.run(*words, 'overrides=["batch_size"]')
    assert "Validation failed for field 'overrides[0]'" in shapeless.stdout + shapeless.stderr


@pytest.mark.long
def test_a_sigterm_in_the_middle_of_a_training_leaves_nothing_behind(finished):
    serve, process = finished.serve, finished.process
    serve.run("deployment", "run", "train/train", "-p", "force=true")
    trainer = await_descendant(process.pid, "model.run_training")
    everything = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert trainer in everything
    assert "Warning" not in "".join(finished.errors)
    assert not [pid for pid in everything if is_alive(pid)]
    for port in (serve.port, serve.report_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert_no_errors(serve.workspace)


def assert_no_errors(workspace: Path) -> None:
    """SQLAlchemy 2.1 stopped Prefect's scheduler, and only the server's log told.

    One is known: under load SQLite's lock is met, and Prefect's client asks once more. Where the
    server's loop itself waits for it (a statement freed there, of a connection that waits), all
    stands still for a minute, and requests find the pool without a connection.
    """
    text = (workspace / "prefect" / "server.log").read_text()
    records = re.split(r"^(?=\d\d:\d\d:\d\d\.\d{3} \| )", text, flags=re.MULTILINE)
    errors = [record for record in records if re.match(r"\S+ \| (ERROR|CRITICAL)", record)]
    known = ("database is locked", "QueuePool limit")
    assert not [record for record in errors if not any(words in record for words in known)]


def descendants(pid: int) -> set[int]:
    """Every process below one."""
    parents, below = _parents_from_proc(), {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return below - {pid}


def await_descendant(pid: int, word: str) -> int:
    """The first process below one that has a word in its command."""
    give_up_s = time.monotonic() + 120
    while time.monotonic() < give_up_s:
        for below in descendants(pid):
            command = Path(f"/proc/{below}/cmdline")
            if command.exists() and word.encode() in command.read_bytes():
                return below
        time.sleep(0.1)
    pytest.fail(f"no process {word} came")


def test_ctrl_c_while_the_server_starts_ends_it_without_a_trace(tmp_path):
    process = Serve(tmp_path / "workspace", free_port(), free_port()).start()
    server = await_descendant(process.pid, "server")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.endswith("stopped\n")
    assert "Traceback" not in errors
    assert not is_alive(server)


def test_a_report_port_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = Serve(tmp_path / "workspace", free_port(), port).fail()
    assert line.startswith(f"error: port {port} of 127.0.0.1 is in use")


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    line = Serve(tmp_path / "file" / "workspace", free_port(), free_port()).fail()
    assert "cannot be written (Not a directory); choose another: --workspace DIR" in line


def test_an_unknown_profile_is_one_line(tmp_path):
    line = Serve(tmp_path / "workspace", free_port(), free_port()).fail("--profile", "nope")
    assert line.startswith("error: unknown profile nope: expected one of demo")


def test_another_program_on_the_server_s_port_is_told_from_a_server():
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  named so there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(PipelineError, match="in use, and not by a Prefect server"):
        answers(f"http://127.0.0.1:{server.server_port}/api")
    server.shutdown()
    server.server_close()
    assert not answers(f"http://127.0.0.1:{server.server_port}/api")


def test_the_server_s_address_is_the_option_s_then_the_environment_s_then_prefect_s():
    told = "http://cluster:4200/api/"
    assert choose_api_url(told, 4300) == "http://127.0.0.1:4300/api"
    assert choose_api_url(told, None) == "http://cluster:4200/api"
    assert choose_api_url(None, None) == "http://127.0.0.1:4200/api"
    assert is_loopback("http://127.0.0.1:4300/api")
    assert not is_loopback("http://cluster:4200/api")


def test_a_deployment_has_its_flow_s_name_and_the_profile_as_its_default(tmp_path):
    config = load_config("demo", workspace=tmp_path)
    made = deployments(config, tmp_path)
    assert [each.name for each in made] == [each.flow_name for each in made]
    for each in made:
        assert each.parameters["workspace"] == str(tmp_path)
        if each.flow_name != "score":  # scores a file of any tool
            assert PipelineConfig.model_validate(each.parameters["config"]) == config
        # the commands need no Prefect, so its form of their functions has a file of its own
        assert each.entrypoint == f"flows.serving.prefect_flows.{_function(each)}"
        assert load_flow_from_entrypoint(each.entrypoint).name == each.name


def test_a_run_s_parameters_get_the_types_that_its_flow_declares(tmp_path):
    """A deployment's run ended in `'str' object has no attribute 'absolute'`."""
    config = load_config("demo", workspace=tmp_path)
    given = {"config": config.model_dump(mode="json"), "workspace": str(tmp_path)}
    *flows, _ = FLOWS  # score has other parameters
    for flow in flows:
        taken = flow.validate_parameters({**given, "overrides": ["train.seed=7"]})
        assert (taken["config"], taken["workspace"]) == (config, tmp_path)
        with pytest.raises(ParameterTypeError, match="overrides"):
            flow.validate_parameters({**given, "overrides": ["shapeless"]})
    with pytest.raises(ParameterTypeError, match="only"):
        FLOWS[0].validate_parameters({**given, "only": ["nope"]})


def test_the_form_has_the_keys_as_titles_and_the_long_configuration_last(tmp_path):
    for each in deployments(load_config("demo", workspace=tmp_path), tmp_path):
        schema = each._parameter_openapi_schema
        places = {name: field["position"] for name, field in schema.properties.items()}
        assert "Args:" not in each.description
        if "config" in places:
            assert max(places, key=places.__getitem__) == "config"
            fetch = schema.definitions["FetchConfig"]["properties"]
            assert fetch["clip_length_s"]["title"] == "clip_length_s"


def _function(deployment) -> str:
    return deployment.flow_name.replace("-", "_") + "_flow"


def test_the_pools_deployments_have_the_paper_s_profile_and_names_that_are_not_served(tmp_path):
    """A name that was deployed for a pool and is then served crashes every run (Prefect 3.8.8)."""
    pools = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    served = {f"flows.serving.prefect_flows.{flow.fn.__name__}": flow.name for flow in FLOWS}
    for each in pools:
        assert each["name"] != served[each["entrypoint"]]
        config = PipelineConfig.model_validate(each["parameters"]["config"])
        assert config == load_config("paper", workspace=tmp_path)
    assert {each["entrypoint"] for each in pools} == set(served) - {
        "flows.serving.prefect_flows.score_flow"
    }


def test_a_service_that_ends_is_started_again_and_given_up_when_it_does_not_stay(tmp_path):
    log = tmp_path / "log"
    code = "import sys; sys.exit('error: no luck')"
    service = Service("server", [sys.executable, "-c", code], log=log, env={})
    service.start()
    with pytest.raises(PipelineError, match="does not stay up: no luck; its output is in"):
        keep_running([service])
    service.stop()
    assert log.read_text().count("no luck") == 4


def test_a_service_that_ends_before_it_is_ready_is_told_with_its_last_words(tmp_path):
    log = tmp_path / "log"
    service = Service(
        "server", [sys.executable, "-c", "raise OSError('port taken')"], log=log, env={}
    )
    service.start()
    with pytest.raises(PipelineError, match="ended at its start: OSError: port taken"):
        service.wait_until(lambda: False, timeout_s=30)
    service.stop()


@pytest.mark.long
def test_a_server_for_work_pools_has_what_make_serve_sets_up_and_runs_nothing(tmp_path):
    serve = Serve(tmp_path / "workspace", free_port(), free_port())
    address = socket.gethostbyname("localhost")
    process = serve.start("--pools", address)
    try:
        assert process.stdout is not None
        lines = list(
            iter(
                process.stdout.readline,
                "and go on as prefect.yaml says. Ctrl-C stops the server.\n",
            )
        )
        assert (
            f"  export PREFECT_API_URL=http://{address}:{serve.port}/api DO_NOT_TRACK=1\n" in lines
        )
        made = serve.run("work-pool", "create", "gpu-pool", "--type", "process")
        assert made.returncode == 0, made.stdout + made.stderr
        assert "r1-aqa: crashed" in serve.run("automation", "ls").stdout
        assert "full-pipeline" not in serve.run("deployment", "ls").stdout
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert_no_errors(serve.workspace)
