"""The charts of the pages: accuracy by step in small multiples, and the course of a training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.charts import Chart, draw
from reports.leaderboard import declared_step, evaluations_of
from reports.published import paper_row
from reports.tally import Tally, group_indices, tally

TRAINING_CURVES = (
    ("reward", "Reward", "mean of the sampled completions"),
    ("accuracy_reward", "Accuracy reward", "share of completions that are right"),
    ("format_reward", "Format reward", "share in the answer's format"),
    ("zero_variance_share", "Groups without a lesson", "share whose rewards are all alike"),
    ("kl", "KL to the start model", "nats a token"),
    ("completion_length", "Completion length", "tokens"),
    ("cut_off_share", "Cut-off completions", "share that reached the limit"),
    ("entropy", "Entropy", "nats a token"),
    ("loss", "Loss", ""),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("learning_rate", "Learning rate", ""),
)
MOST_POINTS = 250  # of a training curve; a chart is 300 pixels wide

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn chart with its numbers."""

    chart: Chart
    svg: str
    note: str = ""
    heads: Sequence[str] = field(default=())
    rows: Sequence[Sequence[str]] = field(default=())


def accuracy_figures(
    report: Json, benchmark: Json, *, scorer: str, training: Json, prefix: str
) -> list[Figure]:
    """Accuracy by step, the average first, then a chart a task on the same scale; empty with no checkpoint.

    Args:
        report: The report.
        benchmark: One of its benchmarks.
        scorer: The scorer shown.
        training: One of its trainings.
        prefix: Unique on the page, for ids.
    """
    steps = [
        one
        for one in evaluations_of(
            report, benchmark["name"], scorer=scorer, training=training["name"]
        )
        if one["prompt"] == training["prompt"] or not training["prompt"]
    ]
    if not steps:
        return []
    paper = paper_row(report["published"], benchmark=benchmark["name"], method=training["method"])
    groups: dict[str, list[int]] = {"average": list(range(len(benchmark["questions"])))}
    groups |= group_indices(benchmark["questions"], "task")
    tallies = {
        name: [tally(one["marks"][scorer], indices=indices) for one in steps]
        for name, indices in groups.items()
    }
    rules = {
        name: paper[name] if paper and paper.get(name) is not None else None for name in groups
    }
    limits = _limits([one for group in tallies.values() for one in group], list(rules.values()))
    declared = declared_step(report, training["name"])
    return [
        _accuracy_figure(
            name,
            [one["step"] for one in steps],
            tallies[name],
            rules[name],
            limits,
            declared,
            prefix=f"{prefix}-{index}",
        )
        for index, name in enumerate(groups)
    ]


def _limits(tallies: Sequence[Tally], rules: Sequence[float | None]) -> tuple[float, float]:
    """One scale for all small multiples, in percent, rounded outwards to tens."""
    heights = [100 * end for one in tallies for end in one.interval] + [
        rule for rule in rules if rule is not None
    ]
    return (max(0.0, min(heights) // 10 * 10), min(100.0, -(-max(heights) // 10) * 10))


def _accuracy_figure(
    name: str,
    steps: list[int],
    tallies: list[Tally],
    rule: float | None,
    limits: tuple[float, float],
    declared: int | None,
    *,
    prefix: str,
) -> Figure:
    percents = [100 * one.accuracy for one in tallies]
    intervals = [f"{100 * one.interval.low:.1f}–{100 * one.interval.high:.1f}" for one in tallies]
    chart = Chart(
        title=name.capitalize(),
        x=steps,
        y=percents,
        low=[100 * one.interval.low for one in tallies],
        high=[100 * one.interval.high for one in tallies],
        rule=rule,
        rule_label=f"paper {rule:.2f}" if rule is not None else "",
        y_label="accuracy, %",
        y_limits=limits,
        point_titles=[
            f"step {step}: {percent:.2f} % ({ends})"
            for step, percent, ends in zip(steps, percents, intervals, strict=True)
        ],
        marked_x=declared,
    )
    rows = [
        (str(step), f"{percent:.2f}", ends, f"{one.num_correct}/{one.num_questions}")
        for step, percent, ends, one in zip(steps, percents, intervals, tallies, strict=True)
    ]
    note = f"n = {tallies[0].num_questions}"
    return Figure(chart, draw(chart, prefix=prefix), note, ("%", "95 % interval", "right"), rows)


def training_figures(training: Json, *, prefix: str) -> list[Figure]:
    """One chart for each metric that the training logged."""
    curve = training["curve"]
    figures: list[Figure] = []
    for name, title, note in TRAINING_CURVES:
        values: list[float | None] = curve.get(name, [])
        if not any(value is not None for value in values):
            continue
        steps, means = thin(curve["step"], values)
        chart = Chart(title=title, x=steps, y=means)
        table = _evenly(list(zip(steps, means, strict=True)), 20)
        rows = [(str(step), "–" if value is None else f"{value:.4g}") for step, value in table]
        figures.append(
            Figure(chart, draw(chart, prefix=f"{prefix}-{len(figures)}"), note, ("value",), rows)
        )
    return figures


def thin(
    steps: Sequence[int], values: Sequence[float | None]
) -> tuple[list[int], list[float | None]]:
    """At most 250 points: means over windows of equal size, at each window's last step."""
    size = -(-len(steps) // MOST_POINTS) or 1
    means: list[float | None] = []
    for start in range(0, len(steps), size):
        window = [value for value in values[start : start + size] if value is not None]
        means.append(sum(window) / len(window) if window else None)
    return [steps[min(start + size, len(steps)) - 1] for start in range(0, len(steps), size)], means


def _evenly(items: list[tuple[int, float | None]], most: int) -> list[tuple[int, float | None]]:
    """The first, the last and evenly spaced items between."""
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
