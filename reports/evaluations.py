"""Reads one evaluation: a model's answers and verdicts, as columns in the benchmark's order.

Counts are made again from the verdicts and must agree with score.json: a report that shows another
number than the score file is a fault, not a choice.
"""

from collections.abc import Sequence
from pathlib import Path

from reports.numbers.tally import tally
from reports.sheets import EvaluationSheet
from storage.errors import PipelineError
from storage.records.evaluation import (
    Score,
    StoredRun,
    Verdict,
    read_answers,
    read_verdicts,
)
from storage.records.question import Question

MARKS = {True: "1", False: "0", None: "-"}
PICK_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NO_ANSWER, OTHER_TEXT = "-", "?"
SHIFT = "cyclic-shift-"  # controls that rotate the choices


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
    sheet = EvaluationSheet(
        run=run,
        marks={
            name: "".join(MARKS[verdict.of(name)] for verdict in judged) for name in score.scorers
        },
        picks="".join(
            _pick(verdict, shift=shift, num_choices=len(question.choices))
            for verdict, question in zip(judged, questions, strict=True)
        ),
        parsed="".join(MARKS[verdict.parsed] for verdict in judged),
        finished="".join(MARKS[answer is None or answer.finished] for answer in given),
        answers=tuple(verdict.answer for verdict in judged),
        reasons=tuple(verdict.reason for verdict in judged),
        completions=tuple(answer and answer.completion for answer in given),
        num_tokens=tuple(answer and answer.num_tokens for answer in given),
        cut=tuple(answer.id for answer in given if answer and answer.cut),
    )
    _check_counts(folder, sheet, score)
    return sheet


def _pick(verdict: Verdict, *, shift: int, num_choices: int) -> str:
    """The answer's place among the choices as the benchmark has them, not as they were asked."""
    if verdict.choice_index is None:
        return OTHER_TEXT if (verdict.answer or "").strip() else NO_ANSWER
    place = (verdict.choice_index + shift) % num_choices
    return PICK_DIGITS[place] if place < len(PICK_DIGITS) else OTHER_TEXT


def _check_counts(folder: Path, sheet: EvaluationSheet, score: Score) -> None:
    for scorer, marks in sheet.marks.items():
        stated, counted = score.scorers[scorer].overall, tally(marks)
        if "-" not in marks and counted != stated:
            msg = (
                f"{folder / 'score.json'} says {stated.num_correct} of {stated.num_questions} "
                f"right under {scorer}, its verdicts.jsonl {counted.num_correct} of "
                f"{counted.num_questions}; delete {folder} and run evaluate again"
            )
            raise PipelineError(msg)
