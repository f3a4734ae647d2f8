"""The leaderboard: our models and the published ones, one table a benchmark version, never mixed.

Rows are chosen by rule. Of each training the declared step leads (declared in the profile, else the
last step); the best of its N steps, chosen on the same questions, is marked as such wherever it
stands; every other step is there too. Published averages are as printed. `exports` writes the same
rows as Markdown, LaTeX, CSV and JSON, and prints them in a terminal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reports.numbers.best_of import BestOfN, best_of_n
from reports.numbers.tally import FIRST_TASKS, Tally, as_booleans, group_indices, tally
from reports.published import contradicted_average, larger_split, num_published_questions

METHOD_NAMES = {
    "base": "direct",
    "grpo": "GRPO",
    "sft": "SFT",
    "lora-grpo": "GRPO, LoRA",
    "lora-sft": "SFT, LoRA",
}
OURS = "this report"

Json = dict[str, Any]


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
        return 100 * self.tally.interval.low if self.tally else None

    @property
    def high(self) -> float | None:
        """Upper end of Wilson's 95 % interval in percent; None for a published row."""
        return 100 * self.tally.interval.high if self.tally else None


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
    mark: str = ""
    """Why the step leads (`declared step`, `chosen on validation`, `last step`), whether it is the
    `best of 10, chosen on the same questions`; empty otherwise."""
    leads: bool = False
    """Whether the training's row to quote is this one."""
    note: str = ""
    """What to know of a published row."""
    categories_percent: float | None = None
    """What the categories of a published row give, where its printed average says otherwise."""

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


def rows(report: Json) -> list[LeaderboardRow]:
    """Every row of every table: ours by training with the leading step first, then published."""
    found: list[LeaderboardRow] = []
    for benchmark in tests_of(report):
        scorers = [
            scorer
            for scorer in report["scorers"]
            if evaluations_of(report, benchmark["name"], scorer=scorer)
        ]
        for scorer in scorers:
            found += _our_rows(report, benchmark, scorer)
        for name in (benchmark["name"], larger_split(benchmark["name"])):
            published = [row for row in report["published"] if row["benchmark"] == name]
            found += [_published_row(row) for row in published]
    return found


def tests_of(report: Json) -> list[Json]:
    """The benchmarks that are tests; the held-out training examples only choose a step."""
    return [benchmark for benchmark in report["benchmarks"] if benchmark["is_test"]]


def evaluations_of(
    report: Json,
    benchmark: str,
    *,
    scorer: str,
    training: str | None = None,
    control: str | None = None,
) -> list[Json]:
    """Evaluations on one benchmark that a scorer judged, by training and step.

    Args:
        report: The report.
        benchmark: Its name.
        scorer: `official` or `strict`.
        training: Only checkpoints of this training; None: all models.
        control: Name of a control; None: the real question with its audio.
    """
    return [
        evaluation
        for evaluation in report["evaluations"]
        if evaluation["benchmark"] == benchmark
        and evaluation["control"] == control
        and tally(evaluation["marks"].get(scorer, "")).num_questions
        and (
            training is None
            or (evaluation["training"] == training and evaluation["step"] is not None)
        )
    ]


class Leading(NamedTuple):
    """The step of a training that leads, and why."""

    step: int
    reason: str
    """`declared step`, `chosen on validation` or `last step`."""


def leading_step(report: Json, training: str) -> Leading | None:
    """The step to quote: declared, else chosen on validation, else the last; None: no checkpoint.

    The test's own questions never decide it.
    """
    steps = sorted(
        {
            evaluation["step"]
            for evaluation in report["evaluations"]
            if evaluation["training"] == training and evaluation["step"] is not None
        }
    )
    if not steps:
        return None
    evaluate: Json = report["config"].get("evaluate") or {}
    declared: int | None = evaluate.get("declared_step")
    if declared is not None and declared in steps:
        return Leading(declared, "declared step")
    chosen_steps: dict[str, int] = report.get("chosen_steps") or {}
    chosen = chosen_steps.get(training)
    if chosen is not None and chosen in steps:
        return Leading(chosen, "chosen on validation")
    return Leading(steps[-1], "last step")


