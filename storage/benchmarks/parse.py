"""Multiple-choice questions about audio, in MMAU's schema: checked at the border, trusted inside.

Source: Sakshi113/MMAU, mmau-test-mini.json. What differs between its versions and copies is made
alike here:

- `category` is a list in 13 rows (`["Reasoning"]`), a string in the others;
- the copy on the hub prefixes choices and answers with "(A) ", which the published file does not;
- the order of the keys changes from row to row, and MMAR names some keys otherwise (`FieldNames`).

Refused, with the ids: two questions with one id, an answer that is not among the choices (143 rows
of the commits of 15 and 16 May 2025), and prefixes on some choices only. Duplicate choices (20
questions of the original, 27 of v05.15.25) are allowed: answers are compared by text.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from storage.config import Config
from storage.errors import PipelineError
from storage.jsonl import Record, to_document, write_bytes
from storage.records.question import Question, list_ids

LETTER_PREFIX = re.compile(r"\(([A-Z])\)\s*")


class FieldNames(Config):
    """The keys of a benchmark's rows; the defaults are MMAU's."""

    id: str = "id"
    audio_id: str = "audio_id"
    question: str = "question"
    choices: str = "choices"
    answer: str = "answer"
    task: str = "task"
    category: str = "category"
    sub_category: str = "sub-category"
    difficulty: str = "difficulty"
    dataset: str = "dataset"
    split: str = "split"


MMAU_FIELDS = FieldNames()


def read_questions(path: Path, fields: FieldNames = MMAU_FIELDS) -> list[Question]:
    """Read and check a file of questions, a JSON list or JSON lines.

    Raises:
        PipelineError: If the file is missing, unreadable, or fails a check; names the ids.
    """
    return parse_questions(read_rows(path), source=str(path), fields=fields)


def parse_questions(
    rows: Sequence[object], *, source: str, fields: FieldNames = MMAU_FIELDS
) -> list[Question]:
    """Parse and check rows.

    Args:
        rows: Decoded JSON objects.
        source: Where they come from, for messages.
        fields: The keys of the rows.

    Raises:
        PipelineError: If a row lacks a key or has a wrong type, or a check fails; names the ids.
    """
    if not rows:
        msg = f"{source} holds no questions"
        raise PipelineError(msg)
    questions = [_parse(row, index, source, fields) for index, row in enumerate(rows)]
    return check_questions(_without_prefixes(questions, source), source=source)


def check_questions(questions: Sequence[Question], *, source: str) -> list[Question]:
    """Refuse questions that cannot be scored; returns them as they are.

    Raises:
        PipelineError: On duplicate ids, answers that are not choices, or answers for some only.
    """
    count_by_id = Counter(question.id for question in questions)
    _refuse(
        [name for name, count in count_by_id.items() if count > 1],
        f"{source}: ids are not unique",
        "every question needs its own id; remove the copies",
    )
    _refuse(
        [q.id for q in questions if q.answer is not None and q.answer not in q.choices],
        f"{source}: the answer is not among the choices",
        "take another commit of the benchmark (MMAU's of 15 and 16 May 2025 have this fault), "
        "or correct the rows",
    )
    unanswered = [q.id for q in questions if q.answer is None]
    if len(unanswered) < len(questions):
        _refuse(
            unanswered,
            f"{source}: the answer is missing",
            "a benchmark gives the answers to all of its questions, or to none",
        )
    return list(questions)


def to_row(question: Question) -> Record:
    """One row in MMAU's schema and in the order of its keys; a withheld answer is left out."""
    values = {**asdict(question), "audio_id": question.clips[0], "choices": list(question.choices)}
    keys = MMAU_FIELDS.model_dump().items()
    return {key: values[ours] for ours, key in keys if values[ours] is not None}


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write questions as a JSON list in MMAU's schema."""
    write_bytes(path, as_file(questions))


def as_file(questions: Iterable[Question]) -> bytes:
    """The file of questions: a JSON list in MMAU's schema."""
    return to_document([to_row(question) for question in questions]).encode("utf-8", "replace")


def from_validation(examples: Iterable[Mapping[str, object]]) -> list[Question]:
    """Make questions of held-out examples (lines of validation.jsonl), to choose checkpoints on.

    The clip is the example's `audio_path`; AVQA knows no tasks, so `task` is `sound` for all, and
    `question_relation` (View, Sound, Both) becomes the category.

    Raises:
        PipelineError: If an example lacks a key, or its answer is not among its choices.
    """
    rows = [_validation_row(dict(example)) for example in examples]
    num_seen: Counter[str] = Counter()
    for row in rows:  # nobody promises that AVQA's ids are unique
        num_seen[str(row.get("id"))] += 1
        if num_seen[str(row.get("id"))] > 1:
            row["id"] = f"{row['id']}-{num_seen[str(row['id'])]}"
    fields = FieldNames(audio_id="audio_path", question="question_text", choices="multi_choice")
    return parse_questions(rows, source="the validation examples", fields=fields)


def with_duplicate_choices(questions: Iterable[Question]) -> list[str]:
    """Ids of questions that offer one text twice: worth listing, no reason to refuse the file."""
    return [q.id for q in questions if len(set(q.choices)) < len(q.choices)]


def _validation_row(example: Record) -> Record:
    choices, answer = example.get("multi_choice"), example.get("answer")
    if isinstance(choices, list) and isinstance(answer, int) and 0 <= answer < len(choices):  # pyright: ignore[reportUnknownArgumentType]  decoded JSON
        example["answer"] = choices[answer]
    text = example.get("question_text")
    if isinstance(text, str):  # AVQA asks about videos, training asks the same about the audio
        example["question_text"] = text.replace("video", "audio")
    labels = {
        "task": "sound",
        "category": example.get("question_relation", ""),
        "sub-category": example.get("question_type", ""),
        "dataset": example.get("dataset_name", "AVQA"),
        "split": "validation",
    }
    return example | labels


