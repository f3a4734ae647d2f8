"""Spectrograms of the questions' clips: small pictures, drawn when the site is made.

400 points of time by 96 of frequency up to 8 kHz, as PNG of sixteen steps of black over nothing, so
that dark pages can invert them: 8 KB and 12 ms a clip. One that the last site has is taken over.
"""

# soundfile is untyped:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from storage.jsonl import write_bytes

WIDTH, HEIGHT, WINDOW = 400, 96, 512
TOP_HZ = 8000
LEVELS = 16
QUIET, LOUD = 30.0, 99.7  # percentiles of the decibels that become nothing and black


def draw_spectrograms(clips: Sequence[str | None], site: Path, before: Path) -> list[str | None]:
    """Draw one beside each published clip (`audio/demo/00017.wav` in the folder of the site).

    Returns:
        Its address; None where a clip cannot be read. One of the site before is taken over.
    """
    return [clip and _draw(clip, site, before) for clip in clips]


def _draw(clip: str, site: Path, before: Path) -> str | None:
    picture = Path(clip).with_suffix(".png")
    old, old_clip = before / picture, before / clip
    if old.is_file() and old_clip.is_file() and old_clip.samefile(site / clip):
        write_bytes(site / picture, old.read_bytes())
        return picture.as_posix()
    try:
        sound, rate = soundfile.read(site / clip, dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        return None
    if len(sound) < WINDOW:
        return None
    write_bytes(site / picture, _png(_levels(sound.mean(axis=1), rate)))
    return picture.as_posix()


def _levels(sound: NDArray[np.float32], rate: int) -> NDArray[np.uint8]:
    """Loudness in 0..15, (HEIGHT, WIDTH), the highest frequency first."""
    starts = np.linspace(0, len(sound) - WINDOW, WIDTH).astype(int)
    windows = sound[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    decibels = 20 * np.log10(np.abs(np.fft.rfft(windows, axis=1)) + 1e-6)
    bins = np.linspace(min(TOP_HZ, rate / 2) / rate * WINDOW, 1, HEIGHT).astype(int)
    shown = decibels.T[bins]
    low, high = np.percentile(shown, (QUIET, LOUD))
    share = np.clip((shown - low) / (high - low or 1), 0, 1)
    return (share * (LEVELS - 0.01)).astype(np.uint8)


def _png(levels: NDArray[np.uint8]) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    pairs = levels[:, ::2] * LEVELS + levels[:, 1::2]  # two points a byte
    rows = b"".join(b"\0" + row.tobytes() for row in pairs)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 4, 3, 0, 0, 0)
    alpha = bytes(17 * level for level in range(LEVELS))
    parts = [(b"IHDR", head), (b"PLTE", bytes(3 * LEVELS)), (b"tRNS", alpha)]
    parts += [(b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)
