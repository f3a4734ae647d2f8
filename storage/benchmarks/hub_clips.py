"""Clips out of a data set on the hub: one file a question, with the bytes that the data set holds.

The copies of MMAU differ in their columns (known from public code, not from the data sets' cards).
`gamma-lab-umd/MMAU-test-mini` has `context` {bytes, path}, `instruction`, `choices` with "(A) " and
`other_attributes`, a JSON text with the id. `TwinkStart/MMAU` has `audio`, `question`, `choices`,
not always an id. A row is therefore matched by its id, else by its clip's file name, else by its
question and choices, where only one question has them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storage.benchmarks.published import HubAudio
from storage.errors import PipelineError
from storage.hub import (
    AUDIO_COLUMNS,
    Asked,
    as_asked,
    asked_by,
    audio_in,
    download_files,
    pinned,
    stream_rows,
)
from storage.jsonl import Record, write_bytes
from storage.records.question import Question


def write_clips(
    questions: Sequence[Question],
    source: HubAudio,
    folder: Path,
    notes: Path,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[str]:
    """Stream a data set and write the clips of its rows as under their own file names.

    Clips that are already there are kept, so a broken download goes on.

    Args:
        questions: The benchmark's.
        source: The data set; a local folder of parquet files works too.
        folder: Where the clips go.
        notes: File that keeps the commit of a data set that names none.
        on_progress: Told (clips there, clips wanted) after each new one.

    Returns:
        Ids of the questions whose clip is not in it.

    Raises:
        PipelineError: If the data set cannot be opened, or has no column of audio.
    """
    wanted = {q.id: q for q in questions if not clip_path(folder, q).exists()}
    if not wanted:
        return []
    commit = pinned(source, notes)
    if source.has_files:
        files = {q.clips[0].removeprefix("./"): clip_path(folder, q) for q in wanted.values()}
        download_files(source, commit, files)
        return []
    find = _matcher(list(wanted.values()))
    for row in stream_rows(source, commit):
        question = find(row)
        if question is None or question.id not in wanted:
            continue
        write_bytes(clip_path(folder, question), _content(row, source))
        del wanted[question.id]
        on_progress(len(questions) - len(wanted), len(questions))
        if not wanted:
            break
    return list(wanted)


def clip_path(folder: Path, question: Question) -> Path:
    """Where a question's clip is written."""
    return folder / Path(question.clips[0]).name


def _content(row: Record, source: HubAudio) -> bytes:
    content = (audio_in(row) or {}).get("bytes")
    if isinstance(content, bytes):
        return content
    msg = (
        f"the data set {source.dataset} has columns {', '.join(row)}: expected one of "
        f"{' or '.join(AUDIO_COLUMNS)} that holds the clip's bytes"
    )
    raise PipelineError(msg)


def _matcher(questions: Sequence[Question]) -> Callable[[Record], Question | None]:
    by_id = {question.id: question for question in questions}
    by_file = {Path(question.clips[0]).stem: question for question in questions}
    by_asked: dict[Asked, list[Question]] = {}
    for question in questions:
        by_asked.setdefault(as_asked(question.question, question.choices), []).append(question)

    def find(row: Record) -> Question | None:
        for name in _names(row):
            found = by_id.get(name) or by_file.get(Path(name).stem)
            if found is not None:
                return found
        alike = by_asked.get(asked_by(row)._replace(answer=""), [])
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
    if path := (audio_in(row) or {}).get("path"):
        yield str(path)
