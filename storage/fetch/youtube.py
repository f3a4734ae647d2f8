"""One video's audio through yt-dlp: the smallest original-language track, whole.

By its own downloader, never by `download_ranges`: that hands the address to ffmpeg, which YouTube
slows down, which hides every HTTP status, and which reports success for a clip broken off after 4
of 10 seconds (measured). The whole file at 50 kbit/s is 1.5 MB for a video of four minutes, far
below what the rate limit lets through.

Its success is not believed: the video that came back must be the one asked for (a paid one answers
with its trailer, a page with whatever it embeds), in its own language, and with every fragment; the
length is held against the announced one where it is cut (storage/fetch/worker.py).

A YoutubeDL is not safe between threads and takes 43 ms of CPU to build, so each thread keeps its
own.
"""

import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import yt_dlp
from yt_dlp.networking.impersonate import ImpersonateTarget
from yt_dlp.utils import YoutubeDLError

from storage.config import YoutubeSource
from storage.errors import PipelineError
from storage.fetch.failures import MAX_MESSAGE, Failure, Unavailable, classify

# `lang` first, or a dubbed track wins (size alone picked a Hindi dub); at least 45 kbit/s, or 28
# kbit/s `ultralow` wins. Never ending in `/b` for YouTube: a video without an audio track would
# count as success. A muxed file serves where no track alone has an address.
YOUTUBE_FORMAT = (
    "ba[acodec^=opus][abr>=45][format_id!*=drc]/ba[abr>=45][format_id!*=drc]/ba/b[acodec!=none]"
)
# A plain file server tells no codecs: ffmpeg sees whether there is audio.
FILE_FORMAT = "ba/b"
FORMAT_SORT = ["lang", "+size"]
MAX_SOURCE_BYTES = 1 << 30  # a day of 50 kbit/s is half of it
SOCKET_TIMEOUT_S = 20
YOUTUBE_HOSTS = ("youtube.com", "youtu.be", "youtube-nocookie.com")


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
    """A downloaded file."""

    path: Path
    """Where it lies; the caller removes it."""
    facts: VideoFacts
    """What the video says of itself."""
    format_id: str | None
    """YouTube's number of the format, e.g. `249`."""
    bitrate_kbps: float | None
    """Mean bit rate of the download as announced."""
    language: str | None
    """Language of the track as announced."""
    duration_s: float | None
    """Length of the video as announced."""
    size_bytes: int
    """Bytes on disk."""
    is_fragmented: bool
    """Whether it was put together from fragments, so that a missing one would shift the rest."""


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
            config: Address, and options of yt-dlp's.
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
        try:
            self._extract(worker, video_id, 0.0, download=False)
        except Unavailable as error:
            return error.failure
        return None

    def check(self, folder: Path) -> None:
        """Build a client, so that options that cannot work are told before the first video.

        Raises:
            PipelineError: If yt-dlp refuses them, or a browser's cookies cannot be read.
        """
        try:
            _ = self._worker(folder).client.cookiejar
        except (YoutubeDLError, OSError, ValueError, TypeError) as error:
            msg = f"fetch.sources: yt-dlp does not take the options in `ytdlp`: {error}"
            raise PipelineError(msg) from error

    def url(self, video_id: str) -> str:
        """Address of a video."""
        return self._config.url_template.replace("{video_id}", video_id)

    def _attempt(self, video_id: str, folder: Path, first_start_s: float) -> Media:
        worker = self._worker(folder)
        found = self._extract(worker, video_id, first_start_s, download=True)
        return _media(video_id, found)

    def _extract(
        self, worker: "_Worker", video_id: str, first_start_s: float, *, download: bool
    ) -> Mapping[str, Any] | None:
        worker.begin(video_id, self.url(video_id), self._deadline_s, first_start_s)
        try:
            found = worker.client.extract_info(worker.url, download=download)
        except Unavailable:
            raise
        except (YoutubeDLError, OSError) as error:
            failure = classify(error, worker.log.warnings, is_youtube=self.is_youtube)
            if worker.is_fragment_broken and failure.http_status in {403, 404, 410}:
                failure = replace(failure, kind="retry", reason="fragment-missing")
            raise Unavailable(failure) from error
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            # A fault of the extractor on an answer it does not know; yt-dlp wraps most of them, not
            # all.
            message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE]
            raise Unavailable(Failure("retry", "extractor-error", message)) from error
        return cast("Mapping[str, Any] | None", found)

    def _worker(self, folder: Path) -> "_Worker":
        """This thread's client, built at its first video."""
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None or worker.folder != folder:
            worker = _Worker(
                folder, stop=self._stop, polite=self._polite, is_youtube=self.is_youtube
            )
            worker.client = yt_dlp.YoutubeDL(cast("Any", self._options(worker)))
            self._local.worker = worker
        return worker

    def _options(self, worker: "_Worker") -> dict[str, Any]:
        options: dict[str, Any] = {
            # a path's own `%` is no field
            "outtmpl": f"{str(worker.folder).replace('%', '%%')}/source.%(ext)s",
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
            "fragment_retries": 2,
            "extractor_retries": 2,
            # by default a missing fragment is passed over, and all that follows lies too early
            "skip_unavailable_fragments": False,
            "retry_sleep_functions": {
                "http": worker.retry_sleep_s,
                "extractor": worker.retry_sleep_s,
                "fragment": worker.fragment_sleep_s,
            },
            # node is looked for where deno is not; the versions are checked at the start of the
            # run.
            "js_runtimes": {"deno": {}, "node": {}},
        }
        return options | self._own_options(worker.folder)

    def _own_options(self, folder: Path) -> dict[str, Any]:
        """The profile's options in the form that yt-dlp takes."""
        options: dict[str, Any] = self._config.revealed_ytdlp
        if "cookiefile" in options:
            # yt-dlp writes the file anew at the end; threads must not share one.
            copied = folder / "cookies.txt"
            shutil.copyfile(Path(options["cookiefile"]).expanduser(), copied)
            options["cookiefile"] = str(copied)
        if "cookiesfrombrowser" in options:
            named = options["cookiesfrombrowser"]
            parts = [named] if isinstance(named, str) else list(named)
            options["cookiesfrombrowser"] = tuple((*parts, None, None, None)[:4])
        arguments: dict[str, dict[str, Any]] = options.get("extractor_args") or {}
        options["extractor_args"] = {
            extractor: {
                # a text would be read letter by letter
                key: [value] if isinstance(value, str) else value
                for key, value in values.items()
            }
            for extractor, values in arguments.items()
        }
        if "impersonate" in options:
            options["impersonate"] = ImpersonateTarget.from_str(options["impersonate"])
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

    def __init__(
        self, folder: Path, *, stop: threading.Event, polite: bool, is_youtube: bool
    ) -> None:
        self.folder = folder
        self._polite = polite
        self._is_youtube = is_youtube
        self._stop = stop
        self.log = _Log()
        self.url = ""
        self.is_fragment_broken = False
        self._video_id = ""
        self._give_up_s = 0.0
        self._deadline_s = 0.0
        self._first_start_s = 0.0

    def begin(self, video_id: str, url: str, deadline_s: float, first_start_s: float) -> None:
        """Start the clock for one video."""
        self.log.warnings.clear()
        self.url = url
        self.is_fragment_broken = False
        self._video_id = video_id
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

    def fragment_sleep_s(self, n: int) -> float:
        """Seconds before attempt `n` at a fragment; it is noted that one failed."""
        self.is_fragment_broken = True
        return self.retry_sleep_s(n)

    def _check(self, progress: str) -> None:
        if self._stop.is_set():
            raise Unavailable(Failure("retry", "stopped", "the run was stopped"))
        if time.monotonic() > self._give_up_s:
            message = f"not finished after {self._deadline_s:g} s ({progress})"
            raise Unavailable(Failure("retry", "deadline", message))

    def refuse(self, info: Mapping[str, Any], *, incomplete: bool) -> None:
        """Refuse before the download what is not the video, or cannot hold the clip."""
        self._check_identity(info)
        if info.get("is_live"):
            raise Unavailable(Failure("invalid", "live", "the video is a live stream"))
        duration_s = info.get("duration")
        if not incomplete and duration_s and self._first_start_s >= duration_s:
            message = (
                f"the clip starts at {self._first_start_s:g} s, the video is {duration_s:g} s long"
            )
            raise Unavailable(Failure("invalid", "start-beyond-end", message))

    def _check_identity(self, info: Mapping[str, Any]) -> None:
        """The video asked for, in its own language."""
        found_id = str(info.get("id") or "")
        if not self._is_youtube:
            if not _is_of_address(info, self.url, self._video_id):
                message = f"the page at {self.url} embeds another medium ({found_id})"
                raise Unavailable(Failure("invalid", "not-media", message))
            return
        if found_id != self._video_id:
            message = f"YouTube answered with {found_id}, as it does with a paid video's trailer"
            raise Unavailable(Failure("invalid", "another-video", message))
        language = info.get("language")
        if info.get("format_id") and language and (info.get("language_preference") or 0) < 0:
            message = f"only a dub was to be had ({language}); the original had no address"
            raise Unavailable(Failure("retry", "dubbed", message))


