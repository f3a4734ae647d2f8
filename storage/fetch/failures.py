"""Why a clip could not be had: yt-dlp's messages sorted into classes.

yt-dlp 2026.10.26 raises `DownloadError` for everything; the cause hides in `exc_info[1]`, in the
text, or (a 429 of the player's interface) only in the warnings. The texts below are its own and
YouTube's; tests/storage/test_failures.py runs the real extractor through each. A class decides what
happens next:

- `invalid`: gone for good; asked for again only by `--retry invalid`.
- `unconfirmed`: gone, or hidden from us, the text fits both; again a day later.
- `geo`: not in this country; `--retry geo` from another one.
- `credentials`: only for those who may; `--retry credentials` with cookies.
- `retry`: the wire failed; again, later and later.
- `blocked`: YouTube refuses this address; all workers pause, the clip stays pending.
- `extractor`: yt-dlp or its JS runtime is out of date; five in a row stop the run.
- `local`: disk full, no permission; the run stops at once.
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from yt_dlp.networking.exceptions import HTTPError
from yt_dlp.utils import ExtractorError, GeoRestrictedError

Kind = Literal[
    "invalid",
    "unconfirmed",
    "geo",
    "credentials",
    "retry",
    "blocked",
    "extractor",
    "local",
]
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


class Unavailable(Exception):  # noqa: N818  it is an answer that a source gives, not an error in it
    """A source has no such clip; carries the Failure."""

    def __init__(self, failure: Failure) -> None:
        """Keep the failure beside its message."""
        super().__init__(f"{failure.kind}:{failure.reason}: {failure.message}")
        self.failure = failure


# The first that is found in the message decides; `Video unavailable` alone stands last, because
# most of the others begin with it. U+2019 is YouTube's apostrophe.
_MESSAGES: tuple[tuple[Kind, str, str], ...] = (
    ("blocked", "bot-check", r"confirm you['\u2019]re not a bot"),
    ("blocked", "captcha", r"captcha challenge"),
    (
        "blocked",
        "rate-limit",
        r"rate-limited by YouTube|content isn['\u2019]t available, try again later",
    ),
    ("blocked", "address-blocked", r"All player responses are invalid|not available on this app"),
    ("geo", "country", r"in your country|from your location due to geo"),
    ("credentials", "age", r"confirm your age|age-restricted"),
    ("invalid", "private", r"Private video|This video is private"),
    ("invalid", "members-only", r"Join this channel|members-only"),
    ("invalid", "paid", r"requires payment|Music Premium"),
    ("invalid", "account-terminated", r"account associated with this video has been terminated"),
    ("invalid", "account-closed", r"uploader has closed their YouTube account"),
    ("invalid", "copyright", r"due to a copyright claim|on copyright grounds"),
    ("invalid", "terms-of-service", r"violating YouTube['\u2019]s|Community Guidelines"),
    ("invalid", "removed", r"removed by the uploader|This video has been removed"),
    ("invalid", "no-recording", r"live stream recording is not available"),
    ("invalid", "drm", r"DRM protected"),
    ("invalid", "no-such-video", r"This video is unavailable|This video does not exist"),
    ("invalid", "incomplete-id", r"Incomplete YouTube ID|is not a valid URL"),
    ("retry", "not-yet-live", r"Premieres in|live event will begin|This live event has ended"),
    ("extractor", "no-formats", r"No video formats found|n challenge solving failed|SABR-only"),
    ("invalid", "no-audio", r"Requested format is not available"),
    ("invalid", "not-media", r"Unsupported URL"),
    ("local", "no-ffmpeg", r"ffmpeg is not installed"),
    ("retry", "truncated", r"more expected"),
    ("retry", "empty", r"Did not get any data blocks|The downloaded file is empty"),
    ("retry", "timeout", r"timed out"),
    ("retry", "connection-reset", r"Connection (reset|broken|aborted)|Remote end closed"),
    ("retry", "connection-refused", r"Connection refused"),
    ("retry", "no-network", r"name resolution|Name or service not known|is unreachable"),
    ("unconfirmed", "unavailable", r"Video unavailable|content isn['\u2019]t available"),
)
_HTTP_STATUS = re.compile(r"HTTP Error (\d{3})")


def classify(error: Exception, warnings: Sequence[str], *, is_youtube: bool) -> Failure:
    """Sort what yt-dlp raised.

    Args:
        error: What came out of `YoutubeDL.extract_info`.
        warnings: Its warnings for this video; a 429 of the player's interface shows only there.
        is_youtube: Whether YouTube was asked. There a 403 is a refusal of this address; on another
            server, of this file.
    """
    cause = _cause(error)
    message = _clean(str(error))
    status = _http_status(cause, message)
    local = _local_fault(cause)
    if local is not None:
        return Failure("local", local, message)
    if isinstance(cause, GeoRestrictedError):
        return Failure("geo", "country", message)
    for kind, reason, pattern in _MESSAGES:
        if re.search(pattern, message):
            return Failure(kind, reason, message, status)
    if "Failed to extract any player response" in message:
        return _no_player_response(message, warnings)
    if status is not None:
        return _by_status(status, message, cause, is_youtube=is_youtube)
    return Failure("retry", _wire_reason(cause), message)


def _cause(error: Exception) -> BaseException:
    """The error inside a DownloadError; the error itself where there is none."""
    exc_info = getattr(error, "exc_info", None)
    return exc_info[1] if exc_info and exc_info[1] is not None else error


def _clean(message: str) -> str:
    """The message without yt-dlp's frame and advice."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", message).removeprefix("ERROR: ")
    text = text.split("; please report this issue on")[0].split(" Use --cookies")[0]
    return " ".join(text.split())[:MAX_MESSAGE]


