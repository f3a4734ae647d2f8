"""Two models side by side on the same questions: which pairs get a page, and what stands there.

Beside them the matrix: every pair of leading rows on one benchmark, p corrected for the table.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from reports.numbers.achievements import achievements
from reports.numbers.statistics import (
    GroupRow,
    Interval,
    PairedTest,
    group_rows,
    holm,
    paired,
    tally,
)
from reports.report import Report
from reports.sheets import Asked, BenchmarkSheet, EvaluationSheet
from storage.records.evaluation import RunKey, Tally

MOST_ROWS = 8  # of a matrix; a table of more cannot be read
TRAININGS, OTHER = "leading steps of two trainings", "another model and leading step"
SURE = 0.05  # a corrected p below it is beyond the questions' chance


class Pair(NamedTuple):
    """Two models as they were asked; the second is measured against the first."""

    first: Asked
    second: Asked


class Section(NamedTuple):
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


class Comparison(NamedTuple):
    """A pair with everything that its page shows."""

    pair: Pair
    reason: str
    """What the comparison answers, e.g. `start model and leading step`."""
    sections: Sequence[Section]
    """By benchmark and scorer; never empty."""


class Versus(NamedTuple):
    """One model against another, p corrected for the pairs of the table (Holm)."""

    test: PairedTest
    p_value: float
    name: str = ""
    """Of the other, in the first screen's sentence."""
    key: str = ""
    """Training of the other; empty for another model."""

    @property
    def is_sure(self) -> bool:
        """Whether it is beyond the noise of the questions."""
        return self.p_value < SURE


class Matrix(NamedTuple):
    """The pairs on one benchmark under the leading scorer."""

    rows: Sequence[EvaluationSheet]
    """Trainings' leading steps, then the other models; columns alike."""
    tallies: Sequence[Tally]
    cells: Mapping[tuple[int, int], Versus]
    """By row and column, the row before the column: the row measured against the column."""

    @property
    def detectable(self) -> Interval | None:
        """Smallest and largest of the differences that are found with 80 % power."""
        gaps = [cell.test.detectable for cell in self.cells.values() if cell.test.detectable]
        return Interval(min(gaps), max(gaps)) if gaps else None


def compare(report: Report) -> list[Comparison]:
    """Every comparison that answers a question."""
    return [
        Comparison(pair, reason, found)
        for pair, reason in pairs(report).items()
        if (found := sections(report, pair))
    ]


def pairs(report: Report) -> dict[Pair, str]:
    """The comparisons that answer a question, with the reason for each; each pair once.

    A training's leading step against its start model and against the best step on the test, every
    two of the leading rows, every other model against the leading steps, and trainings for which
    the matrix has no room against the first.
    """
    found: dict[Pair, str] = {}

    def add(first: Asked, second: Asked, reason: str) -> None:
        if first != second and Pair(second, first) not in found:
            found.setdefault(Pair(first, second), reason)

    lines = achievements(report)
    leading = list(dict.fromkeys(line.evaluation.asked for line in lines))
    for line in lines:
        asked = line.evaluation.asked
        if line.start:
            add(line.start.asked, asked, "start model and leading step")
        if line.best_at:
            add(asked, line.best_at.asked, "leading step and best step on the test")
    for second, first in combinations(leading_rows(report), 2):
        add(first, second, TRAININGS if {first, second} <= {*leading} else OTHER)
    for first in leading[MOST_ROWS:]:
        add(first, leading[0], TRAININGS)
    starts = {line.start.model for line in lines if line.start}
    for other in _others(report):
        for asked in leading if other.model not in starts else ():
            add(other, asked, OTHER)
    return found


def leading_rows(report: Report) -> list[Asked]:
    """Trainings' leading steps in the profile's order, then other models, as they were asked."""
    order = [training.name for training in report.trainings]
    own = [line.evaluation for line in achievements(report)]
    own.sort(key=lambda sheet: order.index(str(sheet.training)))
    leading = [sheet.asked for sheet in own]
    return list(dict.fromkeys([*leading, *_others(report)]))[:MOST_ROWS]


def _others(report: Report) -> list[Asked]:
    return [
        sheet.asked
        for sheet in report.evaluations
        if sheet.step is None and sheet.key.control is None
    ]


def sections(report: Report, pair: Pair) -> list[Section]:
    """Every benchmark and scorer under which both were judged, the leading scorer first."""
    return [
        _section(benchmark, scorer, first, second)
        for benchmark in report.tests
        if (first := report.find(pair.first, benchmark))
        and (second := report.find(pair.second, benchmark))
        for scorer in report.scorers
        if scorer in first.marks and scorer in second.marks
    ]


def _section(
    benchmark: BenchmarkSheet, scorer: str, first: EvaluationSheet, second: EvaluationSheet
) -> Section:
    before, after = first.marks[scorer], second.marks[scorer]
    flips = [one + two for one, two in zip(before, after, strict=True)]
    tasks, sub_categories = (
        group_rows(benchmark.questions, key, after, before) for key in ("task", "sub_category")
    )
    sub_categories.sort(key=lambda row: -row.change.difference if row.change else 0.0)
    return Section(
        benchmark=benchmark,
        scorer=scorer,
        keys=(first.key, second.key),
        first=tally(before),
        second=tally(after),
        test=paired(before, after),
        tasks=tasks,
        sub_categories=sub_categories,
        gained=[index for index, flip in enumerate(flips) if flip == "01"],
        lost=[index for index, flip in enumerate(flips) if flip == "10"],
        by_form=sum(
            int(flip[1]) - int(flip[0])
            for flip, *read in zip(flips, first.parsed, second.parsed, strict=True)
            if "0" in read and "-" not in flip
        ),
    )


def matrices(report: Report) -> dict[str, Matrix]:
    """One table a benchmark on which two rows or more were judged, by its key."""
    asked = leading_rows(report)
    found: dict[str, Matrix] = {}
    for judged in report.scored:
        benchmark, scorer = judged.benchmark, judged.scorer
        evaluations = [report.find(model, benchmark) for model in asked]
        rows = [sheet for sheet in evaluations if sheet and scorer in sheet.marks]
        if len(rows) > 1:
            marks = [sheet.marks[scorer] for sheet in rows]
            places = list(combinations(range(len(rows)), 2))
            tests = [paired(marks[column], marks[row]) for row, column in places]
            corrected = map(Versus, tests, holm([test.p_value for test in tests]))
            cells = dict(zip(places, corrected, strict=True))
            found[benchmark.key] = Matrix(rows, list(map(tally, marks)), cells)
    return found
