"""What a training achieved, in the order in which it may be claimed.

First the leading step with its interval; then the same questions against the start model, paired;
then the best of N steps, marked as chosen on the test, with the value that is left after correcting
for the choice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from reports.numbers.best_step import BestOfN
from reports.numbers.leaderboard import best_step
from reports.numbers.statistics import (
    USUAL_FLIP_SHARE,
    PairedTest,
    paired,
    smallest_detectable_gap,
)
from reports.numbers.tally import as_booleans, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, PublishedRow, TrainingSheet
from storage.records.evaluation import Leading, Tally

PAPER_SOURCE = "R1-AQA paper, arXiv 2503.11197"


@dataclass(frozen=True, slots=True)
class Achievement:
    """One training on one benchmark under the leading scorer."""

    benchmark: BenchmarkSheet
    scorer: str
    training: TrainingSheet
    evaluation: EvaluationSheet
    """Of the leading step."""
    leading: Leading
    tally: Tally
    start: EvaluationSheet | None
    """Of the model that the training started from, asked with the same prompt."""
    against_start: PairedTest | None
    best_step: int | None
    best: BestOfN | None
    paper: PublishedRow | None
    """The paper's own row for this method, variant, prompt and benchmark."""


def achievements(report: Report) -> list[Achievement]:
    """By benchmark and training, where the step to quote of it was evaluated."""
    found: list[Achievement] = []
    for benchmark in report.tests:
        scorer = report.leading_scorer(benchmark)
        if scorer:
            lines = (
                _achievement(report, benchmark, scorer, training) for training in report.trainings
            )
            found += [line for line in lines if line]
    return found


def _achievement(
    report: Report, benchmark: BenchmarkSheet, scorer: str, training: TrainingSheet
) -> Achievement | None:
    evaluation = report.leading_evaluation(benchmark, scorer, training)
    if evaluation is None:
        return None
    start = report.start_evaluation(benchmark, scorer, training)
    best = best_step(report, benchmark, scorer, training)
    marks = evaluation.marks[scorer]
    return Achievement(
        benchmark=benchmark,
        scorer=scorer,
        training=training,
        evaluation=evaluation,
        leading=report.leading[training.name],
        tally=tally(marks),
        start=start,
        against_start=paired(as_booleans(start.marks[scorer]), as_booleans(marks))
        if start
        else None,
        best_step=best[0] if best else None,
        best=best[1] if best else None,
        paper=paper_row(report.published, benchmark=benchmark.name, training=training),
    )


def resolution(
    report: Report, benchmark: BenchmarkSheet, scorer: str
) -> tuple[float | None, float]:
    """Smallest difference between our models that this benchmark shows, and its flip share.

    The flip share is the median over neighbouring checkpoints; without any, 13 %, the usual one of
    a 7B model.
    """
    shares: list[float] = []
    for training in report.trainings:
        marks = [
            evaluation.marks[scorer] for evaluation in report.steps(benchmark, scorer, training)
        ]
        shares += [_flip_share(first, second) for first, second in pairwise(marks)]
    flip_share = median(shares) if shares and median(shares) > 0 else USUAL_FLIP_SHARE
    return smallest_detectable_gap(len(benchmark.questions), flip_share=flip_share), flip_share


def _flip_share(first: str, second: str) -> float:
    pairs = list(zip(first, second, strict=True))
    return sum(before != after for before, after in pairs) / len(pairs)


def paper_row(
    published: Iterable[PublishedRow], *, benchmark: str, training: TrainingSheet
) -> PublishedRow | None:
    """The paper's own result of the same method, variant and prompt, if it published one."""
    for row in published:
        is_papers = row.source == PAPER_SOURCE and row.benchmark == benchmark
        is_same = (row.variant, row.prompt) == (training.variant, training.prompt)
        if is_papers and is_same and training.method.upper() in row.method.split():
            return row
    return None
