"""The demo's videos: what is heard when, and the media file that holds it.

A video is a row of slots, one clip long each. The annotated slots hold the sound asked about, all
others hold sounds that are never asked about in that video: a clip cut at the wrong place has a
wrong answer.
"""

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imageio_ffmpeg  # pyright: ignore[reportMissingTypeStubs]  # it has none
import numpy as np

from storage.errors import PipelineError
from storage.world.media_server import ServerFault
from storage.world.sounds import NOISE_BY_DIFFICULTY, SAMPLE_RATE_HZ, SOUNDS, Samples, make_sound

MediaFault = Literal["no-audio", "short", "silent"]
Fault = ServerFault | MediaFault

# In the order in which a world deals them out. "silent" comes last: such a clip can be cut.
FAULTS: tuple[Fault, ...] = (
    *("404", "403", "410", "truncated", "no-audio", "short"),
    *("zero-bytes", "html", "html-as-audio", "silent"),
)
NO_MEDIA: frozenset[Fault] = frozenset({"404", "403", "410", "zero-bytes", "html", "html-as-audio"})

SHORTEST_S, LONGEST_S = 20, 60
TAKES_PER_SOUND = 12  # different fillers of a sound

ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# The quickest settings of each encoder: a clip's sound has to survive, not to please.
AUDIO_CODECS = {
    ".m4a": ("-c:a", "aac", "-aac_coder", "fast", "-b:a", "64k", "-ac", "2", "-f", "mp4"),
    ".webm": ("-c:a", "libopus", "-b:a", "48k", "-compression_level", "0", "-f", "webm"),
    ".mp4": ("-c:a", "aac", "-aac_coder", "fast", "-b:a", "48k", "-f", "mp4"),
}
PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=32x32:rate=1")
PICTURE_CODEC = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1")


@dataclass(frozen=True, slots=True)
class AnnotatedClip:
    """A stretch of a video that is asked about."""

    start_s: int
    sound: str
    """What is heard in it, a key of `SOUNDS`."""


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the world."""

    video_id: str
    """Eleven characters, as on YouTube; may begin with `-`."""
    length_s: int
    clips: tuple[AnnotatedClip, ...]
    """What is asked about, each another sound."""
    suffix: str
    """Container: `.m4a` (AAC), `.webm` (Opus) or `.mp4` (AAC beside a picture)."""
    fault: Fault | None

    @property
    def file_name(self) -> str | None:
        """Name of its media file; None if it has none."""
        return None if self.fault in NO_MEDIA else self.video_id + self.suffix


def plan_video(
    index: int, *, num_clips: int, slot_s: int, fault: Fault | None, rng: np.random.Generator
) -> Video:
    """Decide what a video holds; its place among all videos spreads containers and odd ids."""
    shortest_s = max(SHORTEST_S, (num_clips + 2) * slot_s)
    length_s = int(min(LONGEST_S, shortest_s + rng.exponential(6)))
    offset_s = int(rng.integers(slot_s))
    num_slots = (length_s - offset_s - 1) // slot_s  # codecs lose some milliseconds at the end
    slots = np.sort(rng.choice(num_slots, size=num_clips, replace=False))
    sounds = rng.permutation(list(SOUNDS))[:num_clips]
    past_end_s = length_s + 5 if fault == "short" else 0
    clips = tuple(
        AnnotatedClip(start_s=past_end_s + offset_s + int(slot) * slot_s, sound=str(sound))
        for slot, sound in zip(slots, sounds, strict=True)
    )
    suffix = ".mp4" if fault == "no-audio" else (".m4a", ".webm", ".mp4")[index % 3]
    return Video(_video_id(index, rng), length_s, clips, suffix, fault)


def _video_id(index: int, rng: np.random.Generator) -> str:
    letters = [ID_LETTERS[i] for i in rng.integers(len(ID_LETTERS), size=11)]
    if index % 10 == 1:
        letters[0] = "-"
    if index % 10 == 2:
        letters[int(rng.integers(11))] = "_"
    return "".join(letters)


def make_fillers(*, slot_s: int, seed: int) -> dict[str, list[Samples]]:
    """Takes of every sound, one slot long, for the seconds that nobody asks about."""
    rng = np.random.default_rng(seed)
    return {
        sound: [
            make_sound(sound, num_samples=slot_s * SAMPLE_RATE_HZ, noise=0.005, rng=rng)
            for _ in range(TAKES_PER_SOUND)
        ]
        for sound in SOUNDS
    }


def make_soundtrack(
    video: Video, *, slot_s: int, fillers: dict[str, list[Samples]], rng: np.random.Generator
) -> Samples:
    """What is heard from the first second to the last, mono, 16 kHz."""
    num_samples = video.length_s * SAMPLE_RATE_HZ
    if video.fault == "silent":
        return np.zeros(num_samples, np.float32)
    never_asked = sorted(set(SOUNDS) - {clip.sound for clip in video.clips})
    slot_samples = slot_s * SAMPLE_RATE_HZ
    first_sample = (video.clips[0].start_s % slot_s) * SAMPLE_RATE_HZ - slot_samples
    num_slots = math.ceil((num_samples - first_sample) / slot_samples)
    takes = [
        fillers[str(rng.choice(never_asked))][int(rng.integers(TAKES_PER_SOUND))]
        for _ in range(num_slots)
    ]
    track = np.concatenate(takes)[-first_sample:][:num_samples]
    for clip in video.clips:
        if clip.start_s >= video.length_s:
            continue
        noise = float(rng.choice(list(NOISE_BY_DIFFICULTY.values())))
        start = clip.start_s * SAMPLE_RATE_HZ
        track[start : start + slot_samples] = make_sound(
            clip.sound, num_samples=slot_samples, noise=noise, rng=rng
        )
    return track


def encode(video: Video, soundtrack: Samples, path: Path) -> None:
    """Write a video's media file with ffmpeg, the same bytes each time."""
    codec = ("-an", "-f", "mp4") if video.fault == "no-audio" else AUDIO_CODECS[video.suffix]
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-y"),
        *("-f", "f32le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-i", "pipe:0"),
        *((*PICTURE, *PICTURE_CODEC) if video.suffix == ".mp4" else ()),
        *("-t", str(video.length_s), "-fflags", "+bitexact", "-flags", "+bitexact"),
        *codec,
        *(("-movflags", "+faststart") if codec[-1] == "mp4" else ()),
        str(path),
    ]
    finished = subprocess.run(command, input=soundtrack.tobytes(), capture_output=True, check=False)
    if finished.returncode != 0:
        msg = f"ffmpeg could not write {path}: {finished.stderr.decode(errors='replace')[-500:]}"
        raise PipelineError(msg)
