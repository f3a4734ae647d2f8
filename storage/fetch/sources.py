"""What a source gives, and the source that is a folder of media files.

- youtube: one download serves all clips of a video (storage/fetch/youtube.py).
- folder: media files named by clip (already cut, VGG-Sound's names), by stretch (`<id>_30_40`,
  `<id>_30.0-40.0`, `<id>_30000_40000`, as AudioSet's downloaders have it) or by video id (whole).
- kept: the folder of downloads that `fetch.keep_media` kept.
- huggingface: rows of a data set, laid into a folder first (storage/fetch/avqa_hub.py), then as
  above.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from storage.fetch.failures import Failure
from storage.records.clip import Clip

NOT_THERE = "not-in-folder"  # the reason of a folder or a data set that lacks a clip
# `Y` before the id is AudioSet's way to avoid names that begin with `-`.
FILE_NAME = re.compile(
    r"Y?(?P<video>[A-Za-z0-9_-]{11})(_(?P<start>\d+(\.\d+)?)[_-](?P<end>\d+(\.\d+)?))?"
)
TITLED = re.compile(r".* \[([^]]+)\]")  # yt-dlp's own: `Title [id].m4a`
LONGEST_STRETCH_S = 600.0  # a longer one counts in milliseconds


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video says of itself; empty where it does not."""

    video_id: str
    title: str
    channel: str
    upload_date: str
    """`20150131`."""
    licence: str
    """E.g. `Creative Commons Attribution license (reuse allowed)`; empty: YouTube's own."""


@dataclass(frozen=True, slots=True)
class Media:
    """A downloaded file, with what was announced of it."""

    path: Path
    facts: VideoFacts
    format_id: str | None
    language: str | None
    duration_s: float | None
    size_bytes: int
    """Bytes on disk."""
    is_fragmented: bool
    """Whether it was put together from fragments, so that a missing one would shift the rest."""


class Found(NamedTuple):
    """A file that may hold a clip."""

    path: Path
    """Any container that ffmpeg reads."""
    start_s: float
    """Where in the file the clip starts; 0 if the file is the clip."""
    media: Media | None = None
    """What a download told of itself."""


# What a source has of a clip: files to try in this order, or why there is none.
Answer = Sequence[Found] | Failure


class FolderAudio:
    """Media files in a folder and its sub-folders."""

    is_youtube = False

    def __init__(self, root: Path, *, name: str = "folder", clip_length_s: float = 10.0) -> None:
        """List the folder once; one that is not there is empty. The ledger has its `name`."""
        self.name = name
        self._root = root
        self._clip_length_s = clip_length_s
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._stretches: dict[str, list[tuple[float, float, Path]]] = defaultdict(list)
        # Sorted, so that of two files with one stem (x.m4a, x.webm) the same one is always taken.
        for path in sorted(path for path in _paths(root) if path.is_file()):
            self._by_stem[path.stem].append(path)
            titled = TITLED.fullmatch(path.stem)
            name_of = FILE_NAME.fullmatch(titled[1] if titled else path.stem)
            if name_of and name_of["start"]:
                start_s, end_s = float(name_of["start"]), float(name_of["end"])
                scale = 1000 if end_s - start_s > LONGEST_STRETCH_S else 1
                stretch = (start_s / scale, end_s / scale, path)
                self._stretches[name_of["video"]].append(stretch)
            elif name_of and name_of["video"] != path.stem:
                self._by_stem[name_of["video"]].append(path)

    def key(self, clip: Clip) -> str | None:
        """What an answer depends on: the folder and the clip's files as they are; None without any.

        Of a data set that was not read yet, any clip may be there.
        """
        facts = [(found.path.name, found.path.stat()) for found in self._files(clip)]
        if not facts and self._root.is_dir():
            return None
        files = [f" {name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in facts]
        return f"{self.name} {self._root}{''.join(files)}"

    def find(self, clips: Sequence[Clip]) -> dict[str, Answer]:
        """By clip id its own files, then stretches around it, then the whole video's.

        `x.jpg` beside `x.m4a` is among them: what is no medium is told by trying to cut it.
        """
        return {clip.clip_id: self._files(clip) or self._lacks(clip) for clip in clips}

    def _lacks(self, clip: Clip) -> Failure:
        message = f"no media file named {clip.clip_id} or {clip.video_id} in the {self.name}"
        return Failure("invalid", NOT_THERE, message)

    def _files(self, clip: Clip) -> list[Found]:
        named = [
            Found(path, 0.0)
            for stem in (clip.clip_id, f"{clip.video_id}_{clip.start_s}")
            for path in self._by_stem.get(stem, ())
        ]
        around = [
            Found(path, clip.start_s - start_s)
            for start_s, end_s, path in self._stretches.get(clip.video_id, ())
            if start_s <= clip.start_s and clip.start_s + self._clip_length_s <= end_s
        ]
        whole = [Found(path, clip.start_s) for path in self._by_stem.get(clip.video_id, ())]
        return [*named, *around, *whole]


def _paths(root: Path) -> Iterator[Path]:
    """Everything below a folder, linked folders too, each once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        yield from (Path(folder, name) for name in names)
