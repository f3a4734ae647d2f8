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
from typing import Any, NamedTuple

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
    channels, sample_rate_hz = _decode(path)
    if not channels.size:
        raise UnreadableAudioError(f"{path} holds no audio: it decodes to 0 samples")
    mono = channels.mean(axis=1, dtype=np.float64).astype(np.float32)
    if not np.isfinite(mono).all():
        raise UnreadableAudioError(f"{path} holds samples that are not numbers (NaN or infinity)")
    if sample_rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, sample_rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    if not len(mono):
        msg = f"{path} holds no audio: nothing is left of it at {SAMPLE_RATE_HZ} Hz"
        raise UnreadableAudioError(msg)
    return mono.astype(np.float32, copy=False)


def check_audio(path: Path) -> int | Unreadable:
    """Decode a file once, whole: its samples at 16 kHz, or why it cannot be used."""
    try:
        return len(read_audio(path))
    except UnreadableAudioError as error:
        return Unreadable(str(error))


def check_clips(
    clips: Mapping[str, Path], cache: Path, on_progress: Callable[[int], None] = lambda _done: None
) -> dict[str, dict[str, Any]]:
    """Decode each clip once; what an earlier run found of the same file is believed.

    Returns:
        By the clips' names `sha256`, or the `reason` why one cannot be used; also kept in `cache`.
    """
    known: dict[str, Any] = read_json(cache) if cache.exists() else {}

    def check(name: str) -> dict[str, Any]:
        clip = clips[name]
        status = clip.stat()
        stamp = [str(clip), status.st_size, status.st_mtime_ns]
        before = known.get(name)
        if before is not None and before.get("stamp") == stamp:
            return before
        length = check_audio(clip)
        if isinstance(length, Unreadable):
            return {"stamp": stamp, "reason": length.reason}
        return {"stamp": stamp, "sha256": file_digest(clip)}

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
    try:
        for candidate in (folder / relative, folder / relative.name):
            if candidate.is_file() and candidate.resolve().is_relative_to(folder.resolve()):
                return candidate
    except OSError:  # a name that is too long for one
        pass
    return None


def common_folder(clips: Iterable[str]) -> Path:
    """The innermost folder that all clips lie under."""
    return Path(os.path.commonpath([str(Path(clip).parent) for clip in clips]))


def silence(duration_s: float) -> NDArray[np.float32]:
    """Zeros at 16 kHz."""
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)


def _decode(path: Path) -> tuple[NDArray[np.float32], int]:
    """All channels, (frames, channels), and their rate."""
    read: Any = soundfile.read  # its types leave open what `dtype` says
    try:
        return read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        if not path.is_file():
            raise UnreadableAudioError(f"{path} is missing") from error
    if not path.stat().st_size:
        raise UnreadableAudioError(f"{path} is empty (0 bytes)")
    import imageio_ffmpeg  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]  rarely needed; no stubs

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", "pipe:0"]
    command += ["-vn", "-f", "wav", "-acodec", "pcm_f32le", "pipe:1"]
    try:
        run = subprocess.run(
            command,
            input=path.read_bytes(),
            capture_output=True,
            timeout=DECODE_DEADLINE_S,
            check=True,
        )
        return read(io.BytesIO(run.stdout), dtype="float32", always_2d=True)
    except subprocess.CalledProcessError as error:
        tail = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        msg = f"{path} cannot be decoded: {' '.join(tail) or 'ffmpeg gave no reason'}"
        raise UnreadableAudioError(msg) from error
    except (subprocess.TimeoutExpired, soundfile.LibsndfileError) as error:
        raise UnreadableAudioError(f"{path} cannot be decoded: {error}") from error
