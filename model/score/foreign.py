"""Predictions that other tools wrote, matched to a benchmark's questions.

| tool | file | text under | matched by |
|---|---|---|---|
| MMAU's evaluation.py | MMAU's rows, JSON | `model_output`, `model_prediction` | id |
| lmms-eval | submission, the same rows | `model_prediction` | id |
| MMAR's evaluation.py | MMAR's rows | `answer_prediction` | id |
| this project | answers.jsonl | `completion` | id |
| NeMo-RL | evaluation_data.json | `response` | prompt |
| ms-swift | infer's JSON lines | `response` | clip's file name, else messages |
| any other | rows, or one object of texts by id | `prediction`, `response`, `completion` | id |

Sources: EvolvingLMMs-Lab/lmms-eval@a74c71f lmms_eval/tasks/mmau/utils.py (its `choices` are JSON
text; what it cannot parse is a random choice there, so nothing of it counts as unparsed here);
NVIDIA-NeMo/RL@05056d0 nemo_rl/evals/eval.py and nemo_rl/data/datasets/eval_datasets/mmau.py (one
list under `evaluation_data`, the prompt as text without the audio, in R1-AQA's wording);
modelscope/ms-swift@0319d04 swift/pipelines/infer/infer.py (a line a row: `response`, `labels`,
`logprobs`, then the data set's own row, whose `messages` end with the response).

A row without an id is matched by the question in its prompt and the choices after it, in their
order: MMAU asks "Did any speaker's emotion shift?" of three clips, with the same choices otherwise
ordered. Where questions are alike in all of it (three of MMAU's original ask for the beat count),
rows are taken in the benchmark's order, if there are as many of them.

What the official rule sees: rows with MMAU's or MMAR's own keys as they stand, because that is what
the published script does; the other tools' completions after the text of their `<answer>` tag is
taken out, which is what R1-AQA does before it calls that script.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from model.answers import extract_answer
from model.score.scorers import Prediction
from storage.benchmarks.parse import LETTER_PREFIX, read_rows
from storage.errors import PipelineError
from storage.jsonl import Record
from storage.records.question import Question, list_ids

# Read by the published scripts as they stand. MMAU's code reads the first, its README names the
# second; MMAR reads the third.
PUBLISHED_KEYS = ("model_output", "model_prediction", "answer_prediction")
COMPLETION_KEYS = ("completion", "response", "prediction", "output")
ID_KEYS = ("id", "question_id")
CLIP_KEYS = ("audio_id", "audio_path", "audio", "audios")
PROMPT_KEYS = ("prompt", "messages", "question", "query")

SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Imported:
    """A file of predictions."""

    predictions: dict[str, Prediction]
    """By question id; ids whose text is null are left out."""
    key: str
    """The key that held the texts."""
    num_rows: int
    """Rows of the file."""


def read_predictions(path: Path, questions: Sequence[Question]) -> Imported:
    """Read predictions of any known tool.

    Raises:
        PipelineError: If the file has no known key, ids are unknown or come twice, rows match no
            question or several, or they carry other choices than the benchmark's.
    """
    rows = _rows(path, questions)
    key = _text_key(rows, path)
    names = _names(rows, questions, path)
    _refuse_other_choices(rows, names, questions, path)
    predictions: dict[str, Prediction] = {}
    for name, row in zip(names, rows, strict=True):
        if row.get(key) is not None:
            predictions[name] = _prediction(row[key], key, f"{path}: {key!r} of {name}")
    return Imported(predictions, key, len(rows))


def _rows(path: Path, questions: Sequence[Question]) -> list[Record]:
    """The file's rows; an object of texts by id becomes rows too."""
    known = {question.id for question in questions}
    rows: list[Record] = []
    for index, row in enumerate(read_rows(path)):
        if not isinstance(row, dict):
            msg = f"{path}: row {index} is {type(row).__name__}, expected a JSON object"
            raise PipelineError(msg)
        rows.append(cast("Record", row))
    if len(rows) == 1 and set(rows[0]) & known:
        return [{"id": name, "prediction": text} for name, text in rows[0].items()]
    if not rows:
        msg = f"{path} holds no predictions"
        raise PipelineError(msg)
    return rows


