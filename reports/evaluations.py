"""Reads what evaluation wrote: questions, and each model's answers and verdicts to them.

Counts are made again from the verdicts and must agree with score.json: a report that shows another
number than the score file is a fault, not a choice.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from reports.numbers.tally import tally
from storage.errors import PipelineError
from storage.jsonl import read_json
from storage.layout import VALIDATION, Layout
from storage.records.evaluation import (
    ControlReport,
    EvaluationRun,
    Score,
    StoredRun,
    list_runs,
    read_answers,
    read_verdicts,
)

MARKS = {True: "1", False: "0", None: "-"}
QUESTION_KEYS = ("id", "question", "choices", "answer", "task", "difficulty", "dataset", "audio_id")
Json = dict[str, Any]


def read_benchmarks(layout: Layout, *, first: Sequence[str]) -> list[Json]:
    """Every benchmark that a model of this experiment answered, with its questions.

    Args:
        layout: Where they are.
        first: Names in the order of the profile; others that were evaluated follow by name.
    """
    found = {stored.run.benchmark_name for stored in _whole_runs(layout)}
    names = [name for name in first if name in found]
    names += sorted(found - set(names))
    return [_read_benchmark(layout.benchmark(name), name) for name in names]


def _read_benchmark(folder: Path, name: str) -> Json:
    path = folder / "questions.json"
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        msg = f"{path} holds no questions; run evaluate again, which writes it"
        raise PipelineError(msg)
    questions = [_question(row) for row in cast("list[Json]", rows)]
    return {
        "name": name,
        "is_test": name != VALIDATION,
        "questions_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "questions": questions,
    }


def _question(row: Json) -> Json:
    """A question with our names of its keys; a list in `category` becomes text."""
    question: Json = {key: row.get(key) for key in QUESTION_KEYS}
    category: str | list[str] = row.get("category") or ""
    question["category"] = category if isinstance(category, str) else ", ".join(category)
    question["sub_category"] = str(
        row.get("sub-category") or row.get("sub_category") or "none given"
    )
    question["difficulty"] = str(row.get("difficulty") or "none given")
    question["task"] = str(row.get("task") or "none given")
    return question


def _whole_runs(layout: Layout) -> list[StoredRun]:
    return [stored for stored in list_runs(layout.evaluations) if stored.is_scored]


def read_evaluations(layout: Layout, benchmarks: Sequence[Json]) -> list[Json]:
    """Every whole evaluation, its per-question columns in the benchmark's order."""
    by_name = {benchmark["name"]: benchmark for benchmark in benchmarks}
    evaluations = [
        _read_evaluation(stored, by_name[stored.run.benchmark_name])
        for stored in _whole_runs(layout)
    ]
    return sorted(evaluations, key=_reading_order)


def _reading_order(evaluation: Json) -> tuple[str, str, int, str, str]:
    """Start models before the checkpoints of trainings, checkpoints by step."""
    step = -1 if evaluation["step"] is None else int(evaluation["step"])
    training = evaluation["training"] if evaluation["step"] is not None else ""
    return (
        evaluation["benchmark"],
        training or "",
        step,
        evaluation["model"],
        evaluation["folder"],
    )


def _read_evaluation(stored: StoredRun, benchmark: Json) -> Json:
    folder, run = stored
    score = Score.read(folder / "score.json")
    ids = [question["id"] for question in benchmark["questions"]]
    verdicts = {verdict.id: verdict for verdict in read_verdicts(folder / "verdicts.jsonl")}
    answers = {answer.id: answer for answer in read_answers(folder / "answers.jsonl")}
    missing = [question_id for question_id in ids if question_id not in verdicts]
    if missing or len(verdicts) != len(ids):
        msg = (
            f"{folder / 'verdicts.jsonl'} judges {len(verdicts)} questions, "
            f"{benchmark['name']} has {len(ids)} "
            f"({len(missing)} without a verdict, first {missing[:1]}); "
            f"delete {folder} and run evaluate again"
        )
        raise PipelineError(msg)
    ordered = [verdicts[question_id] for question_id in ids]
    given = [answers.get(question_id) for question_id in ids]
    evaluation: Json = {
        **_facts(run),
        "folder": folder.name,
        "marks": {
            name: "".join(MARKS[verdict.of(name)] for verdict in ordered)
            for name in score.by_scorer
        },
        "parsed": "".join("1" if verdict.parsed else "0" for verdict in ordered),
        "finished": "".join("1" if one is None or one.finished else "0" for one in given),
        "answers": [verdict.answer for verdict in ordered],
        "reasons": [verdict.reason for verdict in ordered],
        "completions": [one and one.completion for one in given],
        "num_tokens": [one and one.num_tokens for one in given],
    }
    _check_counts(folder, evaluation, score)
    return evaluation


def _facts(run: EvaluationRun) -> Json:
    """A run's record, flat; what is no checkpoint has neither training nor step in the tables."""
    trained = run.model.training if run.role == "checkpoint" else None
    lora = "lora-" if run.variant == "lora" else ""
    return {
        "model": run.key.model,
        "benchmark": run.benchmark_name,
        "model_path": run.model.path,
        "model_digest": run.model.digest,
        "model_revision": run.model.revision,
        "method": f"{lora}{run.method}" if trained else "base",
        "training": trained and trained.name,
        "step": trained and trained.step,
        "prompt": run.key.prompt,
        "prompt_template": run.prompt_template,
        "control": run.key.control,
        "benchmark_sha256": run.questions_sha256,
        "decode": {"do_sample": False, **run.decoding.model_dump()},
        "versions": run.versions,
        "seconds": run.seconds,
    }


def read_control_reports(layout: Layout) -> list[Json]:
    """What the controls say of each model, where they were run."""
    paths = sorted(layout.evaluations.glob("*/*/*/controls.json"))
    reports = [ControlReport.read(path) for path in paths]
    return [{**report.key.model_dump(), **report.as_json()} for report in reports]


def _check_counts(folder: Path, evaluation: Json, score: Score) -> None:
    for scorer, marks in evaluation["marks"].items():
        stated = score.by_scorer[scorer].overall
        counted = tally(marks)
        if "-" not in marks and (counted.num_correct, counted.num_questions) != (
            stated.num_correct,
            stated.num_questions,
        ):
            msg = (
                f"{folder / 'score.json'} says {stated.num_correct} of "
                f"{stated.num_questions} right under "
                f"{scorer}, its verdicts.jsonl {counted.num_correct} of {counted.num_questions}; "
                f"delete {folder} and run evaluate again"
            )
            raise PipelineError(msg)
