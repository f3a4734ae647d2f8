"""The tools that fetching rests on: yt-dlp, its JS runtime, ffmpeg; checked when a run starts."""

import functools
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from yt_dlp.utils._jsruntime import DenoJsRuntime, NodeJsRuntime
from yt_dlp.version import __version__ as ytdlp_version

from storage.config import FetchConfig, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.youtube import is_youtube
from storage.host.ffmpeg import ffmpeg_version, find_ffmpeg

OLDEST_YTDLP = (2026, 10, 26)  # its messages are those that storage/fetch/failures.py knows
EJS_VERSION = "0.8.0"  # yt-dlp ignores any other than the one it names


def check_tools(config: FetchConfig) -> None:
    """Check what these sources need; YouTube itself also needs a JS runtime.

    Raises:
        PipelineError: If something is missing or too old; says how to get it.
    """
    find_ffmpeg()
    sources = [source for source in config.sources if isinstance(source, YoutubeSource)]
    for source in sources:
        cookies = source.revealed_ytdlp.get("cookiefile")
        if cookies is not None and not Path(cookies).expanduser().is_file():
            raise PipelineError(
                f"fetch.sources: there is no cookie file {cookies} (ytdlp.cookiefile)"
            )
    if not any(is_youtube(source.url_template) for source in sources):
        return
    if tuple(int(part) for part in ytdlp_version.split(".")[:3]) < OLDEST_YTDLP:
        wanted = ".".join(str(part) for part in OLDEST_YTDLP)
        msg = f"yt-dlp {ytdlp_version} is too old for YouTube: pip install yt-dlp=={wanted}"
        raise PipelineError(msg)
    if _ejs_version() != EJS_VERSION:
        msg = f"yt-dlp {ytdlp_version} needs its own: pip install yt-dlp-ejs=={EJS_VERSION}"
        raise PipelineError(msg)
    if find_js_runtime() is None:
        msg = "YouTube needs a JS runtime, deno 2.3 or node 22 at least: pip install deno"
        raise PipelineError(msg)


def tool_versions() -> dict[str, str]:
    """Versions for the account of a run."""
    return {
        "yt-dlp": ytdlp_version,
        "yt-dlp-ejs": _ejs_version(),
        "ffmpeg": ffmpeg_version(),
        "js_runtime": find_js_runtime() or "none",
        "python": sys.version.split()[0],
    }


def _ejs_version() -> str:
    try:
        return version("yt-dlp-ejs")
    except PackageNotFoundError:
        return "none"


@functools.cache
def find_js_runtime() -> str | None:
    """The JS runtime that yt-dlp will use, e.g. `deno 2.9.8`; None where none is new enough."""
    for runtime in (DenoJsRuntime(), NodeJsRuntime()):
        if runtime.info and runtime.info.supported:
            return f"{runtime.info.name} {runtime.info.version}"
    return None
