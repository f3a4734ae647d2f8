"""What the first screen claims of a benchmark, and what each claim rests on; templates say it.

A part stands only where its evidence does: a gain needs the start model's answers, a rival another
method, a claim p < .05 after Holm over the pairs of leading rows (reports/numbers/matrix), "gains
most" a task that beats the next beyond the noise of their questions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reports.numbers.achievements import Achievement, achievements, other_models
from reports.numbers.leaderboard import method_name
from reports.numbers.matrix import SURE, Matrix
from reports.numbers.statistics import QUANTILE, PairedTest, paired
from reports.numbers.tally import as_booleans, group_indices
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, TrainingSheet, Unfinished


class Versus(NamedTuple):
    """What leads against another."""

    name: str
    key: str
    """Training of the other; empty for another model."""
    test: PairedTest
    p_value: float
    """After Holm over the pairs of the page."""

    @property
    def is_sure(self) -> bool:
        """Whether it is beyond the noise of the questions."""
        return self.p_value < SURE


class TaskGain(NamedTuple):
    """What leads minus its start on the questions of one task."""

    task: str
    difference: float
    variance: float
    """Of the difference."""


@dataclass(frozen=True, slots=True)
class Story:
    """The first screen of one benchmark."""

    benchmark: BenchmarkSheet
    scorer: str
    standings: Sequence[Achievement]
    """Trainings, or other models where none was trained here, by accuracy; the first leads."""
    names: Sequence[str]
    """Of the standings, e.g. `SFT, LoRA`."""
    gain: Versus | None
    """Of what leads over its start."""
    others: Sequence[Versus]
    """What leads over each other standing."""
    rivals: Sequence[Versus]
    """Of these, what was trained by another method."""
    tasks: Sequence[TaskGain]
    """The largest first; empty without a start model."""
    num_done: int
    """Checkpoints evaluated on this benchmark."""
    num_planned: int
    unfinished: Sequence[Unfinished]

    @property
    def lead(self) -> Achievement:
        """The best of the standings."""
        return self.standings[0]

    @property
    def gains_most(self) -> bool:
        """Whether the first task gains more than the next beyond the noise of their questions."""
        (_, first, noise), (_, second, more), *_ = self.tasks
        return first - second > QUANTILE * math.sqrt(noise + more)

    @property
    def named(self) -> set[str]:
        """Trainings that the sentence names."""
        lead = {self.lead.training.name} if self.lead.training else set[str]()
        return lead | {rival.key for rival in self.rivals[:1]}


def stories(report: Report, matrices: Iterable[Matrix]) -> list[Story]:
    """One a benchmark on which something was judged."""
    by_key = {matrix.benchmark.key: matrix for matrix in matrices}
    lines = achievements(report)
    found: list[Story] = []
    for benchmark in report.tests:
        scorer = report.leading_scorer(benchmark)
        own = [line for line in lines if line.benchmark.key == benchmark.key]
        own = own or (other_models(report, benchmark, scorer) if scorer else [])
        if scorer and own:
            own.sort(key=lambda line: -line.tally.accuracy)
            found.append(_story(report, benchmark, own, by_key.get(benchmark.key)))
    return found


def names_of(trainings: Iterable[TrainingSheet]) -> dict[str, str]:
    """What a page calls each training: its method, with the prompt where that tells them apart."""
    evaluated = [training for training in trainings if training.evaluated]
    for size in (1, 2):
        names: dict[str, str] = {}
        for training in evaluated:
            parts = [method_name(training.method, training.variant), f"prompt {training.prompt}"]
            names[training.name] = ", ".join(parts[:size])
        if len(set(names.values())) == len(names):
            return names
    return {training.name: training.name for training in evaluated}


def _story(
    report: Report,
    benchmark: BenchmarkSheet,
    standings: Sequence[Achievement],
    matrix: Matrix | None,
) -> Story:
    names = names_of(report.trainings)
    lead, scorer = standings[0], standings[0].scorer

    def versus(name: str, key: str, other: EvaluationSheet) -> Versus:
        test = paired(as_booleans(other.marks[scorer]), as_booleans(lead.marks))
        return Versus(name, key, test, _corrected(matrix, lead.evaluation, other, test))

    keys = [line.training.name if line.training else "" for line in standings]
    methods = [line.training.method if line.training else "" for line in standings]
    shown = [
        names.get(key) or report.label(line.evaluation.key)
        for key, line in zip(keys, standings, strict=True)
    ]
    others = [
        versus(name, key, line.evaluation)
        for name, key, line in zip(shown[1:], keys[1:], standings[1:], strict=True)
    ]
    rivals = [
        other
        for other, method in zip(others, methods[1:], strict=True)
        if not method or method != methods[0]
    ]
    trainings = [training for training in report.trainings if training.evaluated]
    steps = [report.steps(benchmark, scorer, training) for training in trainings]
    return Story(
        benchmark=benchmark,
        scorer=scorer,
        standings=standings,
        names=shown,
        gain=versus(lead.start.model, "", lead.start) if lead.start else None,
        others=others,
        rivals=rivals,
        tasks=_task_gains(lead),
        num_done=sum(len(done) for done in steps),
        num_planned=sum(
            len(training.planned) or len(done)
            for training, done in zip(trainings, steps, strict=True)
        ),
        unfinished=[
            part
            for part in report.unfinished
            if part.run.key.benchmark == benchmark.key and not part.run.key.control
        ],
    )


def _corrected(
    matrix: Matrix | None, one: EvaluationSheet, other: EvaluationSheet, test: PairedTest
) -> float:
    """Holm's p of the pair; of one that the matrix leaves out, p times the number of its pairs."""
    if matrix is None:
        return test.p_value
    places = {key: place for place, key in enumerate(matrix.keys)}
    if one.key in places and other.key in places:
        row, column = sorted((places[one.key], places[other.key]))
        return matrix.cells[row, column].p_value
    return min(1.0, test.p_value * (len(matrix.cells) + 1))


def _task_gains(lead: Achievement) -> list[TaskGain]:
    if lead.start is None:
        return []
    pairs = list(zip(lead.start.marks[lead.scorer], lead.marks, strict=True))
    gains: list[TaskGain] = []
    for name, indices in group_indices(lead.benchmark.questions, "task").items():
        changes = [(pairs[index][1] == "1") - (pairs[index][0] == "1") for index in indices]
        mean = sum(changes) / len(changes)
        variance = sum((change - mean) ** 2 for change in changes) / len(changes) ** 2
        gains.append(TaskGain(name, mean, variance))
    return sorted(gains, key=lambda gain: (-gain.difference, gain.task))
