"""What changed between versions of a benchmark, and what else is counted beside the leading number.

Versions are joined by id: the order of the rows differs between published files (MMAR's two).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from storage.audio import find_clip
from storage.manifest import file_digest
from storage.records.question import Question


class Change(NamedTuple):
    """A question that two versions ask differently."""

    id: str
    what: tuple[str, ...]
    """Of `text`, `choices` (their order counts), `answer` and `audio`, those that differ."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions beside each other."""

    changed: tuple[Change, ...]
    """Questions of both that differ, in the first one's order."""
    same: tuple[str, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    compares_audio: bool
    """Whether the clips' contents were compared; if not, their names alone."""


def compare(
    first: Sequence[Question], second: Sequence[Question], *, audio: tuple[Path, Path] | None = None
) -> Difference:
    """Compare two versions by id, their clips by content where both folders of them are given."""
    by_id = {question.id: question for question in second}
    ids = {question.id for question in first}
    folders = audio or (None, None)
    changes = [
        Change(question.id, _differences((question, by_id[question.id]), folders))
        for question in first
        if question.id in by_id
    ]
    return Difference(
        changed=tuple(change for change in changes if change.what),
        same=tuple(change.id for change in changes if not change.what),
        only_first=tuple(question.id for question in first if question.id not in by_id),
        only_second=tuple(question.id for question in second if question.id not in ids),
        compares_audio=audio is not None,
    )


def subsets(
    questions: Sequence[Question],
    errata: Collection[str],
    versions: Mapping[str, Sequence[Question]],
) -> dict[str, tuple[int, ...]]:
    """Positions of the questions that give a second number, by what is said of it.

    Those that other versions, by name, ask alike, and those without a listed fault.
    """
    kept = {
        f"shared with {name}": set(compare(questions, them).same) for name, them in versions.items()
    }
    if any(question.id in errata for question in questions):
        kept["without listed errata"] = {q.id for q in questions} - set(errata)
    return {
        name: tuple(index for index, question in enumerate(questions) if question.id in ids)
        for name, ids in kept.items()
    }


def _differences(
    versions: tuple[Question, Question], folders: tuple[Path | None, Path | None]
) -> tuple[str, ...]:
    one, other = versions
    clips, other_clips = map(_clips, versions, folders)
    differs = {
        "text": one.question != other.question,
        "choices": one.choices != other.choices,
        "answer": one.answer != other.answer,
        "audio": clips != other_clips,
    }
    return tuple(name for name, is_other in differs.items() if is_other)


def _clips(question: Question, folder: Path | None) -> list[str | None]:
    """The clips' names, or in a folder sha256 of each one's content; None for one not there."""
    if folder is None:
        return [Path(clip).name for clip in question.clips]
    found = [find_clip(folder, clip) for clip in question.clips]
    return [file_digest(path) if path else None for path in found]
