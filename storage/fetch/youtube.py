"""One video's audio through yt-dlp: the smallest original-language track, whole.

By its own downloader, never by `download_ranges`: that hands the address to ffmpeg, which YouTube
slows down, which hides every HTTP status, and which reports success for a clip broken off after 4
of 10 seconds (measured). The whole file at 50 kbit/s is 1.5 MB for a video of four minutes, far
below what the rate limit lets through.

A YoutubeDL is not safe between threads and takes 43 ms of CPU to build, so each thread keeps its
own.
"""

import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import yt_dlp
from yt_dlp.utils import YoutubeDLError

from storage.config import YoutubeSource
from storage.fetch.failures import Failure, Unavailable, classify

# `lang` first, or a dubbed track wins (size alone picked a Hindi dub); at least 45 kbit/s, or 28
# kbit/s `ultralow` wins. Never ending in `/b` for YouTube: a video without an audio track would
# count as success.
YOUTUBE_FORMAT = "ba[acodec^=opus][abr>=45][format_id!*=drc]/ba[abr>=45][format_id!*=drc]/ba"
# A plain file server tells no codecs: ffmpeg sees whether there is audio.
FILE_FORMAT = "ba/b"
FORMAT_SORT = ["lang", "+size"]
MAX_SOURCE_BYTES = 1 << 30  # a day of 50 kbit/s is half of it
SOCKET_TIMEOUT_S = 20
YOUTUBE_HOSTS = ("youtube.com", "youtu.be", "youtube-nocookie.com")


@dataclass(frozen=True, slots=True)
class Media:
    """A downloaded file."""

    path: Path
    """Where it lies; the caller removes it."""
    format_id: str | None
    """YouTube's number of the format, e.g. `249`."""
    bitrate_kbps: float | None
    """Mean bit rate as announced."""
    language: str | None
    """Language of the track as announced."""
    duration_s: float | None
    """Length of the video as announced."""
    size_bytes: int
    """Bytes on disk."""


class Downloader:
    """Downloads videos; shared by all threads, each of which has its own YoutubeDL in it."""

    def __init__(
        self,
        config: YoutubeSource,
        *,
        cache_dir: Path,
        deadline_s: float,
        polite: bool,
        stop: threading.Event,
    ) -> None:
        """Take the settings.

        Args:
            config: Address, cookies, proxy, extractor arguments.
            cache_dir: Where yt-dlp keeps YouTube's player code between runs.
            deadline_s: Seconds after which a download is given up.
            polite: Wait between the attempts at one file.
            stop: Breaks off downloads in flight, with the reason `stopped`.
        """
        self._config = config
        self._cache_dir = cache_dir
        self._deadline_s = deadline_s
        self._polite = polite
        self._stop = stop
        self._local = threading.local()
        self.is_youtube = is_youtube(config.url_template)

    def download(self, video_id: str, folder: Path, *, first_start_s: float) -> Media:
        """Fetch one video's audio into `folder`.

        Args:
            video_id: YouTube's id.
            folder: This thread's own folder; one file is written.
            first_start_s: Where the first clip of this video starts; a shorter video is not
                downloaded.

        Raises:
            Unavailable: With the reason.
        """
        try:
            return self._attempt(video_id, folder, first_start_s)
        except Unavailable as error:
            # An address of a media file expires: one more extraction gives a new one; a second 403
            # is a refusal.
            if not self.is_youtube or error.failure.reason != "http-403":
                raise
        return self._attempt(video_id, folder, first_start_s)

    def probe(self, video_id: str, folder: Path) -> Failure | None:
        """Ask for a video without downloading it; None if it is there."""
        worker = self._worker(folder)
        worker.begin(self._deadline_s, 0.0)
        try:
            worker.client.extract_info(self.url(video_id), download=False)
        except (YoutubeDLError, OSError) as error:
            return classify(error, worker.log.warnings, is_youtube=self.is_youtube)
        return None

    def url(self, video_id: str) -> str:
        """Address of a video."""
        return self._config.url_template.replace("{video_id}", video_id)

    def _attempt(self, video_id: str, folder: Path, first_start_s: float) -> Media:
        worker = self._worker(folder)
        worker.begin(self._deadline_s, first_start_s)
        try:
            found = worker.client.extract_info(self.url(video_id), download=True)
        except Unavailable:
            raise
        except (YoutubeDLError, OSError) as error:
            failure = classify(error, worker.log.warnings, is_youtube=self.is_youtube)
            raise Unavailable(failure) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # A fault of the extractor on an answer it does not know; yt-dlp wraps most of them, not
            # all.
            raise Unavailable(Failure("retry", "extractor-error", repr(error))) from error
        return _media(cast("Mapping[str, Any] | None", found))

    def _worker(self, folder: Path) -> "_Worker":
        """This thread's client, built at its first video."""
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None or worker.folder != folder:
            worker = _Worker(folder, stop=self._stop, polite=self._polite)
            worker.client = yt_dlp.YoutubeDL(cast("Any", self._options(worker)))
            self._local.worker = worker
        return worker

    def _options(self, worker: "_Worker") -> dict[str, Any]:
        options: dict[str, Any] = {
            "outtmpl": str(worker.folder / "source.%(ext)s"),
            "format": YOUTUBE_FORMAT if self.is_youtube else FILE_FORMAT,
            "format_sort": FORMAT_SORT,
            "logger": worker.log,
            "progress_hooks": [worker.check_deadline],
            "match_filter": worker.refuse,
            "quiet": True,
            "noprogress": True,
            "noplaylist": True,
            # by default every m4a goes through ffmpeg once more, 53 ms for nothing
            "fixup": "never",
            "cachedir": str(self._cache_dir),
            "continuedl": False,
            "overwrites": True,
            "updatetime": False,
            "max_filesize": MAX_SOURCE_BYTES,
            "socket_timeout": min(SOCKET_TIMEOUT_S, self._deadline_s),
            "retries": 3,
            "extractor_retries": 2,
            "retry_sleep_functions": {
                "http": worker.retry_sleep_s,
                "extractor": worker.retry_sleep_s,
            },
            "extractor_args": self._config.extractor_args,
            # node is looked for where deno is not; the versions are checked at the start of the
            # run.
            "js_runtimes": {"deno": {}, "node": {}},
        }
        if self._config.proxy is not None:
            options["proxy"] = self._config.proxy
        if self._config.cookies is not None:
            # yt-dlp writes the file anew at the end; threads must not share one.
            copied = worker.folder / "cookies.txt"
            shutil.copyfile(self._config.cookies, copied)
            options["cookiefile"] = str(copied)
        return options


