"""Multiple-choice questions about audio, in MMAU's schema: checked at the border, trusted inside.

Source: Sakshi113/MMAU, mmau-test-mini.json. What differs between its versions and copies is made
alike here:

- `category` is a list in 13 rows (`["Reasoning"]`), a string in the others;
- the copy on the hub prefixes choices and answers with "(A) ", which the published file does not;
- keys change their order from row to row, and others name them otherwise (storage/mapping.py).

Refused, with the ids: two questions with one id, an answer that is not among the choices (143 rows
of the commits of 15 and 16 May 2025) unless the benchmark's errata list the question, and prefixes
on some choices only. Duplicate choices (20 questions of the original) are allowed.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from storage.errors import PipelineError
from storage.jsonl import Record, to_document, write_bytes
from storage.mapping import R1_AQA_FIELDS, BadRowError, RowMapping, without_letters
from storage.records.question import Question, as_audio_question, benchmark_key, list_ids
from storage.tables import read_rows

MMAU_FIELDS = RowMapping()
FAULTS_SHOWN = 10  # of malformed rows


def read_questions(path: Path, fields: RowMapping = MMAU_FIELDS) -> list[Question]:
    """Read questions that were checked when they came here; PipelineError says what is wrong."""
    return parse_questions(read_rows(path), source=str(path), fields=fields, errata=None)


def parse_questions(
    rows: Sequence[object],
    *,
    source: str,
    fields: RowMapping = MMAU_FIELDS,
    errata: Collection[str] | None = (),
) -> list[Question]:
    """Parse and check rows.

    Args:
        rows: Decoded JSON objects.
        source: Where they come from, for messages.
        fields: The keys of the rows.
        errata: Ids of questions whose answer need not be among the choices; None: of all.

    Raises:
        PipelineError: If a row lacks a key or has a wrong type, or a check fails; names the ids.
    """
    if not rows:
        raise PipelineError(f"{source} holds no questions")
    questions: list[Question] = []
    faults: list[str] = []
    for index, row in enumerate(rows):
        try:
            questions.append(fields.question_of(row))
        except BadRowError as error:
            separator = "" if error.key == "row" else ":"
            faults.append(f"{source}: {fields.place_of(row, index)}{separator} {error}")
    if faults:
        more = [f"and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise PipelineError("\n".join(faults[:FAULTS_SHOWN] + more))
    if fields.id is None:
        questions = _distinct_ids(questions)
    count_by_id = Counter(question.id for question in questions)
    _refuse(
        [name for name, count in count_by_id.items() if count > 1],
        f"{source}: ids are not unique",
        "every question needs its own id; remove the copies",
    )
    bare = {question.id: without_letters(question) for question in questions}
    _refuse(
        [name for name, question in bare.items() if question is None],
        f"{source}: some texts begin with '(A) ' and others do not",
        "give the letters to every choice and to the answer, or to none",
    )
    questions = [question for question in bare.values() if question]
    if errata is not None:
        answered = [q for q in questions if q.answer is not None and q.id not in errata]
        _refuse(
            [question.id for question in answered if question.answer not in question.choices],
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
    return questions


def to_row(question: Question) -> Record:
    """One row in MMAU's schema and in the order of its keys; a withheld answer is left out."""
    clips = question.clips[0] if len(question.clips) == 1 else list(question.clips)
    values = {**asdict(question), "audio_id": clips, "choices": list(question.choices)}
    keys = MMAU_FIELDS.model_dump().items()
    return {key: values[ours] for ours, key in keys if values.get(ours) is not None}


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write questions as a JSON list in MMAU's schema."""
    write_bytes(path, as_file(questions))


def as_file(questions: Iterable[Question]) -> bytes:
    """The file of questions: a JSON list in MMAU's schema."""
    return to_document([to_row(question) for question in questions]).encode("utf-8", "replace")


def keep_questions(name: str, content: bytes, root: Path) -> Path:
    """Write a file of questions to `<root>/<key>/questions.json`, unless it is there and whole."""
    key = benchmark_key(name, hashlib.sha256(content).hexdigest())
    path = root / key / "questions.json"
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)
    return path


def sample_name(name: str, limit: int | None) -> str:
    """Name of a benchmark of which at most so many questions are asked."""
    return name if limit is None else f"{name}-sample-{limit}"


def write_sample(name: str, whole: Path, limit: int) -> Path:
    """Write a sample of a benchmark's questions.json beside it; they share their clips."""
    content = as_file(take_sample(read_questions(whole), limit))
    path = keep_questions(sample_name(name, limit), content, whole.parent.parent)
    audio = whole.parent / "audio"
    audio.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (path.parent / "audio").symlink_to(os.path.relpath(audio, path.parent))
    return path


def take_sample(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most so many questions, of each task its share, in the file's order.

    In each task they are ranked by a hash of their ids, and the lowest ranks are taken from all
    tasks alike; so a larger sample holds the smaller one.
    """
    ranks: dict[str, tuple[float, str]] = {}
    for task in {question.task for question in questions}:
        names = [question.id for question in questions if question.task == task]
        digests = {hashlib.sha256(name.encode()).hexdigest(): name for name in names}
        for place, digest in enumerate(sorted(digests)):
            ranks[digests[digest]] = ((place + 0.5) / len(digests), digest)
    chosen = set(sorted(ranks, key=lambda name: ranks[name])[:limit])
    return [question for question in questions if question.id in chosen]


def from_validation(examples: Iterable[Mapping[str, object]]) -> list[Question]:
    """Make questions of held-out examples (lines of validation.jsonl), to choose checkpoints on.

    The clip is the example's `audio_path`; AVQA knows no tasks, so `task` is `sound` for all, and
    `question_relation` (View, Sound, Both) becomes the category.

    PipelineError if an example lacks a key, or its answer is no index of its choices.
    """
    found: list[Question] = []
    for number, example in enumerate(examples, start=1):
        try:
            question = R1_AQA_FIELDS.question_of(dict(example))
        except BadRowError as error:
            msg = f"the validation examples: line {number}, id {example.get('id')!r}: {error}"
            raise PipelineError(msg) from error
        found.append(replace(question, question=as_audio_question(question.question)))
    return _distinct_ids(found)  # nobody promises that AVQA's ids are unique


def _distinct_ids(questions: Iterable[Question]) -> list[Question]:
    """The same questions; the second of an id is `<id>-2`."""
    num_seen: Counter[str] = Counter()
    found: list[Question] = []
    for question in questions:
        num_seen[question.id] += 1
        number = num_seen[question.id]
        found.append(replace(question, id=f"{question.id}-{number}") if number > 1 else question)
    return found


def _refuse(ids: Sequence[str], fault: str, remedy: str) -> None:
    if ids:
        raise PipelineError(f"{fault}: {len(ids)} question(s): {list_ids(ids)}. To do: {remedy}")
