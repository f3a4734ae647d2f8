"""YouTube without a network: a yt-dlp request handler that answers for *.youtube.com from a table.

The real extractor runs on these answers: playability, choice of clients and formats, its messages.
Media addresses point at a loopback server, so the real downloader runs too. Not exercised:
signatures, and proof-of-origin tokens, which need YouTube's own player code. Handlers are yt-dlp's
documented plugin interface; its version is pinned.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from yt_dlp.networking.common import (
    RequestHandler,
    Response,
    register_preference,
    register_rh,
)
from yt_dlp.networking.exceptions import HTTPError, TransportError, UnsupportedRequest

Answer = dict[str, Any]
YOUTUBE_HOST = re.compile(
    r"//([\w.-]*\.)?(youtube|youtube-nocookie|youtubei\.googleapis|googleapis|youtu)\."
)


@dataclass(frozen=True)
class Scenario:
    """What YouTube says of one video."""

    playability: Answer
    """The `playabilityStatus` of every client."""
    formats: list[Answer] | None = None
    """The `adaptiveFormats`; None: no streaming data."""
    length_s: int = 60
    """Announced length."""
    details: Answer | None = None
    """More `videoDetails`."""
    microformat: Answer | None = None
    """What the player says of the video's publication."""
    below: Answer | None = None
    """What the page says below the video: its channel, its licence."""
    streaming: Answer | None = None
    """More `streamingData`."""
    other_video_id: str | None = None
    """The id that the player answers with, where it is not the one asked for."""
    watch_status: int = 200
    """HTTP status of the watch page; a page of status 200 without data if `player_status` is not
    200."""
    player_status: int = 200
    """HTTP status of the player's interface."""
    player_body: bytes | None = None
    """What the interface sends instead of JSON."""
    times_out: bool = False
    """Whether the interface never answers."""
    embed_status: int = 200
    """HTTP status of the embedded player's page, which is asked for behind an age gate."""


VIDEOS: dict[str, Scenario] = {}
"""By video id; an id that is not here does not exist."""
CALLS: Counter[str] = Counter()
"""Requests by kind, for tests that count them."""

PLAYABLE: Answer = {"status": "OK"}


def refused(status: str, reason: str, subreason: str | None = None) -> Answer:
    """A playability that is not OK, as YouTube words it."""
    playability: Answer = {"status": status, "reason": reason}
    if subreason:
        texts = {"reason": {"simpleText": reason}, "subreason": {"simpleText": subreason}}
        playability["errorScreen"] = {"playerErrorMessageRenderer": texts}
    return playability


def audio_format(
    itag: int, url: str, mime: str, *, bit_rate: int, size: int, language: str | None = None
) -> Answer:
    """One audio-only format."""
    fields: Answer = {
        "itag": itag,
        "url": url,
        "mimeType": mime,
        "bitrate": bit_rate,
        "averageBitrate": bit_rate,
        "contentLength": str(size),
        "approxDurationMs": "60000",
        "audioSampleRate": "48000",
        "audioChannels": 2,
        "audioQuality": "AUDIO_QUALITY_LOW",
        "quality": "tiny",
        "projectionType": "RECTANGULAR",
    }
    if language is not None:
        is_original = language.endswith(".4")
        name = f"{language} original" if is_original else language
        fields["audioTrack"] = {
            "id": language,
            "displayName": name,
            "audioIsDefault": is_original,
        }
    return fields


NO_SUCH_VIDEO = Scenario(refused("ERROR", "Video unavailable", "This video is unavailable"))


@register_rh
class OfflineYoutubeRH(RequestHandler):
    """Answers for YouTube; leaves every other host to the real handlers."""

    _SUPPORTED_URL_SCHEMES = ("http", "https")
    _SUPPORTED_FEATURES = None
    _SUPPORTED_PROXY_SCHEMES = None

    def _check_extensions(self, extensions: dict[str, Any]) -> None:
        extensions.clear()

    def _validate(self, request: Any) -> None:
        if not YOUTUBE_HOST.search(request.url):
            msg = "not YouTube"
            raise UnsupportedRequest(msg)
        super()._validate(request)

    def _send(self, request: Any) -> Response:
        address = urlsplit(request.url)
        for pattern, reply in _ROUTES:
            if re.search(pattern, address.path):
                CALLS[pattern] += 1
                return reply(request)
        CALLS["other"] += 1
        return _reply(request, 404)


