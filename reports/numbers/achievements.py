"""What a training achieved, in the order in which it may be claimed.

First the declared step with its interval; then the same questions against the start model, paired;
then the best of N steps, marked as chosen on the test, with the value that is left after correcting
for the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from reports.numbers.best_of import BestOfN
from reports.numbers.leaderboard import Leading, best_step, evaluations_of, leading_step, tests_of
from reports.numbers.statistics import (
    USUAL_FLIP_SHARE,
    PairedTest,
    paired,
    smallest_detectable_gap,
)
from reports.numbers.tally import Tally, as_booleans, tally
from reports.published import paper_row
from reports.trainings import start_models

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Headline:
    """One training on one benchmark under the leading scorer."""

    benchmark: str
    scorer: str
    training: str
    method: str
    evaluation: Json
    """Of the leading step."""
    leading: Leading
    tally: Tally
    start: Json | None
    """Evaluation of the model that the training started from."""
    against_start: PairedTest | None
    best_step: int | None
    best: BestOfN | None
    paper: Json | None
    """The paper's own row for this method and benchmark."""


def headlines(report: Json) -> list[Headline]:
    """By benchmark and training, where a step of it was evaluated."""
    found: list[Headline] = []
    for benchmark in tests_of(report):
        scorer = leading_scorer(report, benchmark["name"])
        if scorer:
            lines = (
                _headline(report, benchmark["name"], scorer, one) for one in report["trainings"]
            )
            found += [line for line in lines if line]
    return found


def leading_scorer(report: Json, benchmark: str) -> str | None:
    """The first scorer that judged this benchmark; None where the answers are withheld."""
    scorers = (
        scorer for scorer in report["scorers"] if evaluations_of(report, benchmark, scorer=scorer)
    )
    return next(scorers, None)


def _headline(report: Json, benchmark: str, scorer: str, training: Json) -> Headline | None:
    name = training["name"]
    leading = leading_step(report, name)
    declared = leading_evaluation(report, benchmark, scorer=scorer, training=name)
    if declared is None or leading is None:
        return None
    start = start_evaluation(
        report, benchmark, scorer=scorer, training=name, prompt=declared["prompt"]
    )
    best = best_step(report, benchmark, scorer=scorer, training=name, prompt=declared["prompt"])
    marks = declared["marks"][scorer]
    return Headline(
        benchmark=benchmark,
        scorer=scorer,
        training=name,
        method=training["method"],
        evaluation=declared,
        leading=leading,
        tally=tally(marks),
        start=start,
        against_start=paired(as_booleans(start["marks"][scorer]), as_booleans(marks))
        if start
        else None,
        best_step=best[0] if best else None,
        best=best[1] if best else None,
        paper=paper_row(report["published"], benchmark=benchmark, method=training["method"]),
    )


def leading_evaluation(report: Json, benchmark: str, *, scorer: str, training: str) -> Json | None:
    """The evaluation of a training's leading step, with the training's own prompt if it can."""
    steps = evaluations_of(report, benchmark, scorer=scorer, training=training)
    own_prompt = next(
        (one["prompt"] for one in report["trainings"] if one["name"] == training), None
    )
    leading = leading_step(report, training)
    at_step = [one for one in steps if leading and one["step"] == leading.step]
    return next(
        (one for one in at_step if one["prompt"] == own_prompt), at_step[0] if at_step else None
    )


def start_evaluation(
    report: Json, benchmark: str, *, scorer: str, training: str, prompt: str | None = None
) -> Json | None:
    """The evaluation of a training's start model, asked with the same prompt if it was."""
    key = start_models(report["trainings"]).get(training, "")
    models = evaluations_of(report, benchmark, scorer=scorer)
    matching = [
        one
        for one in models
        if one["model"] == key or (key.endswith("-step-") and one["model"].startswith(key))
    ]
    starts = [one for one in models if one["step"] is None]
    if not matching and len({one["model"] for one in starts}) == 1:
        matching = starts
    return next(
        (one for one in matching if one["prompt"] == prompt), matching[-1] if matching else None
    )


def resolution(report: Json, benchmark: str, *, scorer: str) -> tuple[float | None, float]:
    """Smallest difference between our models that this benchmark shows, and its flip share.

    The flip share is the median over neighbouring checkpoints; without any, 13 %, the usual one of
    a 7B model.
    """
    shares: list[float] = []
    for training in report["trainings"]:
        steps = evaluations_of(report, benchmark, scorer=scorer, training=training["name"])
        shares += [_flip_share(one, two, scorer) for one, two in pairwise(steps)]
    flip_share = median(shares) if shares and median(shares) > 0 else USUAL_FLIP_SHARE
    questions: Sequence[Json] = next(
        one["questions"] for one in report["benchmarks"] if one["name"] == benchmark
    )
    return smallest_detectable_gap(len(questions), flip_share=flip_share), flip_share


def _flip_share(first: Json, second: Json, scorer: str) -> float:
    pairs = list(zip(first["marks"][scorer], second["marks"][scorer], strict=True))
    return sum(one != two for one, two in pairs) / len(pairs)
