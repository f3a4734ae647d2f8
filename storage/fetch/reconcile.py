"""Bringing ledger and folder to agree at the start of a run.

A `done` row whose wav is gone or of another size is pending again; one whose wav has another sha256
is moved aside first, so that it is never adopted. A good wav without a `done` row
(a kill between rename and commit, or files brought from elsewhere) is adopted, so nothing that was
fetched is fetched again.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from storage.fetch.cut import (
    FLOOR_DBFS,
    SAMPLE_RATE_HZ,
    CutError,
    WavFacts,
    measure_wav,
    num_samples_of,
)
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.retries import done, is_due, reopening
from storage.fetch.sources import AudioSource
from storage.records.clip import Clip

WAV_HEADER_BYTES = 44  # RIFF, fmt and data headers as ffmpeg writes them with +bitexact
MAX_WAV_HEADER_BYTES = 4096  # another tool's header may hold tags


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What had to be put right."""

    num_lost: int
    """`done` rows without their wav; pending again."""
    num_adopted: int
    """Wavs that got a row."""
    num_bad_files: int
    """Wavs of a wrong form or length without a row; left in place, overwritten when fetched."""


class Due(NamedTuple):
    """What is to do."""

    clips: list[Clip]
    """To be tried, or put right."""
    num_reopened: int = 0
    """Losses among them that a changed source or setting may serve: what a new source wins back."""
    reopened_by: tuple[str, ...] = ()
    """The sources that may."""


def reconcile(
    ledger: Ledger,
    clips: Sequence[Clip],
    folder: Path,
    *,
    deep: bool,
    drop_silent: bool,
    run: int,
) -> Reconciled:
    """Compare rows and files; 40,000 of them take seconds, as only names and sizes are read.

    Args:
        ledger: Knows all the clips.
        clips: Those to compare.
        folder: The clips' folder.
        deep: Read every wav and compare its sha256 as well.
        drop_silent: Silent clips count as lost; their wavs stay.
        run: The run's number in the ledger.
    """
    sizes = _sizes(folder)
    lost: list[ClipRow] = []
    adopted: list[ClipRow] = []
    num_bad = 0
    for row in ledger.rows(clips):
        size = sizes.get(row.clip.file_name)
        path = folder / row.clip.file_name
        if row.state == "done":
            if not _is_whole(size, row):
                lost.append(replace(row, state="pending", next_try=None))
            elif deep and not _has_digest(path, row.sha256):
                path.replace(condemned(path))
                lost.append(replace(row, state="pending", next_try=None))
            elif row.silent and drop_silent:
                message = f"peak {row.peak_dbfs or FLOOR_DBFS:g} dBFS"
                gone = replace(row, state="invalid", reason_code="silent", message=message)
                lost.append(gone)
        elif size is not None and not (row.reason_code == "silent" and drop_silent):
            facts = _facts_of(path, row.clip_length_s)
            if facts is None:
                num_bad += 1
            elif not (facts.is_silent and drop_silent):
                adopted.append(_adopted(row, facts))
    ledger.replace(lost)
    ledger.replace(adopted, run=run)
    num_lost = sum(row.state == "pending" for row in lost)
    return Reconciled(num_lost, len(adopted), num_bad)


def condemned(path: Path) -> Path:
    """Where a damaged wav lies until its clip is fetched anew."""
    return path.with_name(f"{path.name}.damaged")


def list_due(
    ledger: Ledger,
    clips: Sequence[Clip],
    folder: Path,
    sources: Sequence[AudioSource],
    *,
    drop_silent: bool,
) -> Due:
    """What a run would try, or whose row or wav it would put right; changes nothing.

    Args:
        ledger: Knows what was tried.
        clips: Those to look at.
        folder: The clips' folder.
        sources: Those of the run.
        drop_silent: Silent clips count as lost.
    """
    now_s, sizes = time.time(), _sizes(folder)
    rows = {row.clip_id: row for row in ledger.rows(clips)}
    due: list[Clip] = []
    reopened: list[list[str]] = []
    for clip in clips:
        row, size = rows.get(clip.clip_id), sizes.get(clip.file_name)
        if row is None or is_due(row, now_s):
            due.append(clip)
        elif row.state == "done":
            due += [] if _is_whole(size, row) else [clip]
        elif again := reopening(row, sources, drop_silent=drop_silent):
            due.append(clip)
            hopeful = [source.name for source in again if source.may_hold(clip)]
            reopened += [hopeful] if hopeful else []
        elif size is not None and _facts_of(folder / clip.file_name, row.clip_length_s):
            due.append(clip)  # its wav was brought
    names = tuple(dict.fromkeys(name for names in reopened for name in names))
    return Due(due, len(reopened), names)


def _sizes(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    return {entry.name: entry.stat().st_size for entry in os.scandir(folder)}


def _is_whole(size: int | None, row: ClipRow) -> bool:
    sample_bytes = 2 * round((row.duration_s or 0.0) * SAMPLE_RATE_HZ)
    return size is not None and WAV_HEADER_BYTES <= size - sample_bytes <= MAX_WAV_HEADER_BYTES


def _has_digest(path: Path, sha256: str) -> bool:
    try:
        return measure_wav(path).sha256 == sha256
    except (CutError, OSError):
        return False


def _facts_of(path: Path, clip_length_s: float) -> WavFacts | None:
    """The file's facts if it is a whole clip.

    A short one is fetched again, as nothing says why it is short.
    """
    try:
        facts = measure_wav(path)
    except (CutError, OSError):
        return None
    return facts if facts.num_samples == num_samples_of(clip_length_s) else None


def _adopted(row: ClipRow, facts: WavFacts) -> ClipRow:
    now_s = time.time()
    known = replace(facts, is_cancelled=row.cancelled)
    return replace(done(row, known, "adopted"), first_try=row.first_try or now_s, last_try=now_s)
