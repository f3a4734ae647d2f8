"""Why a clip could not be had: yt-dlp's messages sorted into classes.

yt-dlp raises `DownloadError` for everything; the cause hides in `exc_info[1]`, in the text, or (a
429 of the player's interface) only in the warnings. The texts are in messages.yaml beside this
file; the tests run the real extractor through each. A class decides what happens next:

- `invalid`: gone for good; asked for again only by `--retry invalid`.
- `unconfirmed`: gone, or hidden from us, the text fits both; again a day later.
- `geo`: not in this country; `--retry geo` from another one.
- `credentials`: only for those who may; `--retry credentials` with cookies.
- `retry`: the wire failed; again, later and later.
- `blocked`: YouTube refuses this address; all workers pause, the clip stays pending.
- `network`: our own network or account hides videos (a school's, Restricted Mode); the run stops.
- `extractor`: yt-dlp, its JS runtime or this session was not given the formats; again an hour
  later, and five in a row stop the run.
- `local`: disk full, no permission; the run stops at once.
"""

import errno
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import yaml
from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.utils import ExtractorError, GeoRestrictedError

Lost = Literal["invalid", "geo", "credentials"]
Kind = Literal[Lost, "unconfirmed", "retry", "blocked", "network", "extractor", "local"]
LOCAL_ERRORS = {
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "disk-full",
    errno.EFBIG: "disk-full",
    errno.EROFS: "read-only-disk",
    errno.EACCES: "no-permission",
}
MAX_MESSAGE = 300  # characters kept; what follows is advice about yt-dlp's own options


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source has no clip."""

    kind: Kind
    """What happens next; see the module's table."""
    reason: str
    """Code, e.g. `private`; what the account is grouped by."""
    message: str = ""
    """What the source said."""
    http_status: int | None = None
    """Status of the answer, where there was one."""
    retry_after_s: float | None = None
    """Seconds that the server asked us to wait."""
    is_youtube: bool = True
    """Whether YouTube said so; a mirror's refusals mean what they say."""


class Unavailable(Exception):  # noqa: N818  it is an answer that a source gives, not an error in it
    """A source has no such clip; carries the Failure."""

    def __init__(self, failure: Failure) -> None:
        """Keep the failure beside its message."""
        super().__init__(f"{failure.kind}:{failure.reason}: {failure.message}")
        self.failure = failure


# (kind or `session`, reason, pattern): the lines of messages.yaml.
_MESSAGES: list[tuple[Kind | Literal["session"], str, re.Pattern[str]]] = [
    (
        line["kind"],
        line["reason"],
        re.compile(line["text"].replace("'", "['\u2019]"), re.IGNORECASE),
    )
    for line in yaml.safe_load(Path(__file__).with_name("messages.yaml").read_text("utf-8"))
]
# Answers that say nothing of the video where the session was not given its formats.
_DOUBTFUL = {"no-audio", "drm"}
_ERRNO = re.compile(r"\[Errno (\d+)\]")
_HTTP_STATUS = re.compile(r"HTTP Error (\d{3})")


def classify(error: Exception, warnings: Sequence[str], *, is_youtube: bool) -> Failure:
    """Sort what came out of `YoutubeDL.extract_info`, with its warnings for this video.

    A 403 of YouTube is a refusal of this address; of another server, of this file.
    """
    exc_info = getattr(error, "exc_info", None)  # a DownloadError holds what it was raised for
    cause: BaseException = exc_info[1] if exc_info and exc_info[1] is not None else error
    message = _clean(str(error))
    told = _HTTP_STATUS.search(message)
    status = cause.status if isinstance(cause, HTTPError) else int(told[1]) if told else None
    number = _ERRNO.search(str(error))
    if number and int(number[1]) in LOCAL_ERRORS:
        return Failure("local", LOCAL_ERRORS[int(number[1])], message)
    if isinstance(cause, GeoRestrictedError):  # in another site's words
        return Failure("geo", "country", message)
    for kind, reason, pattern in _MESSAGES:
        if kind != "session" and pattern.search(message):
            session = _fault_of_session(warnings) if reason in _DOUBTFUL else None
            return session or Failure(kind, reason, message, status)
    if "Failed to extract any player response" in message:
        return _no_player_response(message, warnings)
    if status is not None:
        kind = _kind_of(status, is_youtube=is_youtube)
        wait_s = _retry_after_s(cause)
        return Failure(kind, f"http-{status}", message, status, wait_s, is_youtube)
    return Failure("retry", _wire_reason(cause), message)


def _retry_after_s(cause: BaseException) -> float | None:
    """What the server's Retry-After says, seconds or a date; yt-dlp itself never reads it."""
    value = cause.response.headers.get("Retry-After") if isinstance(cause, HTTPError) else None
    if value is None or value.isdigit():
        return float(value) if value else None
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _fault_of_session(warnings: Sequence[str]) -> Failure | None:
    """The fault in our way of asking that the warnings tell."""
    for kind, reason, pattern in _MESSAGES:
        told = next((text for text in warnings if pattern.search(text)), None)
        if kind == "session" and told is not None:
            return Failure("extractor", reason, _clean(told))
    return None


def _clean(message: str) -> str:
    """The message without yt-dlp's frame and advice."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", message).removeprefix("ERROR: ")
    text = text.split("; please report this issue on")[0].split(" Use --cookies")[0]
    return " ".join(text.split())[:MAX_MESSAGE]


def _no_player_response(message: str, warnings: Sequence[str]) -> Failure:
    told = " ".join(warnings)
    for status in (429, 403):
        if f"HTTP Error {status}" in told:
            return Failure("blocked", f"http-{status}", message, status)
    reason = "timeout" if "timed out" in told else "no-player-response"
    return Failure("retry", reason, message)


def _kind_of(status: int, *, is_youtube: bool) -> Kind:
    match status:
        case 429:
            return "blocked"
        case 403 if is_youtube:
            return "blocked"
        case 401 | 403:
            return "credentials"
        case 451:
            return "geo"
        case 404 | 410 if not is_youtube:
            return "invalid"
        case _:
            return "retry"


def _wire_reason(cause: BaseException) -> str:
    """A short code for what has no message of its own, e.g. `transport-error`."""
    if isinstance(cause, ExtractorError):
        return "unknown-answer"
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(cause).__name__).lower()