def _http_status(cause: BaseException, message: str) -> int | None:
    if isinstance(cause, HTTPError):
        return int(cause.status)
    match = _HTTP_STATUS.search(message)
    return int(match.group(1)) if match else None


def _local_fault(cause: BaseException) -> str | None:
    """The disk's fault, wherever it stands in the chain of causes."""
    seen: set[int] = set()
    current: BaseException | None = cause
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in LOCAL_ERRORS:
            return LOCAL_ERRORS[current.errno]
        current = getattr(current, "cause", None) or current.__cause__ or current.__context__
    return None


def _no_player_response(message: str, warnings: Sequence[str]) -> Failure:
    statuses = [int(found) for warning in warnings for found in _HTTP_STATUS.findall(warning)]
    for status in (429, 403):
        if status in statuses:
            return Failure("blocked", f"http-{status}", message, status)
    if any("timed out" in warning for warning in warnings):
        return Failure("retry", "timeout", message)
    return Failure("retry", "no-player-response", message)


def _by_status(status: int, message: str, cause: BaseException, *, is_youtube: bool) -> Failure:
    if status == 429 or (is_youtube and status == 403):
        return Failure("blocked", f"http-{status}", message, status, _retry_after_s(cause))
    if status in {401, 403}:
        return Failure("credentials", f"http-{status}", message, status)
    if status == 451:
        return Failure("geo", "http-451", message, status)
    if status in {404, 410} and not is_youtube:
        return Failure("invalid", f"http-{status}", message, status)
    return Failure("retry", f"http-{status}", message, status)


def _retry_after_s(cause: BaseException) -> float | None:
    """What the server's Retry-After says; yt-dlp itself never reads it."""
    if not isinstance(cause, HTTPError):
        return None
    value = cause.response.headers.get("Retry-After") or ""
    return float(value) if value.isdigit() else None


def _wire_reason(cause: BaseException) -> str:
    """A short code for what has no message of its own, e.g. `transport-error`."""
    if isinstance(cause, ExtractorError):
        return "unknown-answer"
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(cause).__name__).lower()
