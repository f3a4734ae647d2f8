"""Cutting a clip out of any media file, and measuring what came out.

The cut seeks twice: ffmpeg jumps to two seconds before the start (fast, by the container's index),
then decodes and drops exactly two seconds. A single seek gives 159,744 instead of 160,000 samples
for AAC, and starts 16 ms late.
Near the beginning there is no jump, as one to second 0 loses AAC's first 64 ms. Measured against
noise: exact for AAC and PCM, within 1 ms for Matroska, whose clock counts milliseconds, and 21 ms
late for fragmented MP4 without an edit list, which plays AAC's priming in every player.
"""

import errno
import hashlib
import math
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ffmpeg  # pyright: ignore[reportMissingTypeStubs]  # it has none
import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]  # it has none

from storage.host.ffmpeg import find_ffmpeg

SAMPLE_RATE_HZ = 16_000  # what Qwen2-Audio hears
SILENT_BELOW_DBFS = -60.0
FLOOR_DBFS = (
    -120.0
)  # digital silence has no level; below one step of 16 bits (-90 dBFS) all is the same
LEAD_S = 2  # decoded and dropped before the start; longer than any codec's priming
CUT_TIMEOUT_S = 60.0
SHORTEST_CLIP_S = 1.0  # a source that ends this soon after the start has nothing to ask about
# A container may round its duration; a clip that ends this much before it is still whole.
DURATION_TOLERANCE_S = 0.5
# A clip at the very end of a video may lack part of a frame of the codec (AAC's is 43 ms): zeros
# fill it, so that a whole clip has its exact length.
MAX_PADDING = SAMPLE_RATE_HZ // 20
DURATION_LINE = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")


