"""The first page of a workspace: its experiments in one table, and their curves in one chart.

Made of the leaderboard.json that each report leaves, when somebody asks for it: no report is made
again for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, TypeAdapter

from reports.numbers.leaderboard import method_name
from reports.site.charts import MARKS, Look, Panel, Series
from reports.site.figures import COLOURS, MOST_COLOURED
from reports.site.html import Page, make_environment, render_page
from storage.layout import Layout

OFF = "body:has(#show-t{0}:not(:checked)) .charts .t{0} {{ display: none; }}\n"
HUES = {method_name(*trained): hue for trained, (hue, _) in COLOURS.items()}


class Average(BaseModel):
    """An accuracy of leaderboard.json, in percent; a published one has no interval."""

    percent: float
    low: float | None = None
    high: float | None = None


class Exported(BaseModel):
    """A row of leaderboard.json, as far as this page shows it."""

    benchmark: str
    model: str
    training: str
    method: str
    step: int | None
    prompt: str
    scorer: str
    """Empty for a published row."""
    average: Average | None
    num_questions: int | None


LEADERBOARD = TypeAdapter(list[Exported])


class Run(NamedTuple):
    """A training of an experiment, or a model, on one benchmark under its first scorer."""

    experiment: str
    look: Look
    """Hue is the method, mark the experiment."""
    lead: Exported
    """Its row to quote."""
    steps: Mapping[int, float]
    """Percent by step."""


def experiments_page(workspace: Path, experiments: Sequence[str]) -> str:
    """The page as HTML; each experiment links to its own report."""
    groups: dict[str, dict[tuple[str, str, str], list[Exported]]] = {}
    for experiment in experiments:
        path = Layout(workspace, experiment).site / "leaderboard.json"
        rows = LEADERBOARD.validate_json(path.read_bytes()) if path.exists() else []
        # A training's row to quote stands first.
        ours = [row for row in rows if row.scorer and row.average]
        for row in (row for row in ours if row.scorer == ours[0].scorer):
            key = (experiment, row.training or row.model, row.prompt)
            groups.setdefault(row.benchmark, {}).setdefault(key, []).append(row)
    # A run's number is the same in every chart: one switch turns it off in all.
    trained = (key for found in groups.values() for key, rows in found.items() if rows[0].training)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(trained))}

    def run(key: tuple[str, str, str], rows: Sequence[Exported]) -> Run:
        experiment, name, _ = key
        mark = list(MARKS)[experiments.index(experiment) % len(MARKS)]
        css = f"{HUES.get(rows[0].method, 'other')} t{numbers.get(key, 0)}"
        percents = [(row.step, row.average.percent) for row in rows if row.average]
        steps = sorted((step, percent) for step, percent in percents if step is not None)
        return Run(experiment, Look(f"{experiment}, {name}", css, mark), rows[0], dict(steps))

    runs = {name: [run(key, rows) for key, rows in found.items()] for name, found in groups.items()}
    panels = {name: _overlay(name, found) for name, found in runs.items()}
    # The style's own rule, for more curves than an experiment colours.
    hidden = (OFF.format(number) for number in range(MOST_COLOURED, len(numbers)))
    context = {"experiments": experiments, "benchmarks": runs, "panels": panels}
    page = Page("", "experiments.html", "Experiments", context)
    return render_page(make_environment(), page, style="".join(hidden))


def _overlay(benchmark: str, runs: Sequence[Run]) -> Panel | None:
    series = [
        Series(run.look, list(run.steps), list(run.steps.values()), label=run.look.name)
        for run in runs
        if run.steps
    ]
    values = [percent for run in runs for percent in run.steps.values()]
    if not values:
        return None
    steps = sorted({step for run in runs for step in run.steps})
    limits = (min(values) - 2, max(values) + 2)
    return Panel(f"Accuracy by step on {benchmark}", "", series, limits, steps)
