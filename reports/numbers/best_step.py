"""What the best of N checkpoints is worth, when it was chosen on the questions it is quoted for.

Apart from the other statistics because it alone needs numpy.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000  # the corrected value moves by less than 0.05 points between seeds
RESAMPLING_SEED = 0  # the same report gives the same number


class BestOfN(NamedTuple):
    """The highest of N accuracies on the same questions, and what is left of it."""

    position: int
    """Of the best among the candidates."""
    num_candidates: int
    accuracy: float
    corrected: float
    """Mean accuracy on questions left out of the resample that the choice was made on."""


def best_of_n(right: Sequence[Sequence[bool]]) -> BestOfN:
    """Choose the best of N candidates on their own test, and say what the choice is worth.

    The candidate is chosen again on each of 2,000 resamples of the questions and scored on those
    that the resample left out (Tsamardinos 2018, bootstrap bias corrected).

    Args:
        right: One sequence of marks a candidate, all on the same questions; the earliest wins a
            tie.
    """
    marks = np.asarray(right, dtype=np.float32)  # sums up to 2^24 are exact
    num_candidates, num_questions = marks.shape
    drawn = _resamples(num_questions)
    chosen = (drawn @ marks.T).argmax(axis=1)
    left_out = (drawn == 0).astype(np.float32)
    scores = (left_out @ marks.T)[np.arange(NUM_RESAMPLES), chosen]
    sizes = left_out.sum(axis=1)
    accuracies = scores[sizes > 0] / sizes[sizes > 0]
    position = int(marks.sum(axis=1).argmax())
    accuracy = float(marks[position].mean())
    corrected = float(accuracies.mean()) if accuracies.size else accuracy
    return BestOfN(position, num_candidates, accuracy, min(accuracy, corrected))


@lru_cache(maxsize=4)
def _resamples(num_questions: int) -> NDArray[np.float32]:
    """How often each question is drawn in each resample, (2000, num_questions)."""
    generator = np.random.default_rng(RESAMPLING_SEED)
    drawn = generator.integers(num_questions, size=(NUM_RESAMPLES, num_questions))
    drawn += np.arange(NUM_RESAMPLES)[:, None] * num_questions
    counts = np.bincount(drawn.ravel(), minlength=NUM_RESAMPLES * num_questions)
    return counts.reshape(NUM_RESAMPLES, num_questions).astype(np.float32)