class _Log:
    """Takes what yt-dlp says; keeps the warnings, where some causes stand alone."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        """Passed over."""

    def info(self, message: str) -> None:
        """Passed over."""

    def warning(self, message: str) -> None:
        """Kept."""
        self.warnings.append(message)

    def error(self, message: str) -> None:
        """Passed over: it is raised as well."""


class _Worker:
    """One thread's client and what its hooks need to know of the present video."""

    client: yt_dlp.YoutubeDL

    def __init__(self, folder: Path, *, stop: threading.Event, polite: bool) -> None:
        self.folder = folder
        self._polite = polite
        self._stop = stop
        self.log = _Log()
        self._give_up_s = 0.0
        self._deadline_s = 0.0
        self._first_start_s = 0.0

    def begin(self, deadline_s: float, first_start_s: float) -> None:
        """Start the clock for one video."""
        self.log.warnings.clear()
        self._deadline_s = deadline_s
        self._give_up_s = time.monotonic() + deadline_s
        self._first_start_s = first_start_s

    def check_deadline(self, progress: Mapping[str, Any]) -> None:
        """Give up a server that drips, and break off at a stop.

        yt-dlp has no deadline for the whole, and its `throttledratelimit` asks again for ever.
        """
        if progress.get("status") == "downloading":
            self._check(f"{progress.get('downloaded_bytes')} bytes")

    def retry_sleep_s(self, n: int) -> float:
        """Seconds before attempt `n` at the same address; yt-dlp passes it by this name."""
        self._check(f"{n} attempts")
        return min(2.0**n, 30.0) if self._polite else 0.0

    def _check(self, progress: str) -> None:
        if self._stop.is_set():
            raise Unavailable(Failure("retry", "stopped", "the run was stopped"))
        if time.monotonic() > self._give_up_s:
            message = f"not finished after {self._deadline_s:g} s ({progress})"
            raise Unavailable(Failure("retry", "deadline", message))

    def refuse(self, info: Mapping[str, Any], *, incomplete: bool) -> None:
        """Refuse before the download what cannot hold the clip."""
        if info.get("is_live"):
            raise Unavailable(Failure("invalid", "live", "the video is a live stream"))
        duration_s = info.get("duration")
        if not incomplete and duration_s and self._first_start_s >= duration_s:
            message = (
                f"the clip starts at {self._first_start_s:g} s, the video is {duration_s:g} s long"
            )
            raise Unavailable(Failure("invalid", "start-beyond-end", message))


def is_youtube(url_template: str) -> bool:
    """Whether an address is YouTube's own."""
    host = urlsplit(url_template).hostname or ""
    return any(host == known or host.endswith(f".{known}") for known in YOUTUBE_HOSTS)


def _media(found: Mapping[str, Any] | None) -> Media:
    downloads: list[dict[str, Any]] = (found or {}).get("requested_downloads") or []
    # A file over max_filesize raises nothing and leaves no path.
    if found is None or not downloads or "filepath" not in downloads[0]:
        raise Unavailable(Failure("invalid", "too-large", "over 1 GiB, or refused by yt-dlp"))
    chosen = downloads[0]
    path = Path(chosen["filepath"])
    if not path.exists():
        raise Unavailable(Failure("invalid", "too-large", f"over {MAX_SOURCE_BYTES >> 20} MiB"))
    return Media(
        path=path,
        format_id=chosen.get("format_id"),
        bitrate_kbps=chosen.get("abr") or chosen.get("tbr"),
        language=chosen.get("language"),
        duration_s=found.get("duration"),
        size_bytes=path.stat().st_size,
    )
