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
from storage.records.question import Question

SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".m4a"}
HEAD_BYTES = 12


def publish_audio(
    questions: Sequence[Question], root: Path, site: Path, *, folder: str
) -> list[str | None]:
    """Link or copy each question's clip to `audio/<folder>/00017.wav`.

    Args:
        questions: In the benchmark's order.
        root: Folder that the audio ids are relative to.
        site: The site's folder.
        folder: Name of the benchmark's folder in it.

    Returns:
        Addresses relative to the site; None where a question has no clip that may be shown.
    """
    target = site / "audio" / slug(folder)
    target.mkdir(parents=True, exist_ok=True)
    addresses: list[str | None] = []
    for index, question in enumerate(questions):
        clip = find_clip(question.clips[0], root)
        kind = clip and audio_kind(clip)
        if clip is None or kind is None:
            addresses.append(None)
            continue
        published = target / f"{index:05d}{kind}"
        _link_or_copy(clip, published)
        addresses.append(published.relative_to(site).as_posix())
    return addresses


def find_clip(audio_id: str, root: Path) -> Path | None:
    """The regular file that an audio id names inside a folder; None for anything else.

    Like evaluation, it finds `./test-mini-audios/x.wav` as `x.wav` too.
    """
    if not audio_id or "\0" in audio_id or "\\" in audio_id:
        return None
    names = (audio_id, Path(audio_id).name)
    return next((found for name in names if (found := _file_inside(root, name))), None)


def _file_inside(root: Path, name: str) -> Path | None:
    try:
        inside = root.resolve(strict=True)
        path = (inside / name).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    is_ours = path.is_relative_to(inside) and path.is_file() and path.suffix.lower() in SUFFIXES
    return path if is_ours else None


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


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link costs no space; another file system, or one without links, gets a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
