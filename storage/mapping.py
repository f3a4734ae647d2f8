"""Rows of any shape as questions: one mapping in YAML, of a benchmark and of training data alike.

What a key holds is said, never guessed: `answer` is a text in MMAU, an index in R1-AQA's lines, a
letter in copies of MMAR and MMSU, and among the choices "1", "2", "3" no reader can tell which.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from storage.config import Config
from storage.jsonl import Record, decoded
from storage.records.question import Question

LABELS = ("task", "category", "sub_category", "difficulty", "dataset", "split")
LETTER_PREFIX = re.compile(r"\(([A-Z])\)\s*|([A-Z])[.)]\s+")  # "(A) ", "A. " or "A) "
MADE_ID_CHARACTERS = 12  # of a digest: no two alike among millions of rows


class BadRowError(ValueError):
    """A row that is no question: the key at fault and what was found."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


class Constant(Config):
    """A label that all rows have."""

    constant: str
    """E.g. `speech`."""


Label = str | Constant | None


class RowMapping(Config):
    """Which key of a row holds what, and how; the defaults are MMAU's."""

    id: str | tuple[str, ...] | None = "id"
    """Several keys are joined by `-`; null: ids are made of what is asked."""
    audio_id: str = "audio_id"
    """Key of the clip's path, of a list of paths, or of a column with audio inside."""
    question: str = "question"
    """Key of the question's text."""
    choices: str | tuple[str, ...] = "choices"
    """Key of a list, of a mapping by letter or of a text; or a key a choice (`[choice_a, ...]`),
    of which the last may be empty."""
    separator: str | None = None
    """What stands between choices in a text; null: the text is a JSON list."""
    answer: str = "answer"
    """Key of the right answer."""
    answer_is: Literal["text", "letter", "index"] = "text"
    """The choice's text, its letter, or its place from 0."""
    task: Label = "task"
    """Key, or `{constant: speech}`, or null. So are the labels below."""
    category: Label = "category"
    """E.g. `Reasoning`."""
    sub_category: Label = "sub-category"
    """E.g. `Temporal Reasoning`."""
    difficulty: Label = "difficulty"
    """E.g. `easy`."""
    dataset: Label = "dataset"
    """Where the clip comes from."""
    split: Label = "split"
    """E.g. `test-mini`."""

    def question_of(self, row: object) -> Question:
        """The question that a row asks; BadRowError if a key is missing or holds something else."""
        if not isinstance(row, dict):
            raise BadRowError("row", f"is {type(row).__name__}, expected a JSON object")
        fields = cast("Record", row)
        lettered = self._choices(fields)
        choices = tuple(choice for choice in lettered.values() if choice is not None)
        if len(choices) < 2:
            keys = (self.choices,) if isinstance(self.choices, str) else self.choices
            shown = [fields.get(key) for key in keys]
            raise BadRowError(
                keys[0],
                f"{', '.join(map(repr, keys))} is {shown[0] if len(shown) == 1 else shown!r}, "
                "expected a list of two or more texts",
            )
        question = Question(
            id="",
            clips=self._clips(fields),
            question=_text(fields, self.question),
            choices=choices,
            answer=self._answer(fields, lettered),
            **{label: _label(fields, getattr(self, label)) for label in LABELS},
        )
        keys = (self.id,) if isinstance(self.id, str) else self.id or ()
        return replace(
            question, id="-".join(_text(fields, key) for key in keys) or _made_id(question)
        )

    def place_of(self, row: object, index: int) -> str:
        """A row as messages name it."""
        if not isinstance(row, dict) or not isinstance(self.id, str):
            return f"row {index}"
        return f"question {cast('Record', row).get(self.id)!r} (row {index})"

    def _clips(self, row: Record) -> tuple[str, ...]:
        value = row.get(self.audio_id)
        if isinstance(value, list) and value:
            return tuple(_text({self.audio_id: clip}, self.audio_id) for clip in cast("Any", value))
        return (_text(row, self.audio_id),)

    def _choices(self, row: Record) -> dict[str, str | None]:
        """The choices by letter; None where a row leaves one out."""
        if not isinstance(self.choices, str):
            given = [row.get(key) for key in self.choices]
            return _lettered([str(value) if value not in (None, "") else None for value in given])
        value = row.get(self.choices)
        if isinstance(value, str) and self.separator is not None:
            value = [part.strip() for part in value.split(self.separator) if part.strip()]
        value = decoded(value)
        if isinstance(value, dict):
            return {str(key): str(text) for key, text in cast("Record", value).items()}
        listed = cast("list[Any]", value) if isinstance(value, list) else []
        is_text = all(isinstance(choice, str) for choice in listed)
        return _lettered(cast("list[str | None]", listed) if is_text else [])

    def _answer(self, row: Record, choices: dict[str, str | None]) -> str | None:
        given = row.get(self.answer)
        if given in (None, ""):
            return None
        if self.answer_is == "text":
            return _text(row, self.answer)
        if self.answer_is == "letter":
            found = choices.get(str(given).strip("(). "))
            expected = f"a letter of {', '.join(choices)}"
        else:
            is_index = not isinstance(given, bool) and str(given).isdecimal()
            texts = list(choices.values())
            found = texts[int(given)] if is_index and int(given) < len(texts) else None
            expected = f"an index from 0 to {len(texts) - 1}"
        if found is None:
            raise BadRowError(self.answer, f"{self.answer!r} is {given!r}, expected {expected}")
        return found


