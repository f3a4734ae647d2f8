"""The first page of a workspace: its experiments in one table, and their curves in one chart.

Made of the leaderboard.json that each report leaves, when somebody asks for it: no report is made
again for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, TypeAdapter

from reports.numbers.leaderboard import method_name
from reports.site.charts import MARKS, Look, Panel, Series, draw
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
    places = {experiment: place for place, experiment in enumerate(experiments)}
    # A run's number is the same in every chart: one switch turns it off in all.
    curves = dict.fromkeys(
        key for found in groups.values() for key, rows in found.items() if rows[0].training
    )
    numbers = {key: number for number, key in enumerate(curves)}
    by_benchmark = {
        name: [_run(numbers.get(key, 0), places[key[0]], key, rows) for key, rows in found.items()]
        for name, found in groups.items()
    }
    drawn = {name: _overlay(name, runs) for name, runs in by_benchmark.items()}
    # The style's own rule, for more curves than an experiment colours.
    hidden = (OFF.format(number) for number in range(MOST_COLOURED, len(curves)))
    context = {"experiments": experiments, "benchmarks": by_benchmark, "drawn": drawn}
    page = Page("", "experiments.html", "Experiments", context)
    return render_page(make_environment(), page, style="".join(hidden))


def _run(number: int, place: int, key: tuple[str, str, str], rows: Sequence[Exported]) -> Run:
    """Hue is the method, mark the experiment."""
    mark = list(MARKS)[place % len(MARKS)]
    steps = {row.step: row.average.percent for row in rows if row.average and row.step is not None}
    hue = HUES.get(rows[0].method, "other")
    look = Look(f"{key[0]}, {key[1]}", f"{hue} t{number}", mark)
    return Run(key[0], look, rows[0], dict(sorted(steps.items())))


def _overlay(benchmark: str, runs: Sequence[Run]) -> str:
    series = [
        Series(run.look, list(run.steps), list(run.steps.values()), label=run.look.name)
        for run in runs
        if run.steps
    ]
    values = [y for line in series for y in line.y if y is not None]
    if not values:
        return ""
    steps = sorted({x for line in series for x in line.x})
    limits = (min(values) - 2, max(values) + 2)
    panel = Panel(f"Accuracy by step on {benchmark}", "", series, limits, steps)
    wide = draw(panel, width=900, height=360, css="wide", margin=220)
    return wide + draw(panel, width=358, height=300, css="narrow", margin=120)
