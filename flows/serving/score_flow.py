"""Scoring as a deployment: `prefect deployment run score/score -p file=... -p benchmark=...`."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.score import score_predictions
from tasks.running.prefect_form import with_states


@flow(name="score")
@with_states
def score_flow(
    file: Path,
    benchmark: str,
    questions: Path | None = None,
    allow_partial: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
    workspace: Path = Path("workspace"),
    key: str | None = None,
) -> dict[str, Any]:
    """Score predictions that any tool wrote; writes score and verdicts beside them.

    Args:
        file: Predictions: JSON or JSON lines of any known tool.
        benchmark: E.g. `mmau-test-mini-v05.15.25`.
        questions: The questions' file, where it is here already.
        allow_partial: Show how far an incomplete file goes.
        workspace: Folder of all data.
        key: Key of the predictions, where the file holds several.
    """
    scored = score_predictions(
        *(file, benchmark),
        questions=questions,
        workspace=workspace,
        allow_partial=allow_partial,
        key=key,
    )
    return scored.score.as_json()
