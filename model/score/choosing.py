"""Choosing a checkpoint honestly: by its accuracy on held-out training examples, never on the test.

The test's questions have no part in the choice, so the chosen step's accuracy on them needs no
correction. Ties go to the earlier step: fewer updates for the same result.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from storage.records.evaluation import Score, list_runs


class StepScore(NamedTuple):
    """A checkpoint's result on the held-out examples."""

    step: int
    num_correct: int
    num_questions: int


def choose_step(scores: Iterable[StepScore]) -> int | None:
    """The step with the highest accuracy, the earliest of equals; None without scores."""
    ranked = sorted(
        scores, key=lambda score: (-score.num_correct / score.num_questions, score.step)
    )
    return ranked[0].step if ranked else None


def chosen_steps(evaluation: Path, scorer: str) -> dict[str, int]:
    """The step that each training's held-out examples choose.

    Args:
        evaluation: An experiment's folder of answers, `Layout.evaluation`'s root.
        scorer: The scorer to choose by.

    Returns:
        Steps by training; trainings without held-out scores are left out.
    """
    by_training: dict[str, list[StepScore]] = {}
    for folder, run in list_runs(evaluation):
        is_proper = run.role == "checkpoint" and run.key.control is None
        if run.is_test or not is_proper or not (folder / "score.json").exists():
            continue
        counts = Score.read(folder / "score.json").by_scorer.get(scorer)
        if run.model.training is not None and counts is not None:
            overall = counts.overall
            score = StepScore(run.model.training.step, overall.num_correct, overall.num_questions)
            by_training.setdefault(run.model.training.name, []).append(score)
    chosen = {training: choose_step(scores) for training, scores in by_training.items()}
    return {training: step for training, step in chosen.items() if step is not None}
