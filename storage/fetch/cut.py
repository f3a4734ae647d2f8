"""Cutting a clip out of any media file, and measuring what came out.

Sample k of a clip is second start + k/16000 of the medium's own timeline: where that has no audio
(a track that starts after the picture, a gap), there is silence. The track is the original one, or
the file's default. A whole clip has exactly its length. Only containers that hold audio themselves
are read: a playlist or manifest, whatever its name, makes ffmpeg open any file of this host.

The cut seeks twice: ffmpeg jumps to two seconds before the start (fast, by the container's index),
then decodes and drops exactly two seconds; a single seek gives 159,744 instead of 160,000 samples
for AAC, and starts 16 ms late. Measured against noise: exact for AAC and PCM, within 1 ms for
Matroska, whose clock counts milliseconds, and 21 ms late for fragmented MP4 without an edit list,
which plays AAC's priming in every player.
"""

import errno
import math
import os
import re
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import ffmpeg  # pyright: ignore[reportMissingTypeStubs]  # it has none
import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]  # it has none

from storage.host.ffmpeg import find_ffmpeg
from storage.manifest import file_digest

SAMPLE_RATE_HZ = 16_000  # what Qwen2-Audio hears
SILENT_BELOW_DBFS = -60.0
FLOOR_DBFS = -120.0  # digital silence has no level; below one step of 16 bits (-90) all is the same
LEAD_S = 2  # decoded and dropped before the start; longer than any codec's priming
CUT_TIMEOUT_S = 60.0
SHORTEST_CLIP_S = 1.0  # a source that ends this soon after the start has nothing to ask about
# A container may round its duration; a clip that ends this much before it is still whole.
DURATION_TOLERANCE_S = 0.5
# A clip at the very end of a video may lack part of a frame of the codec (AAC's is 43 ms): zeros
# fill it, so that a whole clip has its exact length.
MAX_PADDING = SAMPLE_RATE_HZ // 20
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,rm,tta,w64,wav,wv"
)
OWN_ZERO = ("mov,", "matroska,")  # containers whose timeline begins at 0, not at the first packet
LATE_START_S = 0.05  # an encoder's delay is less
QUIET_DBFS = -35.0  # the mean of two channels in antiphase is far below either
CANCELLED_DB = 20.0  # by which a mix-down lies below its channels when they cancel
DURATION_LINE = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
START_LINE = re.compile(r"Duration: .*?, start: (-?\d+\.\d+)")
AUDIO_LINE = re.compile(r"^ +Stream #0:\d+.*: Audio: .*$", re.MULTILINE)


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
    is_cancelled: bool = False
    """Whether the source's channels cancel each other in the mix-down."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / SAMPLE_RATE_HZ

    @property
    def is_silent(self) -> bool:
        """Whether nothing in it is louder than -60 dBFS."""
        return self.peak_dbfs < SILENT_BELOW_DBFS


class _Cut(NamedTuple):
    """What to cut, and what the first look at the file says of how."""

    source: Path
    target: Path
    start_s: float
    clip_length_s: float
    track: int = 0
    """Which of the audio tracks."""
    offset_s: float = 0.0
    """Where on its own timeline the file starts, if not at 0."""
    keeps_video_clock: bool = False
    """MPEG-TS counts from the first packet of what is read, so the picture is read as well."""


def cut_clip(
    source: Path,
    target: Path,
    *,
    start_s: float,
    clip_length_s: float,
    announced_s: float | None = None,
    is_fragmented: bool = False,
) -> WavFacts:
    """Cut a clip from a media file: mono, 16 kHz, PCM16, flushed to the disk.

    A source that ends inside the clip gives a shorter wav, of at least one second; up to 50 ms
    missing at its end are filled with zeros. It is held against `announced_s`, what was said of a
    download's length; the whole of a fragmented one, as a missing fragment shifts what follows.

    Raises:
        CutError: `not-media`, `no-audio`, `not-finite`, `start-beyond-end`, `too-short`,
            `truncated` or `cut-timeout`.
        OSError: If the disk is full or the target cannot be written.
    """
    cut = _Cut(source, target, start_s, clip_length_s)
    log = _run_ffmpeg(cut)
    refined = _refine(cut, log)
    if refined != cut:
        cut, log = refined, _run_ffmpeg(refined)
    source_s = _declared_duration_s(log)
    whole_s = announced_s if is_fragmented else None
    if source_s and whole_s and abs(source_s - whole_s) > DURATION_TOLERANCE_S:
        msg = f"announced as {whole_s:g} s, but its fragments make {source_s:.2f} s"
        raise CutError("truncated", msg)
    facts = measure_wav(target)
    num_missing = num_samples_of(clip_length_s) - facts.num_samples
    if num_missing > MAX_PADDING:
        _check_end(cut, facts, source_s, announced_s)
    elif num_missing:
        _fit(target, num_samples_of(clip_length_s))
        facts = measure_wav(target)
    if facts.rms_dbfs < QUIET_DBFS or "Audio: pcm_f" in log:
        return replace(facts, is_cancelled=_is_cancelled(cut, facts))
    return facts


def _check_end(
    cut: _Cut, facts: WavFacts, source_s: float | None, announced_s: float | None
) -> None:
    start_s, end_s = cut.start_s, cut.start_s + facts.duration_s
    wanted_s = start_s + cut.clip_length_s
    if source_s is not None and end_s + DURATION_TOLERANCE_S < min(source_s, wanted_s):
        msg = f"the file says it is {source_s:.2f} s long, but decodes only to {end_s:.2f} s"
        raise CutError("truncated", msg)
    if announced_s is not None and end_s + DURATION_TOLERANCE_S < min(announced_s, wanted_s):
        ends_s = min(end_s, source_s or end_s)
        msg = f"announced as {announced_s:g} s, but its audio ends at {ends_s:.2f} s"
        raise CutError("truncated", msg)
    if facts.num_samples == 0:
        length = "less than that" if source_s is None else f"{source_s:.2f} s"
        msg = f"the clip starts at {start_s:g} s, but the source is {length} long"
        raise CutError("start-beyond-end", msg)
    if facts.duration_s < min(SHORTEST_CLIP_S, cut.clip_length_s / 2):
        msg = f"the source ends {facts.duration_s:.2f} s after the clip's start at {start_s:g} s"
        raise CutError("too-short", msg)


def measure_wav(path: Path) -> WavFacts:
    """Read a clip's wav and take its length, level and digest.

    Raises:
        CutError: `not-media`, if it is not a mono PCM16 wav of 16 kHz.
    """
    try:
        with soundfile.SoundFile(path) as file:
            form = (file.samplerate, file.channels, file.subtype)
            samples = cast("np.ndarray", file.read(dtype="int16"))
    except soundfile.LibsndfileError as error:
        raise CutError("not-media", f"{path.name} is no wav: {error}") from error
    if form != (SAMPLE_RATE_HZ, 1, "PCM_16"):
        raise CutError("not-media", f"{path.name} is {form}, expected 16 kHz, mono, PCM_16")
    return WavFacts(
        sha256=file_digest(path),
        num_samples=int(samples.size),
        peak_dbfs=_dbfs(int(np.abs(samples.astype(np.int32)).max(initial=0))),
        rms_dbfs=_dbfs(_rms(samples)),
    )


def num_samples_of(clip_length_s: float) -> int:
    """Samples of a whole clip: 160,000 for 10 s."""
    return round(clip_length_s * SAMPLE_RATE_HZ)


def _fit(path: Path, num_samples: int) -> None:
    """Bring a wav to its exact length: zeros at the end, or a few samples less."""
    samples = cast("np.ndarray", soundfile.read(path, dtype="int16")[0])[:num_samples]
    padded = np.pad(samples, (0, num_samples - len(samples)))
    soundfile.write(path, padded, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _rms(samples: np.ndarray) -> float:
    return math.sqrt(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0


def _dbfs(level: float) -> float:
    return FLOOR_DBFS if level <= 0 else round(20 * math.log10(level / 32_768), 2)


def _refine(cut: _Cut, log: str) -> _Cut:
    """What the file's description, printed with every run, changes about the cut."""
    described = log.partition("Stream mapping:")[0]
    tracks = AUDIO_LINE.findall(described)
    container = described.partition("Input #0, ")[2]
    start = START_LINE.search(described)
    start_s = float(start.group(1)) if start and container.startswith(OWN_ZERO) else 0.0
    has_video = ": Video: " in described and "attached pic" not in described
    return cut._replace(
        track=max(range(len(tracks)), key=lambda index: _rank(tracks[index]), default=0),
        offset_s=start_s if start_s > LATE_START_S else 0.0,
        keeps_video_clock=container.startswith("mpegts") and has_video and cut.start_s <= LEAD_S,
    )


