"""The flows in Prefect's form, at the places that the deployments and prefect.yaml name."""

from typing import Any

from prefect import Flow

from flows import convert, evaluate, fetch, full_pipeline, report, train
from flows.serving.score_flow import score_flow
from tasks.running.prefect_form import as_flow

full_pipeline_flow = as_flow(full_pipeline.full_pipeline_flow)
fetch_flow = as_flow(fetch.fetch_flow)
convert_flow = as_flow(convert.convert_flow)
train_flow = as_flow(train.train_flow)
evaluate_flow = as_flow(evaluate.evaluate_flow)
report_flow = as_flow(report.report_flow)
FLOWS: tuple[Flow[..., Any], ...] = (
    *(full_pipeline_flow, fetch_flow, convert_flow),
    *(train_flow, evaluate_flow, report_flow, score_flow),
)