# A line of R1-AQA's train.jsonl; AVQA knows no tasks, and asks about view, sound or both.
R1_AQA_FIELDS = RowMapping(
    audio_id="audio_path",
    question="question_text",
    choices="multi_choice",
    answer_is="index",
    task=Constant(constant="sound"),
    category="question_relation",
    sub_category="question_type",
    difficulty=None,
    dataset="dataset_name",
    split=Constant(constant="validation"),
)


def bare(text: str) -> str:
    """A choice without "(A) " before it."""
    return LETTER_PREFIX.sub("", text, count=1) if LETTER_PREFIX.match(text) else text


def without_letters(question: Question) -> Question | None:
    """The question without "(A) " where every choice and the answer have it; None: some only."""
    letters = [_letter(choice) for choice in question.choices]
    expected = [chr(ord("A") + index) for index in range(len(letters))]
    if letters == expected:
        if question.answer is not None and _letter(question.answer) is None:
            return None
        choices = tuple(bare(choice) for choice in question.choices)
        return replace(question, choices=choices, answer=question.answer and bare(question.answer))
    pairs = zip(question.choices, letters, expected, strict=True)
    # "A. Lincoln" is a name.
    is_partly = any(choice[:1] == "(" and letter == want for choice, letter, want in pairs)
    return None if is_partly else question


def _letter(text: str) -> str | None:
    match = LETTER_PREFIX.match(text)
    return match and (match.group(1) or match.group(2))


def _made_id(question: Question) -> str:
    asked = json.dumps([question.clips, question.question, question.choices])
    return hashlib.sha256(asked.encode("utf-8", "replace")).hexdigest()[:MADE_ID_CHARACTERS]


def _lettered(choices: Sequence[str | None]) -> dict[str, str | None]:
    return {chr(ord("A") + index): choice for index, choice in enumerate(choices)}


def _text(row: Record, key: str) -> str:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise BadRowError(key, f"{key!r} is {value!r}, expected text")
    return str(value)


def _label(row: Record, label: Label) -> str:
    """A label as text: `["Reasoning"]`, and the same as a string, become `Reasoning`."""
    if isinstance(label, Constant):
        return label.constant
    value = row.get(label) if label else None
    if isinstance(value, str):
        is_list = value.startswith("['") and value.endswith("']")
        return value[2:-2].replace("', '", ", ") if is_list else value
    if isinstance(value, list):
        return ", ".join(str(part) for part in cast("list[Any]", value))
    return "" if value is None else str(value)
