"""Answers of YouTube and of mirrors that yt-dlp takes for success, and what is made of them.

Second k of the medium is a tone of 300 + 50 k Hz, so that a clip tells which seconds it holds.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.config import FetchConfig, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.ledger import ClipRow
from storage.fetch.run import FetchRun
from storage.host.ffmpeg import find_ffmpeg
from storage.layout import Layout
from storage.records.clip import Clip
from tests.storage import offline_youtube as offline
from tests.storage.offline_youtube import PLAYABLE, Answer, Scenario, audio_format, refused
from tests.storage.wire import Wire, serve

SECONDS = 40
RATE_HZ = 16_000
AAC = 'audio/mp4; codecs="mp4a.40.2"'


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    t = np.arange(48_000) / 48_000
    tones = [0.2 * np.sin(2 * np.pi * (300 + 50 * k) * t) for k in range(SECONDS)]
    soundfile.write(root / "m.wav", np.concatenate(tones), 48_000)
    hls = ["-hls_time", "4", "-hls_list_size", "0"]
    for arguments in (["m.m4a"], ["-t", "32", "early.m4a"], [*hls, "all.m3u8"]):
        command = [find_ffmpeg(), "-v", "error", "-y", "-i", "m.wav", "-c:a", "aac", *arguments]
        subprocess.run(command, cwd=root, check=True)
    with serve(root) as running:
        base = f"{running.base}/ok/"
        whole = (root / "all.m3u8").read_text().replace("all", f"{base}all")
        lines = whole.splitlines(keepends=True)
        short = "".join(lines[:-5] + lines[-1:])  # two fragments less, and no word of it
        for name, text in {
            "all": whole,
            "head": whole.replace(f"{base}all0.ts", f"{running.base}/403/all0.ts"),
            "tail": whole.replace(f"{base}all8.ts", f"{running.base}/404/all8.ts"),
            "cut": short,
        }.items():
            (root / f"{name}.m3u8").write_text(text)
            (root / f"{name}-master.m3u8").write_text(_master(base, name))
        (root / "page.html").write_text(f'<html><video src="{base}m.m4a"></video></html>')
        yield running


def _master(base: str, name: str) -> str:
    return (
        f'#EXTM3U\n#EXT-X-MEDIA:URI="{base}{name}.m3u8?/itag/234/",TYPE=AUDIO,GROUP-ID="234",'
        'NAME="Default",DEFAULT=YES\n#EXT-X-STREAM-INF:BANDWIDTH=300000,'
        f'CODECS="avc1.4D400C,mp4a.40.2",RESOLUTION=64x48,AUDIO="234"\n{base}v.m3u8?/itag/160/\n'
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "workspace", "test")


@pytest.fixture(autouse=True)
def _no_videos():
    offline.VIDEOS.clear()


def _good(wire: Wire, **changes) -> Answer:
    return audio_format(140, f"{wire.base}/ok/m.m4a", AAC, bit_rate=130_000, size=600_000) | changes


def _hls(wire: Wire, name: str) -> Scenario:
    manifest = {"hlsManifestUrl": f"{wire.base}/ok/{name}-master.m3u8"}
    return Scenario(PLAYABLE, [], length_s=SECONDS, streaming=manifest)


def _config(source: YoutubeSource | None = None) -> FetchConfig:
    return FetchConfig(
        sources=(source or YoutubeSource(),),
        videos_per_hour=None,
        workers=1,
        block_waits_s=(),
        retry_waits_s=(0.0, 0.0, 0.0),
    )


def _clip(start_s: int, video_id: str = "video-00000") -> Clip:
    return Clip(f"{video_id}_{start_s:06d}", video_id, start_s)


def _fetch(
    layout: Layout, clips: Sequence[Clip], config: FetchConfig | None = None
) -> list[ClipRow]:
    with FetchRun(config or _config(), layout, resume_command="x") as run:
        for batch in run.plan(clips).batches:
            run.fetch_batch(batch)
        return run.ledger.rows(clips)


def _seconds_in(path: Path) -> list[int]:
    samples, _ = soundfile.read(path)
    peaks = [
        np.argmax(np.abs(np.fft.rfft(samples[k * RATE_HZ + 3000 : k * RATE_HZ + 13_000], 1 << 16)))
        for k in range(len(samples) // RATE_HZ)
    ]
    return [round((peak * RATE_HZ / (1 << 16) - 300) / 50) for peak in peaks]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("head", "fragment-missing"), ("tail", "fragment-missing"), ("cut", "truncated")],
)
def test_a_missing_fragment_is_no_success(wire, layout, name, reason):
    """Every clip was shifted by the missing seconds; at the end it was short, or beyond the end."""
    offline.VIDEOS["video-00000"] = _hls(wire, name)
    clips = [_clip(start_s) for start_s in (0, 13, 30, 35)]
    rows = _fetch(layout, clips)
    assert {(row.state, row.reason_code) for row in rows} == {("retry", reason)}
    assert not list(layout.clips.iterdir())


def test_all_fragments_make_the_right_seconds(wire, layout):
    offline.VIDEOS["video-00000"] = _hls(wire, "all")
    clips = [_clip(start_s) for start_s in (0, 13, 30)]
    assert {row.state for row in _fetch(layout, clips)} == {"done"}
    for clip in clips:
        held = _seconds_in(layout.clips / clip.file_name)
        assert held == list(range(clip.start_s, clip.start_s + 10))


def test_a_trailer_is_not_the_video_that_one_pays_for(wire, layout):
    paid = refused("UNPLAYABLE", "This video requires payment to watch.")
    trailer = {"playerLegacyDesktopYpcTrailerRenderer": {"trailerVideoId": "trailer-000"}}
    offline.VIDEOS["video-00000"] = Scenario(paid | {"errorScreen": trailer})
    offline.VIDEOS["trailer-000"] = Scenario(PLAYABLE, [_good(wire)], length_s=SECONDS)
    (row,) = _fetch(layout, [_clip(3)])
    assert (row.state, row.reason_code) == ("invalid", "another-video")


def test_a_dub_is_not_the_original(wire, layout):
    url = f"{wire.base}/ok/m.m4a"
    dub = audio_format(140, url, AAC, bit_rate=130_000, size=600_000, language="hi.3")
    original = audio_format(140, url, AAC, bit_rate=130_000, size=600_000, language="en.4")
    del original["url"]
    offline.VIDEOS["video-00000"] = Scenario(PLAYABLE, [dub, original], length_s=SECONDS)
    (row,) = _fetch(layout, [_clip(3)])
    assert (row.state, row.reason_code) == ("retry", "dubbed"), row.message


def test_audio_that_ends_before_the_announced_length_is_asked_for_again_and_then_believed(
    wire, layout
):
    early = audio_format(140, f"{wire.base}/ok/early.m4a", AAC, bit_rate=130_000, size=600_000)
    offline.VIDEOS["video-00000"] = Scenario(PLAYABLE, [early], length_s=SECONDS)
    clips = [_clip(3), _clip(28)]
    first = _fetch(layout, clips)
    assert [(row.state, row.reason_code) for row in first] == [("done", ""), ("retry", "truncated")]
    assert "announced as 40 s, but its audio ends at 32.0" in first[1].message
    second = _fetch(layout, clips)[1]
    assert (second.state, second.short) == ("done", True)
    assert _seconds_in(layout.clips / clips[1].file_name) == [28, 29, 30, 31]


def test_a_page_that_embeds_a_medium_is_not_the_medium(wire, layout):
    mirror = YoutubeSource(url_template=f"{wire.base}/ok/page.html?v={{video_id}}")
    (row,) = _fetch(layout, [_clip(3)], _config(mirror))
    assert (row.state, row.reason_code) == ("invalid", "not-media"), row.message


@pytest.mark.parametrize("name", ["m.m4a", "all.m3u8"])
def test_a_mirrors_file_or_playlist_is(wire, layout, name):
    mirror = YoutubeSource(url_template=f"{wire.base}/ok/{name}?v={{video_id}}")
    (row,) = _fetch(layout, [_clip(3)], _config(mirror))
    assert row.state == "done", row.message
    assert _seconds_in(layout.clips / _clip(3).file_name) == list(range(3, 13))


# What a session was not given says nothing of the video.

MUXED = {
    "itag": 18,
    "mimeType": 'video/mp4; codecs="avc1.42001E, mp4a.40.2"',
    "bitrate": 150_000,
    "width": 64,
    "height": 48,
    "quality": "medium",
}
VIDEO_ONLY = {
    "itag": 133,
    "mimeType": 'video/mp4; codecs="avc1.4d4015"',
    "bitrate": 200_000,
    "width": 320,
    "height": 240,
    "quality": "small",
}
STORYBOARD = "https://i.ytimg.com/sb/x/storyboard3_L$L/$N.jpg|48#27#100#10#10#0#default#rs$abc"


def _session_faults(wire: Wire) -> dict[str, Scenario]:
    no_url = {key: value for key, value in _good(wire).items() if key != "url"}
    address = f"{wire.base}/ok/m.m4a"
    return {
        "sabr": Scenario(PLAYABLE, [no_url, VIDEO_ONLY | {"url": address}], length_s=SECONDS),
        "session-drm": Scenario(
            PLAYABLE, [_good(wire, drmFamilies=["WIDEVINE"])], length_s=SECONDS
        ),
    }


def test_format_18_serves_where_no_track_alone_has_an_address(wire, layout):
    no_url = {key: value for key, value in _good(wire).items() if key != "url"}
    muxed = {"formats": [MUXED | {"url": f"{wire.base}/ok/m.m4a"}]}
    offline.VIDEOS["video-00000"] = Scenario(PLAYABLE, [no_url], length_s=SECONDS, streaming=muxed)
    (row,) = _fetch(layout, [_clip(3)])
    assert (row.state, row.format_id) == ("done", "18"), row.message
    assert _seconds_in(layout.clips / _clip(3).file_name) == list(range(3, 13))


@pytest.mark.parametrize("name", ["sabr", "session-drm"])
def test_a_session_without_formats_is_no_loss(wire, layout, name):
    """19 living videos a run were counted as `invalid:no-audio`."""
    offline.VIDEOS["video-00000"] = _session_faults(wire)[name]
    (row,) = _fetch(layout, [_clip(3)])
    assert (row.state, row.reason_code, row.attempts) == ("retry", name, 0), row.message


def test_a_silent_video_is_a_loss_all_the_same(wire, layout):
    """Formats with addresses, none with audio, and no warning: it has no sound."""
    formats = [VIDEO_ONLY | {"url": f"{wire.base}/ok/m.m4a"}]
    offline.VIDEOS["video-00000"] = Scenario(PLAYABLE, formats, length_s=SECONDS)
    (row,) = _fetch(layout, [_clip(3)])
    assert (row.state, row.reason_code) == ("invalid", "no-audio"), row.message


def test_losses_before_the_session_was_found_broken_are_taken_back_and_counted(wire, layout):
    """The last line said that none was counted as lost, and 19 were."""
    clips = [_clip(3, f"video-{number:05d}") for number in range(10)]
    good = Scenario(PLAYABLE, [_good(wire)], length_s=SECONDS)
    silent = Scenario(PLAYABLE, [VIDEO_ONLY | {"url": f"{wire.base}/ok/m.m4a"}], length_s=SECONDS)
    private = Scenario(refused("LOGIN_REQUIRED", "Private video"))
    scenarios = [private, good, silent, silent, *[_session_faults(wire)["sabr"]] * 6]
    offline.VIDEOS.update(
        (clip.video_id, scenario) for clip, scenario in zip(clips, scenarios, strict=True)
    )
    with pytest.raises(PipelineError, match="Update yt-dlp, deno and yt-dlp-ejs") as caught:
        _fetch(layout, clips)
    assert "5 videos in a row gave no formats (sabr: " in str(caught.value)
    assert "This run counted 1 clips as lost: private 1." in str(caught.value)
    assert "2 losses since the last video that came are tried again." in str(caught.value)
    with FetchRun(_config(), layout, resume_command="x") as run:
        states = [row.state for row in run.ledger.rows(clips)]
    assert states == ["invalid", "done", *["retry"] * 6, "pending", "pending"]
