"""Reads what fetching, converting, training and evaluating wrote.

The paper trained on about 38,000 of AVQA's 40,425 questions because sources had vanished, and says
nothing of which. Here every lost clip has a reason, and the shares of the question types before and
after are put side by side. Counts of an evaluation are made again from the verdicts and must agree
with score.json: a report that shows another number than the score file is a fault, not a choice.
"""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from reports.numbers.statistics import tally
from reports.sheets import (
    Count,
    Curve,
    EvaluationSheet,
    FetchSheet,
    KeptRows,
    LostClip,
    RowsSheet,
    TrainingSheet,
    UsableClip,
    flat,
)
from storage.data import avqa
from storage.errors import PipelineError
from storage.jsonl import read_appended, read_json, read_jsonl
from storage.layout import Layout, checkpoint_step, list_checkpoints
from storage.records.clip import parse_video_name
from storage.records.evaluation import Score, StoredRun, Verdict, read_answers, read_verdicts
from storage.records.example import DataAccount, Example
from storage.records.prompt import NamedPrompt
from storage.records.question import Question
from storage.records.training import (
    RUN,
    Sampled,
    StepMetrics,
    TrainingRecord,
    end_step,
    read_metrics,
    read_sampled,
    warnings_of,
)

MARKS = {True: "1", False: "0", None: "-"}
PICK_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NO_ANSWER, OTHER_TEXT = "-", "?"
SHIFT = "cyclic-shift-"  # controls that rotate the choices
NOTES = ("silent", "short", "cancelled")
# What the account says of clips in sum; the pages count the clips.
SUMS = {"requested", "usable", "by_state", "by_reason", "by_source", *NOTES}


class TrainingEntry(BaseModel):
    """What the report needs of a training's settings."""

    name: str
    method: Literal["grpo", "sft"] = "grpo"
    model: str = ""
    prompt: NamedPrompt = "answer"
    seed: int = 42
    evaluate: bool = True
    lora: object = None
    max_steps: int | None = None
    save_steps: int | None = None
    continues: str | None = None
    stop: dict[str, int] | None = None

    def planned(self, folder: Path) -> tuple[int, ...]:
        """Steps whose checkpoints are saved: every so many, and the last; empty: not known."""
        if self.max_steps is None or self.save_steps is None:
            return ()
        patience = self.stop["patience"] if self.stop else None
        last = end_step(folder, self.max_steps, patience) or self.max_steps
        steps = {*range(self.save_steps, last + 1, self.save_steps), last}
        before = int((self.continues or "@0").rpartition("@")[2])
        return tuple(sorted(step for step in steps if step > before))


def read_training_sheet(layout: Layout, entry: TrainingEntry) -> TrainingSheet:
    """Read one training of the profile; one that has not run yet has an empty curve."""
    folder = layout.training(entry.name)
    dropped = _reasons(read_appended(folder / "dropped.jsonl"))
    steps = (checkpoint_step(path) for path in list_checkpoints(folder))
    run = TrainingRecord.read(folder / RUN) if (folder / RUN).exists() else None
    logged = read_metrics(folder)
    seconds = sum(metrics.seconds.get("total", 0.0) for metrics in logged)
    return TrainingSheet(
        name=entry.name,
        method=entry.method,
        variant="lora" if entry.lora else "full",
        prompt=entry.prompt,
        seed=entry.seed,
        start_model=entry.model,
        evaluated=entry.evaluate,
        planned=entry.planned(folder),
        start=run.start if run else None,
        settings=run.settings if run else {},
        checkpoint_steps=tuple(step for step in steps if step is not None),
        curve=curve(logged),
        device_hours=seconds * run.num_devices / 3600 if run and seconds else None,
        warnings=tuple(warnings_of(logged)),
        samples=_one_prompt(read_sampled(folder)),
        dropped=_counts(dict(sorted(dropped.items()))),
    )


def _reasons(rows: Sequence[Mapping[str, object]]) -> Counter[str]:
    return Counter(str(row.get("reason") or "") for row in rows)


def _counts(counted: Mapping[str, int]) -> tuple[Count, ...]:
    return tuple(Count(name=name, count=number) for name, number in counted.items())


def _one_prompt(found: Sequence[Sampled]) -> tuple[Sampled, ...]:
    """Completions of the prompt that was sampled at most steps, one a step."""
    by_id: dict[str, dict[int, Sampled]] = {}
    for sampled in found:
        by_id.setdefault(sampled.id, {}).setdefault(sampled.step, sampled)
    longest = max(by_id.values(), key=len, default=dict[int, Sampled]())
    return tuple(longest.values())


def curve(steps: Sequence[StepMetrics]) -> Curve:
    """Metrics as columns: every number logged."""
    rows = [metrics.numbers() for metrics in steps]
    for row, metrics in zip(rows, steps, strict=True):
        if "total" in metrics.seconds:
            row["seconds_total"] = metrics.seconds["total"]
    names = sorted({name for row in rows for name in row} - {"step"})
    columns = {name: [row.get(name, math.nan) for row in rows] for name in names}
    finite = {
        name: tuple(number if math.isfinite(number) else None for number in column)
        for name, column in columns.items()
    }
    return Curve(step=tuple(metrics.step for metrics in steps), metrics=finite)


