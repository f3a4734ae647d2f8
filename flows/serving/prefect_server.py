"""Prefect's server: is one there, how one is started, and what our runs need of it.

Three settings keep long runs honest. Leases of concurrency limits lie on disk: in memory, Prefect's
default, a server that is killed forgets who holds a GPU but not that it is held, and nobody gets it
again. A heartbeat every 30 s with an automation on it marks a run as Crashed whose process was
killed without a runner to see it: Prefect would show it as Running for ever. And no telemetry.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from flows.pipeline_config import ScheduleConfig
from flows.serving.login import SERVER_VARIABLE
from storage.errors import PipelineError
from tasks.running.alive import NO_HEARTBEAT

LOOPBACK = ("127.0.0.1", "localhost", "::1")
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


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers at an address.

    Raises:
        PipelineError: If something else does.
    """
    try:
        url = f"{api_url}/health"
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as response:  # noqa: S310  ours
            text = response.read(100)
    except urllib.error.HTTPError as error:
        msg = _other_program(api_url, f"status {error.code}")
        raise PipelineError(msg) from error
    except (OSError, ValueError):  # nobody there, or no HTTP
        return False
    try:
        is_healthy = json.loads(text) is True
    except ValueError:
        is_healthy = False
    if not is_healthy:
        raise PipelineError(_other_program(api_url, repr(text[:20])))
    return True


def _other_program(api_url: str, found: str) -> str:
    address = urlsplit(api_url)
    return (
        f"port {address.port} of {address.hostname} is in use, and not by a Prefect server "
        f"({found} at /api/health); stop it or choose another port: --port 4300"
    )


def is_loopback(api_url: str) -> bool:
    """Whether an address is this host's own."""
    return urlsplit(api_url).hostname in LOOPBACK


def server_environment(workspace: Path, api_url: str, login: str) -> dict[str, str]:
    """Settings of a server that we start; what the user has set wins.

    Args:
        workspace: Where its database lies.
        api_url: Its address; no page of another origin reads it.
        login: `user:secret` that it asks for.
    """
    environment = {
        SERVER_VARIABLE: login,
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


def database_lock(workspace: Path) -> Path:
    """Held while a server starts: two that make one database at once both fail."""
    return workspace / "locks" / "prefect.lock"


def set_schedule(deployment: str, schedule: ScheduleConfig | None) -> None:
    """Give a deployment the profile's schedule; those that users made stay, as does their pause.

    Args:
        deployment: Its name, `FLOW/DEPLOYMENT`.
        schedule: When it runs; None: the profile's schedule, if it had one, goes.
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

    Args:
        flow_names: Flows whose runs send heartbeats.
        within: Time without a heartbeat after which a run's process is taken for gone.
    """
    to_crashed = ChangeFlowRunState(
        name="Crashed",
        state=StateType.CRASHED,
        message=f"{NO_HEARTBEAT} for {within.seconds} s",
        force=False,
    )
    automation = AutomationCore(
        name=ZOMBIES,
        description="A run whose process was killed says nothing; its heartbeat's absence tells.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *FINAL_EVENTS},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": list(flow_names)}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[to_crashed],
    )
    with get_client(sync_client=True) as client:
        existing = client.read_automations_by_name(ZOMBIES)
        if existing:
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)


def served_workspace(deployment: str) -> str | None:
    """The workspace that a deployment is served for now; None if nobody polls for its runs.

    Whoever was stopped just now has polled just now: only the next poll tells.
    """
    before = last_polled(deployment)
    if before is None or datetime.now(UTC) - before > NOT_POLLED_FOR:
        return None
    give_up_s = time.monotonic() + NEXT_POLL_S
    while last_polled(deployment) == before:
        if time.monotonic() > give_up_s:
            return None
        time.sleep(0.2)
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
    return str(found.parameters.get("workspace", "an unknown workspace"))


def last_polled(deployment: str) -> datetime | None:
    """When somebody last asked for a deployment's runs; None: never, or there is none."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        return client.read_deployment_by_name(deployment).last_polled
    return None
