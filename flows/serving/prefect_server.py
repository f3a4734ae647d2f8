"""Prefect's server: is one there, who may ask it, how one is started, and what our runs need of it.

Three settings keep long runs honest. Leases of concurrency limits lie on disk: in memory, Prefect's
default, a server that is killed forgets who holds a GPU but not that it is held, and nobody gets it
again. A heartbeat every 30 s with an automation on it marks a run as Crashed whose process was
killed without a runner to see it: Prefect would show it as Running for ever. And a login: Prefect's
API takes whatever comes to its port, and a PATCH of a deployment makes its next run a shell script,
for every local user and, as it answers every origin, for every web page (PrefectHQ/prefect 11380).
"""

import os
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Crashed

from flows.pipeline_config import ScheduleConfig
from flows.serving.service import Service
from storage.errors import PipelineError
from storage.locks import is_locked, locked
from tasks.running.alive import GONE, NO_HEARTBEAT, runs_folder

LOGIN_VARIABLE = "PREFECT_API_AUTH_STRING"  # of everybody who asks the server
PROFILE_SLUG = "profile"  # of the schedule that a profile's `schedule:` makes
ZOMBIES = "r1-aqa: crashed without a word"
HEARTBEAT = "prefect.flow-run.heartbeat"
FINAL_EVENTS = {
    f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")
}
# Of 30 s each. A server that was away for longer marks live runs as Crashed on its return, before
# their kept heartbeats reach it (12 s, measured); each is Completed or Failed again at its end.
NO_HEARTBEAT_FOR = timedelta(minutes=5)
ANSWER_TIMEOUT_S = 3
NOT_POLLED_FOR = timedelta(seconds=10)  # our runner polls every 2 s
NEXT_POLL_S = 6.0
UNAUTHORIZED = 401
SERVER_START_S = 180.0  # 3.3 s warm, 11 s with a new database; a cold, busy laptop takes a minute
BEGINNING_S = 5.0  # a run's lock is made, then taken


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers at an address; a PipelineError where something else does."""
    try:
        response = httpx.get(f"{api_url}/health", timeout=ANSWER_TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL):  # nobody there, or no HTTP
        return False
    if response.is_success and response.text.strip() == "true":
        return True
    address, found = urlsplit(api_url), f"{response.status_code} {response.text[:20]!r}"
    msg = (
        f"port {address.port} of {address.hostname} is in use, and not by a Prefect server "
        f"({found} at /api/health); stop it or choose another port: --port 4300"
    )
    raise PipelineError(msg)


def login_file(workspace: Path) -> Path:
    """Where a workspace's login lies: `user:secret`, for its owner alone."""
    return workspace / "prefect" / "login"


def new_login() -> str:
    """A login that nobody guesses."""
    return f"r1-aqa:{secrets.token_hex(16)}"


