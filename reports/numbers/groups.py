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
    """A row a group."""
    groups = group_indices(questions, key)
    groups = {
        name: group for name, group in groups.items() if tally(marks, indices=group).num_questions
    }
    after, before = as_booleans(marks), as_booleans(start_marks) if start_marks else None
    changes = [
        paired([before[index] for index in group], [after[index] for index in group])
        if before
        else None
        for group in groups.values()
    ]
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


def heat_rows(questions: Sequence[Question], steps: Sequence[str]) -> dict[str, list[Tally]]:
    """Right answers by sub-category, then by step; without groups that a step was not judged on."""
    groups = group_indices(questions, "sub_category")
    rows = {name: [tally(each, indices=group) for each in steps] for name, group in groups.items()}
    return {name: row for name, row in rows.items() if all(count.num_questions for count in row)}
