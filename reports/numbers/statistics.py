"""The statistics of the tables: intervals, paired tests, resolution.

Proportions are fractions in 0..1, intervals are 95 % unless said. All by hand, because scipy and
statsmodels take longer to import (1.3 s) than a file takes to score; tests hold these to theirs.
Worked numbers: tests/reports/numbers/test_statistics.py.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from storage.records.evaluation import Tally

QUANTILE = NormalDist().inv_cdf(0.975)  # 1.96, of 95 %
POWER_QUANTILE = NormalDist().inv_cdf(0.8)


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


def interval(tally: Tally) -> Interval:
    """Wilson's 95 % interval of an accuracy, fractions."""
    return wilson(tally.num_correct, tally.num_questions)


@lru_cache(maxsize=4096)
def wilson(num_correct: int, num_questions: int) -> Interval:
    """Wilson's score interval of a proportion.

    Raises:
        ValueError: If there are no questions.
    """
    if num_questions < 1:
        msg = "an interval needs at least one question"
        raise ValueError(msg)
    share, squared = num_correct / num_questions, QUANTILE**2
    spread = squared / 4 + share * (1 - share) * num_questions
    half = QUANTILE * math.sqrt(spread) / (num_questions + squared)
    centre = (num_correct + squared / 2) / (num_questions + squared)
    # The ends of none and of all right are 0 and 1; sums of fractions miss them by a last bit.
    low = centre - half if num_correct else 0.0
    return Interval(low, centre + half if num_correct < num_questions else 1.0)


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
    one, other = interval(first), interval(second)
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
