"""Where on a medium's timeline a clip lies, which track it is of, and what no clip is made of."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from storage.fetch.cut import CutError, cut_clip
from storage.host.ffmpeg import find_ffmpeg
from tests.storage.wire import MARKER_RATE_HZ, marker_signal

SECONDS = 12
RATE_HZ = 16_000
PICTURE = ["-f", "lavfi", "-i", f"color=size=64x48:rate=25:duration={SECONDS}"]
CODECS = {
    "mp4": ["-c:a", "aac", "-c:v", "libx264", "-preset", "ultrafast"],
    "mkv": ["-c:a", "aac", "-c:v", "libx264", "-preset", "ultrafast"],
    "webm": ["-c:a", "libopus", "-c:v", "libvpx"],
    "flv": ["-c:a", "aac", "-c:v", "flv"],
    "ts": ["-c:a", "aac", "-c:v", "libx264", "-preset", "ultrafast"],
    "m4a": ["-c:a", "aac"],
    "mka": ["-c:a", "aac"],
}
PRIMING = 342  # samples that AAC needs and that not every container takes off: 21 ms


@pytest.fixture(scope="module")
def marker(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("marker") / "marker.wav"
    soundfile.write(path, marker_signal(SECONDS), MARKER_RATE_HZ)
    return path


def _encode(target: Path, *arguments: str) -> Path:
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *arguments, str(target)], check=True)
    return target


def _samples_late(samples: np.ndarray, clip_start_s: float) -> int:
    """By how many samples a clip's content lies after the same second of the marker."""
    marker = soxr.resample(marker_signal(SECONDS), MARKER_RATE_HZ, RATE_HZ)
    size = 1 << 19
    part = samples[len(samples) // 2 :]
    spectrum = np.fft.rfft(marker, size) * np.conj(np.fft.rfft(part, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    return round(clip_start_s * RATE_HZ) + len(samples) - len(part) - lag


def _cut(source: Path, tmp_path: Path, *, start_s: float, length_s: float = 4.0) -> np.ndarray:
    facts = cut_clip(source, tmp_path / "clip.wav", start_s=start_s, clip_length_s=length_s)
    samples, _ = soundfile.read(tmp_path / "clip.wav")
    assert facts.num_samples == len(samples) == length_s * RATE_HZ
    return samples


@pytest.mark.parametrize("late_s", [0.2, 0.6])
@pytest.mark.parametrize("container", ["mp4", "mkv", "webm", "flv", "ts"])
def test_audio_that_starts_after_the_picture_stays_at_its_second(
    marker, tmp_path, container, late_s
):
    """0.1 to 0.45 s of delay shifted the clip by as much; 0.6 s was a false `truncated`."""
    source = ["-itsoffset", str(late_s), "-i", str(marker), "-map", "0:v", "-map", "1:a"]
    path = _encode(tmp_path / f"x.{container}", *PICTURE, *source, *CODECS[container])
    for start_s in (8, 5, 1, 0):
        samples = _cut(path, tmp_path, start_s=start_s)
        assert abs(_samples_late(samples, start_s) - late_s * RATE_HZ) <= 24
    num_silent = int(np.argmax(np.abs(samples) > 0))
    assert late_s * RATE_HZ - PRIMING <= num_silent <= late_s * RATE_HZ + 24


@pytest.mark.parametrize("container", ["m4a", "mka"])
def test_a_track_alone_that_starts_late_keeps_its_own_timeline(marker, tmp_path, container):
    offset = ["-itsoffset", "0.3", "-i", str(marker), "-avoid_negative_ts", "disabled"]
    path = _encode(tmp_path / f"x.{container}", *offset, *CODECS[container])
    for start_s in (0, 5):
        samples = _cut(path, tmp_path, start_s=start_s)
        assert abs(_samples_late(samples, start_s) - 4800) <= 24


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_gap_in_the_timestamps_is_silence(marker, tmp_path, container):
    """A gap closed up: what followed lay a second early, and the clip was a second short."""
    gap = ["-i", str(marker), "-af", "aselect='not(between(t,6,7))'", *CODECS["m4a"]]
    samples = _cut(_encode(tmp_path / f"x.{container}", *gap), tmp_path, start_s=5)
    assert abs(_samples_late(samples, 5)) <= 24
    assert np.abs(samples[18_000:30_000]).max() < 0.01


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("x.mkv", ["-c:a", "pcm_s16le", "-output_ts_offset", "-0.4"]),
        ("x.flv", ["-c:a", "aac"]),
    ],
)
def test_negative_and_ragged_timestamps_give_the_exact_length(marker, tmp_path, name, arguments):
    """160,752 and 160,003 samples were measured for ten seconds."""
    source = ["-i", str(marker), "-avoid_negative_ts", "disabled"]
    path = _encode(tmp_path / name, *source, *arguments)
    for start_s in (0, 1, 5):
        assert abs(_samples_late(_cut(path, tmp_path, start_s=start_s), start_s)) <= PRIMING


@pytest.mark.parametrize("disposition", ["default", "original", "default+dub"])
def test_of_two_tracks_the_original_or_default_is_cut(marker, tmp_path, disposition):
    """The first track was taken, whatever the file says of it."""
    other = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}"]
    flags = ["-disposition:a:0", "0", "-disposition:a:1", disposition]
    if disposition == "default+dub":  # a dub that is played by default is not the original
        flags = ["-disposition:a:0", "default+dub", "-disposition:a:1", "original"]
    tracks = ["-i", str(marker), "-map", "0:a", "-map", "1:a", "-c:a", "aac", *flags]
    path = _encode(tmp_path / "x.mkv", *other, *tracks)
    assert abs(_samples_late(_cut(path, tmp_path, start_s=3), 3)) <= 24


