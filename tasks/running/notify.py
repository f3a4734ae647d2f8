"""A line to whoever waits for a run: posted to a webhook when it ends, whatever its end."""

import socket

import requests
from prefect.client.schemas.objects import State

from storage.config import reveal
from storage.errors import PipelineError
from storage.text import printable
from tasks.running.console import format_duration, say

TIMEOUT_S = 10.0
LONGEST = 1000  # characters of a message


def notify(place: str | None, run_name: str, outcome: object, *, seconds: float) -> None:
    """Post `{"text": ...}`, as Slack, Mattermost and their like take it; never fails a run.

    Args:
        place: The webhook's address, as `notify` names it; None: nobody wants to know.
        run_name: E.g. `full-pipeline-paper`.
        outcome: What the flow gave, a state of Prefect's where it failed; or what it raised.
        seconds: How long it ran.
    """
    if place is None:
        return
    text = f"{run_name} {_end(outcome)} after {format_duration(seconds)} on {socket.gethostname()}"
    try:
        answer = requests.post(reveal(place), json={"text": text}, timeout=TIMEOUT_S)
        problem = "" if answer.ok else f"the webhook answers {answer.status_code}"
    except PipelineError as error:
        problem = str(error)
    except (requests.RequestException, ValueError) as error:
        problem = type(error).__name__  # its text holds the address, which is a secret
    if problem:
        say(f"notify: nobody was told of the end ({problem})")


def _end(outcome: object) -> str:
    if isinstance(outcome, State) and outcome.is_failed():
        return f"failed ({printable(outcome.message or '')[:LONGEST]})"
    if isinstance(outcome, Exception):
        return f"failed ({type(outcome).__name__}: {printable(str(outcome))[:LONGEST]})"
    return "was stopped" if isinstance(outcome, BaseException) else "ended well"
