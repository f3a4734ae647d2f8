"""The charts of the pages: accuracy by step of all trainings together, and their course."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from reports.numbers.achievements import paper_row
from reports.numbers.statistics import interval
from reports.numbers.story import names_of
from reports.numbers.tally import group_indices, picked, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, TrainingSheet
from reports.site.charts import MARKS, Look, Panel, Result, Series, draw
from storage.records.evaluation import Tally

TRAINING_CURVES = (
    ("validation_accuracy", "Validation accuracy", "share of held-out questions, while training"),
    ("accuracy_reward", "Accuracy reward", "share of completions that are right"),
    ("reward", "Reward", "mean of the sampled completions, weighted"),
    ("format_reward", "Format reward", "share in the answer's format"),
    ("zero_variance_share", "Groups without a lesson", "share whose rewards are all alike"),
    ("all_right_share", "Groups all right", "share of the groups"),
    ("all_wrong_share", "Groups all wrong", "share of the groups"),
    ("kl", "KL to the start model", "nats a token"),
    ("completion_length", "Completion length", "tokens"),
    ("cut_off_share", "Cut-off completions", "share that reached the limit"),
    ("entropy", "Entropy", "nats a token"),
    ("loss", "Loss", "of GRPO near zero whatever is learned"),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("learning_rate", "Learning rate", ""),
    ("tokens_per_second", "Speed", "sampled tokens a second"),
    ("seconds_total", "Time", "seconds a step"),
    ("peak_memory_bytes", "Memory", "bytes, the most so far of the main process"),
)
MOST_POINTS = 120  # of a training curve; a chart is 370 pixels wide
MOST_COLOURED = 9  # trainings; of more, only those that the sentence names have a colour and a band
COLOURS = {
    ("grpo", "full"): ("grpo", "circle"),
    ("grpo", "lora"): ("grpo", "diamond"),
    ("sft", "full"): ("full", "square"),
    ("sft", "lora"): ("lora", "triangle"),
}


class Figure(NamedTuple):
    """A drawn chart, at one size or at two."""

    title: str
    note: str
    svg: str


class Accuracy(NamedTuple):
    """Accuracy by step on one benchmark, drawn and as a table."""

    figures: Sequence[Figure]
    """All tasks, wide and narrow; then each task."""
    tasks: Sequence[str]
    """Columns of the table."""
    rows: Sequence[tuple[Look, int, Sequence[Tally]]]
    """Training, step, and right answers: of all tasks, then of each."""


def looks_of(report: Report, named: Collection[str] = ()) -> dict[str, Look]:
    """How each evaluated training is drawn: hue by method, mark by variant, then the next mark."""
    names = names_of(report.trainings)
    taken: list[tuple[str, str]] = []
    looks: dict[str, Look] = {}
    for index, training in enumerate(report.trainings):
        colour, mark = COLOURS[training.method, training.variant]
        marks = [mark, *(other for other in MARKS if other != mark)]
        mark = next((each for each in marks if (colour, each) not in taken), mark)
        taken.append((colour, mark))
        if len(report.trainings) > MOST_COLOURED and training.name not in named:
            colour = "other"
        name = names.get(training.name, training.name)
        looks[training.name] = Look(name, f"{colour} t{index}", mark)
    return looks


def accuracy(
    report: Report, benchmark: BenchmarkSheet, scorer: str, looks: Mapping[str, Look]
) -> Accuracy | None:
    """Trainings in one panel, and by task on the same scale; None without checkpoints.

    The start model, where it was asked with the same prompt, is step 0.
    """
    groups = {"all tasks": list(range(len(benchmark.questions)))}
    groups |= group_indices(benchmark.questions, "task")
    points = {
        training.name: found
        for training in report.trainings
        if (found := _points(report, benchmark, scorer, training, groups))
    }
    if not points:
        return None
    panels = [
        _panel(report, benchmark, points, looks, (index, name)) for index, name in enumerate(groups)
    ]
    ends = [end for panel in panels for end in panel.y_limits]
    limits = (max(0.0, min(ends) // 5 * 5), min(100.0, -(-max(ends) // 5) * 5))
    whole, *parts = [panel._replace(y_limits=limits) for panel in panels]
    drawn = draw(whole, width=636, height=312, css="wide", margin=130)
    drawn += draw(whole, width=358, height=300, css="narrow", margin=104)
    small = [draw(panel, width=166, height=312, margin=34) for panel in parts]
    note = "accuracy in %; band: 95 % interval of each step"
    figures = [Figure(f"All tasks, {len(benchmark.questions)} questions", note, drawn)]
    figures += [
        Figure(panel.title, panel.note, svg) for panel, svg in zip(parts, small, strict=True)
    ]
    rows = [
        (looks[name], step, tallies)
        for name, steps in points.items()
        for step, tallies in steps.items()
    ]
    return Accuracy(figures, list(groups), rows)


def _points(
    report: Report,
    benchmark: BenchmarkSheet,
    scorer: str,
    training: TrainingSheet,
    groups: Mapping[str, Sequence[int]],
) -> dict[int, list[Tally]]:
    """Right answers by step and group; the start model is step 0."""
    steps = report.steps(benchmark, scorer, training)
    start = report.start_evaluation(benchmark, scorer, training) if steps else None
    shown = {0: start} if start else {}
    shown |= {evaluation.step: evaluation for evaluation in steps if evaluation.step is not None}
    return {
        step: [tally(picked(evaluation.marks[scorer], group)) for group in groups.values()]
        for step, evaluation in shown.items()
    }


def _panel(
    report: Report,
    benchmark: BenchmarkSheet,
    points: Mapping[str, Mapping[int, Sequence[Tally]]],
    looks: Mapping[str, Look],
    group: tuple[int, str],
) -> Panel:
    """One group of questions; its limits hold what is drawn of it."""
    index, task = group
    series: list[Series] = []
    for name, steps in points.items():
        tallies = [counted[index] for counted in steps.values()]
        training, leading = report.training(name), report.leading.get(name)
        paper = paper_row(report.published, benchmark=benchmark.name, training=training)
        led = steps.get(leading.step) if leading else None
        printed = paper.percent(task if index else "average") if paper else None
        result = Result(*_percents(led[index]), printed) if led else None
        label = f"{result.value:.1f}" if result else ""
        look = looks[name]
        has_band = not index and not look.css.startswith("other")
        series.append(
            Series(
                look=look,
                x=list(steps),
                y=[100 * counted.accuracy for counted in tallies],
                band=[_percents(counted)[1:] for counted in tallies] if has_band else (),
                lead=leading.step if leading and led else None,
                result=result if not look.css.startswith("other") else None,
                label=label if index else f"{look.name} {label}",
                paper_label="" if index or printed is None else f"paper {printed:.1f}",
            )
        )
    counted = next(iter(points.values()))
    num_questions = next(iter(counted.values()))[index].num_questions
    values = [y for line in series for y in line.y if y is not None]
    values += [end for line in series for ends in line.band for end in ends]
    values += [value for line in series for value in line.result or () if value is not None]
    steps_of_all = sorted({step for steps in points.values() for step in steps})
    return Panel(
        title=task.capitalize(),
        note=f"n = {num_questions}",
        series=series,
        y_limits=(min(values), max(values)),
        marked_x=steps_of_all[:: max(len(steps_of_all) - 1, 1)] if index else steps_of_all,
    )


def _percents(counted: Tally) -> tuple[float, float, float]:
    """Accuracy and the ends of its interval."""
    low, high = interval(counted)
    return 100 * counted.accuracy, 100 * low, 100 * high


def training_figures(report: Report, shown: TrainingSheet) -> list[Figure]:
    """One chart for each metric that a training logged, all trainings that logged it in it."""
    looks, figures = looks_of(report), list[Figure]()
    for name, title, note in TRAINING_CURVES:
        logged = {
            training.name: thin(training.curve.step, values)
            for training in report.trainings
            if (values := training.curve.metrics.get(name)) and any(y is not None for y in values)
        }
        if shown.name in logged:
            series = [
                Series(looks[training], steps, means, label=looks[training].name)
                for training, (steps, means) in logged.items()
            ]
            panel = Panel(title, note, series, _room(series))
            figures.append(Figure(title, note, draw(panel, width=370, height=190, margin=86)))
    return figures


def _room(found: Sequence[Series]) -> tuple[float, float]:
    """Limits with a little room; from 0 where that is near."""
    values = [y for series in found for y in series.y if y is not None]
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if 0 <= low < 0.4 * high else low - room, high + room)


def thin(
    steps: Sequence[int], values: Sequence[float | None]
) -> tuple[list[int], list[float | None]]:
    """At most MOST_POINTS: means over windows of equal size, at each window's last step."""
    size = -(-len(steps) // MOST_POINTS) or 1
    means: list[float | None] = []
    for start in range(0, len(steps), size):
        window = [value for value in values[start : start + size] if value is not None]
        means.append(sum(window) / len(window) if window else None)
    return [steps[min(start + size, len(steps)) - 1] for start in range(0, len(steps), size)], means
