"""The charts of the pages: accuracy by step of all trainings together, and their course."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from reports.numbers.achievements import paper_row
from reports.numbers.statistics import group_indices, picked, tally, wilson
from reports.numbers.story import names_of
from reports.report import Judged, Report
from reports.sheets import TrainingSheet
from reports.site.charts import MARKS, Look, Panel, Result, Series
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


class Accuracy(NamedTuple):
    """Accuracy by step on one benchmark, as charts and as a table."""

    panels: Sequence[Panel]
    """All tasks, then each task; columns of the table."""
    rows: Sequence[tuple[Look, int, Sequence[Tally]]]
    """Training, step, and right answers: of all tasks, then of each."""


def looks_of(report: Report, named: Collection[str] = ()) -> dict[str, Look]:
    """How each evaluated training is drawn: hue by method, mark by variant, then the next mark."""
    names = names_of(report.trainings)
    looks: dict[str, Look] = {}
    taken: set[tuple[str, str]] = set()
    for index, training in enumerate(report.trainings):
        colour, usual = COLOURS[training.method, training.variant]
        marks = [usual, *(mark for mark in MARKS if mark != usual)]
        mark = next((mark for mark in marks if (colour, mark) not in taken), usual)
        taken.add((colour, mark))
        if len(report.trainings) > MOST_COLOURED and training.name not in named:
            colour = "other"
        name = names.get(training.name, training.name)
        looks[training.name] = Look(name, f"{colour} t{index}", mark)
    return looks


def accuracy(judged: Judged, looks: Mapping[str, Look]) -> Accuracy | None:
    """Trainings in one panel, and by task on the same scale; None without checkpoints.

    The start model, where it was asked with the same prompt, is step 0.
    """
    questions, scorer = judged.benchmark.questions, judged.scorer
    groups = {"all tasks": list(range(len(questions))), **group_indices(questions, "task")}
    points: dict[str, dict[int, list[Tally]]] = {}
    for training in judged.report.trainings:
        if judged.steps(training):
            points[training.name] = {
                step: [tally(picked(sheet.marks[scorer], group)) for group in groups.values()]
                for step, sheet in judged.course(training).items()
            }
    if not points:
        return None
    panels = [_panel(judged, points, looks, *group) for group in enumerate(groups)]
    ends = [end for panel in panels for end in panel.y_limits]
    limits = (max(0.0, min(ends) // 5 * 5), min(100.0, -(-max(ends) // 5) * 5))
    rows = [
        (looks[name], step, tallies)
        for name, steps in points.items()
        for step, tallies in steps.items()
    ]
    return Accuracy([panel._replace(y_limits=limits) for panel in panels], rows)


def _panel(
    judged: Judged,
    points: Mapping[str, Mapping[int, Sequence[Tally]]],
    looks: Mapping[str, Look],
    index: int,
    task: str,
) -> Panel:
    """One group of questions, the first of them all; its limits hold what is drawn of it."""
    report, benchmark = judged.report, judged.benchmark.name
    series: list[Series] = []
    for name, steps in points.items():
        look, percents = looks[name], {step: _percents(own[index]) for step, own in steps.items()}
        leading, training = report.leading.get(name), report.training(name)
        led = percents.get(leading.step) if leading else None
        paper = paper_row(report.published, benchmark=benchmark, training=training)
        printed = paper.percent(task if index else "average") if paper else None
        label = f"{led[0]:.1f}" if led else ""
        is_named = not look.css.startswith("other")
        series.append(
            Series(
                look=look,
                x=list(steps),
                y=[value for value, _, _ in percents.values()],
                band=[(low, high) for _, low, high in percents.values()]
                if is_named and not index
                else (),
                lead=leading.step if leading and led else None,
                result=Result(*led, printed) if led and is_named else None,
                label=label if index else f"{look.name} {label}",
                paper_label="" if index or printed is None else f"paper {printed:.1f}",
            )
        )
    values = [y for line in series for y in line.y if y is not None]
    values += [end for line in series for ends in line.band for end in ends]
    values += [value for line in series for value in line.result or () if value is not None]
    steps = sorted({step for own in points.values() for step in own})
    size = next(iter(next(iter(points.values())).values()))[index].num_questions
    return Panel(
        title=task.capitalize(),
        note=f"n = {size}",
        series=series,
        y_limits=(min(values), max(values)),
        marked_x=steps[:: max(len(steps) - 1, 1)] if index else steps,
    )


def _percents(counted: Tally) -> tuple[float, float, float]:
    """Accuracy and the ends of its interval."""
    low, high = wilson(counted)
    return 100 * counted.accuracy, 100 * low, 100 * high


def training_panels(report: Report, shown: TrainingSheet) -> list[Panel]:
    """One for each metric that a training logged, all trainings that logged it in it."""
    looks, panels = looks_of(report), list[Panel]()
    for name, title, note in TRAINING_CURVES:
        logged = {
            training.name: thin(training.curve.step, values)
            for training in report.trainings
            if (values := training.curve.metrics.get(name)) and any(y is not None for y in values)
        }
        if shown.name in logged:
            series = [
                Series(looks[own], steps, means, label=looks[own].name)
                for own, (steps, means) in logged.items()
            ]
            panels.append(Panel(title, note, series, _room(series)))
    return panels


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
