"""The leaderboard: our models and the published ones, one table a benchmark version, never mixed.

Rows are chosen by rule. Of each training the leading step stands first (see
`storage.records.leading`); the best of its N steps, chosen on the same questions, is marked as such
wherever it stands; every other step is there too. Published averages are as printed.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Literal, NamedTuple

from reports.numbers.achievements import best_step
from reports.numbers.statistics import (
    FIRST_TASKS,
    Interval,
    group_indices,
    mmsu_rule,
    picked,
    tally,
    wilson,
)
from reports.report import Judged, Report
from reports.sheets import Asked, BenchmarkSheet, EvaluationSheet, PublishedRow
from storage.records.evaluation import EvaluationRun, Tally
from storage.records.prompt import Prompt

OURS = "this report"


class Score(NamedTuple):
    """One accuracy of a table."""

    percent: float
    """0..100; of a published row as printed."""
    tally: Tally | None = None
    """The counts behind it; None for a published row."""

    @property
    def ends(self) -> Interval | None:
        """Wilson's 95 % interval in percent; None for a published row."""
        return Interval(*(100 * end for end in wilson(self.tally))) if self.tally else None


class Mark(NamedTuple):
    """What is said of a checkpoint's row."""

    kind: Literal["leads", "coverage", "best"]
    text: str
    """E.g. `last step`, `2 of 3 steps evaluated`, `best of 10, chosen on the same questions`."""


class LeaderboardRow(NamedTuple):
    """One model under one scorer on one benchmark."""

    benchmark: str
    model: str
    method: str
    step: int | None
    """Optimiser steps of a checkpoint; None for a start model and for published rows."""
    prompt: str
    scorer: str
    tasks: Mapping[str, Score]
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
    asked: Prompt | None = None
    """How questions were put; None where that is not known: published and imported rows."""
    categories_percent: float | None = None
    """What the categories of a published row give, where its printed average says otherwise."""
    further: Mapping[str, Score] = MappingProxyType({})
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

    @property
    def is_quoted(self) -> bool:
        """Whether it is ours and to quote: a training's leading step, or another model."""
        return self.is_ours and (self.leads or not self.training)

    @property
    def mark_text(self) -> str:
        """What is said of a checkpoint, in one line; empty: nothing."""
        return "; ".join(mark.text for mark in self.marks)


class Table(NamedTuple):
    """Rows of one benchmark under one scorer."""

    title: str
    tasks: Sequence[str]
    """Columns: sound, music, speech as far as they occur, then other tasks by name."""
    rows: Sequence[LeaderboardRow]

    def scores(self, row: LeaderboardRow) -> list[Score | None]:
        """Its accuracies by column, the average last."""
        return [*(row.tasks.get(task) for task in self.tasks), row.average]

    @property
    def best(self) -> list[float]:
        """The highest percentage of each column."""
        columns = zip(*map(self.scores, self.rows), strict=True)
        return [max((score.percent for score in column if score), default=0) for column in columns]


def rows(report: Report) -> list[LeaderboardRow]:
    """Every row of every table: ours by training with the leading step first, then published."""
    found: list[LeaderboardRow] = []
    for benchmark in report.tests:
        for scorer in report.scorers:
            judged = report.judged(benchmark, scorer)
            found += _our_rows(report, judged) if judged else []
        for name in (benchmark.name, larger_split(benchmark.name)):
            found += [_published_row(row) for row in report.published if row.benchmark == name]
    return found


def method_name(method: str | None, variant: str | None) -> str:
    """How a model came about, as the tables name it: `GRPO`, `SFT, LoRA`, `direct`."""
    if method is None:
        return "direct"
    return method.upper() + (", LoRA" if variant == "lora" else "")


def method_of(run: EvaluationRun) -> str:
    """How an evaluated model came about; `imported`: another tool asked it."""
    return "imported" if run.role == "imported" else method_name(run.method, run.variant)