def _text_key(rows: Sequence[Record], path: Path) -> str:
    known = (*PUBLISHED_KEYS, *COMPLETION_KEYS)
    found = [key for key in known if any(key in row for row in rows)]
    if not found:
        keys = ", ".join(sorted({str(key) for row in rows[:100] for key in row}))
        msg = f"{path} has keys {keys}: expected the prediction under one of {', '.join(known)}"
        raise PipelineError(msg)
    both = [key for key in found if key in PUBLISHED_KEYS]
    for row in rows:
        if len({str(row[key]) for key in both if row.get(key) is not None}) > 1:
            msg = f"{path}: {' and '.join(both)} of {row.get('id')} differ: keep one of the keys"
            raise PipelineError(msg)
    return found[0]


def _prediction(value: object, key: str, place: str) -> Prediction:
    samples = cast("list[object]", value) if isinstance(value, list) else []
    if len(samples) == 1:
        value = samples[0]  # some tools write a list of one sample
    if not isinstance(value, str):
        msg = f"{place} is {type(cast('object', value)).__name__}, expected text"
        raise PipelineError(msg)
    tagged = extract_answer(value, "answer")
    answer = value.strip() if tagged is None else tagged
    return Prediction(value, answer, is_scored_whole=key in PUBLISHED_KEYS)


def _names(rows: Sequence[Record], questions: Sequence[Question], path: Path) -> list[str]:
    """The question id of each row."""
    id_key = next((key for key in ID_KEYS if all(row.get(key) is not None for row in rows)), None)
    names = _by_content(rows, questions, path) if id_key is None else [str(r[id_key]) for r in rows]
    known = {question.id for question in questions}
    unknown = [name for name in names if name not in known]
    if unknown:
        msg = (
            f"{path}: {len(unknown)} of {len(names)} ids are not in the benchmark "
            f"({list_ids(unknown)}): are these predictions for another benchmark or version?"
        )
        raise PipelineError(msg)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        msg = (
            f"{path}: {len(twice)} question(s) have more than one prediction: {list_ids(twice)}. "
            "Keep one a question; a sampled run with several is scored one sample at a time"
        )
        raise PipelineError(msg)
    return names


def _by_content(rows: Sequence[Record], questions: Sequence[Question], path: Path) -> list[str]:
    by_clip = {Path(question.clips[0]).stem: question.id for question in questions}
    clips = [_clip(row) for row in rows]
    if all(clip in by_clip for clip in clips):
        return [by_clip[clip] for clip in clips]
    ids_by_text: dict[str, list[str]] = {}
    for question in questions:
        ids_by_text.setdefault(_plain(question.question), []).append(question.id)
    asked_by_id = {question.id: question for question in questions}
    rows_by_ids: dict[tuple[str, ...], list[int]] = {}
    unmatched: list[str] = []
    for index, row in enumerate(rows):
        ids = _ids_in(_prompt(row), ids_by_text, asked_by_id)
        if ids:
            rows_by_ids.setdefault(ids, []).append(index)
        else:
            unmatched.append(str(row.get("sample_index", index)))
    if unmatched:
        msg = (
            f"{path}: {len(unmatched)} of {len(rows)} rows have no id, and their prompt holds no "
            f"question of this benchmark: rows {list_ids(unmatched)}"
        )
        raise PipelineError(msg)
    names = [""] * len(rows)
    for ids, indices in rows_by_ids.items():
        if len(ids) > 1 and len(indices) != len(ids):
            msg = (
                f"{path}: {len(ids)} questions have the same text ({list_ids(ids)}), but "
                f"{len(indices)} rows hold it: which is which cannot be told; add ids"
            )
            raise PipelineError(msg)
        # One question with several rows is found out later: its id then comes twice.
        for place, index in enumerate(indices):
            names[index] = ids[min(place, len(ids) - 1)]
    return names


