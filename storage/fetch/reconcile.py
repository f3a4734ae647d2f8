"""What a run has to do, by the ledger, the clips' folder and the sources.

A `done` row whose wav is gone or of another size is pending again; a wav with another sha256 was
moved aside, so that it is never adopted. A good wav without a `done` row (a kill between rename and
commit, or files brought from elsewhere) is adopted, so nothing that was fetched is fetched again.
A loss is asked for again of the sources that changed, or are new, since it was lost to them.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from storage.fetch.clip_rows import ClipRow, done, is_due, new_row
from storage.fetch.cut import FLOOR_DBFS, SAMPLE_RATE_HZ, CutError, measure_wav, num_samples_of
from storage.fetch.ledger import Ledger
from storage.fetch.youtube import ACCESS_MARK, AudioSource
from storage.manifest import file_digest
from storage.records.clip import Clip

WAV_HEADER_BYTES = 44  # RIFF, fmt and data headers as ffmpeg writes them with +bitexact
MAX_WAV_HEADER_BYTES = 4096  # another tool's header may hold tags


class Due(NamedTuple):
    """What is to do."""

    clips: Sequence[Clip]
    """To be tried, or put right; those that were asked for before without an answer come last."""
    num_reopened: int = 0
    """Losses among them that a changed source or setting may serve: what a new source wins back."""
    reopened_by: tuple[str, ...] = ()
    """The sources that may."""
    mended: Sequence[ClipRow] = ()
    """Rows that the wavs contradict, as they are to be."""


def list_due(
    ledger: Ledger,
    clips: Sequence[Clip],
    folder: Path,
    sources: Sequence[AudioSource],
    *,
    drop_silent: bool,
) -> Due:
    """What a run would try, or whose row it would put right; changes nothing.

    40,000 clips take seconds, as of wavs that have their row only names and sizes are read. Where
    `drop_silent` counts silent clips as lost, their wavs stay in the folder.
    """
    now_s = time.time()
    files = os.scandir(folder) if folder.is_dir() else ()
    sizes = {entry.name: entry.stat().st_size for entry in files}
    rows = {row.clip_id: row for row in ledger.rows(clips)}
    due: list[ClipRow] = []
    mended: list[ClipRow] = []
    reopened: list[list[AudioSource]] = []
    for clip in clips:
        known = rows.get(clip.clip_id) or new_row(clip, ledger.clip_length_s)
        row = _mended(known, folder, sizes.get(clip.file_name), drop_silent=drop_silent)
        is_now = is_due(row, now_s)
        again = [] if is_now else reopening(row, sources, drop_silent=drop_silent)
        mended += [row] if row is not known else []
        reopened += [again] if again else []
        if is_now or again or row is not known:
            due.append(row)
    due.sort(key=lambda row: row.state == "pending" and bool(row.reason_code))
    names = tuple(dict.fromkeys(source.name for sources in reopened for source in sources))
    return Due([row.clip for row in due], len(reopened), names, mended)


def reopening(
    row: ClipRow, sources: Iterable[AudioSource], *, drop_silent: bool
) -> list[AudioSource]:
    """The sources that may serve after all what was lost.

    What opens closed doors (cookies, a proxy) matters only to what was behind one.
    """
    if row.state == "done":
        return []

    def part(key: str) -> str:
        return key if row.state in {"geo", "credentials"} else key.partition(ACCESS_MARK)[0]

    is_taken = row.reason_code == "silent" and not drop_silent
    asked = {part(line) for line in row.asked.split("\n")}
    keys = [(source, source.key(row.clip)) for source in sources]
    return [source for source, key in keys if key and (is_taken or part(key) not in asked)]


def condemn_damaged(ledger: Ledger, clips: Sequence[Clip], folder: Path) -> None:
    """Read every wav, and move those aside whose sha256 is not their row's."""
    for row in ledger.rows(clips):
        path = folder / row.clip.file_name
        if row.state != "done" or not path.exists():
            continue
        try:
            is_sound = file_digest(path) == row.sha256
        except OSError:  # the disk's own damage
            is_sound = False
        if not is_sound:
            path.replace(condemned(path))


def condemned(path: Path) -> Path:
    """Where a damaged wav lies until its clip is fetched anew."""
    return path.with_name(f"{path.name}.damaged")


def _mended(row: ClipRow, folder: Path, size: int | None, *, drop_silent: bool) -> ClipRow:
    """The row as its wav, of this size, says; the same if they agree."""
    if row.state != "done":
        path = folder / row.clip.file_name
        return row if size is None else _adopted(row, path, drop_silent=drop_silent)
    if not _is_whole(size, row):
        return replace(row, state="pending", next_try=None)
    if row.silent and drop_silent:
        message = f"peak {row.peak_dbfs or FLOOR_DBFS:g} dBFS"
        return replace(row, state="invalid", reason_code="silent", message=message)
    return row


def _adopted(row: ClipRow, path: Path, *, drop_silent: bool) -> ClipRow:
    """The row with a wav that it does not know, if whole: nothing says why a short one is short."""
    try:
        facts = measure_wav(path)
    except (CutError, OSError):
        return row
    is_whole = facts.num_samples == num_samples_of(row.clip_length_s)
    if not is_whole or (facts.is_silent and drop_silent):
        return row
    now_s = time.time()
    known = replace(facts, is_cancelled=row.cancelled)
    return replace(done(row, known, "adopted"), first_try=row.first_try or now_s, last_try=now_s)


def _is_whole(size: int | None, row: ClipRow) -> bool:
    sample_bytes = 2 * round((row.duration_s or 0.0) * SAMPLE_RATE_HZ)
    return size is not None and WAV_HEADER_BYTES <= size - sample_bytes <= MAX_WAV_HEADER_BYTES
