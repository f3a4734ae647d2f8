"""The statistics of the tables: right answers by group, intervals, paired tests, resolution.

Marks are one character a question, in the benchmark's order: `1` right, `0` wrong, `-` not judged
(the answer is withheld). An unanswered question is wrong, never left out.

Proportions are fractions in 0..1, intervals are 95 % unless said. All by hand, because scipy and
statsmodels take longer to import (1.3 s) than a file takes to score; tests hold these to theirs.
Sub-categories of MMAU have 10 to 56 questions, so an interval spans 25 to 50 points, and of 27
tests at 5 % one or two are hits by chance: p-values are corrected for their number (Holm), and
groups under 20 questions are shown but greyed.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, NamedTuple

from storage.records.evaluation import Tally
from storage.records.question import Question

QUANTILE = NormalDist().inv_cdf(0.975)  # 1.96, of 95 %
POWER_QUANTILE = NormalDist().inv_cdf(0.8)
FIRST_TASKS = ("sound", "music", "speech")
# What stands first of each kind of group; the rest by name.
USUAL_ORDER = {"task": FIRST_TASKS, "difficulty": ("easy", "medium", "hard")}
SMALL_GROUP = 20  # below it an interval is wider than +-19 points: shown, but greyed
NO_LABEL = "none given"  # where a question has no task, difficulty or sub-category

GroupKey = Literal["task", "difficulty", "category", "sub_category"]


class Interval(NamedTuple):
    """Ends of a confidence interval, fractions."""

    low: float
    high: float


class PairedTest(NamedTuple):
    """Two models on the same questions."""

    num_questions: int
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    difference: float
    """Accuracy of the second minus that of the first, -1..1."""
    interval: Interval
    """Of the difference; Agresti and Min 2005 (half a question added to each cell)."""
    p_value: float
    """Exact McNemar, two-sided."""
    odds: float | None
    """Questions gained for each one lost, only_second / only_first; None where none was lost."""
    flip_share: float
    """Share of the questions on which the two disagree."""
    detectable: float | None
    """Smallest difference found with 80 % power at this size and flip share; None: none can be."""


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


@lru_cache(maxsize=4096)
def wilson(tally: Tally) -> Interval:
    """Wilson's score interval of an accuracy.

    Raises:
        ValueError: If there are no questions.
    """
    right, size, squared = tally.num_correct, tally.num_questions, QUANTILE**2
    if size < 1:
        msg = "an interval needs at least one question"
        raise ValueError(msg)
    spread = squared / 4 + tally.accuracy * (1 - tally.accuracy) * size
    half = QUANTILE * math.sqrt(spread) / (size + squared)
    centre = (right + squared / 2) / (size + squared)
    # The ends of none and of all right are 0 and 1; sums of fractions miss them by a last bit.
    return Interval(centre - half if right else 0.0, centre + half if right < size else 1.0)


@lru_cache(maxsize=4096)
def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that flips go either way alike; 1 where there are none."""
    num_flips, fewer = only_first + only_second, min(only_first, only_second)
    tail = term = 1
    for index in range(fewer):
        term = term * (num_flips - index) // (index + 1)
        tail += term
    return min(1.0, 2 * tail / 2**num_flips)


def paired(first: str, second: str) -> PairedTest:
    """Compare the marks of two models question by question; a withheld answer counts as wrong.

    Raises:
        ValueError: If the two do not answer the same number of questions, or none.
    """
    size = len(first)
    if size != len(second) or not first:
        msg = f"a paired test needs the same questions, got {size} and {len(second)}"
        raise ValueError(msg)
    pairs = list(zip(first.replace("-", "0"), second.replace("-", "0"), strict=True))
    only_first, only_second = pairs.count(("1", "0")), pairs.count(("0", "1"))
    flip_share = (only_first + only_second) / size
    return PairedTest(
        num_questions=size,
        both_right=pairs.count(("1", "1")),
        only_first=only_first,
        only_second=only_second,
        both_wrong=pairs.count(("0", "0")),
        difference=(only_second - only_first) / size,
        interval=paired_interval(only_first, only_second, num_questions=size),
        p_value=mcnemar_exact(only_first, only_second),
        odds=only_second / only_first if only_first else None,
        flip_share=flip_share,
        detectable=smallest_detectable_gap(size, flip_share=flip_share),
    )


def paired_interval(only_first: int, only_second: int, *, num_questions: int) -> Interval:
    """Interval of a paired difference (Agresti and Min 2005): Wald's, 0.5 in each cell."""
    total = num_questions + 2
    centre = (only_second - only_first) / total
    half = QUANTILE * math.sqrt(only_first + only_second + 1 - total * centre * centre) / total
    return Interval(max(-1.0, centre - half), min(1.0, centre + half))


def newcombe(first: Tally, second: Tally) -> Interval:
    """Interval of second minus first of two unpaired proportions (Newcombe 1998, method 10)."""
    one, other = wilson(first), wilson(second)
    below = math.hypot(second.accuracy - other.low, one.high - first.accuracy)
    above = math.hypot(other.high - second.accuracy, first.accuracy - one.low)
    difference = second.accuracy - first.accuracy
    return Interval(difference - below, difference + above)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, (len(p_values) - rank) * p_values[position])
        corrected[position] = min(1.0, largest)
    return corrected


def smallest_detectable_gap(num_questions: int, *, flip_share: float) -> float | None:
    """Smallest true paired difference that McNemar's test finds with 80 % power, a fraction.

    Solves sqrt(n) d = z_a sqrt(flips) + z_b sqrt(flips - d^2) (Connor 1987); None if even a
    difference as large as the flip share would be missed.
    """
    # Squared, a quadratic in d; its larger root is the one with sqrt(n) d above z_a sqrt(flips).
    base = QUANTILE * math.sqrt(flip_share)
    squared, middle = num_questions + POWER_QUANTILE**2, math.sqrt(num_questions) * base
    inner = middle**2 - squared * (base**2 - POWER_QUANTILE**2 * flip_share)
    gap = (middle + math.sqrt(max(0.0, inner))) / squared
    return gap if inner >= 0 and 0 < gap < flip_share else None


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


def mmsu_rule(completion: str, question: Question) -> bool | None:
    """Right or wrong as MMSU's script has it; None: it reads no letter, and counts no question.

    Source: dingdongwang/MMSU@217d1d3:mmsu_evaluation.py. The first character, else the last but
    one, is the letter; an empty answer is wrong.
    """
    text = completion.strip().replace("\n", "")
    if text in {"", "None"}:
        return False
    letter = next((place for place in (text[0], text[-2:-1]) if place and place in "ABCD"), None)
    if letter is None:
        return None
    return dict(zip("ABCD", question.choices, strict=False)).get(letter) == question.answer
