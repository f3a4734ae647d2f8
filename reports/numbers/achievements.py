"""What a training achieved, in the order in which it may be claimed; and another model beside it.

First the leading step with its interval; then the same questions against the start model, paired;
then the best of N steps, marked as chosen on the test, with the value that is left after correcting
for the choice.
"""

from collections.abc import Iterable
from itertools import pairwise
from operator import ne
from statistics import median
from typing import NamedTuple

from reports.numbers.best_step import BestOfN, best_of_n
from reports.numbers.statistics import PairedTest, interval, paired, smallest_detectable_gap
from reports.numbers.tally import tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, PublishedRow, TrainingSheet
from storage.records.evaluation import Tally
from storage.records.leading import Leading

PAPER_SOURCE = "R1-AQA paper, arXiv 2503.11197"
SILENCE = "silence"
USUAL_FLIP_SHARE = 0.13  # neighbouring checkpoints of a 7B disagree on about 13 % of the questions


class Achievement(NamedTuple):
    """One training at its leading step, or another model, on one benchmark."""

    benchmark: BenchmarkSheet
    scorer: str
    """The leading one."""
    evaluation: EvaluationSheet
    silence: EvaluationSheet | None
    """The same model under silence, else the training's nearest step."""
    paper: PublishedRow | None
    """The published row of the same method, variant, prompt and benchmark, or of these weights."""
    training: TrainingSheet | None = None
    leading: Leading | None = None
    start: EvaluationSheet | None = None
    """Of the model that the training started from, asked with the same prompt."""
    best_at: EvaluationSheet | None = None
    """Of the best step on the test itself; None with fewer than two steps."""
    best: BestOfN | None = None

    @property
    def marks(self) -> str:
        """One character a question."""
        return self.evaluation.marks[self.scorer]

    @property
    def tally(self) -> Tally:
        """Right answers."""
        return tally(self.marks)

    @property
    def against_start(self) -> PairedTest | None:
        """Over the model that the training started from."""
        return paired(self.start.marks[self.scorer], self.marks) if self.start else None

    @property
    def kept(self) -> Tally | None:
        """Right answers under silence."""
        return tally(self.silence.marks[self.scorer]) if self.silence else None

    @property
    def agreement(self) -> str:
        """Where the paper's value lies: `within`, `above` or `below` our interval; empty: none."""
        if not self.paper or self.paper.average is None:
            return ""
        low, high = (100 * end for end in interval(self.tally))
        printed = self.paper.average
        return "above" if printed > high else "below" if printed < low else "within"


def achievements(report: Report) -> list[Achievement]:
    """By benchmark and training, where the step to quote of it was evaluated."""
    found: list[Achievement] = []
    for benchmark, scorer in report.scored:
        for training in report.trainings:
            evaluation = report.leading_evaluation(benchmark, scorer, training)
            if evaluation:
                best = best_step(report, benchmark, scorer, training)
                line = Achievement(
                    benchmark,
                    scorer,
                    evaluation,
                    silence=_silence(report, benchmark, scorer, evaluation),
                    paper=paper_row(report.published, benchmark=benchmark.name, training=training),
                    training=training,
                    leading=report.leading[training.name],
                    start=report.start_evaluation(benchmark, scorer, training),
                    best_at=best and best[0],
                    best=best and best[1],
                )
                found.append(line)
    return found


def other_models(report: Report) -> list[Achievement]:
    """Models that were not trained here, by benchmark, as they were asked."""
    return [
        Achievement(
            benchmark,
            scorer,
            evaluation,
            silence=_silence(report, benchmark, scorer, evaluation),
            paper=_released_row(report, benchmark, evaluation),
        )
        for benchmark, scorer in report.scored
        for evaluation in report.judged(benchmark, scorer)
        if evaluation.step is None
    ]


def best_step(
    report: Report, benchmark: BenchmarkSheet, scorer: str, training: TrainingSheet
) -> tuple[EvaluationSheet, BestOfN] | None:
    """The best step on the test itself, and its correction; None with fewer than two steps."""
    steps = report.steps(benchmark, scorer, training)
    if len(steps) < 2:
        return None
    best = best_of_n(tuple(evaluation.marks[scorer] for evaluation in steps))
    return steps[best.position], best


def _silence(
    report: Report, benchmark: BenchmarkSheet, scorer: str, shown: EvaluationSheet
) -> EvaluationSheet | None:
    def is_alike(evaluation: EvaluationSheet) -> bool:
        is_of_training = shown.training is not None and evaluation.training == shown.training
        return evaluation.model == shown.model or is_of_training

    silent = [
        evaluation
        for evaluation in report.on(benchmark)
        if (evaluation.key.control, evaluation.prompt) == (SILENCE, shown.prompt)
        and scorer in evaluation.marks
        and is_alike(evaluation)
    ]
    step = shown.step or 0
    return min(silent, key=lambda evaluation: abs((evaluation.step or 0) - step), default=None)


def paper_row(
    published: Iterable[PublishedRow], *, benchmark: str, training: TrainingSheet
) -> PublishedRow | None:
    """The paper's own result of the same method, variant and prompt, if it published one."""
    wanted = (PAPER_SOURCE, benchmark, training.variant, training.prompt)
    for row in published:
        is_same = (row.source, row.benchmark, row.variant, row.prompt) == wanted
        if is_same and training.method.upper() in row.method.split():
            return row
    return None


def _released_row(
    report: Report, benchmark: BenchmarkSheet, evaluation: EvaluationSheet
) -> PublishedRow | None:
    """The published row of the same weights; one that names no prompt is of prompt `answer`."""
    wanted = (evaluation.run.model.path, benchmark.name, evaluation.prompt)
    for row in report.published:
        if row.weights and (row.weights, row.benchmark, row.prompt or "answer") == wanted:
            return row
    return None


def resolution(
    report: Report, benchmark: BenchmarkSheet, scorer: str
) -> tuple[float | None, float]:
    """Smallest difference between our models that this benchmark shows, and its flip share.

    The flip share is the median over neighbouring checkpoints; without any, the usual one.
    """
    shares = [
        sum(map(ne, before.marks[scorer], after.marks[scorer])) / len(benchmark.questions)
        for training in report.trainings
        for before, after in pairwise(report.steps(benchmark, scorer, training))
    ]
    flip_share = (median(shares) if shares else 0) or USUAL_FLIP_SHARE
    return smallest_detectable_gap(len(benchmark.questions), flip_share=flip_share), flip_share
