"""The leaderboard: our models and the published ones, one table a benchmark version, never mixed.

Rows are chosen by rule. Of each training the leading step stands first (see
`storage.records.evaluation.leading`); the best of its N steps, chosen on the same questions, is
marked as such wherever it stands; every other step is there too. Published averages are as printed.
`exports` writes the same rows as Markdown, LaTeX, CSV and JSON, and prints them in a terminal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from reports.numbers.best_step import BestOfN, best_of_n
from reports.numbers.own_rules import mmsu_rule
from reports.numbers.statistics import interval
from reports.numbers.tally import FIRST_TASKS, group_indices, tally
from reports.report import Report
from reports.sheets import BenchmarkSheet, EvaluationSheet, PublishedRow, TrainingSheet
from storage.records.evaluation import EvaluationRun, Tally
from storage.records.prompt import Prompt

OURS = "this report"


@dataclass(frozen=True, slots=True)
class Score:
    """One accuracy of a table."""

    percent: float
    """0..100; of a published row as printed."""
    tally: Tally | None = None
    """The counts behind it; None for a published row."""

    @property
    def low(self) -> float | None:
        """Lower end of Wilson's 95 % interval in percent; None for a published row."""
        return 100 * interval(self.tally).low if self.tally else None

    @property
    def high(self) -> float | None:
        """Upper end of Wilson's 95 % interval in percent; None for a published row."""
        return 100 * interval(self.tally).high if self.tally else None


class Mark(NamedTuple):
    """What is said of a checkpoint's row."""

    kind: Literal["leads", "coverage", "best"]
    text: str
    """E.g. `last step`, `2 of 3 steps evaluated`, `best of 10, chosen on the same questions`."""


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """One model under one scorer on one benchmark."""

    benchmark: str
    model: str
    method: str
    step: int | None
    """Optimiser steps of a checkpoint; None for a start model and for published rows."""
    prompt: str
    scorer: str
    tasks: dict[str, Score]
    """By task, e.g. `{"sound": ..., "music": ..., "speech": ...}`."""
    average: Score | None
    num_questions: int | None
    source: str
    """`this report`, or where the published row is printed."""
    date: str = ""
    """Of the source; empty for our own rows."""
    training: str = ""
    """Training that the checkpoint belongs to."""
    marks: tuple[Mark, ...] = ()
    """Why the step leads, what was not evaluated, whether it is the best of N."""
    leads: bool = False
    """Whether the training's row to quote is this one."""
    note: str = ""
    """What to know of a published row."""
    decoding: str = ""
    """How its completions were decoded; empty where that is not known."""
    questions_sha256: str = ""
    """Of the questions' file; empty for published rows."""
    asked: Prompt | None = None
    """How questions were put; None where that is not known: published and imported rows."""
    categories_percent: float | None = None
    """What the categories of a published row give, where its printed average says otherwise."""
    further: dict[str, Score] = field(default_factory=dict)
    """Second numbers, e.g. `without listed errata`; they never lead."""

    @property
    def disagreement(self) -> str:
        """How a printed average disagrees with its own categories; empty where it does not."""
        if self.average is None or self.categories_percent is None:
            return ""
        printed, given = self.average.percent, self.categories_percent
        return f"printed average {printed:.2f}; its categories give {given:.2f}"

    @property
    def is_ours(self) -> bool:
        """Whether it was measured here, question by question."""
        return self.source == OURS


def rows(report: Report) -> list[LeaderboardRow]:
    """Every row of every table: ours by training with the leading step first, then published."""
    found: list[LeaderboardRow] = []
    for benchmark in report.tests:
        for scorer in report.scorers:
            found += _our_rows(report, benchmark, scorer)
        for name in (benchmark.name, larger_split(benchmark.name)):
            published = [row for row in report.published if row.benchmark == name]
            found += [_published_row(row) for row in published]
    return found


def method_name(method: str | None, variant: str | None) -> str:
    """How a model came about, as the tables name it: `GRPO`, `SFT, LoRA`, `direct`."""
    if method is None:
        return "direct"
    return method.upper() + (", LoRA" if variant == "lora" else "")


def method_of(run: EvaluationRun) -> str:
    """How an evaluated model came about; `imported`: another tool asked it."""
    return "imported" if run.role == "imported" else method_name(run.method, run.variant)


def _decoding(run: EvaluationRun) -> str:
    how = run.decoding
    return f"greedy, at most {how.max_new_tokens} tokens, {how.precision}" if how else ""


def best_step(
    report: Report, benchmark: BenchmarkSheet, scorer: str, training: TrainingSheet
) -> tuple[int, BestOfN] | None:
    """The best step on the test itself, and its correction; None with fewer than two steps."""
    candidates = report.steps(benchmark, scorer, training)
    if len(candidates) < 2:
        return None
    best = best_of_n(tuple(evaluation.marks[scorer] for evaluation in candidates))
    return candidates[best.position].step or 0, best


