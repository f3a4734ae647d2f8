"""Serve: a Prefect server if none answers, every flow as a deployment, and the reports.

`python -m flows.serve --profile paper`, then in another terminal `prefect deployment run
full-pipeline/full-pipeline --watch`. Ctrl-C stops everything that this command started and nothing
else; so does its death, kill -9 included (storage/host/supervisor.py).
"""

import argparse
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from flows import COMMAND_DEFAULTS, is_loopback
from flows.command import Command, run_command
from flows.pipeline_config import PipelineConfig
from flows.serving import prefect_server
from flows.serving.prefect_flows import FLOWS
from flows.serving.prefect_server import LOGIN_VARIABLE, last_polled, login_file
from flows.serving.service import Service, keep_running
from reports.server import find_report
from reports.server import serve as serve_folder
from storage.errors import PipelineError
from storage.host.checks import GB, check_port, free_bytes
from storage.host.gpus import visible_gpus
from storage.layout import Layout
from storage.locks import holder, is_locked
from storage.records.training import METRICS, read_metrics
from storage.text import printable
from tasks.running.alive import runs_folder
from tasks.running.console import format_duration
from tasks.running.gpus import LIMIT_VARIABLE, gpu_lock, limit_name
from tasks.running.turns import turn

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
DEFAULT_PORT = 4200  # Prefect's own
RUNNER_START_S = 120.0  # until the server knows the deployments
MAIN = "full-pipeline/full-pipeline"
UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING", "PAUSED")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = Command("serve", __doc__)
    parser.set_defaults(profile="paper")
    add = parser.add_argument
    add("--port", type=int, help=f"of Prefect's server; {DEFAULT_PORT} if not told")
    add("--report-port", type=int, default=8090, help="of the reports")
    add("--pools", metavar="ADDRESS", help="serve work pools (prefect.yaml) of all hosts instead")
    add("--status", action="store_true", help="say what runs here, in one screen, and end")
    options, config, layout = parser.read(arguments)
    if options.status:
        _print_status(options, layout)
        return
    os.chdir(ROOT)  # runs import the flows from here

    def look() -> None:
        """See to it that the states of runs are true."""
        with suppress(PrefectException, httpx.HTTPError):  # the server is away: at the next look
            prefect_server.crash_dead_runs(layout.workspace)

    try:
        with ExitStack() as stack:
            # What is started here inherits it: it is free when the last of them is gone.
            lock = turn(f"serving {layout.workspace}", layout.locks / "serve.lock", "refuse")
            stack.enter_context(lock)
            reports_url = stack.enter_context(
                serve_folder(layout.workspace, HOST, options.report_port, find=find_report)
            )
            if reports_url != config.report.url:
                options.set.append(f"report.url={reports_url}")  # what the report's link says
            services = _start(stack, options, config, layout)
            if options.pools:
                told = f"serving work pools; on every host:\n  {_exports(layout)}"
                then = "and go on as prefect.yaml says. Ctrl-C stops the server."
                print(f"\n{told}\n{then}\n", flush=True)
            else:
                _tell(config.experiment, layout, reports_url, is_ours=len(services) > 1)
            keep_running(services, look)
    except KeyboardInterrupt:
        print("stopped")


def _print_status(options: argparse.Namespace, layout: Layout) -> None:
    api_url = choose_api_url(PREFECT_API_URL.value(), options.port)
    file = login_file(layout.workspace)
    login = os.environ.get(LOGIN_VARIABLE) or (file.read_text().strip() if file.exists() else "")
    with prefect_server.asked_with(api_url, login):
        for line in _status_lines(layout, api_url):
            print(printable(line))


def _status_lines(layout: Layout, api_url: str) -> Iterator[str]:
    """A line a fact: server and runs, who holds what, trainings, GPUs, disk."""
    if prefect_server.answers(api_url):
        prefect_server.check_login(api_url)
        yield f"server     {api_url}"
        with get_client(sync_client=True) as client:
            yield from _runs(client, layout)
    else:
        yield f"server     none answers at {api_url}"
    runs = runs_folder(layout.workspace)
    for lock in sorted(layout.locks.rglob("*.lock")):
        if lock.parent != runs and is_locked(lock):
            yield f"works      {holder(lock)}"
    for begun in sorted(layout.root.glob("training/*/run.json")):
        folder = begun.parent
        if ".replaced-" not in folder.name:
            told = folder / METRICS if (folder / METRICS).exists() else begun
            ago = format_duration(time.time() - told.stat().st_mtime)
            steps = [line.step for line in read_metrics(folder)]
            yield f"training   {folder.name}: step {max(steps, default=0)}, {ago} ago"
    for gpu in visible_gpus():
        room = f"{gpu.used_bytes / GB:.0f} of {(gpu.memory_bytes or 0) / GB:.0f} GB used"
        held = holder(gpu_lock(gpu)) if is_locked(gpu_lock(gpu)) else "free"
        yield f"gpu        {gpu.name} {gpu.model}: {room}, {held}"
    yield f"disk       {free_bytes(layout.workspace) / GB:.0f} GB free"


def _runs(client: SyncPrefectClient, layout: Layout) -> Iterator[str]:
    """Runs under way, whether each can be cancelled, and the next that is planned."""
    for run in _runs_in(client, *UNDER_WAY):
        lives = is_locked(runs_folder(layout.workspace) / f"{run.id}.lock")
        if run.state is not None and run.parent_task_run_id is None:
            since = format_duration((datetime.now(UTC) - run.state.timestamp).total_seconds())
            heard = "cancel works" if lives else "no process of it in this workspace"
            yield f"run        {run.name} {run.state.name} for {since}, {heard} ({run.id})"
    for run in _runs_in(client, "SCHEDULED", after=datetime.now(UTC))[:1]:
        if run.expected_start_time is not None:
            name = client.read_flow(run.flow_id).name  # a run is named when it begins
            yield f"next       {name} at {run.expected_start_time:%a %d %b %H:%M %Z}"


