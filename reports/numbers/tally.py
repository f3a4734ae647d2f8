"""Right answers out of questions asked, and the same by task, difficulty or sub-category.

Marks are one character a question, in the benchmark's order: `1` right, `0` wrong, `-` not judged
(the answer is withheld). An unanswered question is wrong, never left out.

Sub-categories of MMAU have 10 to 56 questions, so an interval spans 25 to 50 points, and of 27
tests at 5 % one or two are hits by chance: p-values are corrected for their number (Holm), and
groups under 20 questions are shown but greyed.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from reports.numbers.statistics import PairedTest, holm, paired
from storage.records.evaluation import Tally
from storage.records.question import Question

FIRST_TASKS = ("sound", "music", "speech")
# What stands first of each kind of group; the rest by name.
USUAL_ORDER = {"task": FIRST_TASKS, "difficulty": ("easy", "medium", "hard")}
SMALL_GROUP = 20  # below it an interval is wider than +-19 points: shown, but greyed
NO_LABEL = "none given"  # where a question has no task, difficulty or sub-category

GroupKey = Literal["task", "difficulty", "category", "sub_category"]


class GroupRow(NamedTuple):
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


def tally(marks: str) -> Tally:
    """Count the judged questions."""
    return Tally(marks.count("1"), len(marks) - marks.count("-"))


def picked(marks: str, group: Iterable[int]) -> str:
    """The marks at some positions."""
    return "".join([marks[index] for index in group])


def label_of(question: Question, key: GroupKey) -> str:
    """The group that a question belongs to."""
    return getattr(question, key) or NO_LABEL


def group_indices(questions: Sequence[Question], key: GroupKey) -> dict[str, list[int]]:
    """Positions of the questions by one of their keys, in the usual order of its values."""
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(label_of(question, key), []).append(index)
    first = USUAL_ORDER.get(key, ())
    ordered = [*(name for name in first if name in groups), *sorted(groups.keys() - {*first})]
    return {name: groups[name] for name in ordered}


def group_rows(
    questions: Sequence[Question], key: GroupKey, marks: str, before: str | None = None
) -> list[GroupRow]:
    """A row a group that was judged, with its change since the marks of a start model."""
    groups = {
        name: group
        for name, group in group_indices(questions, key).items()
        if tally(picked(marks, group)).num_questions
    }
    if before is None:
        return [
            GroupRow(name, tally(picked(marks, group)), None, None, None)
            for name, group in groups.items()
        ]
    pairs = [(picked(before, group), picked(marks, group)) for group in groups.values()]
    changes = [paired(start, own) for start, own in pairs]
    corrected = holm([change.p_value for change in changes])
    return [
        GroupRow(name, tally(own), tally(start), change, p_value)
        for name, (start, own), change, p_value in zip(
            groups, pairs, changes, corrected, strict=True
        )
    ]


def heat_rows(questions: Sequence[Question], steps: Sequence[str]) -> dict[str, list[Tally]]:
    """Right answers by sub-category, then by step; without groups that a step was not judged on."""
    groups = group_indices(questions, "sub_category")
    rows = {
        name: [tally(picked(marks, group)) for marks in steps] for name, group in groups.items()
    }
    return {name: row for name, row in rows.items() if all(count.num_questions for count in row)}
