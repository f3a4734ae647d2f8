"""Send a test split's predictions to the service that scores them: once, after a person said yes.

MMAU's service is a Gradio application (https://huggingface.co/spaces/sonalkum/MMAU-Eval since 30
January 2026): the file is uploaded, the prediction endpoint is called with its place, and the
report comes as an event. Whether the service reads `model_output` or `model_prediction` is not
known here, so the file holds both. Nothing is sent twice by itself: what came of a broken call is
not known, and attempts may be counted.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import requests

from storage.benchmarks.parse import read_rows
from storage.errors import PipelineError
from storage.records.question import list_ids

UPLOAD_TIMEOUT_S = 120.0
SCORING_TIMEOUT_S = 600.0


def submit(path: Path, address: str, *, num_questions: int, ask: Callable[[str], bool]) -> str:
    """Ask, send, and return the service's report.

    Args:
        path: The submission file.
        address: Of the service.
        num_questions: Predictions that it expects, one a question.
        ask: Puts a question to a person; only True sends.

    Raises:
        PipelineError: If the file is not whole, nobody said yes, or the service did not answer.
    """
    check_submission(path, num_questions=num_questions)
    if not ask(
        f"{path} ({num_questions} predictions) will be sent to {address}, a public service."
    ):
        msg = f"nothing was sent: {path} waits for a yes typed in a terminal"
        raise PipelineError(msg)
    try:
        return _send(path, address.rstrip("/"))
    except (requests.RequestException, ValueError, KeyError, IndexError) as error:
        msg = (
            f"{address} gave no report ({type(error).__name__}: {error}). It is not sent again by "
            f"itself: look there first whether it arrived, or upload {path} by hand"
        )
        raise PipelineError(msg) from error


def check_submission(path: Path, *, num_questions: int) -> None:
    """Refuse a file that does not hold one prediction for each of the questions.

    Raises:
        PipelineError: Names the ids that come twice or have no text, or the number found.
    """
    rows = [cast("dict[str, Any]", row) for row in read_rows(path)]
    ids = [str(row.get("id")) for row in rows]
    twice = (
        sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
    )
    empty = [str(row.get("id")) for row in rows if not isinstance(row.get("model_output"), str)]
    for found, fault in ((twice, "come twice"), (empty, "have no prediction")):
        if found:
            msg = f"{path}: {len(found)} ids {fault}: {list_ids(found)}"
            raise PipelineError(msg)
    if len(ids) != num_questions:
        msg = f"{path} holds {len(ids)} predictions, expected {num_questions}"
        raise PipelineError(msg)


def _send(path: Path, address: str) -> str:
    with path.open("rb") as file:
        uploaded = requests.post(
            f"{address}/gradio_api/upload", files={"files": file}, timeout=UPLOAD_TIMEOUT_S
        )
    uploaded.raise_for_status()
    place = {
        "path": uploaded.json()[0],
        "orig_name": path.name,
        "meta": {"_type": "gradio.FileData"},
    }
    call = f"{address}/gradio_api/call/predict"
    called = requests.post(call, json={"data": [place]}, timeout=UPLOAD_TIMEOUT_S)
    called.raise_for_status()
    event_id = called.json()["event_id"]
    with requests.get(f"{call}/{event_id}", stream=True, timeout=SCORING_TIMEOUT_S) as events:
        events.raise_for_status()
        return _report(line.decode("utf-8", "replace") for line in events.iter_lines())


def _report(lines: Iterable[str]) -> str:
    """The text of the `complete` event of a stream of server-sent events."""
    event = ""
    for line in lines:
        if line.startswith("event:"):
            event = line.removeprefix("event:").strip()
        elif line.startswith("data:") and event in {"complete", "error"}:
            content = line.removeprefix("data:").strip()
            if event == "error":
                msg = f"the service reports an error: {content}"
                raise ValueError(msg)
            return "\n".join(str(part) for part in json.loads(content))
    msg = "the stream ended without a report"
    raise ValueError(msg)
