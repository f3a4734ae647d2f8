r"""Right or wrong: MMAU's official rule and a strict one, side by side, counted by category.

`official` decides as evaluation.py of Sakshi113/MMAU (and of ddlBoJack/MMAR) does on every input.
Words are `\b\w+\b` of the lower-cased text. A prediction is right when every word of the answer is
in it, and none of the words that only wrong choices have; a choice with the same set of words as
the answer is not a wrong one; a prediction without words is wrong. So word order does not matter
("first: neutral, second: frustration" is any order), "B. dog" is right while "B" is not, and an
answer without words is right for any prediction that has no word of the others.

`strict` asks that the completion affirms one choice, and the right one, as a careful reader takes
it (`model.answers.read_choice`).

Different from the published script on purpose: a missing prediction is wrong, not skipped.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from model.answers import read_choice
from model.config import ScorerName
from model.score.controls import asked_questions
from storage.benchmarks.parse import to_row
from storage.errors import PipelineError
from storage.jsonl import Record, write_json
from storage.manifest import file_digest
from storage.records.evaluation import (
    Answer,
    Counts,
    EvaluationRun,
    Hashes,
    Score,
    Tally,
    Verdict,
    read_answers,
    write_verdicts,
)
from storage.records.question import Question, list_ids

WORD = re.compile(r"\b\w+\b")
GROUPS = ("task", "difficulty", "category", "sub-category")
Mark = TypeVar("Mark")
Count = TypeVar("Count")


class Prediction(NamedTuple):
    """What a model said to one question."""

    text: str
    """The completion as it came."""
    answer: str | None
    """The answer taken out of it; None if there was none."""
    is_scored_whole: bool = False
    """Whether the official rule judges the whole text, although it holds an answer."""

    @property
    def scored(self) -> str:
        """What the official rule judges: the answer; without one the text, as R1-AQA does."""
        return self.text if self.is_scored_whole or self.answer is None else self.answer


def is_right_officially(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """MMAU's string match."""
    predicted, wanted = _words(prediction), _words(answer)
    of_wrong_choices = _words("\n".join(choices)) - wanted
    return bool(predicted) and wanted <= predicted and predicted.isdisjoint(of_wrong_choices)


def judge(question: Question, prediction: Prediction | None) -> Verdict:
    """Judge one prediction; None, a missing one, is wrong under both scorers."""
    if prediction is None:
        wrong = None if question.answer is None else False
        return Verdict(question.id, None, None, wrong, wrong, reason="wrong: no prediction")
    index, reason, rule = read_choice(prediction.text or prediction.answer or "", question.choices)
    official = strict = None
    if question.answer is not None:
        official = is_right_officially(question.answer, prediction.scored, question.choices)
        strict = index is not None and question.choices[index] == question.answer
        if strict:
            reason = f"right: {reason}"
        else:
            reason = f"wrong: {reason if index is None else 'another choice'}"
    return Verdict(question.id, prediction.answer, index, official, strict, reason, rule)


def judge_all(
    questions: Iterable[Question], predictions: Mapping[str, Prediction | None]
) -> list[Verdict]:
    """Judge every question, in the benchmark's order."""
    return [judge(question, predictions.get(question.id)) for question in questions]


def judge_lines(
    questions: Sequence[Question], control: str | None, lines: Iterable[Record]
) -> list[tuple[Question, Verdict]]:
    """Judge some lines of answers.jsonl, beside their questions as they were asked."""
    asked = {question.id: question for question in asked_questions(questions, control)}
    answers = [Answer(**line) for line in lines]
    return [(q := asked[a.id], judge(q, _prediction(a))) for a in answers if a.id in asked]


def tally(is_right: Sequence[bool]) -> Tally:
    """Count."""
    return Tally(sum(is_right), len(is_right))


