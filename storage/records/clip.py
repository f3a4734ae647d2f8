"""A clip that AVQA's annotations ask about, and how it stands.

`video_name` follows VGG-Sound: 11 characters of YouTube id, `_`, six digits of start second. Ids
contain `_` and `-`, so the name is cut by position, never split.
"""

import re
from dataclasses import dataclass

VIDEO_NAME = re.compile(r"[A-Za-z0-9_-]{11}_[0-9]{6}")


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """A stretch of one video that the annotations ask about."""

    clip_id: str
    """AVQA's `video_name`, e.g. `-HG3Omg_89c_000030`."""
    video_id: str
    """YouTube's id, 11 characters."""
    start_s: int
    """Second of the video at which the clip starts."""

    @property
    def file_name(self) -> str:
        """Name of its wav, as R1-AQA has it: `-HG3Omg_89c_30.wav`."""
        return f"{self.video_id}_{self.start_s}.wav"


@dataclass(frozen=True, slots=True)
class ClipState:
    """How a clip stands: what `convert` needs of the ledger."""

    state: str
    """`done`, or why not (see storage/fetch/clip_rows.py)."""
    reason: str = ""
    """Reason code, e.g. `private`."""
    message: str = ""


def parse_video_name(video_name: str) -> Clip:
    """Cut a name into YouTube id and start second; ValueError if it is of another form."""
    if VIDEO_NAME.fullmatch(video_name) is None:
        raise ValueError(
            f"video_name {video_name!r} is not 11 characters of YouTube id, '_' and six digits of "
            "start second, e.g. '-HG3Omg_89c_000030'"
        )
    return Clip(video_name, video_name[:-7], int(video_name[-6:]))
