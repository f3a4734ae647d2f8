"""One video's audio through yt-dlp: the smallest original-language track, whole.

By its own downloader, never by `download_ranges`: that hands the address to ffmpeg, which YouTube
slows down, which hides every HTTP status, and which reports success for a clip broken off after 4
of 10 seconds (measured). The whole file at 50 kbit/s is 1.5 MB for a video of four minutes, far
below what the rate limit lets through.

Its success is not believed: the video that came back must be the one asked for (a paid one answers
with its trailer, a page with whatever it embeds), in its own language, and with every fragment; the
length is held against the announced one where it is cut (storage/fetch/worker.py).
"""

import hashlib
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import yt_dlp
from yt_dlp.networking.impersonate import ImpersonateTarget
from yt_dlp.utils import YoutubeDLError

from storage.config import FetchConfig, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.failures import Failure, Unavailable, classify
from storage.fetch.sources import Answer, FolderAudio, Found, Media, VideoFacts
from storage.records.clip import Clip

# `lang` first, or a dubbed track wins (size alone picked a Hindi dub); at least 45 kbit/s, or 28
# kbit/s `ultralow` wins. Never ending in `/b` for YouTube: a video without an audio track would
# count as success. A muxed file serves where no track alone has an address.
YOUTUBE_FORMAT = (
    "ba[acodec^=opus][abr>=45][format_id!*=drc]/ba[abr>=45][format_id!*=drc]/ba/b[acodec!=none]"
)
# A plain file server tells no codecs: ffmpeg sees whether there is audio.
FILE_FORMAT = "ba/b"
MAX_SOURCE_BYTES = 1 << 30  # a day of 50 kbit/s is half of it
SOCKET_TIMEOUT_S = 20
YOUTUBE_HOSTS = ("youtube.com", "youtu.be", "youtube-nocookie.com")
ACCESS = (  # options of yt-dlp's that may open what was closed
    "cookiefile",
    "cookiesfrombrowser",
    "username",
    "proxy",
    "geo_verification_proxy",
    "geo_bypass_country",
    "source_address",
)
ACCESS_MARK = " access "  # in a key, before the options, which may open closed doors
# What yt-dlp raises, and what its extractors let through of an answer that they do not know.
FAULTS = (YoutubeDLError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Downloader:
    """A source of videos; all threads share it, and each has its own YoutubeDL in it.

    A YoutubeDL is not safe between threads and takes 43 ms of CPU to build.
    """

    source: YoutubeSource
    """Address, and options of yt-dlp's."""
    config: FetchConfig
    """Deadline; where videos are paced, the attempts at one file are as well."""
    cache_dir: Path
    """Where yt-dlp keeps YouTube's player code between runs."""
    stop: threading.Event
    """Breaks off downloads in flight, with the reason `stopped`."""
    _local: threading.local = field(default_factory=threading.local)

    @property
    def is_youtube(self) -> bool:
        """Whether it is YouTube itself."""
        return is_youtube(self.source.url_template)

    @property
    def name(self) -> str:
        """As the ledger has it."""
        return "youtube" if self.is_youtube else "mirror"

    def key(self, clip: Clip) -> str:  # noqa: ARG002  the same for all
        """What an answer depends on: the address, and who asks."""
        access = {name: self.source.ytdlp.get(name) for name in ACCESS}
        digest = hashlib.sha256(repr(access).encode()).hexdigest()[:8]
        return f"{self.name} {self.source.url_template}{ACCESS_MARK}{digest}"

    def find(self, clips: Sequence[Clip], folder: Path) -> dict[str, Answer]:
        """By clip id the one download of their video, in the calling thread's own folder."""
        try:
            media = self._download(clips, folder)
        except Unavailable as error:
            return dict.fromkeys((clip.clip_id for clip in clips), error.failure)
        return {clip.clip_id: [Found(media.path, clip.start_s, media)] for clip in clips}

    def _download(self, clips: Sequence[Clip], folder: Path) -> Media:
        worker, video_id = self._worker(folder), clips[0].video_id
        first_start_s = min(clip.start_s for clip in clips)  # a shorter video is not downloaded
        try:
            return _media(video_id, worker.extract(video_id, first_start_s))
        except Unavailable as error:
            # An address of a media file expires: one more extraction gives a new one; a second 403
            # is a refusal.
            if not self.is_youtube or error.failure.reason != "http-403":
                raise
        return _media(video_id, worker.extract(video_id, first_start_s))

    def probe(self, video_id: str, folder: Path) -> Failure | None:
        """Ask for a video without downloading it; None if it is there."""
        try:
            self._worker(folder).extract(video_id, 0.0, download=False)
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

    def _worker(self, folder: Path) -> "_Worker":
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None or worker.folder != folder:
            worker = self._local.worker = _Worker(self, folder)
        return worker


AudioSource = Downloader | FolderAudio


class _Worker:
    """One thread's client, and what its hooks need to know of the present video."""

    def __init__(self, shared: Downloader, folder: Path) -> None:
        self.shared = shared
        self.folder = folder
        self.warnings: list[str] = []  # where some causes stand alone
        self.client = yt_dlp.YoutubeDL(cast("Any", self._options() | self._own_options()))

    def extract(
        self, video_id: str, first_start_s: float, *, download: bool = True
    ) -> Mapping[str, Any] | None:
        self._video_id, self._first_start_s = video_id, first_start_s
        self._url = self.shared.source.url_template.replace("{video_id}", video_id)
        self._give_up_s = time.monotonic() + self.shared.config.deadline_s
        self._is_fragment_broken = False
        self.warnings.clear()
        try:
            found = self.client.extract_info(self._url, download=download)
        except FAULTS as error:
            failure = classify(error, self.warnings, is_youtube=self.shared.is_youtube)
            if self._is_fragment_broken and failure.http_status in {403, 404, 410}:
                failure = replace(failure, kind="retry", reason="fragment-missing")
            raise Unavailable(failure) from error
        return cast("Mapping[str, Any] | None", found)

    def _options(self) -> dict[str, Any]:
        return {
            # a path's own `%` is no field
            "outtmpl": f"{str(self.folder).replace('%', '%%')}/source.%(ext)s",
            "format": YOUTUBE_FORMAT if self.shared.is_youtube else FILE_FORMAT,
            "format_sort": ["lang", "+size"],
            # Errors are raised as well.
            "logger": SimpleNamespace(
                debug=_ignore, info=_ignore, warning=self.warnings.append, error=_ignore
            ),
            "progress_hooks": [self._check_deadline],
            "match_filter": self._refuse,
            "quiet": True,
            "noprogress": True,
            "noplaylist": True,
            # by default every m4a goes through ffmpeg once more, 53 ms for nothing
            "fixup": "never",
            "cachedir": str(self.shared.cache_dir),
            "continuedl": False,
            "overwrites": True,
            "updatetime": False,
            "max_filesize": MAX_SOURCE_BYTES,
            "socket_timeout": min(SOCKET_TIMEOUT_S, self.shared.config.deadline_s),
            "retries": 3,
            "fragment_retries": 2,
            "extractor_retries": 2,
            # by default a missing fragment is passed over, and all that follows lies too early
            "skip_unavailable_fragments": False,
            "retry_sleep_functions": {
                "http": self._retry_sleep_s,
                "extractor": self._retry_sleep_s,
                "fragment": self._fragment_sleep_s,
            },
            # node is looked for where deno is not; versions are checked at the start of the run
            "js_runtimes": {"deno": {}, "node": {}},
        }

    def _own_options(self) -> dict[str, Any]:
        """The profile's options in the form that yt-dlp takes."""
        options: dict[str, Any] = self.shared.source.revealed_ytdlp
        if "cookiefile" in options:
            # yt-dlp writes the file anew at the end; threads must not share one.
            copied = self.folder / "cookies.txt"
            shutil.copyfile(Path(options["cookiefile"]).expanduser(), copied)
            options["cookiefile"] = str(copied)
        if "cookiesfrombrowser" in options:
            named = options["cookiesfrombrowser"]
            options["cookiesfrombrowser"] = (named,) if isinstance(named, str) else tuple(named)
        extractors: dict[str, dict[str, Any]] = options.get("extractor_args") or {}
        for arguments in extractors.values():
            # a text would be read letter by letter
            texts = {name: text for name, text in arguments.items() if isinstance(text, str)}
            arguments.update({name: [text] for name, text in texts.items()})
        if "impersonate" in options:
            options["impersonate"] = ImpersonateTarget.from_str(options["impersonate"])
        return options

    def _check_deadline(self, progress: Mapping[str, Any]) -> None:
        """Give up a server that drips, and break off at a stop.

        yt-dlp has no deadline for the whole, and its `throttledratelimit` asks again for ever.
        """
        if progress.get("status") == "downloading":
            self._check(f"{progress.get('downloaded_bytes')} bytes")

    def _retry_sleep_s(self, n: int) -> float:
        """Seconds before attempt `n` at the same address; yt-dlp passes it by this name."""
        self._check(f"{n} attempts")
        return min(2.0**n, 30.0) if self.shared.config.videos_per_hour else 0.0

    def _fragment_sleep_s(self, n: int) -> float:
        self._is_fragment_broken = True
        return self._retry_sleep_s(n)

    def _check(self, progress: str) -> None:
        if self.shared.stop.is_set():
            raise Unavailable(Failure("retry", "stopped", "the run was stopped"))
        if time.monotonic() > self._give_up_s:
            message = f"not finished after {self.shared.config.deadline_s:g} s ({progress})"
            raise Unavailable(Failure("retry", "deadline", message))

    def _refuse(self, info: Mapping[str, Any], *, incomplete: bool) -> None:
        """Refuse before the download what is not the video, or cannot hold the clip."""
        language = info.get("language")
        if not self.shared.is_youtube:
            if not self._is_of_address(info):
                message = f"the page at {self._url} embeds another medium ({info.get('id')})"
                raise Unavailable(Failure("invalid", "not-media", message))
        elif info.get("id") != self._video_id:
            other = f"{info.get('id')}, as it does with a paid video's trailer"
            raise Unavailable(Failure("invalid", "another-video", f"YouTube answered with {other}"))
        elif info.get("format_id") and language and (info.get("language_preference") or 0) < 0:
            message = f"only a dub was to be had ({language}); the original had no address"
            raise Unavailable(Failure("retry", "dubbed", message))
        if info.get("is_live"):
            raise Unavailable(Failure("invalid", "live", "the video is a live stream"))
        duration_s, start_s = info.get("duration"), self._first_start_s
        if not incomplete and duration_s and start_s >= duration_s:
            message = f"the clip starts at {start_s:g} s, the video is {duration_s:g} s long"
            raise Unavailable(Failure("invalid", "start-beyond-end", message))

    def _is_of_address(self, info: Mapping[str, Any]) -> bool:
        """Whether a mirror's answer is the address itself, not something that its page embeds."""
        if info.get("extractor_key", "Generic") != "Generic":
            return self._video_id in str(info.get("id"))
        if info.get("playlist_id"):
            return False
        formats: Sequence[Mapping[str, Any]] = info.get("formats") or [info]
        return bool(info.get("direct")) or any(
            self._url in {entry.get("manifest_url"), entry.get("url")} for entry in formats
        )


def is_youtube(url_template: str) -> bool:
    """Whether an address is YouTube's own."""
    host = urlsplit(url_template).hostname or ""
    return any(host == known or host.endswith(f".{known}") for known in YOUTUBE_HOSTS)


def _ignore(_message: str) -> None: ...


def _media(video_id: str, found: Mapping[str, Any] | None) -> Media:
    downloads: list[dict[str, Any]] = (found or {}).get("requested_downloads") or [{}]
    path = Path(downloads[0].get("filepath", ""))
    # A file over max_filesize raises nothing, and leaves no path or no file.
    if found is None or not path.is_file():
        message = f"over {MAX_SOURCE_BYTES >> 20} MiB, or refused by yt-dlp"
        raise Unavailable(Failure("invalid", "too-large", message))
    chosen = downloads[0]
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
        language=chosen.get("language"),
        duration_s=found.get("duration"),
        size_bytes=path.stat().st_size,
        is_fragmented=not str(chosen.get("protocol")).startswith("http"),
    )
