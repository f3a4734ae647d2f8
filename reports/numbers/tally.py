"""Right answers out of questions asked, and the same by task, difficulty or sub-category.

A mark is one character a question, in the benchmark's order: `1` right, `0` wrong, `-` not judged
(the answer is withheld). An unanswered question is wrong, never left out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from storage.records.evaluation import Tally
from storage.records.question import Question

FIRST_TASKS = ("sound", "music", "speech")
FIRST_DIFFICULTIES = ("easy", "medium", "hard")
SMALL_GROUP = 20  # below it an interval is wider than +-19 points: shown, but greyed
NO_LABEL = "none given"  # where a question has no task, difficulty or sub-category

GroupKey = Literal["task", "difficulty", "category", "sub_category"]


def tally(marks: str, *, indices: Iterable[int] | None = None) -> Tally:
    """Count the judged questions, all of them or those at the given positions."""
    picked = marks if indices is None else [marks[index] for index in indices]
    return Tally(picked.count("1"), len(picked) - picked.count("-"))


def as_booleans(marks: str) -> list[bool]:
    """Marks as booleans; withheld ones count as wrong."""
    return [mark == "1" for mark in marks]


def label_of(question: Question, key: GroupKey) -> str:
    """The group that a question belongs to."""
    return getattr(question, key) or NO_LABEL


def group_indices(questions: Sequence[Question], key: GroupKey) -> dict[str, list[int]]:
    """Positions of the questions by one of their keys, in the usual order of its values."""
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(label_of(question, key), []).append(index)
    return {name: groups[name] for name in sorted(groups, key=usual_order(key))}


def usual_order(key: GroupKey) -> Callable[[str], tuple[int, str]]:
    """Sorting key: sound, music, speech and easy, medium, hard first, the rest by name."""
    first = {"task": FIRST_TASKS, "difficulty": FIRST_DIFFICULTIES}.get(key, ())
    return lambda name: (first.index(name) if name in first else len(first), name)
