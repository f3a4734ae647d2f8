"""Report: tables, charts and pages from everything that was measured.

The measured result is held against the bounds of the profile: the demo's success rests on them.
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from flows.command import Command, run_command, stage_flow
from flows.pipeline_config import ExpectConfig, PipelineConfig
from flows.plan import run_if_due
from model.checkpoints import end_of
from storage.errors import PipelineError
from storage.jsonl import read_json
from storage.layout import Layout
from storage.records.evaluation import list_runs
from storage.records.model import checkpoint_key
from tasks.asked import profile_facts
from tasks.models import resolve
from tasks.report import print_leaderboard, report, report_unit
from tasks.running.console import say
from tasks.running.turns import turn
from tasks.stage import run, run_unit


@stage_flow()
def report_flow(config: PipelineConfig, layout: Layout, *, force: bool) -> bool:
    """Render the site and the exports, and hold the result against the profile's bounds."""
    with turn("report", layout.lock("report"), config.when_busy), _scores(config, layout):
        facts = profile_facts(config.train, config.evaluate, layout)
        settings = json.loads(config.model_dump_json())
        work = partial(run, report, settings, config.report, facts, layout)
        unit = report_unit(config, config.report, facts, layout)
        has_run = run_unit(unit, work, force=force)
        show_report(config, layout)
    return has_run


def _scores(config: PipelineConfig, layout: Layout) -> AbstractContextManager[None]:
    """Something to report; a run with other settings may just be making all scores anew."""
    if any(stored.is_scored for stored in list_runs(layout.evaluations)):
        return nullcontext()
    return turn("evaluate", layout.lock("evaluate"), config.when_busy)


def show_report(config: PipelineConfig, layout: Layout) -> None:
    """Show the leaderboard and where the pages are, if the result meets the profile's bounds."""
    print_leaderboard(layout)
    trainings = [training for training in config.train if training.evaluate]
    if trainings and config.expect != ExpectConfig():
        last = trainings[-1]
        step = end_of(last, layout.training(last.name)) or last.max_steps
        start = _accuracy(config, layout, model=resolve(last.model, layout).key)
        end = _accuracy(config, layout, model=checkpoint_key(last.name, step))
        _check_bounds(config.expect, start, end, last.name)
        benchmark = config.evaluate.benchmarks[0].name
        say(f"as expected: from {start:.1%} to {end:.1%} on {benchmark}")
    say(f"report: {layout.site / 'index.html'}")


def _check_bounds(expect: ExpectConfig, start: float, end: float, training: str) -> None:
    if expect.start_at_most is not None and start > expect.start_at_most:
        msg = (
            f"the start model has {start:.1%}, expected at most {expect.start_at_most:.0%}: "
            "there is little left to learn"
        )
        raise PipelineError(msg)
    if expect.last_at_least is not None and end < expect.last_at_least:
        msg = (
            f"the last checkpoint has {end:.1%}, expected at least {expect.last_at_least:.0%}: "
            f"{training} did not learn enough"
        )
        raise PipelineError(msg)


def _accuracy(config: PipelineConfig, layout: Layout, *, model: str) -> float:
    """A model's average on the first benchmark, under the first scorer."""
    benchmark, scorer = config.evaluate.benchmarks[0].name, config.evaluate.scorers[0]
    for row in read_json(layout.site / "leaderboard.json"):
        if (row["benchmark"], row["scorer"], row["model"]) == (benchmark, scorer, model):
            return row["average"]["num_correct"] / row["average"]["num_questions"]
    msg = f"the leaderboard has no row of {model} on {benchmark} under {scorer}; evaluate it first"
    raise PipelineError(msg)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options, config, layout = Command("report", __doc__).read(arguments)
    if not run_if_due(report_flow, ["report"], config, layout, force=options.force):
        show_report(config, layout)


if __name__ == "__main__":
    run_command(main)
