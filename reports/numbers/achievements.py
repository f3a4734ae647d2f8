"""What a training achieved, in the order in which it may be claimed; and another model beside it.

First the leading step with its interval; then the same questions against the start model, paired;
then the best of N steps, marked as chosen on the test, with the value that is left after correcting
for the choice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import ne
from statistics import median

from reports.numbers.best_step import BestOfN
from reports.numbers.leaderboard import best_step
from reports.numbers.statistics import (
    USUAL_FLIP_SHARE,
    PairedTest,
    interval,
    paired,
    smallest_detectable_gap,
)
from reports.numbers.tally import as_booleans, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, PublishedRow, TrainingSheet
from storage.records.evaluation import Tally
from storage.records.leading import Leading

PAPER_SOURCE = "R1-AQA paper, arXiv 2503.11197"
SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Achievement:
    """One training at its leading step, or another model, on one benchmark."""

    benchmark: BenchmarkSheet
    scorer: str
    """The leading one."""
    evaluation: EvaluationSheet
    silence: EvaluationSheet | None
    """The same model under silence, else the training's nearest step."""
    paper: PublishedRow | None
    """The published row of the same method, variant, prompt and benchmark, or of these weights."""
    training: TrainingSheet | None
    leading: Leading | None
    start: EvaluationSheet | None
    """Of the model that the training started from, asked with the same prompt."""
    best_step: int | None
    best: BestOfN | None

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
        before = self.start.marks[self.scorer] if self.start else None
        return paired(as_booleans(before), as_booleans(self.marks)) if before else None

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
    return [
        _achievement(report, benchmark, scorer, evaluation, training)
        for benchmark in report.tests
        if (scorer := report.leading_scorer(benchmark))
        for training in report.trainings
        if (evaluation := report.leading_evaluation(benchmark, scorer, training))
    ]


def other_models(report: Report, benchmark: BenchmarkSheet, scorer: str) -> list[Achievement]:
    """Models that were not trained here, as they were asked."""
    return [
        _achievement(report, benchmark, scorer, evaluation, None)
        for evaluation in report.judged(benchmark, scorer)
        if evaluation.step is None
    ]


def _achievement(
    report: Report,
    benchmark: BenchmarkSheet,
    scorer: str,
    evaluation: EvaluationSheet,
    training: TrainingSheet | None,
) -> Achievement:
    best = best_step(report, benchmark, scorer, training) if training else None
    return Achievement(
        benchmark=benchmark,
        scorer=scorer,
        evaluation=evaluation,
        silence=_silence(report, benchmark, evaluation, scorer),
        paper=paper_row(report.published, benchmark=benchmark.name, training=training)
        if training
        else _released_row(report, benchmark, evaluation),
        training=training,
        leading=report.leading[training.name] if training else None,
        start=report.start_evaluation(benchmark, scorer, training) if training else None,
        best_step=best[0] if best else None,
        best=best[1] if best else None,
    )


def _silence(
    report: Report, benchmark: BenchmarkSheet, shown: EvaluationSheet, scorer: str
) -> EvaluationSheet | None:
    def is_of_training(evaluation: EvaluationSheet) -> bool:
        return shown.training is not None and evaluation.training == shown.training

    silent = [
        evaluation
        for evaluation in report.on(benchmark)
        if evaluation.key.control == SILENCE
        and scorer in evaluation.marks
        and evaluation.prompt == shown.prompt
        and (evaluation.model == shown.model or is_of_training(evaluation))
    ]
    step = shown.step or 0
    return min(silent, key=lambda evaluation: abs((evaluation.step or 0) - step), default=None)


def _released_row(
    report: Report, benchmark: BenchmarkSheet, evaluation: EvaluationSheet
) -> PublishedRow | None:
    """The published row of the same weights; one that names no prompt is of prompt `answer`."""
    for row in report.published:
        is_same = row.weights == evaluation.run.model.path and row.benchmark == benchmark.name
        if row.weights and is_same and (row.prompt or "answer") == evaluation.prompt:
            return row
    return None


def resolution(
    report: Report, benchmark: BenchmarkSheet, scorer: str
) -> tuple[float | None, float]:
    """Smallest difference between our models that this benchmark shows, and its flip share.

    The flip share is the median over neighbouring checkpoints; without any, 13 %, the usual one of
    a 7B model.
    """
    shares: list[float] = []
    for training in report.trainings:
        steps = report.steps(benchmark, scorer, training)
        for before, after in pairwise(evaluation.marks[scorer] for evaluation in steps):
            shares.append(sum(map(ne, before, after)) / len(before))
    flip_share = median(shares) if shares and median(shares) > 0 else USUAL_FLIP_SHARE
    return smallest_detectable_gap(len(benchmark.questions), flip_share=flip_share), flip_share


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
