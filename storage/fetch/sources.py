"""Where audio comes from, behind one function: `find` the files that hold some clips of one video.

- youtube: one download serves all clips of a video.
- folder: media files named by clip (already cut, VGG-Sound's names) or by video id (whole).
- huggingface: rows of a data set, laid into a folder first (storage/fetch/avqa_hub.py), then as
  above.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.data.avqa import Clip
from storage.errors import PipelineError
from storage.fetch.failures import Failure, Unavailable
from storage.fetch.youtube import Downloader, Media

NOT_THERE = "not-in-folder"  # the reason of a folder or a data set that lacks a clip


@dataclass(frozen=True, slots=True)
class Found:
    """A file that holds a clip."""

    path: Path
    """Any container that ffmpeg reads."""
    start_s: float
    """Where in the file the clip starts; 0 if the file is the clip."""
    media: Media | None = None
    """What a download told of itself."""


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

    def __init__(self, downloader: Downloader) -> None:
        """Take the downloader that all threads share."""
        self.downloader: Downloader | None = downloader
        self._downloader = downloader

    @property
    def name(self) -> str:
        """`youtube`, or `mirror` where another address is set."""
        return "youtube" if self._downloader.is_youtube else "mirror"

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

    def __init__(self, root: Path, *, name: str = "folder") -> None:
        """List the folder once.

        Raises:
            PipelineError: If there is no such folder.
        """
        if not root.is_dir():
            msg = (
                f"fetch.sources: folder {root} is missing; name the one that holds the media files"
            )
            raise PipelineError(msg)
        self._name = name
        # Sorted, so that of two files with one stem (x.m4a, x.webm) the same one is always taken.
        self._by_stem = {
            path.stem: path for path in sorted(root.rglob("*"), reverse=True) if path.is_file()
        }

    @property
    def name(self) -> str:
        """`folder`, or the data set that was laid into it."""
        return self._name

    def find(self, clips: Sequence[Clip], folder: Path) -> dict[str, Found | Failure]:  # noqa: ARG002  nothing is downloaded
        """Look for the clip's own file first, then for the whole video."""
        return {clip.clip_id: self._find_one(clip) for clip in clips}

    def _find_one(self, clip: Clip) -> Found | Failure:
        for stem in (clip.clip_id, f"{clip.video_id}_{clip.start_s}"):
            if stem in self._by_stem:
                return Found(self._by_stem[stem], 0.0)
        if clip.video_id in self._by_stem:
            return Found(self._by_stem[clip.video_id], clip.start_s)
        message = f"no file named {clip.clip_id} or {clip.video_id} in the {self._name}"
        return Failure("invalid", NOT_THERE, message)