def score(
    questions: Sequence[Question],
    verdicts: Sequence[Verdict],
    scorers: Sequence[ScorerName],
    *,
    benchmark: str,
    hashes: Hashes,
) -> Score:
    """Count verdicts overall and by task, difficulty, category and sub-category.

    No scorer counts where the benchmark withholds its answers.
    """
    knows = all(question.answer is not None for question in questions)
    return Score(
        benchmark=benchmark,
        scorers={name: _count(questions, verdicts, name) for name in scorers} if knows else {},
        num_questions=len(questions),
        num_unparsed=sum(not verdict.parsed for verdict in verdicts),
        hashes=hashes,
    )


def score_folder(
    folder: Path, questions: Sequence[Question], scorers: Sequence[ScorerName]
) -> Score:
    """Judge a folder's answers.jsonl; writes verdicts.jsonl and score.json beside it.

    Where the benchmark withholds its answers, score.json holds no scorer, and submission.json is
    written too. Choices that a control shifted are shifted here too.

    Raises:
        PipelineError: If questions have no answer line; names the missing ids.
    """
    answers_path = folder / "answers.jsonl"
    run = EvaluationRun.read(folder / "run.json")
    asked = asked_questions(questions, run.key.control)
    predictions = {answer.id: _prediction(answer) for answer in read_answers(answers_path)}
    missing = [question.id for question in questions if question.id not in predictions]
    if missing:
        raise PipelineError(
            f"{answers_path} covers {len(questions) - len(missing)} of {len(questions)} questions; "
            f"missing: {list_ids(missing)}. A partial file has no score: answer the rest"
        )
    verdicts = judge_all(asked, predictions)
    hashes = Hashes(questions=run.questions_sha256, answers=file_digest(answers_path))
    result = score(asked, verdicts, scorers, benchmark=run.benchmark_name, hashes=hashes)
    write_verdicts(folder / "verdicts.jsonl", verdicts)
    if not result.scorers:
        write_json(folder / "submission.json", submission_rows(asked, predictions))
    result.write(folder / "score.json")
    return result


def submission_rows(
    questions: Sequence[Question], predictions: Mapping[str, Prediction | None]
) -> list[Record]:
    """Rows of a submission file: MMAU's keys, and the prediction under both names that MMAU uses.

    What a clip that cannot be read leaves unanswered is sent as an empty prediction.

    Raises:
        PipelineError: If a question has no prediction; names the ids.
    """
    missing = [question.id for question in questions if question.id not in predictions]
    if missing:
        msg = f"a submission needs every question: {len(missing)} missing, {list_ids(missing)}"
        raise PipelineError(msg)
    rows: list[Record] = []
    for question in questions:
        prediction = predictions[question.id]
        text = prediction.scored if prediction else ""
        rows.append({**to_row(question), "model_output": text, "model_prediction": text})
    return rows


def by_group(
    questions: Sequence[Question],
    marks: Sequence[Mark],
    count: Callable[[Sequence[Mark]], Count],
) -> dict[str, dict[str, Count]]:
    """Count the marks, one a question, by task, difficulty, category, sub-category and label."""
    counted: dict[str, dict[str, Count]] = {}
    for group in GROUPS:
        by_label: dict[str, list[Mark]] = {}
        for question, mark in zip(questions, marks, strict=True):
            label: str = getattr(question, group.replace("-", "_"))
            by_label.setdefault(label, []).append(mark)
        counted[group] = {label: count(by_label[label]) for label in sorted(by_label)}
    return counted


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


def _prediction(answer: Answer) -> Prediction | None:
    """An answer with an `error` (an unreadable clip) predicts nothing."""
    return None if answer.error else Prediction(answer.completion, answer.answer)


def _count(
    questions: Sequence[Question], verdicts: Sequence[Verdict], scorer: ScorerName
) -> Counts:
    is_right = [verdict.of(scorer) is True for verdict in verdicts]
    return Counts(overall=tally(is_right), groups=by_group(questions, is_right, tally))
