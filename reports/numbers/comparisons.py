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
    sub_categories: Sequence[GroupRow]
    """The largest gain of the second first."""
    gained: Sequence[int]
    """Positions of the questions that only the second got right."""
    lost: Sequence[int]
    """Of those that only the first got right."""
    by_form: int
    """Net gain on the questions that exactly one of the two, or neither, answered with a readable
    choice; what is left was gained where both answered so, and is no matter of form."""


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
    """The comparisons that answer a question, with the reason for each; each pair once.

    A training's leading step against its start model and against the best step on the test, every
    two of the leading rows, every other model against the leading steps, and trainings for which
    the matrix has no room against the first.
    """
    found: dict[Pair, str] = {}
    lines = achievements(report)
    leading = dict.fromkeys(asked_of(line.evaluation) for line in lines)
    for line in lines:
        asked = asked_of(line.evaluation)
        if line.start:
            _add(found, asked_of(line.start), asked, "start model and leading step")
        steps = report.steps(line.benchmark, line.scorer, line.training) if line.training else []
        for best in (evaluation for evaluation in steps if evaluation.step == line.best_step):
            _add(found, asked, asked_of(best), "leading step and best step on the test")
    for second, first in combinations(leading_rows(report), 2):
        both = first in leading and second in leading
        reason = "leading steps of two trainings" if both else "another model and leading step"
        _add(found, first, second, reason)
    for first in list(leading)[MOST_ROWS:]:
        _add(found, first, next(iter(leading)), "leading steps of two trainings")
    starts = {line.start.model for line in lines if line.start}
    for other in _others(report):
        for asked in leading if other.model not in starts else ():
            _add(found, other, asked, "another model and leading step")
    return found


def leading_rows(report: Report) -> list[Asked]:
    """Trainings' leading steps in the profile's order, then other models, as they were asked."""
    lines = achievements(report)
    order = {training.name: place for place, training in enumerate(report.trainings)}
    lines.sort(key=lambda line: order[str(line.evaluation.training)])
    leading = [asked_of(line.evaluation) for line in lines]
    return list(dict.fromkeys([*leading, *_others(report)]))[:MOST_ROWS]


def _others(report: Report) -> list[Asked]:
    return [
        asked_of(evaluation)
        for evaluation in report.evaluations
        if evaluation.step is None and evaluation.key.control is None
    ]


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
    tasks, sub_categories = (
        group_rows(benchmark.questions, key, marks=other, start_marks=marks)
        for key in ("task", "sub_category")
    )
    return Section(
        benchmark=benchmark,
        scorer=scorer,
        keys=(first.key, second.key),
        first=tally(marks),
        second=tally(other),
        test=paired(as_booleans(marks), as_booleans(other)),
        tasks=tasks,
        sub_categories=sorted(
            sub_categories, key=lambda row: -row.change.difference if row.change else 0.0
        ),
        gained=[index for index, flip in enumerate(flips) if flip == "01"],
        lost=[index for index, flip in enumerate(flips) if flip == "10"],
        by_form=sum(
            int(flip[1]) - int(flip[0])
            for flip, *read in zip(flips, first.parsed, second.parsed, strict=True)
            if "0" in read and "-" not in flip
        ),
    )