def _runs_in(
    client: SyncPrefectClient, *states: str, after: datetime | None = None
) -> list[FlowRun]:
    """Runs in some states, the earliest first; those that are late already are not to come."""
    wanted = {"state": {"type": {"any_": states}}, "expected_start_time": {"after_": after}}
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )


def _start(
    stack: ExitStack, options: argparse.Namespace, config: PipelineConfig, layout: Layout
) -> list[Service]:
    """Start what is missing; the runner is stopped before the server it reports to."""
    api_url = choose_api_url(PREFECT_API_URL.value(), options.port)
    if options.pools:
        api_url = f"http://{options.pools}:{options.port or DEFAULT_PORT}/api"
        os.environ.setdefault(LIMIT_VARIABLE, "{host}-gpu-{gpu}")
    login = os.environ.get(LOGIN_VARIABLE) or prefect_server.workspace_login(layout.workspace)
    stack.enter_context(prefect_server.asked_with(api_url, login))
    services: list[Service] = []
    if not prefect_server.answers(api_url):
        services.append(_server(api_url, login, layout, may_be_reached=bool(options.pools)))
        stack.callback(services[0].stop)
        print(f"starting Prefect's server (log: {services[0].log})", flush=True)
        prefect_server.start_server(services[0], layout.workspace, api_url)
    prefect_server.check_login(api_url)
    prefect_server.check_served_for_nobody(MAIN)
    prefect_server.create_limits([name for gpu in visible_gpus() if (name := limit_name(gpu))])
    prefect_server.create_zombie_automation([flow.name for flow in FLOWS])
    if options.pools:  # their workers run the flows
        return services
    level = os.environ["PREFECT_LOGGING_LEVEL"]
    is_quiet = level == COMMAND_DEFAULTS["PREFECT_LOGGING_LEVEL"]
    runner = Service(
        "runner of the deployments",
        [
            *(sys.executable, "-m", "flows.serving.deployments", "--profile", options.profile),
            *("--workspace", str(layout.workspace)),
            *(word for override in options.set for word in ("--set", override)),
        ],
        log=None,
        # Runs tell the server what they do, although this terminal is kept quiet.
        env={"PREFECT_LOGGING_LEVEL": "INFO" if is_quiet else level},
    )
    services.append(runner)
    stack.callback(runner.stop)
    before = last_polled(MAIN)
    runner.start()
    runner.wait_until(lambda: last_polled(MAIN) != before, timeout_s=RUNNER_START_S)
    prefect_server.set_schedule(MAIN, config.schedule)
    return services


def choose_api_url(told: str | None, port: int | None) -> str:
    """Where the server is or will be: `--port`, else PREFECT_API_URL, else Prefect's port here."""
    if port is None and told:
        return told.rstrip("/")
    return f"http://{HOST}:{port or DEFAULT_PORT}/api"


def _server(api_url: str, login: str, layout: Layout, *, may_be_reached: bool) -> Service:
    if not (may_be_reached or is_loopback(api_url)):
        msg = (
            f"no Prefect server answers at {api_url} (PREFECT_API_URL); start it there, or "
            "`unset PREFECT_API_URL` to have one started on this host"
        )
        raise PipelineError(msg)
    address, _, port = api_url.removeprefix("http://").removesuffix("/api").partition(":")
    finding = check_port(int(port or 80), "Prefect's server", "--port 4300")
    if finding.level != "ok":
        msg = f"port {finding.text}"
        raise PipelineError(msg)
    return Service(
        "Prefect server",
        [sys.executable, "-m", "prefect", "server", "start", "--host", address, "--port", port],
        log=layout.workspace / "prefect" / "server.log",
        env=prefect_server.server_environment(layout.workspace, api_url, login),
    )


def _exports(layout: Layout) -> str:
    login = shlex.quote(str(login_file(layout.workspace)))
    return (
        f"export PREFECT_API_URL={os.environ['PREFECT_API_URL']} DO_NOT_TRACK=1\n"
        f'  export {LOGIN_VARIABLE}="$(cat {login})"'
    )


def _tell(experiment: str, layout: Layout, reports_url: str, *, is_ours: bool) -> None:
    api_url = os.environ["PREFECT_API_URL"]
    port, report_port = urlsplit(api_url).port, urlsplit(reports_url).port
    log = layout.workspace / "prefect" / "server.log"
    started = f"log: {log}" if is_ours else "it was there before and stays"
    prefect = shlex.quote(str(Path(sys.executable).with_name("prefect")))
    print(
        f"""
serving {experiment} in {layout.workspace}
  Prefect   {api_url.removesuffix("/api")}  ({started})
  API       {api_url}
  reports   {reports_url}{experiment}/

in another terminal:
  {_exports(layout)}
  {prefect} deployment run {MAIN} --watch
  {prefect} deployment run evaluate/evaluate --watch
  {prefect} deployment run report/report -p force=true --watch
  {prefect} deployment schedule create {MAIN} --cron '0 3 * * 6'
  {prefect} flow-run cancel ID   # told by: {shlex.quote(sys.executable)} -m flows.serve --status
from your own computer (Prefect's page asks for that login):
  ssh -L {port}:127.0.0.1:{port} -L {report_port}:127.0.0.1:{report_port} {socket.gethostname()}
Ctrl-C stops all of it.
""",
        flush=True,
    )


if __name__ == "__main__":
    run_command(main)
