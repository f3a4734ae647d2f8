"""Runs whose process was killed without a word: told from live ones by their lock, and Crashed.

Prefect would show them as Running for ever where no runner saw them die, and for five minutes of
missing heartbeats where one might have.
"""

import time
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from storage.locks import is_locked
from tasks.running.alive import GONE, runs_folder

BEGINNING_S = 5.0  # a run's lock is made, then taken


def crash_dead_runs(workspace: Path) -> None:
    """Mark a workspace's runs that are not over, and their tasks, as Crashed where nobody works."""
    old_s = time.time() - BEGINNING_S
    paths = [path for path in runs_folder(workspace).glob("*.lock") if path.stat().st_mtime < old_s]
    dead = [path for path in paths if not is_locked(path)]
    if not dead:
        return
    with get_client(sync_client=True) as client:
        for path in dead:
            try:
                _crash(client, UUID(path.stem))
            except ObjectNotFound:  # of another server
                continue
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