def read_fetch(layout: Layout) -> FetchSheet | None:
    """The account of the fetch stage, with losses over time; None where nothing was fetched."""
    path = layout.fetch / "fetch_report.json"
    if not path.exists():
        return None
    account = read_json(path)
    gone = read_appended(layout.fetch / "invalid.jsonl")
    files = {path.name for path in layout.clips.glob("*.wav")}
    days = Counter(str(row.get("last_try") or "")[:10] or "unknown" for row in gone)

    def is_kept(clip: str) -> bool:
        return parse_video_name(clip).file_name in files

    return FetchSheet(
        folder=layout.clips.name,
        usable=tuple(
            UsableClip(
                row["clip_id"],
                row.get("source") or "",
                ", ".join(note for note in NOTES if row.get(note) == "1"),
                is_kept(row["clip_id"]),
            )
            for row in _read_csv(layout.fetch / "clips.csv")
            if row["state"] == "done"
        ),
        losses_by_day=_counts(dict(sorted(days.items()))),
        lost=tuple(
            LostClip(
                clip=row["clip_id"],
                state=row["state"],
                reason=row.get("reason") or "",
                message=row.get("message") or "",
                is_kept=is_kept(row["clip_id"]),
            )
            for row in gone
        ),
        facts=tuple(flat({key: account[key] for key in account if key not in SUMS})),
    )


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_rows(layout: Layout, *, annotations: str | None) -> RowsSheet | None:
    """Rows kept and dropped, by reason and by question type; None where nothing was converted.

    Only AVQA's annotations (path or address) know the dropped rows' types; where they cannot be
    read, these have none.
    """
    if not layout.train_jsonl.exists():
        return None
    kept, dropped = read_jsonl(layout.train_jsonl), read_appended(layout.dropped_jsonl)
    types: dict[str, Example] = {}
    if dropped and annotations:
        try:
            read = avqa.read_annotations(annotations, layout.workspace / "annotations")
            types = {str(row.id): row for row in read.rows}
        except PipelineError:
            pass

    def by(key: Literal["question_type", "question_relation"]) -> tuple[KeptRows, ...]:
        """Kept and dropped rows by one key; a dropped row without it is not counted here."""
        own = Counter(str(row.get(key) or "none given") for row in kept)
        known = (getattr(types.get(str(row.get("id"))), key, None) for row in dropped)
        lost = Counter(
            str(row.get(key) or typed)
            for row, typed in zip(dropped, known, strict=True)
            if row.get(key) or typed
        )
        names = sorted(own | lost, key=lambda name: (-own[name], name))
        return tuple(KeptRows(name=name, kept=own[name], dropped=lost[name]) for name in names)

    return RowsSheet(
        kept=len(kept),
        dropped=len(dropped),
        by_reason=_counts(dict(_reasons(dropped).most_common())),
        question_types=by("question_type"),
        question_relations=by("question_relation"),
        account=DataAccount.read(path) if (path := layout.data_account).exists() else None,
    )


def read_sheet(stored: StoredRun, questions: Sequence[Question]) -> EvaluationSheet:
    """Read a whole evaluation.

    Raises:
        PipelineError: If a question has no verdict, or the verdicts contradict score.json.
    """
    folder, run = stored
    score = Score.read(folder / "score.json")
    verdicts = {verdict.id: verdict for verdict in read_verdicts(folder / "verdicts.jsonl")}
    answers = {answer.id: answer for answer in read_answers(folder / "answers.jsonl")}
    missing = [question.id for question in questions if question.id not in verdicts]
    if missing or len(verdicts) != len(questions):
        msg = (
            f"{folder / 'verdicts.jsonl'} judges {len(verdicts)} questions, "
            f"{run.benchmark_name} has {len(questions)} "
            f"({len(missing)} without a verdict, first {missing[:1]}); "
            f"delete {folder} and run evaluate again"
        )
        raise PipelineError(msg)
    judged = [verdicts[question.id] for question in questions]
    given = [answers.get(question.id) for question in questions]
    control = run.key.control or ""
    shift = int(control.removeprefix(SHIFT)) if control.startswith(SHIFT) else 0
    picks = (
        _pick(verdict, shift=shift, num_choices=len(question.choices))
        for verdict, question in zip(judged, questions, strict=True)
    )
    sheet = EvaluationSheet(
        run=run,
        marks={
            name: "".join(MARKS[verdict.of(name)] for verdict in judged) for name in score.scorers
        },
        picks="".join(picks),
        parsed="".join(MARKS[verdict.parsed] for verdict in judged),
        finished="".join(MARKS[answer is None or answer.finished] for answer in given),
        answers=tuple(verdict.answer for verdict in judged),
        reasons=tuple(verdict.reason for verdict in judged),
        completions=tuple(answer and answer.completion for answer in given),
        num_tokens=tuple(answer and answer.num_tokens for answer in given),
        cut=tuple(answer.id for answer in given if answer and answer.cut),
    )
    for scorer, marks in sheet.marks.items():
        stated, counted = score.scorers[scorer].overall, tally(marks)
        if "-" not in marks and counted != stated:
            msg = (
                f"{folder / 'score.json'} says {stated.num_correct} of {stated.num_questions} "
                f"right under {scorer}, its verdicts.jsonl {counted.num_correct} of "
                f"{counted.num_questions}; delete {folder} and run evaluate again"
            )
            raise PipelineError(msg)
    return sheet


def _pick(verdict: Verdict, *, shift: int, num_choices: int) -> str:
    """The answer's place among the choices as the benchmark has them, not as they were asked."""
    if verdict.choice_index is None:
        return OTHER_TEXT if (verdict.answer or "").strip() else NO_ANSWER
    place = (verdict.choice_index + shift) % num_choices
    return PICK_DIGITS[place] if place < len(PICK_DIGITS) else OTHER_TEXT