def _ids_in(
    prompt: str, ids_by_text: Mapping[str, list[str]], asked_by_id: Mapping[str, Question]
) -> tuple[str, ...]:
    """Ids of the questions whose text a prompt holds, and then their choices in their order.

    Of the longest such text, and of those the ones with the longest choices.
    """
    plain = _plain(prompt)
    found = [text for text in ids_by_text if text in plain]
    for text in sorted(found, key=len, reverse=True):
        rest = plain.partition(text)[2]
        ids = [
            name for name in ids_by_text[text] if _holds_in_order(rest, asked_by_id[name].choices)
        ]
        most = max((sum(map(len, asked_by_id[name].choices)) for name in ids), default=0)
        if ids:
            return tuple(n for n in ids if sum(map(len, asked_by_id[n].choices)) == most)
    return ()


def _holds_in_order(text: str, choices: Sequence[str]) -> bool:
    """Whether a text holds the choices one after the other, each as words of its own."""
    place = 0
    for choice in choices:
        match = re.compile(rf"(?<!\w){re.escape(_plain(choice))}(?!\w)").search(text, place)
        if match is None:
            return False
        place = match.end()
    return True


def _prompt(row: Record) -> str:
    """What was asked: a text, or the user's messages; an escaped list of choices is unescaped."""
    for key in PROMPT_KEYS:
        value = row.get(key)
        if isinstance(value, str):
            return value + str(row.get("choices") or "")
        if isinstance(value, list):
            messages = cast("list[Any]", value)
            return "\n".join(_content(message) for message in messages)
    return ""


def _content(message: Any) -> str:  # noqa: ANN401  decoded JSON
    """A user message's text; what the model answered is not the question."""
    if not isinstance(message, dict):
        return ""
    fields = cast("Record", message)
    content = fields.get("content")
    if fields.get("role") == "assistant":
        return ""
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  decoded JSON
    return str(content or "")


def _clip(row: Record) -> str:
    for key in CLIP_KEYS:
        value = row.get(key)
        if isinstance(value, list) and len(cast("list[Any]", value)) == 1:
            value = cast("list[Any]", value)[0]
        if isinstance(value, dict):  # as `datasets` holds a file: its bytes, and its name
            value = cast("Record", value).get("path")
        if isinstance(value, str) and value:
            return Path(value).stem
    return ""


def _plain(text: str) -> str:
    """A text without regard to spacing, and with the quotes that Python's repr escapes put back."""
    return SPACE.sub(" ", text.replace("\\'", "'").replace('\\"', '"')).strip()


def _refuse_other_choices(
    rows: Sequence[Record], names: Sequence[str], questions: Sequence[Question], path: Path
) -> None:
    """Refuse rows that bring other choices: they answer another version of the question."""
    asked_by_id = {question.id: question for question in questions}
    other: list[str] = []
    for row, name in zip(rows, names, strict=True):
        choices = _choices(row.get("choices"))
        given = tuple(LETTER_PREFIX.sub("", choice, count=1) for choice in choices)
        # A choice of the benchmark may itself begin with a letter in brackets.
        if choices and asked_by_id[name].choices not in (given, choices):
            other.append(name)
    if other:
        msg = (
            f"{path}: {len(other)} rows carry other choices than the benchmark has, or another "
            f"order of them: {list_ids(other)}. Name the version that was answered (--benchmark)"
        )
        raise PipelineError(msg)


def _choices(value: Any) -> tuple[str, ...]:  # noqa: ANN401  decoded JSON
    """A row's choices: a list, or lmms-eval's JSON text of one; empty where it has none."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    return tuple(map(str, cast("list[Any]", value))) if isinstance(value, list) else ()
