"""What a run would do and why, without doing it: `python -m flows.full_pipeline --plan`.

A command looks here first: where nothing is due it says so and starts neither a flow nor a server.
"""

import sys
from collections.abc import Callable, Generator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table

from flows.command import run_flow
from flows.pipeline_config import PipelineConfig, StageName
from flows.preflight import usable_gpus
from storage.errors import PipelineError
from storage.host.checks import GB, free_bytes
from storage.host.gpus import Gpu
from storage.layout import Layout
from storage.records.model import FromTraining, parse_name
from storage.world.make import is_made
from tasks.asked import control_jobs_of, evaluate_unit, jobs_of, profile_facts
from tasks.convert import CLIPS_FOLDER, ConvertSettings, convert_unit
from tasks.cost import (
    Cost,
    answer_cost,
    count_answers,
    fetch_cost,
    most_clips,
    set_aside_by,
    start_models,
    sum_of,
    train_cost,
)
from tasks.fetch import due_clips, fetch_unit
from tasks.inputs import read_annotations
from tasks.report import report_unit
from tasks.running.console import say
from tasks.stage import Unit
from tasks.train import is_finished, is_under_way, train_unit

WIDE = 1000  # columns of a plan that nobody sees in a terminal


class Intention(NamedTuple):
    """What would become of one unit of work."""

    unit: str
    runs: bool
    reason: str
    cost: Callable[[], Cost] = Cost
    """Asked for by a plan alone: it looks at GPUs and may measure a model."""
    spreads: bool = True
    """Whether what it makes may decide the stages behind it."""


def run_if_due(
    flow: Callable[..., Any],
    stages: Sequence[StageName],
    config: PipelineConfig,
    layout: Layout,
    *,
    force: bool,
    **parameters: object,
) -> bool:
    """Run a command's flow if something is due in its stages, else say what stands; tells which."""
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
    """Print a line for each unit of work of the chosen stages, and what all of it would cost."""
    table = Table(Column("unit", overflow="fold"), "", Column("why", overflow="fold"), box=None)
    costs: list[Cost] = []
    unknown: list[str] = []
    for intention in plan(config, layout, stages, force=force):
        cost = intention.cost()
        costs.append(cost)
        takes_hours = intention.runs and intention.unit.startswith(("train/", "evaluate"))
        unknown += [intention.unit] if takes_hours and not cost.most_s else []
        why = "; ".join(filter(None, (intention.reason, cost.text())))
        table.add_row(intention.unit, "run" if intention.runs else "skip", why)
    # In a file or a pipe a line stays a line.
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    console.print(table)
    if whole := sum_of(costs).text():
        console.print(f" in all: {whole}; {free_bytes(layout.workspace) / GB:.0f} GB are free")
    if unknown:
        console.print(f" hours not known, nothing like it ran here yet: {', '.join(unknown)}")


def plan(
    config: PipelineConfig, layout: Layout, stages: Sequence[StageName], *, force: bool
) -> Generator[Intention]:
    """Look at each stage's units, also behind the first that runs and may change what they read."""
    behind = ""
    due: set[str] = set()
    reads_world = bool({"fetch", "evaluate"} & set(stages))
    if config.world and reads_world and not is_made(config.world, layout.world):
        behind = "the made world"
        yield Intention("world", runs=True, reason="not made yet with these settings")
    for stage in stages:
        ran = ""
        for intention in _of_stage(config, layout, stage, behind, due, force=force):
            if intention.runs:
                due.add(intention.unit)
                ran = stage if intention.spreads else ran
            yield intention
        behind = behind or ran


def _of_stage(
    config: PipelineConfig,
    layout: Layout,
    stage: StageName,
    behind: str,
    due: set[str],
    *,
    force: bool,
) -> Generator[Intention]:
    try:
        match stage:
            case "train":
                yield from _of_trainings(config, layout, behind, due, force=force)
            case "evaluate":
                yield from _of_evaluations(config, layout, behind, due, force=force)
            case _ if behind:
                yield _behind(stage, behind, was_done=layout.manifest(stage).exists())
            case "fetch":
                yield _of_fetch(config, layout, force=force)
            case "convert":
                found = convert_unit(convert_settings(config), layout).verdict(force=force)
                # Trainings know examples by what they hold: they stand in a moved workspace.
                spreads = found.changed != (CLIPS_FOLDER,)
                yield Intention(stage, not found.is_done, found.reason, spreads=spreads)
            case "report":
                facts = profile_facts(config.train, config.evaluate, layout)
                yield _of(report_unit(config, config.report, facts, layout), force=force)
    except PipelineError as error:
        yield Intention(stage, runs=True, reason=str(error))


