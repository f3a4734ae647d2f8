"""What the best of N checkpoints is worth, when it was chosen on the questions it is quoted for.

Apart from the other statistics because it alone needs numpy.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000  # the corrected value moves by less than 0.05 points between seeds
RESAMPLES_AT_ONCE = 200  # of 10,000 questions, 32 MB
RESAMPLING_SEED = 0  # the same report gives the same number


class BestOfN(NamedTuple):
    """The highest of N accuracies on the same questions, and what is left of it."""

    position: int
    """Of the best among the candidates."""
    num_candidates: int
    accuracy: float
    corrected: float
    """Mean accuracy on questions left out of the resample that the choice was made on."""


@lru_cache(maxsize=64)
def best_of_n(candidates: tuple[str, ...]) -> BestOfN:
    """Choose the best of N candidates on their own test, and say what the choice is worth.

    The candidate is chosen again on each of 2,000 resamples of the questions and scored on those
    that the resample left out (Tsamardinos 2018, bootstrap bias corrected).

    Args:
        candidates: The marks of each, all on the same questions; the earliest wins a tie.
    """
    marks = np.array([[mark == "1" for mark in each] for each in candidates], dtype=np.float32)
    num_candidates, num_questions = marks.shape
    generator = np.random.default_rng(RESAMPLING_SEED)
    accuracies: list[NDArray[np.float32]] = []
    for _ in range(0, NUM_RESAMPLES, RESAMPLES_AT_ONCE):
        drawn = _resamples(generator, num_questions)
        chosen = (drawn @ marks.T).argmax(axis=1)  # sums up to 2^24 are exact
        left_out = (drawn == 0).astype(np.float32)
        scores = (left_out @ marks.T)[np.arange(RESAMPLES_AT_ONCE), chosen]
        sizes = left_out.sum(axis=1)
        accuracies.append(scores[sizes > 0] / sizes[sizes > 0])
    position = int(marks.sum(axis=1).argmax())
    accuracy = float(marks[position].mean())
    means = np.concatenate(accuracies)
    corrected = float(means.mean()) if means.size else accuracy
    return BestOfN(position, num_candidates, accuracy, min(accuracy, corrected))


def _resamples(generator: np.random.Generator, num_questions: int) -> NDArray[np.float32]:
    """How often each question is drawn in each of some resamples, (200, num_questions)."""
    drawn = generator.integers(num_questions, size=(RESAMPLES_AT_ONCE, num_questions))
    drawn += np.arange(RESAMPLES_AT_ONCE)[:, None] * num_questions
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES_AT_ONCE * num_questions)
    return counts.reshape(RESAMPLES_AT_ONCE, num_questions).astype(np.float32)
