"""Cuts: their place, their length, and what is refused."""

import math

import numpy as np
import pytest
import soundfile
import soxr

from storage.fetch.cut import CutError, cut_clip, measure_wav
from tests.storage.wire import MARKER_RATE_HZ, PAGE, make_media, marker_signal

SECONDS = 12


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    make_media(folder, seconds=SECONDS)
    return folder


def _samples_late(clip: np.ndarray, start_s: float) -> int:
    """By how many samples a clip lies after its place, by cross-correlation with the marker."""
    marker = soxr.resample(marker_signal(SECONDS), MARKER_RATE_HZ, 16_000)
    size = 1 << 19
    spectrum = np.fft.rfft(marker, size) * np.conj(np.fft.rfft(clip, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    return lag - round(start_s * 16_000)


@pytest.mark.parametrize("start_s", [0, 1, 2, 3, 7, 9])
@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("marker.wav", 0),
        ("marker.m4a", 0),
        ("marker.mp4", 0),
        # Matroska counts time in milliseconds, 16 samples.
        ("marker.webm", 16),
    ],
)
def test_a_clip_has_its_exact_length_and_place(media, tmp_path, name, allowed, start_s):
    facts = cut_clip(media / name, tmp_path / "clip.wav", start_s=start_s, clip_length_s=3.0)
    clip, rate_hz = soundfile.read(tmp_path / "clip.wav")
    assert (facts.num_samples, len(clip), rate_hz) == (48_000, 48_000, 16_000)
    assert abs(_samples_late(clip, start_s)) <= allowed


def test_a_jump_to_the_very_beginning_loses_nothing(media, tmp_path):
    """`-ss 0` before the input lost AAC's first 64 ms and made 23 of 520 clips short."""
    facts = cut_clip(media / "marker.m4a", tmp_path / "clip.wav", start_s=0, clip_length_s=2.0)
    assert facts.num_samples == 32_000


def test_ten_seconds_are_160000_samples(media, tmp_path):
    facts = cut_clip(media / "marker.m4a", tmp_path / "clip.wav", start_s=2, clip_length_s=10.0)
    assert facts.num_samples == 160_000
    assert facts.duration_s == 10.0


def test_the_same_cut_gives_the_same_bytes(media, tmp_path):
    first = cut_clip(media / "marker.m4a", tmp_path / "a.wav", start_s=5, clip_length_s=2.0)
    second = cut_clip(media / "marker.m4a", tmp_path / "b.wav", start_s=5, clip_length_s=2.0)
    assert first.sha256 == second.sha256


def test_a_source_that_ends_inside_the_clip_gives_a_shorter_one(media, tmp_path):
    facts = cut_clip(media / "short.m4a", tmp_path / "clip.wav", start_s=2, clip_length_s=10.0)
    assert 1.9 < facts.duration_s < 2.1


@pytest.mark.parametrize(
    ("name", "start_s", "reason"),
    [
        ("no-audio.mp4", 2, "no-audio"),
        ("short.m4a", 30, "start-beyond-end"),
        ("short.m4a", 3.8, "too-short"),
        ("page.m4a", 2, "not-media"),
        ("empty.m4a", 2, "not-media"),
        ("torn.m4a", 8, "truncated"),
    ],
)
def test_a_file_without_the_clip_is_refused_with_the_reason(media, tmp_path, name, start_s, reason):
    (media / "page.m4a").write_bytes(PAGE)
    (media / "empty.m4a").write_bytes(b"")
    whole = (media / "marker.m4a").read_bytes()
    (media / "torn.m4a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CutError) as caught:
        cut_clip(media / name, tmp_path / "clip.wav", start_s=start_s, clip_length_s=10.0)
    assert caught.value.reason == reason


def test_a_frame_missing_at_a_videos_very_end_is_filled_with_zeros(tmp_path):
    """3 s less 40 ms, asked for seconds 1 to 3: 640 zeros at the end make 2 s."""
    loud = np.full(round(2.96 * 16_000), 0.5)
    soundfile.write(tmp_path / "x.wav", loud, 16_000, subtype="PCM_16")
    facts = cut_clip(tmp_path / "x.wav", tmp_path / "clip.wav", start_s=1, clip_length_s=2.0)
    samples, _ = soundfile.read(tmp_path / "clip.wav")
    assert facts.num_samples == len(samples) == 32_000
    assert np.count_nonzero(samples) == 32_000 - 640
    assert not samples[-640:].any()


def test_a_name_that_looks_like_an_option_is_a_name(media, tmp_path):
    (media / "-HG3Omg_89c.m4a").write_bytes((media / "marker.m4a").read_bytes())
    facts = cut_clip(
        media / "-HG3Omg_89c.m4a", tmp_path / "-HG3Omg_89c_3.wav", start_s=3, clip_length_s=1.0
    )
    assert facts.num_samples == 16_000


def test_levels_are_in_decibels_below_full_scale(tmp_path):
    """A square wave at half of full scale: peak and RMS are both 20 log10(1/2) = -6.02 dBFS."""
    square = np.tile(np.array([16_384, -16_384], dtype=np.int16), 8_000)
    soundfile.write(tmp_path / "square.wav", square, 16_000, subtype="PCM_16")
    facts = measure_wav(tmp_path / "square.wav")
    assert facts.peak_dbfs == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert facts.rms_dbfs == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert not facts.is_silent


def test_silence_is_below_minus_60_dbfs(media, tmp_path):
    facts = cut_clip(media / "silent.m4a", tmp_path / "clip.wav", start_s=1, clip_length_s=2.0)
    assert facts.is_silent
    assert facts.peak_dbfs == -120.0


def test_the_loudest_negative_sample_is_full_scale(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([-32_768], dtype=np.int16), 16_000)
    assert measure_wav(tmp_path / "x.wav").peak_dbfs == 0.0


def test_a_wav_of_another_form_is_not_taken_for_a_clip(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros((100, 2)), 44_100)
    with pytest.raises(CutError, match="expected 16 kHz, mono, PCM_16"):
        measure_wav(tmp_path / "x.wav")
