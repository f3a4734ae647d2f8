import zlib
from pathlib import Path

import numpy as np
import soundfile

from reports.site.spectrogram import HEIGHT, WIDTH, draw_spectrograms


def write_tone(path: Path, hertz: float, *, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(2 * rate) / rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * hertz * times), rate)


def levels(png: bytes) -> np.ndarray:
    """What a picture of ours shows, the highest frequency first."""
    at = png.index(b"IDAT")
    size = int.from_bytes(png[at - 4 : at], "big")
    rows = np.frombuffer(zlib.decompress(png[at + 4 : at + 4 + size]), np.uint8)
    pairs = rows.reshape(HEIGHT, 1 + WIDTH // 2)[:, 1:]
    return np.stack([pairs >> 4, pairs & 15], axis=2).reshape(HEIGHT, WIDTH)


def test_a_tone_is_a_line_at_its_height(tmp_path):
    write_tone(tmp_path / "audio/a.wav", 2000)
    (address,) = draw_spectrograms(["audio/a.wav"], tmp_path, tmp_path / "none")
    assert address == "audio/a.png"
    loudest = levels((tmp_path / address).read_bytes()).mean(axis=1).argmax()
    assert abs(loudest / HEIGHT - 0.75) < 0.03  # 2 of 8 kHz, from below


def test_what_is_no_sound_or_too_short_has_no_picture(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/a.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "audio/b.wav", np.zeros(100), 16_000)
    clips = ["audio/a.wav", "audio/b.wav", None]
    assert draw_spectrograms(clips, tmp_path, tmp_path / "none") == [None, None, None]


def test_silence_has_an_empty_picture(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio/a.wav", np.zeros(16_000), 16_000)
    (address,) = draw_spectrograms(["audio/a.wav"], tmp_path, tmp_path / "none")
    assert levels((tmp_path / str(address)).read_bytes()).max() == 0


def test_the_picture_of_a_clip_that_is_still_the_same_is_taken_over(tmp_path):
    write_tone(tmp_path / "old/audio/a.wav", 500)
    (tmp_path / "old/audio/a.png").write_bytes(b"drawn before")
    (tmp_path / "new/audio").mkdir(parents=True)
    (tmp_path / "new/audio/a.wav").hardlink_to(tmp_path / "old/audio/a.wav")
    draw_spectrograms(["audio/a.wav"], tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "new/audio/a.png").read_bytes() == b"drawn before"
    write_tone(tmp_path / "again.wav", 700)
    (tmp_path / "new/audio/a.wav").unlink()
    (tmp_path / "again.wav").rename(tmp_path / "new/audio/a.wav")
    draw_spectrograms(["audio/a.wav"], tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "new/audio/a.png").read_bytes() != b"drawn before"