def _of(unit: Unit, *, force: bool) -> Intention:
    verdict = unit.verdict(force=force)
    return Intention(unit.name, runs=not verdict.is_done, reason=verdict.reason)


def _behind(unit: str, first: str, *, was_done: bool) -> Intention:
    """A unit of which nothing more can be told before `first` has run."""
    reason = f"if {first} makes something else than before" if was_done else f"after {first}"
    return Intention(unit, runs=True, reason=reason)


def _of_fetch(config: PipelineConfig, layout: Layout, *, force: bool) -> Intention:
    if not config.avqa:
        return Intention("fetch", runs=False, reason="no source of `data` is AVQA")
    try:
        annotations = read_annotations(config.avqa, layout, config.fetch.limit)
    except PipelineError as error:  # their size is known
        num_clips = most_clips(config.fetch)
        cost = partial(fetch_cost, config.fetch, num_clips, num_clips)
        return Intention("fetch", runs=True, reason=str(error), cost=cost)
    due = due_clips(annotations, config.fetch, layout)
    if not due.clips:
        return _of(fetch_unit(annotations, config.fetch, layout), force=force)
    reason = f"{len(due.clips):,} clips are due"
    if due.num_reopened:
        names = ", ".join(due.reopened_by)
        reason += f", of them {due.num_reopened:,} losses that may be won back from {names}"
    num_videos = len({clip.video_id for clip in due.clips})
    cost = partial(fetch_cost, config.fetch, len(due.clips), num_videos)
    return Intention("fetch", runs=True, reason=reason, cost=cost)


def _of_trainings(
    config: PipelineConfig, layout: Layout, behind: str, due: set[str], *, force: bool
) -> Generator[Intention]:
    starts = start_models(config.train)
    for training in config.train:
        unit, anew = f"train/{training.name}", True
        needs = [parse_name(name) for name in training.needs]
        names = [start.name for start in needs if isinstance(start, FromTraining)]
        first = next((name for name in names if f"train/{name}" in due), behind)
        if first:
            intention = _behind(unit, first, was_done=layout.manifest(unit).exists())
        else:
            intention = _of(train_unit(training, layout), force=force)
            is_forced = force and is_finished(training, layout)
            anew = is_forced or not is_under_way(training, layout)
        if intention.runs:
            lost = set_aside_by(training, layout, anew=anew)
            reason = "; ".join(filter(None, (intention.reason, lost)))
            cost = partial(train_cost, training, starts[training.name], layout, _gpus, anew=anew)
            intention = intention._replace(reason=reason, cost=cost)
        yield intention


def _of_evaluations(
    config: PipelineConfig, layout: Layout, behind: str, due: set[str], *, force: bool
) -> Generator[Intention]:
    start = next(iter(start_models(config.train).values()), "")
    of_one = cache(lambda: answer_cost(config.evaluate, start, layout, _gpus))
    if behind:
        again = [each for each in config.train if behind != "train" or f"train/{each.name}" in due]
        held_out = config.annotations.validation_size if config.annotations.validation else 0
        models, answers = count_answers(again, config.evaluate, held_out, layout)
        intention = _behind("evaluate", behind, was_done=layout.evaluations.is_dir())
        reason = f"{intention.reason}: {models} models" + f", {answers:,} answers" * bool(answers)
        yield intention._replace(reason=reason, cost=lambda: of_one().times(answers))
        return
    jobs = jobs_of(config.train, config.evaluate, layout)
    for job in jobs + control_jobs_of(jobs, config.train, config.evaluate, layout):
        intention = _of(evaluate_unit(job, config.evaluate, layout), force=force)
        num = job.benchmark.num_questions * intention.runs
        yield intention._replace(cost=lambda num=num: of_one().times(num) if num else Cost())


def _gpus() -> list[Gpu]:
    return usable_gpus()[0]


def convert_settings(config: PipelineConfig) -> ConvertSettings:
    """What of a profile decides its examples."""
    benchmarks = config.evaluate.benchmarks
    return ConvertSettings(config.data, config.avqa, config.convert, config.fetch, benchmarks)