def read_rows(path: Path) -> list[Any]:
    """Read the rows of a JSON list, of JSON lines, or of a JSON object that holds one list.

    Raises:
        PipelineError: If the file is missing or is none of these.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        msg = f"{path} is missing"
        raise PipelineError(msg) from error
    except IsADirectoryError as error:
        msg = f"{path} is not a text file of JSON or JSON lines: {error}"
        raise PipelineError(msg) from error
    return rows_in(content, source=str(path))


def rows_in(content: bytes, *, source: str) -> list[Any]:
    """The rows in a file's content, as `read_rows` reads them.

    Args:
        content: Of the file.
        source: Its path or address, for messages.

    Raises:
        PipelineError: If it is none of the known kinds.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{source} is not a text file of JSON or JSON lines: {error}"
        raise PipelineError(msg) from error
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        if "\n" not in text.strip():
            msg = f"{source} is not JSON: {error}"
            raise PipelineError(msg) from error
        return _read_lines(text, source)
    if isinstance(document, list):
        return cast("list[Any]", document)
    if isinstance(document, dict):
        fields = cast("Record", document)
        lists = [cast("list[Any]", value) for value in fields.values() if isinstance(value, list)]
        if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
            return lists[0]
        return [fields]  # JSON lines with one line
    msg = f"{source} holds {type(document).__name__}, expected a list of rows"
    raise PipelineError(msg)


def _read_lines(text: str, source: str) -> list[Any]:
    rows: list[Any] = []
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            place = f"{source}:{line_number}"
            msg = f"{place} is neither a line of JSON nor part of one document: {error}"
            raise PipelineError(msg) from error
    return rows


def _parse(row: Any, index: int, source: str, fields: FieldNames) -> Question:  # noqa: ANN401  decoded JSON
    if not isinstance(row, dict):
        msg = f"{source}: row {index} is {type(row).__name__}, expected a JSON object"
        raise PipelineError(msg)
    record = cast("Record", row)
    place = f"{source}: question {record.get(fields.id)!r} (row {index})"
    answer = record.get(fields.answer)
    return Question(
        id=_text(record, fields.id, place),
        clips=(_text(record, fields.audio_id, place),),
        question=_text(record, fields.question, place),
        choices=_choices(record.get(fields.choices), f"{place}: {fields.choices!r}"),
        answer=None if answer in (None, "") else _text(record, fields.answer, place),
        task=_text(record, fields.task, place),
        category=_label(record.get(fields.category)),
        sub_category=_label(record.get(fields.sub_category)),
        difficulty=_label(record.get(fields.difficulty)),
        dataset=_label(record.get(fields.dataset)),
        split=_label(record.get(fields.split)),
    )


def _text(row: Record, key: str, place: str) -> str:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        msg = f"{place}: {key!r} is {value!r}, expected text"
        raise PipelineError(msg)
    return str(value)


def _choices(value: Any, place: str) -> tuple[str, ...]:  # noqa: ANN401  decoded JSON
    decoded = value
    if isinstance(value, str):  # one copy on the hub holds the list as JSON text
        with contextlib.suppress(ValueError):
            decoded = json.loads(value)
    choices = cast("list[Any]", decoded) if isinstance(decoded, list) else []
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        msg = f"{place} is {value!r}, expected a list of two or more texts"
        raise PipelineError(msg)
    return tuple(choices)


def _label(value: Any) -> str:  # noqa: ANN401  decoded JSON
    """A label as text: `["Reasoning"]`, and the same as a string, become `Reasoning`."""
    if isinstance(value, str):
        is_list = value.startswith("['") and value.endswith("']")
        return value[2:-2].replace("', '", ", ") if is_list else value
    if isinstance(value, list):
        return ", ".join(str(part) for part in cast("list[Any]", value))
    return "" if value is None else str(value)


def _without_prefixes(questions: Sequence[Question], source: str) -> list[Question]:
    """Take "(A) " off where every choice and the answer have it; refuse it on some only."""
    mixed: list[str] = []
    stripped: list[Question] = []
    for question in questions:
        letters = [_letter(choice) for choice in question.choices]
        expected = [chr(ord("A") + index) for index in range(len(question.choices))]
        answer_has = question.answer is None or _letter(question.answer) is not None
        if letters == expected and answer_has:
            stripped.append(_strip(question))
        elif letters == expected or _is_partly(letters, expected):
            mixed.append(question.id)
        else:
            stripped.append(question)
    _refuse(
        mixed,
        f"{source}: some texts begin with '(A) ' and others do not",
        "give the letters to every choice and to the answer, or to none",
    )
    return stripped


def _is_partly(letters: Sequence[str | None], expected: Sequence[str]) -> bool:
    return any(letter == want for letter, want in zip(letters, expected, strict=True))


def _letter(text: str) -> str | None:
    match = LETTER_PREFIX.match(text)
    return match.group(1) if match else None


def _strip(question: Question) -> Question:
    choices = tuple(_bare(choice) for choice in question.choices)
    return replace(question, choices=choices, answer=question.answer and _bare(question.answer))


def _bare(text: str) -> str:
    return LETTER_PREFIX.sub("", text, count=1)


def _refuse(ids: Sequence[str], fault: str, remedy: str) -> None:
    if ids:
        msg = f"{fault}: {len(ids)} question(s): {list_ids(ids)}. To do: {remedy}"
        raise PipelineError(msg)