def _rank(track: str) -> int:
    """How much a track is the medium's own: the original, the default, others, then comments."""
    if "(original)" in track:
        return 3
    if any(f"({kind})" in track for kind in ("dub", "comment", "visual impaired", "descriptions")):
        return 0
    return 2 if "(default)" in track else 1


def _is_cancelled(cut: _Cut, facts: WavFacts) -> bool:
    """Whether the channels themselves are far louder than their mix-down.

    Raises:
        CutError: `not-finite`, if a sample is NaN or infinite.
    """
    command = _command(cut._replace(target=Path("pipe:1")), ac=2, acodec="pcm_f32le", f="f32le")
    samples = np.frombuffer(_run(command).stdout, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise CutError("not-finite", "the clip holds samples that are not numbers")
    return _dbfs(_rms(samples) * 32_768) > max(facts.rms_dbfs + CANCELLED_DB, SILENT_BELOW_DBFS)


def _run_ffmpeg(cut: _Cut) -> str:
    done = _run(_command(cut))
    log = done.stderr.decode("utf-8", errors="replace")
    for number, limit in ((errno.ENOSPC, None), (errno.EFBIG, -signal.SIGXFSZ)):
        if os.strerror(number) in log or done.returncode == limit:
            raise OSError(number, os.strerror(number), str(cut.target))
    if done.returncode != 0 or not cut.target.exists():
        if "matches no streams" in log:
            raise CutError("no-audio", "the file has no audio track")
        last = log.strip().rpartition("\n")[2].strip() or "no message"
        msg = f"ffmpeg cannot read it (exit {done.returncode}): {last}"[:300]
        raise CutError("not-media", msg)
    with cut.target.open("rb") as file:
        os.fsync(file.fileno())
    return log


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, timeout=CUT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CutError("cut-timeout", f"ffmpeg took more than {CUT_TIMEOUT_S:g} s") from error


def _command(cut: _Cut, **form: object) -> list[str]:
    # Near the beginning it decodes from there: a jump to 0 costs AAC its first 64 ms, Opus 8 ms.
    jump = {"ss": cut.start_s - LEAD_S} if cut.start_s > LEAD_S else {}
    drop = {"ss": min(LEAD_S, cut.start_s)} if cut.start_s > 0 else {}
    shift = {"itsoffset": cut.offset_s} if cut.offset_s else {}
    # Absolute paths, because ids that begin with `-` would be read as options.
    tool = cast("Any", ffmpeg)
    source = tool.input(
        str(cut.source.absolute()),
        protocol_whitelist="file",
        format_whitelist=CONTAINERS,
        **jump,
        **shift,
    )
    output = {
        "t": cut.clip_length_s,
        # silence where the timeline has no audio: before a late start, and in gaps
        "af": "aresample=async=1:first_pts=0",
        "ac": 1,
        "ar": SAMPLE_RATE_HZ,
        "acodec": "pcm_s16le",
        "f": "wav",
        "fflags": "+bitexact",
        "map_metadata": -1,
        **drop,
        **form,
    }
    name = str(cut.target) if "f" in form else str(cut.target.absolute())
    outputs = [tool.output(source[f"a:{cut.track}"], name, **output)]
    if cut.keeps_video_clock:
        outputs.append(tool.output(source["v:0"], "-", c="copy", f="null", t=0.1))
    stream = tool.merge_outputs(*outputs).global_args("-hide_banner", "-nostats", "-nostdin")
    return cast("list[str]", tool.compile(stream, cmd=find_ffmpeg(), overwrite_output=True))


def _declared_duration_s(log: str) -> float | None:
    match = DURATION_LINE.search(log)
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
