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
from storage.jsonl import read_appended, read_json, read_jsonl
from storage.layout import VALIDATION, Layout

MARKS = {True: "1", False: "0", None: "-"}
QUESTION_KEYS = ("id", "question", "choices", "answer", "task", "difficulty", "dataset", "audio_id")
RUN_KEYS = (
    "model_path",
    "model_digest",
    "model_revision",
    "method",
    "training",
    "step",
    "prompt",
    "prompt_template",
    "control",
    "benchmark_sha256",
    "decode",
    "versions",
    "seconds",
)

Json = dict[str, Any]


def read_benchmarks(layout: Layout, *, first: Sequence[str]) -> list[Json]:
    """Every benchmark that a model of this experiment answered, with its questions.

    Args:
        layout: Where they are.
        first: Names in the order of the profile; others that were evaluated follow by name.
    """
    found = {folder.parent.name for folder in evaluation_folders(layout)}
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


def evaluation_folders(layout: Layout) -> list[Path]:
    """Folders `<model>/<benchmark>/<prompt>` that hold a whole evaluation, by name."""
    root = layout.root / "evaluation"
    return sorted(path.parent for path in root.glob("*/*/*/score.json")) if root.is_dir() else []


def read_evaluations(layout: Layout, benchmarks: Sequence[Json]) -> list[Json]:
    """Every whole evaluation, its per-question columns in the benchmark's order."""
    by_name = {benchmark["name"]: benchmark for benchmark in benchmarks}
    evaluations = [
        _read_evaluation(path, by_name[path.parent.name]) for path in evaluation_folders(layout)
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


def _read_evaluation(folder: Path, benchmark: Json) -> Json:
    run = read_json(folder / "run.json")
    score = read_json(folder / "score.json")
    ids = [question["id"] for question in benchmark["questions"]]
    verdicts = {row["id"]: row for row in read_jsonl(folder / "verdicts.jsonl")}
    answers = {row["id"]: row for row in read_appended(folder / "answers.jsonl")}
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
    given = [answers.get(question_id, {}) for question_id in ids]
    evaluation: Json = {
        "model": run.get("model") or folder.parent.parent.name,
        "benchmark": benchmark["name"],
        "folder": folder.name,
        **{key: run.get(key) for key in RUN_KEYS},
        "marks": {name: _marks(ordered, name) for name in score["scorers"]},
        "parsed": "".join("1" if row.get("parsed") else "0" for row in ordered),
        "finished": "".join("1" if row.get("finished", True) else "0" for row in given),
        "answers": [row.get("answer") for row in ordered],
        "reasons": [str(row.get("reason") or "") for row in ordered],
        "completions": [row.get("completion") for row in given],
        "num_tokens": [row.get("num_tokens") for row in given],
    }
    _check_counts(folder, evaluation, score)
    return evaluation


def _marks(verdicts: Sequence[Json], scorer: str) -> str:
    return "".join(MARKS[row.get(scorer)] for row in verdicts)


def read_control_reports(layout: Layout) -> list[Json]:
    """What the controls say of each model, where they were run: `controls.json` of evaluation."""
    root = layout.root / "evaluation"
    return [
        {"model": path.parent.parent.name, "benchmark": path.parent.name, **read_json(path)}
        for path in sorted(root.glob("*/*/controls.json"))
    ]


def _check_counts(folder: Path, evaluation: Json, score: Json) -> None:
    for scorer, marks in evaluation["marks"].items():
        stated = score["scorers"][scorer]["overall"]
        counted = tally(marks)
        if "-" not in marks and (counted.num_correct, counted.num_questions) != (
            stated["num_correct"],
            stated["num_questions"],
        ):
            msg = (
                f"{folder / 'score.json'} says {stated['num_correct']} of "
                f"{stated['num_questions']} right under "
                f"{scorer}, its verdicts.jsonl {counted.num_correct} of {counted.num_questions}; "
                f"delete {folder} and run evaluate again"
            )
            raise PipelineError(msg)
