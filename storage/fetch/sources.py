"""Where audio comes from, behind one function: `find` the files that hold some clips of one video.

- youtube: one download serves all clips of a video.
- folder: media files named by clip (already cut, VGG-Sound's names), by stretch (`<id>_30_40`,
  `<id>_30.0-40.0`, `<id>_30000_40000`, as AudioSet's downloaders have it) or by video id (whole).
- kept: the folder of downloads that `fetch.keep_media` kept.
- huggingface: rows of a data set, laid into a folder first (storage/fetch/avqa_hub.py), then as
  above.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from storage.config import YoutubeSource
from storage.fetch.failures import Failure, Unavailable
from storage.fetch.youtube import Downloader, Media
from storage.records.clip import Clip

NOT_THERE = "not-in-folder"  # the reason of a folder or a data set that lacks a clip
ACCESS = (  # options of yt-dlp's that may open what was closed
    "cookiefile",
    "cookiesfrombrowser",
    "username",
    "proxy",
    "geo_verification_proxy",
    "geo_bypass_country",
    "source_address",
)
# `Y` before the id is AudioSet's way to avoid names that begin with `-`.
FILE_NAME = re.compile(
    r"Y?(?P<video>[A-Za-z0-9_-]{11})(_(?P<start>\d+(\.\d+)?)[_-](?P<end>\d+(\.\d+)?))?"
)
TITLED = re.compile(r".* \[([^]]+)\]")  # yt-dlp's own: `Title [id].m4a`
LONGEST_STRETCH_S = 600.0  # a longer one counts in milliseconds
IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"%PDF", b"SQLite")


class Keys(NamedTuple):
    """What an answer of a source depends on: another key, and a loss may be served after all."""

    plain: str
    """The source, and its file for this clip where it has one."""
    with_access: str
    """The same with what may open closed doors: cookies, a proxy."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that holds a clip."""

    path: Path
    """Any container that ffmpeg reads."""
    start_s: float
    """Where in the file the clip starts; 0 if the file is the clip."""
    media: Media | None = None
    """What a download told of itself."""
    others: tuple[Path, ...] = ()
    """Files of the same name, should this one hold no audio."""


class AudioSource(Protocol):
    """A place to look for clips."""

    @property
    def name(self) -> str:
        """Written into the ledger for each clip it served."""
        ...

    @property
    def downloader(self) -> Downloader | None:
        """The downloader behind it, which is paced; None for local files."""
        ...

    def keys(self, clip: Clip) -> Keys:
        """What an answer about this clip depends on."""
        ...

    def may_hold(self, clip: Clip) -> bool:
        """Whether it is not known to lack the clip; nobody is asked."""
        ...

    def find(self, clips: Sequence[Clip], folder: Path) -> dict[str, Found | Failure]:
        """Look for clips of one video.

        Args:
            clips: At least one, all of the same video.
            folder: The calling thread's own folder, for downloads; emptied by the caller.

        Returns:
            For each clip id the file, or why there is none.
        """
        ...


class YoutubeAudio:
    """Videos from YouTube, or from another address by the same way."""

    def __init__(self, downloader: Downloader, source: YoutubeSource) -> None:
        """Take the downloader that all threads share, and its settings."""
        self._source = source
        self.downloader: Downloader | None = downloader
        self._downloader = downloader

    @property
    def name(self) -> str:
        """`youtube`, or `mirror` where another address is set."""
        return "youtube" if self._downloader.is_youtube else "mirror"

    def keys(self, clip: Clip) -> Keys:  # noqa: ARG002  the same for all
        """The address, and who asks."""
        access = {name: self._source.ytdlp.get(name) for name in ACCESS}
        digest = hashlib.sha256(repr(access).encode()).hexdigest()[:8]
        plain = f"{self.name} {self._source.url_template}"
        return Keys(plain, f"{plain} access {digest}")

    def may_hold(self, clip: Clip) -> bool:  # noqa: ARG002  the same for all
        """Only an answer tells."""
        return True

    def find(self, clips: Sequence[Clip], folder: Path) -> dict[str, Found | Failure]:
        """Download the video once; each clip is somewhere in it."""
        first_start_s = min(clip.start_s for clip in clips)
        try:
            media = self._downloader.download(
                clips[0].video_id, folder, first_start_s=first_start_s
            )
        except Unavailable as error:
            return dict.fromkeys((clip.clip_id for clip in clips), error.failure)
        return {clip.clip_id: Found(media.path, clip.start_s, media) for clip in clips}


class FolderAudio:
    """Media files in a folder and its sub-folders."""

    downloader: Downloader | None = None

    def __init__(self, root: Path, *, name: str = "folder", clip_length_s: float = 10.0) -> None:
        """List the folder once; one that is not there is empty."""
        self._name = name
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

    @property
    def name(self) -> str:
        """`folder`, or the data set that was laid into it."""
        return self._name

    def keys(self, clip: Clip) -> Keys:
        """The folder, and the files of this clip as they are."""
        plain = f"{self._name} {self._root}"
        for _, path in self._candidates(clip):
            facts = path.stat()
            plain += f" {path.name}:{facts.st_size}:{facts.st_mtime_ns}"
        return Keys(plain, plain)

    def may_hold(self, clip: Clip) -> bool:
        """Whether a file is named after it; of a data set that was not read yet, any may be."""
        return bool(self._candidates(clip)) or not self._root.is_dir()

    def find(self, clips: Sequence[Clip], folder: Path) -> dict[str, Found | Failure]:  # noqa: ARG002  nothing is downloaded
        """Look for the clip's own file first, then for a stretch around it or the whole video."""
        return {clip.clip_id: self._find_one(clip) for clip in clips}

    def _find_one(self, clip: Clip) -> Found | Failure:
        media = [found for found in self._candidates(clip) if _is_media(found[1])]
        if media:
            start_s, path = media[0]
            others = tuple(other for at_s, other in media[1:] if at_s == start_s)
            return Found(path, start_s, others=others)
        message = f"no media file named {clip.clip_id} or {clip.video_id} in the {self._name}"
        return Failure("invalid", NOT_THERE, message)

    def _candidates(self, clip: Clip) -> list[tuple[float, Path]]:
        """Where in which file the clip starts, by name; `x.jpg` beside `x.m4a` is one, too."""
        named = [
            (0.0, path)
            for stem in (clip.clip_id, f"{clip.video_id}_{clip.start_s}")
            for path in self._by_stem.get(stem, ())
        ]
        around = [
            (clip.start_s - start_s, path)
            for start_s, end_s, path in self._stretches.get(clip.video_id, ())
            if start_s <= clip.start_s and clip.start_s + self._clip_length_s <= end_s
        ]
        whole = [(float(clip.start_s), path) for path in self._by_stem.get(clip.video_id, ())]
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


def _is_media(path: Path) -> bool:
    """Whether a file may hold audio: neither text (a playlist, a description) nor a picture."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return True  # the cut tells what is wrong with it
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    if head.startswith(IMAGES) or is_webp:
        return False
    return b"\0" in head or not _is_text(head)


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a letter cut in two at the end
    return True
