"""Puts the questions' clips into the site, under names of ours.

An audio id comes out of a data file: it is resolved inside the benchmark's audio folder and must
be a regular file there that looks like audio, whatever links and dots it holds; pages never see it.
What the file is, is read from its first bytes: 46 files of MMAU are MP3 under the name `.wav`.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from reports.site.links import slug
from storage.audio import find_clip
from storage.records.question import Question

SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".m4a"}
HEAD_BYTES = 12


def publish_audio(
    questions: Sequence[Question], root: Path, site: Path, *, folder: str
) -> list[str | None]:
    """Link or copy each question's clip, found under `root`, to `audio/<folder>/00017.wav`.

    Returns:
        Addresses relative to the site; None where a question has no clip that may be shown.
    """
    target = site / "audio" / slug(folder)
    target.mkdir(parents=True, exist_ok=True)
    addresses: list[str | None] = []
    for index, question in enumerate(questions):
        clip = find_clip(root, question.clips[0])
        kind = audio_kind(clip) if clip and clip.suffix.lower() in SUFFIXES else None
        if clip and kind:
            published = target / f"{index:05d}{kind}"
            try:
                os.link(clip.resolve(), published)
            except OSError:  # another file system, or one without links
                shutil.copyfile(clip, published)
            addresses.append(published.relative_to(site).as_posix())
        else:
            addresses.append(None)
    return addresses


def audio_kind(path: Path) -> str | None:
    """The suffix that a file's first bytes deserve; None if they are not of audio."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return ".wav"
    if head[:4] == b"fLaC":
        return ".flac"
    if head[:4] == b"OggS":
        return ".ogg"
    if head[4:8] == b"ftyp":
        return ".m4a"
    is_mp3 = head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)
    return ".mp3" if is_mp3 else None