def _is_of_address(info: Mapping[str, Any], url: str, video_id: str) -> bool:
    """Whether a mirror's answer is the address itself, not something that its page embeds."""
    if info.get("extractor_key", "Generic") != "Generic":
        return video_id in str(info.get("id"))
    if info.get("playlist_id"):
        return False
    formats: Sequence[Mapping[str, Any]] = info.get("formats") or [info]
    return bool(info.get("direct")) or any(
        url in {entry.get("manifest_url"), entry.get("url")} for entry in formats
    )


def is_youtube(url_template: str) -> bool:
    """Whether an address is YouTube's own."""
    host = urlsplit(url_template).hostname or ""
    return any(host == known or host.endswith(f".{known}") for known in YOUTUBE_HOSTS)


def _media(video_id: str, found: Mapping[str, Any] | None) -> Media:
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
        facts=VideoFacts(
            video_id,
            title=found.get("title") or "",
            channel=found.get("channel") or found.get("uploader") or "",
            upload_date=found.get("upload_date") or "",
            licence=found.get("license") or "",
        ),
        format_id=chosen.get("format_id"),
        bitrate_kbps=chosen.get("abr") or chosen.get("tbr"),
        language=chosen.get("language"),
        duration_s=found.get("duration"),
        size_bytes=path.stat().st_size,
        is_fragmented=not str(chosen.get("protocol")).startswith("http"),
    )
