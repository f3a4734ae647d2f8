"""Every pair of leading rows on one benchmark: difference, interval, p corrected for the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from reports.numbers.comparisons import Asked, leading_rows
from reports.numbers.statistics import Interval, PairedTest, holm, paired
from reports.numbers.tally import as_booleans, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet
from storage.records.evaluation import RunKey, Tally

SURE = 0.05  # a corrected p below it is shaded


@dataclass(frozen=True, slots=True)
class Cell:
    """The model of a row against that of a column."""

    test: PairedTest
    """The column is its first model, the row its second."""
    p_value: float
    """Corrected for the number of pairs in the table (Holm)."""

    @property
    def is_sure(self) -> bool:
        """Whether it is beyond the questions' chance."""
        return self.p_value < SURE


@dataclass(frozen=True, slots=True)
class Matrix:
    """The pairs on one benchmark under the leading scorer."""

    benchmark: BenchmarkSheet
    scorer: str
    asked: Sequence[Asked]
    """Trainings' leading steps, then the other models; rows and columns alike."""
    keys: Sequence[RunKey]
    tallies: Sequence[Tally]
    cells: Mapping[tuple[int, int], Cell]
    """By row and column, the row before the column."""

    @property
    def detectable(self) -> Interval | None:
        """Smallest and largest of the differences that are found with 80 % power."""
        gaps = [cell.test.detectable for cell in self.cells.values() if cell.test.detectable]
        return Interval(min(gaps), max(gaps)) if gaps else None


def matrices(report: Report) -> list[Matrix]:
    """One table a benchmark on which two rows or more were judged."""
    rows = leading_rows(report)
    found = (_matrix(report, benchmark, rows) for benchmark in report.tests)
    return [matrix for matrix in found if matrix]


def _matrix(report: Report, benchmark: BenchmarkSheet, rows: Sequence[Asked]) -> Matrix | None:
    scorer = report.leading_scorer(benchmark)
    if scorer is None:
        return None
    keys = [
        RunKey(model=asked.model, benchmark=benchmark.key, prompt=asked.prompt) for asked in rows
    ]
    found = [report.by_key.get(key) for key in keys]
    judged = [evaluation for evaluation in found if evaluation and scorer in evaluation.marks]
    if len(judged) < 2:
        return None
    marks = [as_booleans(evaluation.marks[scorer]) for evaluation in judged]
    places = list(combinations(range(len(judged)), 2))
    tests = [paired(marks[column], marks[row]) for row, column in places]
    corrected = holm([test.p_value for test in tests])
    return Matrix(
        benchmark=benchmark,
        scorer=scorer,
        asked=[Asked(evaluation.model, evaluation.prompt) for evaluation in judged],
        keys=[evaluation.key for evaluation in judged],
        tallies=[tally(evaluation.marks[scorer]) for evaluation in judged],
        cells={
            place: Cell(test, p_value)
            for place, test, p_value in zip(places, tests, corrected, strict=True)
        },
    )
