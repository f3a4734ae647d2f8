"""A line to whoever waits for a run: posted to a webhook when it ends, and when disk runs short."""

import socket
from contextlib import suppress
from pathlib import Path

import requests
from prefect.client.schemas.objects import State

from storage.config import reveal
from storage.errors import PipelineError
from storage.host.checks import GB, free_bytes
from storage.records.training import CHECKPOINT, CheckpointRecord
from storage.text import printable
from tasks.running.console import format_duration, say

TIMEOUT_S = 10.0
LONGEST = 1000  # characters of a message
LOW_BYTES = 1_000_000_000  # where there is no checkpoint yet: logs, answers, the database


def notify(place: str | None, run_name: str, outcome: object, *, seconds: float) -> None:
    """Tell how a run ended.

    Args:
        place: The webhook's address, as `notify` names it; None: nobody wants to know.
        run_name: E.g. `full-pipeline-paper`.
        outcome: What the flow gave, a state of Prefect's where it failed; or what it raised.
        seconds: How long it ran.
    """
    _post(place, f"{run_name} {_end(outcome)} after {format_duration(seconds)}")


def tells_low_disk(place: str | None, run_name: str, root: Path) -> bool:
    """Tell, here too, that the next checkpoint may find no room; whether that was so.

    Args:
        place: The webhook's address; None: it is told here alone.
        run_name: E.g. `full-pipeline-paper`.
        root: Folder of an experiment, whose largest checkpoint says what one takes.
    """
    wanted = LOW_BYTES
    with suppress(PipelineError, OSError):  # one is just being removed: the next look sees the rest
        for record in root.glob(f"training/*/*/{CHECKPOINT}"):
            wanted = max(wanted, sum(CheckpointRecord.read(record).files.values()))
    free = free_bytes(root)
    if free < wanted:
        text = (
            f"{free / GB:.1f} GB are free at {root.parent}, {wanted / GB:.1f} GB may be needed "
            "next; `python -m flows.prune` tells what may go"
        )
        say(f"low disk: {text}")
        _post(place, f"{run_name} runs out of disk: {text}")
    return free < wanted


def _post(place: str | None, text: str) -> None:
    """Post `{"text": ...}`, as Slack, Mattermost and their like take it; never fails a run."""
    if place is None:
        return
    text = f"{text} on {socket.gethostname()}"
    try:
        answer = requests.post(reveal(place), json={"text": text}, timeout=TIMEOUT_S)
        problem = "" if answer.ok else f"the webhook answers {answer.status_code}"
    except PipelineError as error:
        problem = str(error)
    except (requests.RequestException, ValueError) as error:
        problem = type(error).__name__  # its text holds the address, which is a secret
    if problem:
        say(f"notify: nobody was told ({problem})")


def _end(outcome: object) -> str:
    if isinstance(outcome, State) and outcome.is_failed():
        return f"failed ({printable(outcome.message or '')[:LONGEST]})"
    if isinstance(outcome, Exception):
        return f"failed ({type(outcome).__name__}: {printable(str(outcome))[:LONGEST]})"
    return "was stopped" if isinstance(outcome, BaseException) else "ended well"