class CutError(Exception):
    """A media file that holds no such clip; `reason` is its code in the ledger."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the code beside the message."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WavFacts:
    """What a clip's wav holds."""

    sha256: str
    """Digest of the file."""
    num_samples: int
    """Samples at 16 kHz."""
    peak_dbfs: float
    """Highest sample, dB below full scale; -120 for digital silence."""
    rms_dbfs: float
    """Root mean square over the clip, dB below full scale; -120 for digital silence."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / SAMPLE_RATE_HZ

    @property
    def is_silent(self) -> bool:
        """Whether nothing in it is louder than -60 dBFS."""
        return self.peak_dbfs < SILENT_BELOW_DBFS


def cut_clip(source: Path, target: Path, *, start_s: float, clip_length_s: float) -> WavFacts:
    """Cut a clip from a media file: mono, 16 kHz, PCM16, flushed to the disk.

    A source that ends inside the clip gives a shorter wav, of at least one second; up to 50 ms
    missing at its end are filled with zeros.

    Raises:
        CutError: `not-media`, `no-audio`, `start-beyond-end`, `too-short`, `truncated` or
            `cut-timeout`.
        OSError: If the disk is full or the target cannot be written.
    """
    log = _run_ffmpeg(source, target, start_s=start_s, clip_length_s=clip_length_s)
    facts = measure_wav(target)
    num_missing = num_samples_of(clip_length_s) - facts.num_samples
    if num_missing <= 0:
        return facts
    if num_missing <= MAX_PADDING:
        _pad(target, num_missing)
        return measure_wav(target)
    source_s = _declared_duration_s(log)
    end_s = start_s + facts.duration_s
    if source_s is not None and end_s + DURATION_TOLERANCE_S < min(
        source_s, start_s + clip_length_s
    ):
        msg = f"the file says it is {source_s:.2f} s long, but decodes only to {end_s:.2f} s"
        raise CutError("truncated", msg)
    if facts.num_samples == 0:
        msg = f"the clip starts at {start_s:g} s, but the source is {_seconds(source_s)} long"
        raise CutError("start-beyond-end", msg)
    if facts.duration_s < min(SHORTEST_CLIP_S, clip_length_s / 2):
        msg = f"the source ends {facts.duration_s:.2f} s after the clip's start at {start_s:g} s"
        raise CutError("too-short", msg)
    return facts


def measure_wav(path: Path) -> WavFacts:
    """Read a clip's wav and take its length, level and digest.

    Raises:
        CutError: `not-media`, if it is not a mono PCM16 wav of 16 kHz.
    """
    content = path.read_bytes()
    try:
        with soundfile.SoundFile(path) as file:
            form = (file.samplerate, file.channels, file.subtype)
            samples = cast("np.ndarray", file.read(dtype="int16"))
    except soundfile.LibsndfileError as error:
        raise CutError("not-media", f"{path.name} is no wav: {error}") from error
    if form != (SAMPLE_RATE_HZ, 1, "PCM_16"):
        raise CutError("not-media", f"{path.name} is {form}, expected 16 kHz, mono, PCM_16")
    peak = 0 if samples.size == 0 else int(np.abs(samples.astype(np.int32)).max())
    mean_square = 0.0 if samples.size == 0 else float(np.mean(np.square(samples, dtype=np.float64)))
    return WavFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        num_samples=int(samples.size),
        peak_dbfs=_dbfs(peak),
        rms_dbfs=_dbfs(math.sqrt(mean_square)),
    )


def num_samples_of(clip_length_s: float) -> int:
    """Samples of a whole clip: 160,000 for 10 s."""
    return round(clip_length_s * SAMPLE_RATE_HZ)


def _pad(path: Path, num_missing: int) -> None:
    samples = cast("np.ndarray", soundfile.read(path, dtype="int16")[0])
    padded = np.pad(samples, (0, num_missing))
    soundfile.write(path, padded, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _dbfs(level: float) -> float:
    """Level of a 16-bit amplitude; full scale is 32,768."""
    return FLOOR_DBFS if level <= 0 else round(20 * math.log10(level / 32_768), 2)


def _run_ffmpeg(source: Path, target: Path, *, start_s: float, clip_length_s: float) -> str:
    """Run the cut; returns what ffmpeg said."""
    command = _command(source, target, start_s=start_s, clip_length_s=clip_length_s)
    try:
        done = subprocess.run(command, capture_output=True, timeout=CUT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CutError("cut-timeout", f"ffmpeg took more than {CUT_TIMEOUT_S:g} s") from error
    log = done.stderr.decode("utf-8", errors="replace")
    for number in (errno.ENOSPC, errno.EFBIG):
        if os.strerror(number) in log or (
            number == errno.EFBIG and done.returncode == -signal.SIGXFSZ
        ):
            raise OSError(number, os.strerror(number), str(target))
    if done.returncode != 0 or not target.exists():
        raise _cut_error(log, done.returncode)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return log


def _command(source: Path, target: Path, *, start_s: float, clip_length_s: float) -> list[str]:
    # Near the beginning it decodes from there: to jump to 0 costs AAC its first 64 ms and Opus 8
    # ms.
    jump = {"ss": start_s - LEAD_S} if start_s > LEAD_S else {}
    drop = {"ss": min(LEAD_S, start_s)} if start_s > 0 else {}
    # Absolute paths, because ids that begin with `-` would be read as options.
    tool = cast("Any", ffmpeg)
    stream = tool.input(str(source.absolute()), protocol_whitelist="file", **jump)
    stream = tool.output(
        stream["a:0"],
        str(target.absolute()),
        t=clip_length_s,
        ac=1,
        ar=SAMPLE_RATE_HZ,
        acodec="pcm_s16le",
        f="wav",
        fflags="+bitexact",
        map_metadata=-1,
        **drop,
    ).global_args("-hide_banner", "-nostats", "-nostdin")
    return cast("list[str]", tool.compile(stream, cmd=find_ffmpeg(), overwrite_output=True))


def _cut_error(log: str, exit_code: int) -> CutError:
    if "matches no streams" in log:
        return CutError("no-audio", "the file has no audio track")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1] if lines else "no message"
    return CutError("not-media", f"ffmpeg cannot read it (exit {exit_code}): {last}"[:300])


def _declared_duration_s(log: str) -> float | None:
    match = DURATION_LINE.search(log)
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _seconds(duration_s: float | None) -> str:
    return "less than that" if duration_s is None else f"{duration_s:.2f} s"