def _our_rows(report: Report, judged: Judged) -> list[LeaderboardRow]:
    benchmark, scorer = judged.benchmark, judged.scorer
    groups = group_indices(benchmark.questions, "task")
    order = {training.name: place for place, training in enumerate(report.trainings)}
    best = [best_step(judged, training) for training in report.trainings]
    best_of = {step.key: chosen.num_candidates for step, chosen in filter(None, best)}

    def place(sheet: EvaluationSheet) -> tuple[int, bool, int, Asked]:
        training = order.get(sheet.training or "", len(order))
        return (training, not report.leads(sheet), sheet.step or 0, sheet.asked)

    return [
        LeaderboardRow(
            benchmark=benchmark.name,
            model=sheet.model,
            method=method_of(sheet.run),
            step=sheet.step,
            prompt=sheet.prompt,
            scorer=scorer,
            tasks=_scores({name: tally(picked(marks, group)) for name, group in groups.items()}),
            average=_scores({"": tally(marks)}).get(""),
            num_questions=tally(marks).num_questions,
            source=OURS,
            training=sheet.training or "",
            leads=report.leads(sheet),
            marks=_marks(report, sheet, best_of.get(sheet.key)),
            asked=sheet.run.prompt,
            decoding=_decoding(sheet.run),
            questions_sha256=benchmark.questions_sha256,
            further=_further(benchmark, sheet, marks),
        )
        for sheet in sorted(judged.evaluations, key=place)
        for marks in [sheet.marks[scorer]]
    ]


def _decoding(run: EvaluationRun) -> str:
    how = run.decoding
    return f"greedy, at most {how.max_new_tokens} tokens, {how.precision}" if how else ""


def _marks(report: Report, sheet: EvaluationSheet, best_of: int | None) -> tuple[Mark, ...]:
    """Why it leads and how much was evaluated; that it is the best of so many."""
    marks: list[Mark] = []
    if report.leads(sheet):
        leading = report.leading[str(sheet.training)]
        marks.append(Mark("leads", leading.reason))
        marks += [Mark("coverage", leading.coverage)] if leading.coverage else []
    if best_of:
        marks.append(Mark("best", f"best of {best_of}, chosen on the same questions"))
    return tuple(marks)


def _further(benchmark: BenchmarkSheet, sheet: EvaluationSheet, marks: str) -> dict[str, Score]:
    counted = {name: tally(picked(marks, group)) for name, group in benchmark.subsets.items()}
    if benchmark.rule == "mmsu":
        pairs = zip(sheet.completions, benchmark.questions, strict=True)
        judged = [mmsu_rule(completion or "", question) for completion, question in pairs]
        counted["by MMSU's own rule"] = Tally(judged.count(True), len(judged) - judged.count(None))
    return _scores(counted)


def _scores(tallies: Mapping[str, Tally]) -> dict[str, Score]:
    """Those of which something was judged."""
    return {
        name: Score(100 * counted.accuracy, counted)
        for name, counted in tallies.items()
        if counted.num_questions
    }


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


def tables(rows: Iterable[LeaderboardRow]) -> list[Table]:
    """Rows by benchmark and scorer; published ones stand under the first scorer."""
    found: list[Table] = []
    for benchmark, group in groupby(rows, key=lambda row: row.benchmark):
        members = list(group)
        scorers = list(dict.fromkeys(row.scorer for row in members if row.is_ours)) or [""]
        for scorer in scorers:
            table = [row for row in members if row.is_ours and row.scorer == scorer]
            table += [row for row in members if not row.is_ours and scorer == scorers[0]]
            title = f"{benchmark}, {scorer} scorer" if scorer else benchmark
            found.append(Table(title, task_names(table), table))
    return found


def task_names(found: Iterable[LeaderboardRow]) -> list[str]:
    """Sound, music, speech as far as they occur, then other tasks by name."""
    names = {name for row in found for name in row.tasks}
    return [name for name in FIRST_TASKS if name in names] + sorted(names - {*FIRST_TASKS})
