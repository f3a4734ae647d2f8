"""What a training achieved, in the order in which it may be claimed; and another model beside it.

First the leading step with its interval; then the same questions against the start model, paired;
then the best of N steps, marked as chosen on the test, with the value that is left after correcting
for the choice.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from operator import ne
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reports.numbers.statistics import PairedTest, paired, smallest_detectable_gap, tally, wilson
from reports.report import Judged, Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, PublishedRow, TrainingSheet
from storage.records.evaluation import Tally
from storage.records.leading import Leading

PAPER_SOURCE = "R1-AQA paper, arXiv 2503.11197"
SILENCE = "silence"
NUM_RESAMPLES = 2000  # the corrected value moves by less than 0.05 points between seeds
RESAMPLES_AT_ONCE = 200  # of 10,000 questions, 32 MB
RESAMPLING_SEED = 0  # the same report gives the same number
USUAL_FLIP_SHARE = 0.13  # neighbouring checkpoints of a 7B disagree on about 13 % of the questions


class BestOfN(NamedTuple):
    """The highest of N accuracies on the same questions, and what is left of it."""

    position: int
    """Of the best among the candidates."""
    num_candidates: int
    accuracy: float
    corrected: float
    """Mean accuracy on questions left out of the resample that the choice was made on."""


class Achievement(NamedTuple):
    """One training at its leading step, or another model, on one benchmark."""

    judged: Judged
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
    def benchmark(self) -> BenchmarkSheet:
        """Whose questions were asked."""
        return self.judged.benchmark

    @property
    def scorer(self) -> str:
        """The leading one."""
        return self.judged.scorer

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
        low, high = (100 * end for end in wilson(self.tally))
        printed = self.paper.average
        return "above" if printed > high else "below" if printed < low else "within"


def achievements(report: Report) -> list[Achievement]:
    """By benchmark and training, where the step to quote of it was evaluated."""
    found: list[Achievement] = []
    for judged in report.scored:
        for training in report.trainings:
            sheet, best = judged.leading(training), best_step(judged, training)
            if sheet:
                name = judged.benchmark.name
                line = Achievement(
                    judged,
                    sheet,
                    silence=_silence(judged, sheet),
                    paper=paper_row(report.published, benchmark=name, training=training),
                    training=training,
                    leading=report.leading[training.name],
                    start=judged.start(training),
                    best_at=best and best[0],
                    best=best and best[1],
                )
                found.append(line)
    return found


def other_models(report: Report) -> list[Achievement]:
    """Models that were not trained here, by benchmark, as they were asked."""
    return [
        Achievement(judged, sheet, _silence(judged, sheet), _released_row(judged, sheet))
        for judged in report.scored
        for sheet in judged.evaluations
        if sheet.step is None
    ]


def best_step(judged: Judged, training: TrainingSheet) -> tuple[EvaluationSheet, BestOfN] | None:
    """The best step on the test itself, and its correction; None with fewer than two steps."""
    steps = judged.steps(training)
    if len(steps) < 2:
        return None
    best = best_of_n(tuple(sheet.marks[judged.scorer] for sheet in steps))
    return steps[best.position], best


@lru_cache(maxsize=64)
def best_of_n(candidates: tuple[str, ...]) -> BestOfN:
    """Choose the best of N candidates on their own test, and say what the choice is worth.

    The candidate is chosen again on each of 2,000 resamples of the questions and scored on those
    that the resample left out (Tsamardinos 2018, bootstrap bias corrected). The earliest wins ties.
    """
    marks = np.array([[mark == "1" for mark in marks] for marks in candidates], dtype=np.float32)
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


def _silence(judged: Judged, shown: EvaluationSheet) -> EvaluationSheet | None:
    def is_alike(sheet: EvaluationSheet) -> bool:
        is_of_training = shown.training is not None and sheet.training == shown.training
        return sheet.model == shown.model or is_of_training

    silent = [
        sheet
        for sheet in judged.report.on(judged.benchmark)
        if (sheet.key.control, sheet.prompt) == (SILENCE, shown.prompt)
        and judged.scorer in sheet.marks
        and is_alike(sheet)
    ]
    step = shown.step or 0
    return min(silent, key=lambda sheet: abs((sheet.step or 0) - step), default=None)


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


def _released_row(judged: Judged, sheet: EvaluationSheet) -> PublishedRow | None:
    """The published row of the same weights; one that names no prompt is of prompt `answer`."""
    wanted = (sheet.run.model.path, judged.benchmark.name, sheet.prompt)
    for row in judged.report.published:
        if row.weights and (row.weights, row.benchmark, row.prompt or "answer") == wanted:
            return row
    return None


def resolution(judged: Judged) -> tuple[float | None, float]:
    """Smallest difference between our models that this benchmark shows, and its flip share.

    The flip share is the median over neighbouring checkpoints; without any, the usual one.
    """
    size, scorer = len(judged.benchmark.questions), judged.scorer
    shares = [
        sum(map(ne, before.marks[scorer], after.marks[scorer])) / size
        for training in judged.report.trainings
        for before, after in pairwise(judged.steps(training))
    ]
    flip_share = (median(shares) if shares else 0) or USUAL_FLIP_SHARE
    return smallest_detectable_gap(size, flip_share=flip_share), flip_share
