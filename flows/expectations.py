"""Holds the measured result against the bounds of the profile; what the demo's success rests on."""

from typing import Any

from flows.pipeline_config import PipelineConfig
from storage.errors import PipelineError
from storage.jsonl import read_json
from storage.layout import Layout
from tasks.models import start_key
from tasks.running.console import say


def check_expectations(config: PipelineConfig, layout: Layout) -> None:
    """Compare the first benchmark's averages, under the first scorer, with `expect`.

    Raises:
        PipelineError: If a bound is not met; says what was measured.
    """
    expect = config.expect
    trainings = [training for training in config.train if training.evaluate]
    if not trainings or (expect.start_at_most is None and expect.last_at_least is None):
        return
    last = trainings[-1]
    start = _accuracy(config, layout, model=start_key(last.model, layout))
    end = _accuracy(config, layout, model=f"{last.name}-step-{last.max_steps}")
    if expect.start_at_most is not None and start > expect.start_at_most:
        msg = (
            f"the start model has {start:.1%}, expected at most {expect.start_at_most:.0%}: "
            "there is little left to learn"
        )
        raise PipelineError(msg)
    if expect.last_at_least is not None and end < expect.last_at_least:
        msg = (
            f"the last checkpoint has {end:.1%}, expected at least {expect.last_at_least:.0%}: "
            f"{last.name} did not learn enough"
        )
        raise PipelineError(msg)
    benchmark = config.evaluate.benchmarks[0].name
    say(f"as expected: from {start:.1%} to {end:.1%} on {benchmark}")


def _accuracy(config: PipelineConfig, layout: Layout, *, model: str) -> float:
    benchmark, scorer = config.evaluate.benchmarks[0].name, config.evaluate.scorers[0]
    rows: list[dict[str, Any]] = read_json(layout.site / "leaderboard.json")
    for row in rows:
        if (row["benchmark"], row["scorer"], row["model"]) == (benchmark, scorer, model):
            return row["average"]["num_correct"] / row["average"]["num_questions"]
    msg = f"the leaderboard has no row of {model} on {benchmark} under {scorer}; evaluate it first"
    raise PipelineError(msg)