@register_preference(OfflineYoutubeRH)
def _prefer(_handler: RequestHandler, _request: Any) -> int:
    return 10_000


def _watch(request: Any) -> Response:
    video_id = parse_qs(urlsplit(request.url).query)["v"][0]
    scenario = VIDEOS.get(video_id, NO_SUCH_VIDEO)
    if scenario.watch_status != 200:
        return _reply(request, scenario.watch_status)
    if scenario.player_status != 200 or scenario.player_body or scenario.times_out:
        return _reply(request, 200, b"<html></html>", "text/html")
    player = json.dumps(_player_answer(video_id, scenario))
    context = {"client": {"clientName": "WEB", "clientVersion": "2.20260708.00.00"}}
    config = json.dumps({"INNERTUBE_CONTEXT": context, "INNERTUBE_CONTEXT_CLIENT_NAME": 1})
    page = (
        f"<html><script>ytcfg.set({config});</script>"
        f"<script>var ytInitialPlayerResponse = {player};</script>"
        f"<script>var ytInitialData = {json.dumps(_next_answer(scenario))};</script></html>"
    )
    return _reply(request, 200, page.encode(), "text/html")


def _player(request: Any) -> Response:
    video_id = json.loads(request.data)["videoId"]
    scenario = VIDEOS.get(video_id, NO_SUCH_VIDEO)
    return _interface(request, scenario, _player_answer(video_id, scenario))


def _next(request: Any) -> Response:
    video_id = json.loads(request.data).get("videoId")
    scenario = VIDEOS.get(video_id, NO_SUCH_VIDEO)
    return _interface(request, scenario, _next_answer(scenario))


def _embed(request: Any) -> Response:
    video_id = urlsplit(request.url).path.rpartition("/")[2]
    status = VIDEOS.get(video_id, NO_SUCH_VIDEO).embed_status
    if status != 200:
        return _reply(request, status)
    context = {"client": {"clientName": "WEB_EMBEDDED_PLAYER", "clientVersion": "1.20260708.00"}}
    config = json.dumps({"INNERTUBE_CONTEXT": context, "INNERTUBE_CONTEXT_CLIENT_NAME": 56})
    return _reply(request, 200, f"<script>ytcfg.set({config});</script>".encode(), "text/html")


_ROUTES: tuple[tuple[str, Callable[[Any], Response]], ...] = (
    (r"^/watch$", _watch),
    (r"/player$", _player),
    (r"/next$", _next),
    (r"^/embed/", _embed),
)
_TITLE = {"videoPrimaryInfoRenderer": {"title": {"simpleText": "t"}}}


def _next_answer(scenario: Scenario) -> Answer:
    contents = [_TITLE, {"videoSecondaryInfoRenderer": scenario.below or {}}]
    return {
        "contents": {"twoColumnWatchNextResults": {"results": {"results": {"contents": contents}}}}
    }


def _interface(request: Any, scenario: Scenario, answer: Answer) -> Response:
    if scenario.times_out:
        raise TransportError(cause=None, msg="timed out")
    body = json.dumps(answer).encode() if scenario.player_body is None else scenario.player_body
    return _reply(request, scenario.player_status, body, "application/json")


def _player_answer(video_id: str, scenario: Scenario) -> Answer:
    answer: Answer = {
        "playabilityStatus": scenario.playability,
        "videoDetails": {
            "videoId": scenario.other_video_id or video_id,
            "title": "t",
            "lengthSeconds": str(scenario.length_s),
            "channelId": "UC" + "a" * 22,
            "isLiveContent": False,
            **(scenario.details or {}),
        },
    }
    if scenario.microformat is not None:
        answer["microformat"] = {"playerMicroformatRenderer": scenario.microformat}
    if scenario.formats is not None:
        answer["streamingData"] = {
            "expiresInSeconds": "21540",
            "adaptiveFormats": scenario.formats,
            **(scenario.streaming or {}),
        }
    return answer


def _reply(request: Any, status: int, body: bytes = b"", mime: str = "text/plain") -> Response:
    response = Response(io.BytesIO(body), request.url, {"Content-Type": mime}, status=status)
    if not 200 <= status < 300:
        raise HTTPError(response)
    return response
