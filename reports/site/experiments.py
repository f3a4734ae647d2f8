"""The first page of a workspace: its experiments in one table, and their curves in one chart.

Made of the leaderboard.json that each report leaves, when somebody asks for it: no report is made
again for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reports.site.charts import MARKS, Look, Panel, Series, draw
from reports.site.render import make_environment, policy, read_asset
from storage.jsonl import read_json
from storage.layout import Layout

HUES = {"GRPO": "grpo", "GRPO, LoRA": "grpo", "SFT": "full", "SFT, LoRA": "lora"}


class Run(NamedTuple):
    """A training of an experiment, or a model, on one benchmark under its first scorer."""

    experiment: str
    look: Look
    lead: Mapping[str, Any]
    """Its row to quote, as leaderboard.json has it."""
    steps: Mapping[int, float]
    """Percent by step."""


def experiments_page(workspace: Path, experiments: Sequence[str]) -> str:
    """The page as HTML; each experiment links to its own report.

    Args:
        workspace: Folder of all data.
        experiments: Names of those that have a report.
    """
    groups: dict[str, dict[tuple[str, str, str], list[dict[str, Any]]]] = {}
    for experiment in experiments:
        path = Layout(workspace, experiment).site / "leaderboard.json"
        rows: list[dict[str, Any]] = read_json(path) if path.exists() else []
        ours = [row for row in rows if row["scorer"]]  # a training's row to quote stands first
        for row in (row for row in ours if row["scorer"] == ours[0]["scorer"]):
            key = (experiment, row["training"] or row["model"], row["prompt"])
            groups.setdefault(row["benchmark"], {}).setdefault(key, []).append(row)
    places = {experiment: place for place, experiment in enumerate(experiments)}
    by_benchmark = {
        name: [
            _run(index, places[key[0]], key, rows)
            for index, (key, rows) in enumerate(found.items())
        ]
        for name, found in groups.items()
    }
    drawn = {name: _overlay(name, runs) for name, runs in by_benchmark.items()}
    style, script = read_asset("report.css"), read_asset("report.js")
    return (
        make_environment()
        .get_template("experiments.html")
        .render(
            title="Experiments",
            experiment="Experiments",
            file="",
            schema="",
            navigation=[],
            experiments=experiments,
            benchmarks=by_benchmark,
            drawn=drawn,
            style=style,
            script=script,
            policy=policy(style, script, loads_data=False, plays=False),
        )
    )


def _run(index: int, place: int, key: tuple[str, str, str], rows: Sequence[dict[str, Any]]) -> Run:
    """Hue is the method, mark the experiment."""
    mark = list(MARKS)[place % len(MARKS)]
    steps = {row["step"]: row["average"]["percent"] for row in rows if row["step"] is not None}
    hue = HUES.get(rows[0]["method"], "other")
    look = Look(f"{key[0]}, {key[1]}", f"{hue} t{index}", mark)
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
    panel = Panel(
        f"Accuracy by step on {benchmark}", "", series, (min(values) - 2, max(values) + 2)
    )
    wide = draw(panel, width=900, height=360, css="wide", margin=220)
    return wide + draw(panel, width=358, height=300, css="narrow", margin=120)