def test_channels_in_antiphase_are_flagged_as_cancelled(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(6 * RATE_HZ) / RATE_HZ)
    soundfile.write(tmp_path / "anti.wav", np.stack([tone, -tone], axis=1), RATE_HZ)
    soundfile.write(tmp_path / "quiet.wav", np.stack([tone, tone], axis=1) / 1000, RATE_HZ)
    coded = _encode(tmp_path / "anti.m4a", "-i", str(tmp_path / "anti.wav"), "-c:a", "aac")
    found = {
        path.name: cut_clip(path, tmp_path / "clip.wav", start_s=1, clip_length_s=2.0).is_cancelled
        for path in (tmp_path / "anti.wav", coded, tmp_path / "quiet.wav")
    }
    assert found == {"anti.wav": True, "anti.m4a": True, "quiet.wav": False}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, value):
    samples = np.full(6 * RATE_HZ, 0.1, dtype=np.float32)
    samples[2 * RATE_HZ : 3 * RATE_HZ] = value
    soundfile.write(tmp_path / "x.wav", samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(CutError) as caught:
        cut_clip(tmp_path / "x.wav", tmp_path / "clip.wav", start_s=1, clip_length_s=2.0)
    assert caught.value.reason == "not-finite"


MANIFEST = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT12S"
  profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet mimeType="audio/wav">
<Representation id="1" bandwidth="1000" mimeType="audio/wav"><BaseURL>file://{secret}</BaseURL>
<SegmentBase/></Representation></AdaptationSet></Period></MPD>
"""
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n{secret}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {secret}\n"


@pytest.mark.parametrize("text", [MANIFEST, PLAYLIST, CONCAT])
@pytest.mark.parametrize("name", ["x.mp4", "x.flac"])
def test_a_manifest_by_the_name_of_a_medium_opens_no_file_of_this_host(
    marker, tmp_path, text, name
):
    (tmp_path / name).write_text(text.format(secret=marker))
    with pytest.raises(CutError) as caught:
        cut_clip(tmp_path / name, tmp_path / "clip.wav", start_s=1, clip_length_s=2.0)
    assert caught.value.reason == "not-media"
