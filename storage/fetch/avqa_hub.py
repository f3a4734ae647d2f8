r"""Clips out of a data set on the hub, laid into a folder by clip name; from there they are cut.

A data set of files with R1-AQA's or AVQA's names (`Joysw909/AVQA`: `.../-HG3Omg_89c_30.wav`) is
taken file by file. `gijs/avqa-processed` has a row for each question: `audio`, `question` (`What
happened?\nChoices:\nA. motorboat\nB. ...`) and `answer` (`B. Yacht consignment`), and no column for
the video. A row belongs to the annotation with the same question, choices and answer. Where several
clips share all three, the order decides: between two rows that can be told apart, as many of a kind
must lie in the data set as in the annotations. What cannot be told is not guessed: it is written to
unmatched.jsonl. The commit that was found first is kept, and a download goes on at that one only.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from storage.config import HuggingFaceSource
from storage.errors import PipelineError
from storage.hub import (
    COMMIT,
    Asked,
    Commit,
    as_asked,
    asked_by,
    download_files,
    find_commit,
    lay_down,
)
from storage.jsonl import read_json, write_json, write_jsonl
from storage.records.clip import Clip
from storage.records.example import Example

DONE = "laid-out.json"
SUFFIX = ".audio"  # whatever the container: ffmpeg looks into it


class LaidOut(NamedTuple):
    """What came of a data set, counted."""

    rows: int
    """Its rows, or files."""
    matched: int
    """Those that belong to one annotation."""
    clips: int
    """Clips that they hold."""


def lay_out(source: HuggingFaceSource, rows: Sequence[Example], folder: Path) -> LaidOut:
    """Write the audio of those annotations into `folder` once, named by clip id.

    Raises:
        PipelineError: If there are no annotations to match, or the data set cannot be read.
    """
    if not rows:
        msg = (
            f"fetch.sources: {source.dataset} is matched by question, and no annotations were given"
        )
        raise PipelineError(msg)
    if (folder / DONE).exists() and source.revision in {None, read_json(folder / COMMIT)}:
        return LaidOut(**read_json(folder / DONE))
    commit = _check_commit(source, folder)
    named = _named_files(commit.files, rows)
    if named:
        wanted = {file: _clip_file(folder, clip) for file, clip in named.items()}
        download_files(source, commit.name, wanted)
        laid_out = LaidOut(len(commit.files), len(named), len(named))
    else:
        records = lay_down(source, commit.name, folder, suffix=SUFFIX)
        questions = [asked_by(record) for record in records]
        clips = match_rows(questions, rows)
        missing = [
            {"row": index, **questions[index]._asdict()}
            for index, clip in enumerate(clips)
            if clip is None
        ]
        write_jsonl(folder / "unmatched.jsonl", missing)
        num_clips = _name_by_clip([folder / record["clip"] for record in records], clips)
        laid_out = LaidOut(len(clips), len(clips) - len(missing), num_clips)
    write_json(folder / DONE, laid_out._asdict())
    return laid_out


def match_rows(questions: Sequence[Asked], rows: Sequence[Example]) -> list[Clip | None]:
    """The clip of each question of a data set, in its order; None where it cannot be told."""
    positions: dict[Asked, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        asked = as_asked(row.question_text, row.multi_choice, row.multi_choice[row.answer])
        positions[asked].append(position)
    found = [
        places[0] if len(places := positions.get(question, [])) == 1 else None
        for question in questions
    ]
    certain = [place for place in found if place is not None]
    if certain == sorted(set(certain)):  # the data set keeps the annotations' order
        _settle_by_order(questions, found, positions, num_rows=len(rows))
    matched = [None if place is None else rows[place].clip for place in found]
    for index, question in enumerate(questions):
        # Questions about the same clip alone leave no doubt, whichever row it is.
        clips = {rows[place].clip for place in positions.get(question, [])}
        if matched[index] is None and len(clips) == 1:
            matched[index] = clips.pop()
    return matched


def _settle_by_order(
    questions: Sequence[Asked],
    found: list[int | None],
    positions: Mapping[Asked, list[int]],
    *,
    num_rows: int,
) -> None:
    """Fill in rows of a kind that lie between the same two certain rows here and there."""
    certain = [(index, place) for index, place in enumerate(found) if place is not None]
    edges = pairwise([(-1, -1), *certain, (len(found), num_rows)])
    for (left, low), (right, high) in edges:
        kinds: dict[Asked, list[int]] = defaultdict(list)
        for index in range(left + 1, right):
            kinds[questions[index]].append(index)
        for question, indices in kinds.items():
            there = positions.get(question, [])
            between = there[bisect_left(there, low + 1) : bisect_left(there, high)]
            if len(between) == len(indices):
                for index, place in zip(indices, between, strict=True):
                    found[index] = place


def _named_files(files: Sequence[str], rows: Sequence[Example]) -> dict[str, Clip]:
    """The data set's files that have the name of a clip, each clip once."""
    by_name = {
        name: row.clip for row in rows for name in (row.clip.clip_id, Path(row.clip.file_name).stem)
    }
    found = {by_name[Path(file).stem]: file for file in files if Path(file).stem in by_name}
    return {file: clip for clip, file in found.items()}


def _check_commit(source: HuggingFaceSource, folder: Path) -> Commit:
    """The data set, at the commit at which its download began."""
    commit = find_commit(source)
    kept = read_json(folder / COMMIT) if (folder / COMMIT).exists() else commit.name
    if kept != commit.name:
        msg = (
            f"fetch.sources: {source.dataset} was begun at commit {kept}, and now is "
            f"{commit.name}: rows of two commits are not mixed. Set `revision: {kept}`, or remove "
            f"{folder}"
        )
        raise PipelineError(msg)
    write_json(folder / COMMIT, kept)
    return commit


def _name_by_clip(paths: Sequence[Path], clips: Sequence[Clip | None]) -> int:
    """Give files their clip's name, remove those of none, count clips; may be done in two goes."""
    named: set[Clip] = set()
    for path, clip in zip(paths, clips, strict=True):
        if clip is not None and clip not in named and path.exists():
            path.replace(_clip_file(path.parent, clip))
        path.unlink(missing_ok=True)
        named |= {clip} if clip else set()
    return len(named)


def _clip_file(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.clip_id}{SUFFIX}"
