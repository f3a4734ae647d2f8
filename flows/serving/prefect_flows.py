"""The flows in Prefect's form, at the places that the deployments and prefect.yaml name."""

from pathlib import Path
from typing import Any

from prefect import Flow, flow

from flows import DEFAULT_WORKSPACE, convert, evaluate, fetch, full_pipeline, report, train
from flows.score import score_predictions
from tasks.running.prefect_form import as_flow, with_states

full_pipeline_flow = as_flow(full_pipeline.full_pipeline_flow)
fetch_flow = as_flow(fetch.fetch_flow)
convert_flow = as_flow(convert.convert_flow)
train_flow = as_flow(train.train_flow)
evaluate_flow = as_flow(evaluate.evaluate_flow)
report_flow = as_flow(report.report_flow)


@flow(name="score")
@with_states
def score_flow(
    file: Path,
    benchmark: str,
    questions: Path | None = None,
    allow_partial: bool = False,  # noqa: FBT001, FBT002  Prefect passes parameters by name
    workspace: Path = Path(DEFAULT_WORKSPACE),
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


FLOWS: tuple[Flow[..., Any], ...] = (
    *(full_pipeline_flow, fetch_flow, convert_flow),
    *(train_flow, evaluate_flow, report_flow, score_flow),
)
