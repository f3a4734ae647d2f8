"""Clips out of a data set on the hub: one file a question, with the bytes that the data set holds.

The copies of MMAU differ in their columns (known from public code, not from the data sets' cards).
`gamma-lab-umd/MMAU-test-mini` has `context` {bytes, path}, `instruction`, `choices` with "(A) " and
`other_attributes`, a JSON text with the id. `TwinkStart/MMAU` has `audio`, `question`, `choices`,
not always an id. A row is therefore matched by its id, else by its clip's file name, else by its
question and choices, where only one question has them.

Audio columns are read undecoded: decoding in `datasets` needs torchcodec, and the bytes are what
one wants to keep.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from storage.benchmarks.parse import LETTER_PREFIX
from storage.benchmarks.published import HubAudio
from storage.errors import PipelineError
from storage.jsonl import Record, write_bytes
from storage.records.question import Question

AUDIO_COLUMNS = ("audio", "context")
QUESTION_COLUMNS = ("question", "instruction")
TEXT_TAIL = "\nChoices:"  # some copies append the choices to the question

TextKey = tuple[str, tuple[str, ...]]


class Materialised(NamedTuple):
    """What a data set gave."""

    num_found: int
    """Questions that have their clip in the folder now."""
    missing: list[str]
    """Ids of the others."""


def write_clips(
    questions: Sequence[Question],
    source: HubAudio,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Materialised:
    """Stream a data set and write the clips of its rows as under their own file names.

    Clips that are already there are kept, so a broken download goes on.

    Args:
        questions: The benchmark's.
        source: The data set; a local folder of parquet files works too.
        folder: Where the clips go.
        on_progress: Told (clips there, clips wanted) after each new one.

    Raises:
        PipelineError: If the data set cannot be opened, or has no column of audio.
    """
    wanted = {q.id: q for q in questions if not clip_path(folder, q).exists()}
    done = len(questions) - len(wanted)
    if wanted:
        find = _matcher(list(wanted.values()))
        for row in _rows(source):
            question = find(row)
            if question is None or question.id not in wanted:
                continue
            write_bytes(clip_path(folder, question), _content(row, source))
            del wanted[question.id]
            done += 1
            on_progress(done, len(questions))
            if not wanted:
                break
    return Materialised(done, list(wanted))


def clip_path(folder: Path, question: Question) -> Path:
    """Where a question's clip is written."""
    return folder / Path(question.clips[0]).name


def _rows(source: HubAudio) -> Iterator[Record]:
    datasets: Any = importlib.import_module("datasets")  # 1.5 s, needed only to fetch

    place = Path(source.dataset)
    try:
        if place.is_dir():
            files = [str(file) for file in sorted(place.rglob("*.parquet"))]
            stream = datasets.load_dataset(
                "parquet", data_files={source.split: files}, split=source.split, streaming=True
            )
        else:
            stream = datasets.load_dataset(
                source.dataset, revision=source.revision, split=source.split, streaming=True
            )
        features: dict[str, Any] = stream.features or {}
        for column, feature in features.items():
            if isinstance(feature, datasets.Audio):
                stream = stream.cast_column(column, datasets.Audio(decode=False))
        yield from cast("Iterable[Record]", stream)
    except (OSError, ValueError) as error:  # datasets' own errors are of these two kinds
        msg = (
            f"the data set {source.dataset} (split {source.split}) cannot be read: {error}. "
            "Try again later, or set the benchmark's `audio` to a folder that holds its clips"
        )
        raise PipelineError(msg) from error


def _content(row: Record, source: HubAudio) -> bytes:
    for column in AUDIO_COLUMNS:
        value = row.get(column)
        if isinstance(value, dict) and isinstance(content := value.get("bytes"), bytes):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  rows are untyped
            return content
    msg = (
        f"the data set {source.dataset} has columns {', '.join(row)}: expected one of "
        f"{' or '.join(AUDIO_COLUMNS)} that holds the clip's bytes"
    )
    raise PipelineError(msg)


def _matcher(questions: Sequence[Question]) -> Callable[[Record], Question | None]:
    by_id = {question.id: question for question in questions}
    by_file = {Path(question.clips[0]).stem: question for question in questions}
    by_text: dict[TextKey, list[Question]] = {}
    for question in questions:
        by_text.setdefault(_text_key(question.question, question.choices), []).append(question)

    def find(row: Record) -> Question | None:
        for name in _names(row):
            found = by_id.get(name) or by_file.get(Path(name).stem)
            if found is not None:
                return found
        alike = by_text.get(_text_key(_text(row), _list(row.get("choices"))), [])
        return alike[0] if len(alike) == 1 else None

    return find


def _names(row: Record) -> Iterator[str]:
    """The names that a row gives itself: its id, its attributes' id, its clip's file name."""
    attributes = row.get("other_attributes")
    if isinstance(attributes, str):
        try:
            attributes = json.loads(attributes)
        except ValueError:
            attributes = None
    for holder in (row, attributes):
        if isinstance(holder, dict):
            yield from (str(holder[key]) for key in ("id", "audio_id") if holder.get(key))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  rows are untyped
    for column in AUDIO_COLUMNS:
        value = row.get(column)
        if isinstance(value, dict) and value.get("path"):  # pyright: ignore[reportUnknownMemberType]  rows are untyped
            yield str(value["path"])  # pyright: ignore[reportUnknownArgumentType]  rows are untyped


def _text(row: Record) -> str:
    text = next((row[key] for key in QUESTION_COLUMNS if isinstance(row.get(key), str)), "")
    return str(text).partition(TEXT_TAIL)[0]


def _list(value: Any) -> list[str]:  # noqa: ANN401  rows are untyped
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return [str(part) for part in cast("list[Any]", value)] if isinstance(value, list) else []


def _text_key(question: str, choices: Iterable[str]) -> TextKey:
    bare = (LETTER_PREFIX.sub("", choice, count=1).strip() for choice in choices)
    return question.strip(), tuple(bare)
