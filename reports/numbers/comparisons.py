"""Two models side by side on the same questions: which pairs get a page, and what stands there."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from reports.numbers.achievements import achievements
from reports.numbers.groups import GroupRow, group_rows
from reports.numbers.statistics import PairedTest, paired
from reports.numbers.tally import as_booleans, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet
from storage.records.evaluation import RunKey, Tally
from storage.records.question import Question

MOST_ROWS = 8  # of a matrix; a table of more cannot be read


class Asked(NamedTuple):
    """A model asked with one prompt."""

    model: str
    prompt: str


class Pair(NamedTuple):
    """Two of them; the second is measured against the first."""

    first: Asked
    second: Asked


@dataclass(frozen=True, slots=True)
class Section:
    """Two models on one benchmark under one scorer."""

    benchmark: BenchmarkSheet
    scorer: str
    keys: tuple[RunKey, RunKey]
    first: Tally
    second: Tally
    test: PairedTest
    tasks: Sequence[GroupRow]
    gained: Sequence[Question]
    """Questions that only the second got right."""
    lost: Sequence[Question]
    """Questions that only the first got right."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A pair with everything that its page shows."""

    pair: Pair
    reason: str
    """What the comparison answers, e.g. `start model and leading step`."""
    sections: Sequence[Section]
    """By benchmark and scorer; never empty."""


def compare(report: Report) -> list[Comparison]:
    """Every comparison that answers a question."""
    found = [
        Comparison(pair, reason, sections(report, pair)) for pair, reason in pairs(report).items()
    ]
    return [comparison for comparison in found if comparison.sections]


def pairs(report: Report) -> dict[Pair, str]:
    """The comparisons that answer a question, with the reason for each.

    A training's leading step against its start model and against the best step on the test, every
    two of the leading rows, every other model against the leading steps; each pair once.
    """
    found: dict[Pair, str] = {}
    lines = achievements(report)
    leading = {line.training.name: asked_of(line.evaluation) for line in lines}
    for line in lines:
        asked = leading[line.training.name]
        if line.start:
            _add(found, asked_of(line.start), asked, "start model and leading step")
        steps = report.steps(line.benchmark, line.scorer, line.training)
        for best in (evaluation for evaluation in steps if evaluation.step == line.best_step):
            _add(found, asked, asked_of(best), "leading step and best step on the test")
    names = list(leading)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            _add(found, leading[other], leading[name], "leading steps of two trainings")
    starts = {line.start.model for line in lines if line.start}
    for evaluation in report.evaluations:
        if (
            evaluation.step is None
            and evaluation.model not in starts
            and evaluation.key.control is None
        ):
            for asked in leading.values():
                _add(found, asked_of(evaluation), asked, "another model and leading step")
    for second, first in combinations(leading_rows(report), 2):
        _add(found, first, second, "two of the leading rows")
    return found


def leading_rows(report: Report) -> list[Asked]:
    """Trainings' leading steps in the profile's order, then other models, as they were asked."""
    lines = achievements(report)
    leading = [
        asked_of(line.evaluation)
        for training in report.trainings
        for line in lines
        if line.training.name == training.name
    ]
    others = [
        asked_of(evaluation)
        for evaluation in report.evaluations
        if evaluation.step is None and evaluation.key.control is None
    ]
    return list(dict.fromkeys([*leading, *others]))[:MOST_ROWS]


def asked_of(evaluation: EvaluationSheet) -> Asked:
    """The model and the prompt of an evaluation."""
    return Asked(evaluation.model, evaluation.prompt)


def _add(found: dict[Pair, str], first: Asked, second: Asked, reason: str) -> None:
    if first != second and Pair(second, first) not in found:
        found.setdefault(Pair(first, second), reason)


def sections(report: Report, pair: Pair) -> list[Section]:
    """Every benchmark and scorer under which both were judged, the leading scorer first."""
    found: list[Section] = []
    for benchmark in report.tests:
        first, second = (
            report.by_key.get(
                RunKey(model=asked.model, benchmark=benchmark.key, prompt=asked.prompt)
            )
            for asked in pair
        )
        if first and second:
            found += [
                _section(benchmark, scorer, first, second)
                for scorer in report.scorers
                if scorer in first.marks and scorer in second.marks
            ]
    return found


def _section(
    benchmark: BenchmarkSheet, scorer: str, first: EvaluationSheet, second: EvaluationSheet
) -> Section:
    marks, other = first.marks[scorer], second.marks[scorer]
    flips = [one + two for one, two in zip(marks, other, strict=True)]
    asked = list(zip(benchmark.questions, flips, strict=True))
    return Section(
        benchmark=benchmark,
        scorer=scorer,
        keys=(first.key, second.key),
        first=tally(marks),
        second=tally(other),
        test=paired(as_booleans(marks), as_booleans(other)),
        tasks=group_rows(benchmark.questions, "task", marks=other, start_marks=marks),
        gained=[question for question, flip in asked if flip == "01"],
        lost=[question for question, flip in asked if flip == "10"],
    )
