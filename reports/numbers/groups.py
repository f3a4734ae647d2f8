"""Accuracy by difficulty and by sub-category: each group with its size, interval, and what changed.

Sub-categories of MMAU have 10 to 56 questions, so an interval spans 25 to 50 points, and of 27
tests at 5 % one or two are hits by chance: p-values are corrected for their number (Holm), and
groups under 20 questions are shown but greyed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.numbers.statistics import PairedTest, holm, paired
from reports.numbers.tally import SMALL_GROUP, GroupKey, as_booleans, group_indices, tally
from storage.records.evaluation import Tally
from storage.records.question import Question

HEAT_LEVELS = 6  # classes heat0 to heat5 of report.css


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of questions under one or two models."""

    name: str
    tally: Tally
    start: Tally | None
    change: PairedTest | None
    p_value: float | None
    """Of the change, corrected for the number of groups in the table (Holm)."""

    @property
    def is_small(self) -> bool:
        """Whether it is too small to say much."""
        return self.tally.num_questions < SMALL_GROUP


def group_rows(
    questions: Sequence[Question], key: GroupKey, *, marks: str, start_marks: str | None
) -> list[GroupRow]:
    """A row a group.

    Args:
        questions: Of the benchmark.
        key: What they are grouped by.
        marks: Of the model shown.
        start_marks: Of the model that it is compared with, if any.
    """
    groups = group_indices(questions, key)
    groups = {
        name: group for name, group in groups.items() if tally(marks, indices=group).num_questions
    }
    changes = [_change(marks, start_marks, group) for group in groups.values()]
    corrected = holm([change.p_value for change in changes if change])
    return [
        GroupRow(
            name=name,
            tally=tally(marks, indices=group),
            start=tally(start_marks, indices=group) if start_marks else None,
            change=change,
            p_value=corrected[index] if change else None,
        )
        for index, ((name, group), change) in enumerate(zip(groups.items(), changes, strict=True))
    ]


def _change(marks: str, start_marks: str | None, group: Sequence[int]) -> PairedTest | None:
    if start_marks is None:
        return None
    booleans, start = as_booleans(marks), as_booleans(start_marks)
    return paired([start[index] for index in group], [booleans[index] for index in group])


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One sub-category at one step."""

    percent: float
    level: int
    """0..5, by accuracy."""


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One sub-category over the steps."""

    name: str
    num_questions: int
    cells: Sequence[HeatCell]

    @property
    def is_small(self) -> bool:
        """Whether it is too small to say much."""
        return self.num_questions < SMALL_GROUP


def heat_rows(questions: Sequence[Question], steps: Sequence[str]) -> list[HeatRow]:
    """Sub-categories by steps.

    Args:
        questions: Of the benchmark.
        steps: Marks, in the order of the columns.
    """
    rows: list[HeatRow] = []
    for name, group in group_indices(questions, "sub_category").items():
        tallies = [tally(marks, indices=group) for marks in steps]
        if not all(counted.num_questions for counted in tallies):
            continue
        accuracies = [counted.accuracy for counted in tallies]
        cells = [
            HeatCell(100 * accuracy, min(HEAT_LEVELS - 1, int(accuracy * HEAT_LEVELS)))
            for accuracy in accuracies
        ]
        rows.append(HeatRow(name, len(group), cells))
    return rows
