"""The charts of the pages: accuracy by step in small multiples, and the course of a training."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.numbers.achievements import paper_row
from reports.numbers.statistics import Interval, interval
from reports.numbers.tally import group_indices, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, TrainingSheet
from reports.site.charts import Chart, draw
from storage.records.evaluation import Tally

TRAINING_CURVES = (
    ("reward", "Reward", "mean of the sampled completions"),
    ("accuracy_reward", "Accuracy reward", "share of completions that are right"),
    ("format_reward", "Format reward", "share in the answer's format"),
    ("zero_variance_share", "Groups without a lesson", "share whose rewards are all alike"),
    ("all_right_share", "Groups all right", "share of the groups"),
    ("all_wrong_share", "Groups all wrong", "share of the groups"),
    ("kl", "KL to the start model", "nats a token"),
    ("completion_length", "Completion length", "tokens"),
    ("cut_off_share", "Cut-off completions", "share that reached the limit"),
    ("entropy", "Entropy", "nats a token"),
    ("loss", "Loss", ""),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("learning_rate", "Learning rate", ""),
    ("tokens_per_second", "Speed", "sampled tokens a second"),
)
MOST_POINTS = 250  # of a training curve; a chart is 300 pixels wide


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn chart with its numbers."""

    chart: Chart
    svg: str
    note: str = ""
    heads: Sequence[str] = field(default=())
    rows: Sequence[Sequence[str]] = field(default=())


def accuracy_figures(
    report: Report, benchmark: BenchmarkSheet, *, scorer: str, training: TrainingSheet, prefix: str
) -> list[Figure]:
    """Accuracy by step: the average, then each task on the same scale; empty without checkpoints.

    The start model, where it was asked with the same prompt, is step 0.

    Args:
        report: The report.
        benchmark: One of its benchmarks.
        scorer: The scorer shown.
        training: One of its trainings.
        prefix: Unique on the page, for ids.
    """
    points = _points(report, benchmark, scorer, training)
    if not points:
        return []
    paper = paper_row(report.published, benchmark=benchmark.name, training=training)
    groups: dict[str, list[int]] = {"average": list(range(len(benchmark.questions)))}
    groups |= group_indices(benchmark.questions, "task")
    leading = report.leading.get(training.name)
    lines = [
        AccuracyLine(
            title=name,
            steps=list(points),
            tallies=[tally(marks, indices=indices) for marks in points.values()],
            paper_percent=paper.percent(name) if paper else None,
            leading_step=leading.step if leading else None,
        )
        for name, indices in groups.items()
    ]
    limits = _limits(lines)
    return [
        accuracy_figure(line, limits=limits, prefix=f"{prefix}-{index}")
        for index, line in enumerate(lines)
    ]


@dataclass(frozen=True, slots=True)
class AccuracyLine:
    """Right answers of each step to one group of questions."""

    title: str
    steps: Sequence[int]
    tallies: Sequence[Tally]
    paper_percent: float | None
    leading_step: int | None


def _points(
    report: Report, benchmark: BenchmarkSheet, scorer: str, training: TrainingSheet
) -> dict[int, str]:
    """Marks by step; the start model is step 0."""
    steps = report.steps(benchmark, scorer, training)
    start = report.start_evaluation(benchmark, scorer, training) if steps else None
    points = {0: start.marks[scorer]} if start else {}
    return points | {
        evaluation.step: evaluation.marks[scorer]
        for evaluation in steps
        if evaluation.step is not None
    }


def _limits(lines: Sequence[AccuracyLine]) -> tuple[float, float]:
    """One scale for all small multiples, in percent, rounded outwards to tens."""
    ends = [100 * end for line in lines for counted in line.tallies for end in interval(counted)]
    ends += [line.paper_percent for line in lines if line.paper_percent is not None]
    return (max(0.0, min(ends) // 10 * 10), min(100.0, -(-max(ends) // 10) * 10))


def accuracy_figure(line: AccuracyLine, *, limits: tuple[float, float], prefix: str) -> Figure:
    """One chart of accuracy by step with its band, and its numbers."""
    names = ["start model" if step == 0 else f"step {step}" for step in line.steps]
    percents = [100 * counted.accuracy for counted in line.tallies]
    ends = [as_percents(interval(counted)) for counted in line.tallies]
    chart = Chart(
        title=line.title.capitalize(),
        x=line.steps,
        y=percents,
        low=[100 * interval(counted).low for counted in line.tallies],
        high=[100 * interval(counted).high for counted in line.tallies],
        rule=line.paper_percent,
        rule_label="" if line.paper_percent is None else f"paper {line.paper_percent:.2f}",
        y_label="accuracy, %",
        y_limits=limits,
        point_titles=[
            f"{name}: {percent:.2f} % ({end})"
            for name, percent, end in zip(names, percents, ends, strict=True)
        ],
        marked_x=line.leading_step,
    )
    rows = [
        (
            name,
            f"{100 * counted.accuracy:.2f}",
            end,
            f"{counted.num_correct}/{counted.num_questions}",
        )
        for name, counted, end in zip(names, line.tallies, ends, strict=True)
    ]
    note = f"n = {line.tallies[0].num_questions}"
    return Figure(chart, draw(chart, prefix=prefix), note, ("%", "95 % interval", "right"), rows)


def as_percents(ends: Interval) -> str:
    """`61.5\u201367.4`."""
    return f"{100 * ends.low:.1f}\u2013{100 * ends.high:.1f}"


def training_figures(training: TrainingSheet, *, prefix: str) -> list[Figure]:
    """One chart for each metric that the training logged."""
    curve = training.curve
    figures: list[Figure] = []
    for name, title, note in TRAINING_CURVES:
        values = curve.metrics.get(name, ())
        if not any(value is not None for value in values):
            continue
        steps, means = thin(curve.step, values)
        chart = Chart(title=title, x=steps, y=means)
        table = _evenly(list(zip(steps, means, strict=True)), 20)
        rows = [(str(step), "\u2013" if value is None else f"{value:.4g}") for step, value in table]
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
