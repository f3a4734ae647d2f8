import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from storage.audio import (
    SAMPLE_RATE_HZ,
    Unreadable,
    UnreadableAudioError,
    check_audio,
    find_clip,
    read_audio,
    silence,
)


def tone(frequency_hz: float, sample_rate_hz: int, duration_s: float = 1.0):
    times_s = np.arange(round(sample_rate_hz * duration_s)) / sample_rate_hz
    return (0.5 * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def power_at(samples, frequency_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) * 2 / len(samples)
    return float(spectrum[round(frequency_hz * len(samples) / SAMPLE_RATE_HZ)])


def test_a_16_khz_wav_comes_back_as_it_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 16_000), 16_000, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav")
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, tone(440, 16_000))


def test_all_channels_are_mixed_down(tmp_path: Path) -> None:
    """The original takes the first channel: what sounds in the second one is lost to it."""
    only_second = np.stack([np.zeros(16_000, np.float32), tone(440, 16_000)], axis=1)
    soundfile.write(tmp_path / "a.wav", only_second, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), tone(440, 16_000) / 2, atol=1e-7)


@pytest.mark.parametrize("sample_rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_keep_pitch_and_duration(tmp_path: Path, sample_rate_hz: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, sample_rate_hz), sample_rate_hz)
    samples = read_audio(tmp_path / "a.wav")
    assert len(samples) == SAMPLE_RATE_HZ
    assert power_at(samples, 440) == pytest.approx(0.5, rel=0.02)


def test_what_lies_above_8_khz_does_not_fold_into_the_band(tmp_path: Path) -> None:
    """12 kHz at 48 kHz would appear as 4 kHz without a filter."""
    soundfile.write(tmp_path / "a.wav", tone(12_000, 48_000), 48_000)
    assert power_at(read_audio(tmp_path / "a.wav"), 4_000) < 1e-3


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    """46 files of MMAU's test-mini are MP3 streams named .wav."""
    soundfile.write(tmp_path / "a.mp3", tone(440, 44_100), 44_100)
    (tmp_path / "a.mp3").rename(tmp_path / "a.wav")
    assert power_at(read_audio(tmp_path / "a.wav")[:16_000], 440) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("extension", ["m4a", "webm"])
def test_what_libsndfile_cannot_read_goes_through_ffmpeg(tmp_path: Path, extension: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 16_000), 16_000)
    converted = tmp_path / f"a.{extension}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", converted]
    subprocess.run(command, check=True)
    assert power_at(read_audio(converted)[:16_000], 440) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello", "cannot be decoded"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be decoded"),
        (None, "is missing"),
    ],
)
def test_a_clip_that_cannot_be_read_says_which_and_why(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableAudioError, match=rf"a\.wav {reason}"):
        read_audio(path)
    assert isinstance(check_audio(path), Unreadable)


def test_a_clip_without_samples_or_with_nan_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    with pytest.raises(UnreadableAudioError, match="0 samples"):
        read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    with pytest.raises(UnreadableAudioError, match="not numbers"):
        read_audio(tmp_path / "nan.wav")


def test_a_readable_clip_gives_its_length(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 8_000, duration_s=1.5), 8_000)
    assert check_audio(tmp_path / "a.wav") == 24_000


def test_a_clip_is_found_beside_its_folder_or_in_it(tmp_path: Path) -> None:
    clip = tmp_path / "test-mini-audios" / "x.wav"
    clip.parent.mkdir()
    clip.touch()
    assert find_clip(tmp_path, "./test-mini-audios/x.wav") == clip
    assert find_clip(clip.parent, "./test-mini-audios/x.wav") == clip
    assert find_clip(tmp_path, "./test-mini-audios/y.wav") is None


@pytest.mark.parametrize(
    "audio_id", ["../secret.wav", "link.wav", "/etc/passwd", "a\0.wav", "", "."]
)
def test_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path, audio_id: str) -> None:
    folder = tmp_path / "audio"
    folder.mkdir()
    (tmp_path / "secret.wav").touch()
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    assert find_clip(folder, audio_id) is None


def test_silence_is_zeros() -> None:
    assert silence(30.0).shape == (480_000,)
    assert not silence(0.1).any()
