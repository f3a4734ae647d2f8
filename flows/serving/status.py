"""What runs in a workspace and on this host, in one screen: `python -m flows.serve --status`."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from flows.serving.prefect_server import answers, check_login
from storage.host.checks import GB, free_bytes
from storage.host.gpus import visible_gpus
from storage.layout import Layout
from storage.locks import holder, is_locked
from storage.records.training import METRICS, read_metrics
from tasks.running.alive import runs_folder
from tasks.running.console import format_duration
from tasks.running.gpus import gpu_lock

UNDER_WAY = ("RUNNING", "PENDING", "CANCELLING", "PAUSED")


def status_lines(layout: Layout, api_url: str) -> Iterator[str]:
    """A line a fact: server and runs, who holds what, trainings, GPUs, disk."""
    if answers(api_url):
        check_login(api_url)
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
