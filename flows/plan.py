"""What a run would do and why, without doing it: `python -m flows.full_pipeline --plan`.

A command looks here first: where nothing is due it says so and starts neither a flow nor a server.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table

from flows.command import run_flow
from flows.pipeline_config import PipelineConfig, StageName
from storage.errors import PipelineError
from storage.layout import Layout
from storage.world.make import is_made
from tasks.asked import asked_models, control_jobs_of, evaluate_unit, jobs_of, profile_facts
from tasks.convert import ConvertSettings, convert_unit
from tasks.fetch import count_due_clips, fetch_unit
from tasks.inputs import prepare_benchmarks, read_annotations
from tasks.report import report_unit
from tasks.running.console import say
from tasks.stage import Unit
from tasks.train import train_unit


class Intention(NamedTuple):
    """What would become of one unit of work."""

    unit: str
    runs: bool
    reason: str


def run_if_due(
    flow: Callable[..., Any],
    stages: Sequence[StageName],
    config: PipelineConfig,
    layout: Layout,
    *,
    force: bool,
    **parameters: object,
) -> bool:
    """Run a command's flow if something is due in its stages; say what stands otherwise.

    Returns:
        Whether it ran.
    """
    stand: list[Intention] = []
    for intention in plan(config, layout, stages, force=force):
        if intention.runs:
            run_flow(flow, config, layout, force=force, **parameters)
            return True
        stand.append(intention)
    for stage in stages:
        reasons = [each.reason for each in stand if each.unit.partition("/")[0] == stage]
        for reason in dict.fromkeys(reasons):
            count = f"{reasons.count(reason)} x " if reasons.count(reason) > 1 else ""
            say(f"{stage}: skipped ({count}{reason})")
    return False


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
) -> Generator[Intention]:
    """Look at each stage's units; what depends on something that will run is decided only then."""
    running: str | None = None
    reads_world = bool({"fetch", "evaluate"} & set(stages))
    if config.world and reads_world and not is_made(config.world, layout.world):
        running = "the made world"
        yield Intention("world", runs=True, reason="not made yet with these settings")
    for stage in stages:
        if running:
            reason = f"if {running} makes something else than before"
            yield Intention(stage, runs=True, reason=reason)
            continue
        for intention in _of_stage(config, layout, stage, force=force):
            running = stage if intention.runs else running
            yield intention


def _of_stage(
    config: PipelineConfig, layout: Layout, stage: StageName, *, force: bool
) -> Generator[Intention]:
    try:
        match stage:
            case "fetch":
                yield from _of_fetch(config, layout, force=force)
            case "convert":
                yield _of(convert_unit(convert_settings(config), layout), force=force)
            case "train":
                for training in config.train:
                    yield _of(train_unit(training, layout), force=force)
            case "evaluate":
                asked = asked_models(config.train, config.evaluate, layout)
                jobs = jobs_of(asked, prepare_benchmarks(config.evaluate, layout))
                jobs += control_jobs_of(jobs, config.train, config.evaluate, layout)
                for job in jobs:
                    yield _of(evaluate_unit(job, config.evaluate, layout), force=force)
            case "report":
                facts = profile_facts(config.train, config.evaluate, layout)
                yield _of(report_unit(config, config.report, facts, layout), force=force)
    except PipelineError as error:
        yield Intention(stage, runs=True, reason=str(error))


def _of_fetch(config: PipelineConfig, layout: Layout, *, force: bool) -> Generator[Intention]:
    annotations = read_annotations(config.avqa, layout, config.fetch.limit)
    if config.avqa:
        yield _of(fetch_unit(annotations, config.fetch, layout), force=force)
    num_due = count_due_clips(annotations, config.fetch, layout)
    if num_due:
        yield Intention("fetch", runs=True, reason=f"{num_due} clips are due")


def _of(unit: Unit, *, force: bool) -> Intention:
    verdict = unit.verdict(force=force)
    return Intention(unit.name, runs=not verdict.is_done, reason=verdict.reason)


def convert_settings(config: PipelineConfig) -> ConvertSettings:
    """What of a profile decides its examples."""
    benchmarks = config.evaluate.benchmarks
    return ConvertSettings(config.data, config.avqa, config.convert, config.fetch, benchmarks)
