"""Decoding audio: any file becomes mono float32 at 16 kHz, or says why it cannot.

Training and inference read clips through here, so that both hear the same. libsndfile goes by a
file's content, not by its name (46 files of MMAU's test-mini are MP3 streams called .wav); what it
cannot read goes through ffmpeg.

All channels are mixed down by their mean; R1-AQA takes the first one. Resampling is soxr's HQ
filter (a windowed sinc), not linear interpolation, which folds what lies above 8 kHz into the band.
"""

import io
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]  it has none
import soxr  # pyright: ignore[reportMissingTypeStubs]  it has none
from numpy.typing import NDArray

from storage.errors import PipelineError
from storage.jsonl import read_json, write_json
from storage.manifest import file_digest

SAMPLE_RATE_HZ = 16_000  # of Qwen2-Audio's feature extractor
NUM_THREADS = 4  # libsndfile and soxr work outside Python's lock
DECODE_DEADLINE_S = 120.0  # ffmpeg decodes an hour of audio in less


class UnreadableAudioError(PipelineError):
    """A clip that gives no usable samples; the message names the file and the reason."""


class Samples(NamedTuple):
    """Audio as stored: all channels, own rate."""

    channels: NDArray[np.float32]
    """(frames, channels), -1..1."""
    sample_rate_hz: int


class AudioFacts(NamedTuple):
    """What a check found in a readable clip."""

    duration_s: float
    peak: float
    """Largest absolute sample, 0..1 (more where the file clips)."""


class Unreadable(NamedTuple):
    """Why a clip cannot be used."""

    reason: str


def read_audio(path: Path) -> NDArray[np.float32]:
    """Decode a file to mono at 16 kHz.

    Returns:
        Samples, (num_samples,) float32, nominally -1..1.

    Raises:
        UnreadableAudioError: If the file is missing, empty, undecodable, or holds NaN or infinity.
    """
    return to_mono_16k(_decode(path), str(path))


def to_mono_16k(samples: Samples, name: str) -> NDArray[np.float32]:
    """Mix all channels down and resample.

    Raises:
        UnreadableAudioError: If there are no samples, or values that are not numbers.
    """
    if not samples.channels.size:
        msg = f"{name} holds no audio: it decodes to 0 samples"
        raise UnreadableAudioError(msg)
    mono = samples.channels.mean(axis=1, dtype=np.float64).astype(np.float32)
    if not np.isfinite(mono).all():
        msg = f"{name} holds samples that are not numbers (NaN or infinity)"
        raise UnreadableAudioError(msg)
    if samples.sample_rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, samples.sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if not len(mono):
        msg = f"{name} holds no audio: nothing is left of it at {SAMPLE_RATE_HZ} Hz"
        raise UnreadableAudioError(msg)
    return mono.astype(np.float32, copy=False)


def check_audio(path: Path) -> AudioFacts | Unreadable:
    """Decode a file once, whole, and say how long and how loud it is, or why it cannot be used."""
    try:
        mono = read_audio(path)
    except UnreadableAudioError as error:
        return Unreadable(str(error))
    return AudioFacts(duration_s=len(mono) / SAMPLE_RATE_HZ, peak=float(np.abs(mono).max()))


def check_clips(
    clips: Mapping[str, Path], cache: Path, on_progress: Callable[[int], None] = lambda _done: None
) -> dict[str, dict[str, Any]]:
    """Decode each clip once; what an earlier run found of the same file is believed.

    Args:
        clips: By any name.
        cache: JSON file of what was found, by the same names; it is written anew.
        on_progress: Told the number of clips checked.

    Returns:
        By name `sha256`, `duration_s` and `peak`, or the `reason` why it cannot be used.
    """
    known: dict[str, Any] = read_json(cache) if cache.exists() else {}

    def check(name: str) -> dict[str, Any]:
        clip = clips[name]
        status = clip.stat()
        stamp = [str(clip), status.st_size, status.st_mtime_ns]
        before = known.get(name)
        if before is not None and before.get("stamp") == stamp:
            return before
        facts = check_audio(clip)
        if isinstance(facts, Unreadable):
            return {"stamp": stamp, "reason": facts.reason}
        found = {"duration_s": round(facts.duration_s, 3), "peak": round(facts.peak, 4)}
        return {"stamp": stamp, "sha256": file_digest(clip), **found}

    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for name, clip in zip(clips, pool.map(check, clips), strict=True):
            found[name] = clip
            on_progress(len(found))
    if found != known:
        write_json(cache, found)
    return found


def find_clip(folder: Path, audio_id: str) -> Path | None:
    """The clip that a question names, under the audio folder; None if there is none.

    `./test-mini-audios/x.wav` is found as `folder/test-mini-audios/x.wav` or as `folder/x.wav`.
    A name that leads out of the folder is not followed.
    """
    if "\0" in audio_id:
        return None
    relative = Path(audio_id)
    for candidate in (folder / relative, folder / relative.name):
        if candidate.is_file() and candidate.resolve().is_relative_to(folder.resolve()):
            return candidate
    return None


def common_folder(clips: Iterable[str]) -> Path:
    """The innermost folder that all clips lie under."""
    return Path(os.path.commonpath([str(Path(clip).parent) for clip in clips]))


def silence(duration_s: float) -> NDArray[np.float32]:
    """Zeros at 16 kHz."""
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)


def _decode(path: Path) -> Samples:
    try:
        return _by_libsndfile(path)
    except (soundfile.LibsndfileError, OSError) as error:
        if not path.is_file():
            msg = f"{path} is missing"
            raise UnreadableAudioError(msg) from error
        return _decode_by_ffmpeg(path.read_bytes(), str(path))


def _by_libsndfile(file: Path | io.BytesIO) -> Samples:
    frames, sample_rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    return Samples(cast("NDArray[np.float32]", frames), sample_rate_hz)


def _decode_by_ffmpeg(content: bytes, name: str) -> Samples:
    if not content:
        msg = f"{name} is empty (0 bytes)"
        raise UnreadableAudioError(msg)
    import imageio_ffmpeg  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]  rarely needed; no stubs

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", "pipe:0"]
    command += ["-vn", "-f", "wav", "-acodec", "pcm_f32le", "pipe:1"]
    try:
        run = subprocess.run(
            command, input=content, capture_output=True, timeout=DECODE_DEADLINE_S, check=True
        )
        return _by_libsndfile(io.BytesIO(run.stdout))
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        msg = f"{name} cannot be decoded: {' '.join(tail) or 'ffmpeg gave no reason'}"
        raise UnreadableAudioError(msg) from error
    except (subprocess.TimeoutExpired, soundfile.LibsndfileError) as error:
        msg = f"{name} cannot be decoded: {error}"
        raise UnreadableAudioError(msg) from error