def _our_rows(report: Report, benchmark: BenchmarkSheet, scorer: str) -> list[LeaderboardRow]:
    groups = group_indices(benchmark.questions, "task")
    order = {training.name: index for index, training in enumerate(report.trainings)}
    best = {name: best_step(report, benchmark, scorer, report.training(name)) for name in order}

    def key(evaluation: EvaluationSheet) -> tuple[int, int, int, str, str]:
        if evaluation.training is None or evaluation.step is None:
            return (len(order), 0, 0, evaluation.model, evaluation.prompt)
        rank = 0 if report.leads(evaluation) else 1
        return (
            order[evaluation.training],
            rank,
            evaluation.step,
            evaluation.model,
            evaluation.prompt,
        )

    return [
        LeaderboardRow(
            benchmark=benchmark.name,
            model=evaluation.model,
            method=method_of(evaluation.run),
            step=evaluation.step,
            prompt=evaluation.prompt,
            scorer=scorer,
            tasks=_task_scores(evaluation.marks[scorer], groups),
            average=_score(tally(evaluation.marks[scorer])),
            num_questions=tally(evaluation.marks[scorer]).num_questions,
            source=OURS,
            training=evaluation.training or "",
            leads=report.leads(evaluation),
            marks=_marks(report, evaluation, best.get(evaluation.training or "")),
            asked=evaluation.run.prompt,
            decoding=_decoding(evaluation.run),
            questions_sha256=benchmark.questions_sha256,
            further=_further(benchmark, evaluation, scorer),
        )
        for evaluation in sorted(report.judged(benchmark, scorer), key=key)
    ]


def _marks(
    report: Report, evaluation: EvaluationSheet, best: tuple[int, BestOfN] | None
) -> tuple[Mark, ...]:
    """Why it leads and how much was evaluated; that it is the best of N."""
    marks: list[Mark] = []
    if report.leads(evaluation):
        leading = report.leading[str(evaluation.training)]
        marks.append(Mark("leads", leading.reason))
        if leading.coverage:
            marks.append(Mark("coverage", leading.coverage))
    is_own_prompt = (
        evaluation.training is not None
        and evaluation.prompt == report.training(evaluation.training).prompt
    )
    if best and is_own_prompt and evaluation.step == best[0]:
        text = f"best of {best[1].num_candidates}, chosen on the same questions"
        marks.append(Mark("best", text))
    return tuple(marks)


def _further(
    benchmark: BenchmarkSheet, evaluation: EvaluationSheet, scorer: str
) -> dict[str, Score]:
    marks = evaluation.marks[scorer]
    counted = {name: tally(marks, indices=indices) for name, indices in benchmark.subsets.items()}
    if benchmark.rule == "mmsu":
        pairs = zip(evaluation.completions, benchmark.questions, strict=True)
        judged = [mmsu_rule(completion or "", question) for completion, question in pairs]
        counted["by MMSU's own rule"] = Tally(judged.count(True), len(judged) - judged.count(None))
    return {name: score for name, count in counted.items() if (score := _score(count))}


def _task_scores(marks: str, groups: dict[str, list[int]]) -> dict[str, Score]:
    tallies = {name: tally(marks, indices=indices) for name, indices in groups.items()}
    return {name: score for name, counted in tallies.items() if (score := _score(counted))}


def _score(counted: Tally) -> Score | None:
    return Score(100 * counted.accuracy, counted) if counted.num_questions else None


def _published_row(row: PublishedRow) -> LeaderboardRow:
    percents = {task: row.percent(task) for task in (*FIRST_TASKS, *row.tasks)}
    return LeaderboardRow(
        benchmark=row.benchmark,
        model=row.model,
        method=row.method,
        step=None,
        prompt="",
        scorer="",
        tasks={task: Score(value) for task, value in percents.items() if value is not None},
        average=None if row.average is None else Score(row.average),
        num_questions=row.num_questions,
        source=row.source,
        date=row.date,
        note=row.note,
        categories_percent=row.contradicted,
    )


def larger_split(benchmark: str) -> str:
    """The larger split of the same version, e.g. `mmau-test-original`; empty if it has none."""
    return benchmark.replace("-test-mini", "-test", 1) if "-test-mini" in benchmark else ""


def task_names(found: Iterable[LeaderboardRow]) -> list[str]:
    """Columns of a table: sound, music, speech as far as they occur, then other tasks by name."""
    names = {name for row in found for name in row.tasks}
    return [name for name in FIRST_TASKS if name in names] + sorted(names - set(FIRST_TASKS))