def best_step(
    report: Json, benchmark: str, *, scorer: str, training: str, prompt: str
) -> tuple[int, BestOfN] | None:
    """The best step on the test itself, and its correction; None with fewer than two steps."""
    candidates = [
        evaluation
        for evaluation in evaluations_of(report, benchmark, scorer=scorer, training=training)
        if evaluation["prompt"] == prompt
    ]
    if len(candidates) < 2:
        return None
    best = best_of_n([as_booleans(evaluation["marks"][scorer]) for evaluation in candidates])
    return int(candidates[best.position]["step"]), best


def _our_rows(report: Json, benchmark: Json, scorer: str) -> list[LeaderboardRow]:
    groups = group_indices(benchmark["questions"], "task")
    evaluations = evaluations_of(report, benchmark["name"], scorer=scorer)
    marks = _marks_of_steps(report, benchmark["name"], scorer, evaluations)
    order = {training["name"]: index for index, training in enumerate(report["trainings"])}

    def key(evaluation: Json) -> tuple[int, int, int, str]:
        training, step = evaluation["training"], evaluation["step"]
        if step is None:
            return (len(order) + 1, 0, 0, evaluation["model"])
        rank = 0 if _leads(report, evaluation) else 1
        return (order.get(training, len(order)), rank, step, evaluation["folder"])

    return [
        LeaderboardRow(
            benchmark=benchmark["name"],
            model=evaluation["model"],
            method=METHOD_NAMES.get(evaluation["method"] or "base", str(evaluation["method"])),
            step=evaluation["step"],
            prompt=evaluation["prompt"] or "",
            scorer=scorer,
            tasks=_task_scores(evaluation["marks"][scorer], groups),
            average=_score(tally(evaluation["marks"][scorer])),
            num_questions=tally(evaluation["marks"][scorer]).num_questions,
            source=OURS,
            training=evaluation["training"] or "" if evaluation["step"] is not None else "",
            leads=_leads(report, evaluation),
            mark=marks.get((evaluation["model"], evaluation["prompt"]), ""),
        )
        for evaluation in sorted(evaluations, key=key)
    ]


def _leads(report: Json, evaluation: Json) -> bool:
    if evaluation["step"] is None:
        return False
    leading = leading_step(report, evaluation["training"])
    return leading is not None and leading.step == evaluation["step"]


def _marks_of_steps(
    report: Json, benchmark: str, scorer: str, evaluations: Sequence[Json]
) -> dict[tuple[str, str], str]:
    """What to say of a checkpoint, by model and prompt: why it leads, that it is the best of N."""
    marks: dict[tuple[str, str], str] = {}
    trained = [evaluation for evaluation in evaluations if evaluation["step"] is not None]
    for training, prompt in sorted({(one["training"], one["prompt"]) for one in trained}):
        best = best_step(report, benchmark, scorer=scorer, training=training, prompt=prompt)
        for one in trained:
            if (one["training"], one["prompt"]) != (training, prompt):
                continue
            leading = leading_step(report, training)
            texts = [leading.reason] if leading and leading.step == one["step"] else []
            if best and one["step"] == best[0]:
                texts.append(f"best of {best[1].num_candidates}, chosen on the same questions")
            marks[one["model"], prompt] = "; ".join(texts)
    return marks


def _task_scores(marks: str, groups: dict[str, list[int]]) -> dict[str, Score]:
    tallies = {name: tally(marks, indices=indices) for name, indices in groups.items()}
    return {name: score for name, counted in tallies.items() if (score := _score(counted))}


def _score(counted: Tally) -> Score | None:
    return Score(100 * counted.accuracy, counted) if counted.num_questions else None


def _published_row(row: Json) -> LeaderboardRow:
    percents = {task: row[task] for task in FIRST_TASKS if row[task] is not None}
    return LeaderboardRow(
        benchmark=row["benchmark"],
        model=row["model"],
        method=row["method"],
        step=None,
        prompt="",
        scorer="",
        tasks={task: Score(percent) for task, percent in percents.items()},
        average=None if row["average"] is None else Score(row["average"]),
        num_questions=num_published_questions(row["benchmark"]),
        source=row["source"],
        date=row["date"],
        note=row["note"],
        categories_percent=contradicted_average(row),
    )


def task_names(found: Iterable[LeaderboardRow]) -> list[str]:
    """Columns of a table: sound, music, speech as far as they occur, then other tasks by name."""
    names = {name for row in found for name in row.tasks}
    return [name for name in FIRST_TASKS if name in names] + sorted(names - set(FIRST_TASKS))