def workspace_login(workspace: Path) -> str:
    """The workspace's login, made where there is none."""
    path = login_file(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(new_login())
    return path.read_text(encoding="utf-8").strip()


@contextmanager
def asked_with(api_url: str, login: str) -> Generator[None]:
    """Have this process, and those that it starts, ask a server while the block runs."""
    os.environ |= {"PREFECT_API_URL": api_url, LOGIN_VARIABLE: login}
    try:
        with temporary_settings({PREFECT_API_URL: api_url, PREFECT_API_AUTH_STRING: login}):
            yield
    finally:
        for name in ("PREFECT_API_URL", LOGIN_VARIABLE):
            os.environ.pop(name, None)


def check_login(api_url: str) -> None:
    """Raise a PipelineError where a server does not take our login; says how to give another."""
    with get_client(sync_client=True) as client:
        try:
            client.read_flows(limit=1)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != UNAUTHORIZED:
                raise
            msg = (
                f"the Prefect server at {api_url} wants a login: "
                f'export {LOGIN_VARIABLE}="$(cat WORKSPACE/prefect/login)", of the workspace it '
                "serves, or start another server: --port 4300 --report-port 8190"
            )
            raise PipelineError(msg) from error


def server_environment(workspace: Path, api_url: str, login: str) -> dict[str, str]:
    """Settings of a server that we start; no page of another origin reads it.

    Its database lies in the workspace, unless the user has set another.
    """
    environment = {
        "PREFECT_SERVER_API_AUTH_STRING": login,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": api_url.removesuffix("/api"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 24 * 3600),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
    }
    database = get_current_settings().server.database
    if "connection_url" not in database.model_fields_set:
        file = workspace / "prefect" / "prefect.db"
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{file}"
    return environment


def start_server(server: Service, workspace: Path, api_url: str) -> None:
    """Start it and wait until it answers, one at a time: two that make one database both fail."""
    with locked(workspace / "locks" / "prefect.lock", wait=True):
        server.start()
        server.wait_until(lambda: answers(api_url), timeout_s=SERVER_START_S)


def set_schedule(deployment: str, schedule: ScheduleConfig | None) -> None:
    """Give a deployment the profile's schedule, or take it away where there is none now.

    Those that users made stay, as does their pause.
    """
    new = CronSchedule(cron=schedule.cron, timezone=schedule.timezone) if schedule else None
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        old = next((each for each in found.schedules if each.slug == PROFILE_SLUG), None)
        if new is None:
            if old:
                client.delete_deployment_schedule(found.id, old.id)
        elif old is None:
            client.create_deployment_schedules(found.id, [(new, True)], slug=PROFILE_SLUG)
        elif old.schedule != new:
            client.update_deployment_schedule(found.id, old.id, schedule=new)


def create_limits(names: Sequence[str]) -> None:
    """Create the global concurrency limits of this host's GPUs, one slot each."""
    with get_client(sync_client=True) as client:
        for name in names:
            client.upsert_global_concurrency_limit_by_name(name, limit=1)


def create_zombie_automation(
    flow_names: Sequence[str], *, within: timedelta = NO_HEARTBEAT_FOR
) -> None:
    """Have the server mark runs of some flows as Crashed when their heartbeat stops.

    It changes the state alone; the processes are stopped by storage/host/supervisor.py.
    """
    of_flows = {"prefect.resource.role": "flow", "prefect.resource.name": list(flow_names)}
    automation = AutomationCore(
        name=ZOMBIES,
        description="A run whose process was killed says nothing; its heartbeat's absence tells.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *FINAL_EVENTS},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(of_flows),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                message=f"{NO_HEARTBEAT} for {within.seconds} s",
                force=False,
            )
        ],
    )
    with get_client(sync_client=True) as client:
        if existing := client.read_automations_by_name(ZOMBIES):
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)


def last_polled(deployment: str) -> datetime | None:
    """When somebody last asked for a deployment's runs; None: never, or there is none."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        return client.read_deployment_by_name(deployment).last_polled
    return None


def check_served_for_nobody(deployment: str) -> None:
    """Raise a PipelineError where somebody serves a deployment now.

    Whoever was stopped just now has polled just now: only the next poll tells.
    """
    polled = last_polled(deployment)
    if polled is None or datetime.now(UTC) - polled > NOT_POLLED_FOR:
        return
    give_up_s = time.monotonic() + NEXT_POLL_S
    while last_polled(deployment) == polled:
        if time.monotonic() > give_up_s:
            return
        time.sleep(0.2)
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
    msg = (
        f"the Prefect server at {PREFECT_API_URL.value()} has {deployment} served already, for "
        f"{found.parameters.get('workspace', 'an unknown workspace')}; stop that `make serve`, or "
        "start another server: --port 4300 --report-port 8190"
    )
    raise PipelineError(msg)


def crash_dead_runs(workspace: Path) -> None:
    """Mark a workspace's runs that are not over, and their tasks, as Crashed where nobody works.

    Such a run is told from a live one by its lock. Prefect would show it as Running for ever where
    no runner saw it die, and for five minutes of missing heartbeats where one might have.
    """
    old_s = time.time() - BEGINNING_S
    paths = [path for path in runs_folder(workspace).glob("*.lock") if path.stat().st_mtime < old_s]
    dead = [path for path in paths if not is_locked(path)]
    if not dead:
        return
    with get_client(sync_client=True) as client:
        for path in dead:
            with suppress(ObjectNotFound):  # of another server
                _crash(client, UUID(path.stem))
                path.unlink(missing_ok=True)


def _crash(client: SyncPrefectClient, run_id: UUID) -> None:
    state = client.read_flow_run(run_id).state
    # A runner or a worker that saw it die has called it Crashed, but not its tasks.
    if state is None or not state.is_final():
        client.set_flow_run_state(run_id, Crashed(message=GONE), force=True)
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    for task in client.read_task_runs(flow_run_filter=of_run):
        if task.state is None or not task.state.is_final():
            client.set_task_run_state(task.id, Crashed(message=GONE), force=True)
