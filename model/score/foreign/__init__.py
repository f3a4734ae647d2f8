"""Predictions that other tools wrote, matched to a benchmark's questions.

| tool | file | text under | matched by |
|---|---|---|---|
| MMAU's evaluation.py | MMAU's rows, JSON | `model_output`, `model_prediction` | id |
| MMAR's evaluation.py | MMAR's rows | `answer_prediction` | id |
| this project | answers.jsonl | `completion` | id |
| lmms-eval | submission, MMAU's rows | `model_prediction` | id |
| lmms-eval | `--log_samples` lines | `filtered_resps` | id, else prompt |
| NeMo-RL | evaluation_data.json | `response` | prompt |
| ms-swift | infer's JSON lines | `response` | clip's file name, else messages |
| any other | a shape of `file`, by id or prompt | `response`, `prediction`, `pred`, ... | id, ... |

The readers of the tools are in `row`, how rows find their questions in `match`. A row that brings
its question, choices or answer is held against the benchmark's: ids are the same in all versions of
MMAU, and only these tell which version was answered. Every faulty row is counted, none hides
another.

What the official rule sees: rows with MMAU's or MMAR's own keys as they stand, because that is what
the published script does; the other tools' completions after the text of their `<answer>` tag is
taken out, which is what R1-AQA does before it calls that script.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from model.answers import first_answer
from model.score.foreign.file import read_file
from model.score.foreign.match import differences, match_rows
from model.score.foreign.row import PUBLISHED_KEYS, TEXT_KEYS, Fault, Row, tell, to_row
from model.score.scorers import Prediction
from storage.errors import PipelineError
from storage.records.question import Question, list_ids

Versions = Mapping[str, Sequence[Question]]


class Imported(NamedTuple):
    """A file of predictions."""

    predictions: dict[str, Prediction]
    """By question id; ids whose text is null are left out."""
    key: str
    """The key that held the texts."""


def read_predictions(
    path: Path,
    questions: Sequence[Question],
    *,
    key: str | None = None,
    others: Callable[[], Versions] = dict,
) -> Imported:
    """Read predictions of any known tool.

    Args:
        path: The file.
        questions: The benchmark's.
        key: The key that holds the texts; None: whichever known key is there.
        others: Gives other benchmarks' questions by name; asked only where rows do not fit, to say
            what they are of.

    Raises:
        PipelineError: If no known key is there or two differ, or rows are malformed, match no
            question or several, or say otherwise than the benchmark; all of them are counted.
    """
    raw, unread = read_file(path)
    keys = (key,) if key else TEXT_KEYS
    rows = [to_row(place, fields, keys) for place, fields in raw.items()]
    if not rows:
        msg = f"{path} holds no predictions" + (f": {tell(unread, len(unread))}" if unread else "")
        raise PipelineError(msg)
    found = {name for row in rows for name in row.texts}
    found = found or {name for row in raw.values() for name in row}  # all of them null
    leading = next((name for name in keys if name in found), None)
    if leading is None:
        present = ", ".join(sorted({str(name) for row in raw.values() for name in row}))
        wanted = key or f"one of {', '.join(keys)}; name yours by --key"
        raise PipelineError(f"{path} has keys {present}: expected the prediction under {wanted}")
    names, unmatched = match_rows(rows, questions)
    faults = [*unread, *unmatched]
    asked_by_id = {question.id: question for question in questions}
    predictions: dict[str, Prediction] = {}
    strays: list[Row] = []
    for name, row in zip(names, rows, strict=True):
        differing = [] if name is None else list(differences(row, asked_by_id[name]))
        faults += differing
        if name is None or differing:
            strays.append(row)
        elif row.texts:
            read = _prediction(row, name)
            if isinstance(read, Fault):
                faults.append(read)
            else:
                predictions[name] = read
    if faults:
        told = tell(faults, len(raw) + len(unread))
        raise PipelineError(f"{path}: {told}. {_remedy(faults, strays, others)}")
    return Imported(predictions, leading)


def _prediction(row: Row, name: str) -> Prediction | Fault:
    texts: dict[str, str] = {}
    for key, value in row.texts.items():
        samples = cast("list[object]", value) if isinstance(value, list) else [value]
        if len(samples) != 1:  # some tools write a list of one sample
            return Fault("predictions hold several samples", name, f"{key!r} has {len(samples)}")
        if not isinstance(samples[0], str):
            told = f"{key!r} is {type(samples[0]).__name__}"
            return Fault("predictions are not text", name, told)
        texts[key] = samples[0]
    if len({text.strip() for text in texts.values()}) > 1:
        told = ", ".join(f"{key} {text!r}" for key, text in texts.items())
        return Fault("rows hold different texts under two keys", name, told)
    key, text = next(iter(texts.items()))
    tagged = first_answer(text)
    answer = text.strip() if tagged is None else tagged
    return Prediction(text, answer, is_scored_whole=key in PUBLISHED_KEYS)


def _remedy(faults: Sequence[Fault], strays: Sequence[Row], others: Callable[[], Versions]) -> str:
    """What to do about the faults."""
    kinds = " ".join(fault.kind for fault in faults)
    advice: list[str] = []
    if "two keys" in kinds:
        advice.append("Say which key counts (--key)")
    if "more than one prediction" in kinds or "several samples" in kinds:
        advice.append("Keep one a question: a sampled run is scored one sample at a time")
    if strays:
        advice.append(_versions(strays, others()))
    return ". ".join(advice or ["Nothing is scored: mend or leave out these rows"])


def _versions(strays: Sequence[Row], others: Versions) -> str:
    """Whose the rows are that do not fit, as far as it can be known."""
    told: list[str] = []
    for name, questions in others.items():
        asked_by_id = {question.id: question for question in questions}
        names, _ = match_rows(strays, questions)
        fitting = [
            name or row.place
            for name, row in zip(names, strays, strict=True)
            if name is not None and not any(differences(row, asked_by_id[name]))
        ]
        if fitting:
            told.append(f"{len(fitting)} of these rows are of {name} ({list_ids(fitting)})")
    if told:
        return "; ".join(told) + ": name the version that was answered (--benchmark)"
    known = f" (they fit none of {', '.join(others)})" if others else ""
    return f"Are they of another benchmark or version{known}? Name it (--benchmark)"
