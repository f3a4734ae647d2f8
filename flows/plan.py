"""What a run would do and why, without doing it: `python -m flows.full_pipeline --plan`."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Column, Table

from flows.pipeline_config import PipelineConfig, StageName
from storage.errors import PipelineError
from storage.layout import Layout
from tasks.annotations import read_annotations
from tasks.benchmarks import prepare_benchmarks
from tasks.convert import convert_unit
from tasks.evaluate import asked_models, evaluate_unit, jobs_of
from tasks.fetch import fetch_unit
from tasks.report import report_unit
from tasks.train import train_unit
from tasks.units import Unit


class Intention(NamedTuple):
    """What would become of one unit of work."""

    unit: str
    runs: bool
    reason: str


def print_plan(
    config: PipelineConfig, layout: Layout, stages: Sequence[StageName], *, force: bool
) -> None:
    """Print a line for each unit of work of the chosen stages."""
    table = Table(Column("unit", overflow="fold"), "", Column("why", overflow="fold"), box=None)
    for intention in plan(config, layout, stages, force=force):
        table.add_row(intention.unit, "run" if intention.runs else "skip", intention.reason)
    Console().print(table)


def plan(
    config: PipelineConfig, layout: Layout, stages: Sequence[StageName], *, force: bool
) -> list[Intention]:
    """Look at each stage's units; what depends on something that will run is decided only then."""
    intentions: list[Intention] = []
    running: str | None = None
    for stage in stages:
        if running:
            intentions.append(
                Intention(stage, runs=True, reason=f"if {running} makes something else than before")
            )
            continue
        for intention in _stage(config, layout, stage, force=force):
            intentions.append(intention)
            running = stage if intention.runs else running
    return intentions


def _stage(
    config: PipelineConfig, layout: Layout, stage: StageName, *, force: bool
) -> list[Intention]:
    try:
        units = _units(config, layout, stage)
    except PipelineError as error:
        return [Intention(stage, runs=True, reason=str(error))]
    intentions: list[Intention] = []
    for unit in units:
        verdict = unit.verdict()
        reason = "forced" if force and verdict.is_done else verdict.reason
        intentions.append(Intention(unit.name, runs=force or not verdict.is_done, reason=reason))
    return intentions


def _units(config: PipelineConfig, layout: Layout, stage: StageName) -> list[Unit]:
    match stage:
        case "fetch":
            annotations = read_annotations(config.annotations, layout, config.fetch.limit)
            return [fetch_unit(annotations, config.fetch, layout)]
        case "convert":
            return [convert_unit(config.annotations, config.convert, config.fetch, layout)]
        case "train":
            return [train_unit(training, layout) for training in config.train]
        case "evaluate":
            asked = asked_models(config.train, config.evaluate, layout)
            jobs = jobs_of(asked, prepare_benchmarks(config.evaluate, layout), config.evaluate)
            return [evaluate_unit(job, config.evaluate, layout) for job in jobs]
        case "report":
            experiment = json.loads(config.model_dump_json())
            return [report_unit(experiment, config.report, layout)]
