"""What is asked for again: losses that something new may serve, damaged wavs, other lengths."""

import json
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import soundfile

from storage.config import FetchConfig, FolderSource, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.account import write_account
from storage.fetch.cut import measure_wav
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.reconcile import list_due
from storage.fetch.run import FetchRun, open_sources
from storage.layout import Layout
from storage.records.clip import Clip
from tests.storage import offline_youtube as offline
from tests.storage.offline_youtube import PLAYABLE, Scenario, audio_format, refused
from tests.storage.wire import Wire, make_media, serve

OPUS = 'audio/webm; codecs="opus"'
PRIVATE = Scenario(refused("LOGIN_REQUIRED", "Private video"))
HIDDEN = Scenario(refused("UNPLAYABLE", "Video unavailable", "blocked it in your country"))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    make_media(folder)
    return folder


@pytest.fixture(scope="module")
def wire(media):
    with serve(media) as running:
        yield running


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "workspace", "test", clip_length_s=2.0)


@pytest.fixture(autouse=True)
def _no_videos():
    offline.VIDEOS.clear()
    offline.CALLS.clear()


def _config(*sources, **changes) -> FetchConfig:
    settings = {
        "sources": sources,
        "videos_per_hour": None,
        "clip_length_s": 2.0,
        "retry_waits_s": (60.0,),
        "block_waits_s": (),
        "workers": 1,
    }
    return FetchConfig.model_validate(settings | changes)


def _clip(video_id: str = "-HG3Omg_89c", start_s: int = 5) -> Clip:
    return Clip(f"{video_id}_{start_s:06d}", video_id, start_s)


def _good(wire: Wire) -> Scenario:
    url = f"{wire.base}/ok/marker.webm"
    return Scenario(PLAYABLE, [audio_format(249, url, OPUS, bit_rate=50_000, size=72_000)])


def _run(config: FetchConfig, layout: Layout, clips: Sequence[Clip], *, deep=False):
    with FetchRun(config, layout, resume_command="x") as run:
        plan = run.plan(clips, deep=deep)
        for batch in plan.batches:
            run.fetch_batch(batch)
        return plan, run.ledger.rows(clips)


def _lost(rows: Sequence[ClipRow]) -> list[tuple[str, str]]:
    return [(row.state, row.reason_code) for row in rows]


def _due(config: FetchConfig, layout: Layout, clips: Sequence[Clip]):
    """What a plan tells without asking anybody."""
    with Ledger(layout.ledger, clip_length_s=2.0) as ledger:
        sources = open_sources(config, layout)
        due = list_due(ledger, clips, layout.clips, sources, drop_silent=config.drop_silent)
    return len(due.clips), due.num_reopened, due.reopened_by


def test_a_second_source_is_asked_for_what_the_first_lost_and_the_first_is_not_asked_again(
    media, layout, tmp_path
):
    """A loss stayed final whatever was added; 4,000 of them asked of YouTube anew take 17 hours."""
    clips = [_clip("private-vid"), _clip("country-vid"), _clip("private-two")]
    for clip, scenario in zip(clips, (PRIVATE, HIDDEN, PRIVATE), strict=True):
        offline.VIDEOS[clip.video_id] = scenario
    youtube, shelf = YoutubeSource(), tmp_path / "shelf"
    shelf.mkdir()
    _run(_config(youtube), layout, clips)
    assert _run(_config(youtube), layout, clips)[0].num_due == 0
    shutil.copy(media / "marker.m4a", shelf / "private-vid.m4a")
    offline.CALLS.clear()
    config = _config(youtube, FolderSource(path=shelf))
    assert _due(config, layout, clips) == (1, 1, ("folder",))  # one has a file
    plan, rows = _run(config, layout, clips)
    assert (plan.num_due, plan.num_reopened, plan.reopened_by) == (1, 1, ("folder",))
    assert _lost(rows) == [("done", ""), ("geo", "country"), ("invalid", "private")]
    assert not offline.CALLS
    assert _run(config, layout, clips)[0].num_due == 0
    assert _due(config, layout, clips) == (0, 0, ())
    # A file put into the folder is enough.
    shutil.copy(media / "marker.webm", shelf / "country-vid.webm")
    assert _due(config, layout, clips) == (1, 1, ("folder",))
    plan, rows = _run(config, layout, clips)
    assert (plan.num_due, rows[1].state) == (1, "done")


def test_a_source_that_fails_for_now_leaves_a_reopened_loss_hope(wire, layout):
    offline.VIDEOS["private-vid"] = PRIVATE
    clips = [_clip("private-vid")]
    _run(_config(YoutubeSource()), layout, clips)
    mirror = YoutubeSource(url_template=f"{wire.base}/503/x.m4a?v={{video_id}}")
    _, rows = _run(_config(YoutubeSource(), mirror), layout, clips)
    assert _lost(rows) == [("retry", "http-503")]


def test_a_proxy_reopens_what_was_hidden_from_this_country_alone(wire, layout):
    clips = [_clip("private-vid"), _clip("country-vid")]
    offline.VIDEOS.update({"private-vid": PRIVATE, "country-vid": HIDDEN})
    _run(_config(YoutubeSource()), layout, clips)
    offline.VIDEOS.update({"private-vid": _good(wire), "country-vid": _good(wire)})
    elsewhere = YoutubeSource(ytdlp={"source_address": "127.0.0.1"})
    assert _due(_config(elsewhere), layout, clips) == (1, 1, ("youtube",))
    plan, rows = _run(_config(elsewhere), layout, clips)
    assert plan.num_due == 1
    assert _lost(rows) == [("invalid", "private"), ("done", "")]


def test_silence_is_lost_and_found_as_the_settings_say(media, layout, tmp_path):
    shutil.copy(media / "silent.m4a", tmp_path / "silent-vid0.m4a")
    folder, clips = FolderSource(path=tmp_path), [_clip("silent-vid0")]
    for drop_silent, state in (
        (True, "invalid"),
        (False, "done"),
        (True, "invalid"),
        (True, "invalid"),
        (False, "done"),
    ):
        _, rows = _run(_config(folder, drop_silent=drop_silent), layout, clips)
        assert rows[0].state == state


def test_each_clip_length_has_its_own_folder_and_rows(wire, layout):
    """The second experiment's clips overwrote the first's, under one name and one row."""
    offline.VIDEOS["-HG3Omg_89c"] = _good(wire)
    clips = [_clip(start_s=1)]
    _run(_config(YoutubeSource()), layout, clips)
    _, rows = _run(_config(YoutubeSource(), clip_length_s=10.0), layout, clips)
    assert (rows[0].state, rows[0].duration_s) == ("done", 10.0)
    lengths = {
        name: measure_wav(layout.workspace / name / "-HG3Omg_89c_1.wav").num_samples
        for name in ("clips", "clips-2s")
    }
    assert lengths == {"clips": 160_000, "clips-2s": 32_000}


def test_a_kept_download_is_cut_again_without_asking_anybody(wire, layout):
    offline.VIDEOS["-HG3Omg_89c"] = _good(wire)
    clips = [_clip(start_s=1), _clip(start_s=4)]
    _run(_config(YoutubeSource(), keep_media=True), layout, clips)
    assert [path.name for path in layout.media.iterdir()] == ["-HG3Omg_89c.webm"]
    offline.CALLS.clear()
    _, rows = _run(_config(YoutubeSource(), clip_length_s=3.0), layout, clips)
    assert [(row.state, row.source, row.duration_s) for row in rows] == [("done", "kept", 3.0)] * 2
    assert not offline.CALLS


def test_what_a_video_says_of_itself_is_in_the_account(wire, layout):
    licence = "Creative Commons Attribution license (reuse allowed)"
    row = {"title": {"simpleText": "License"}, "contents": [{"simpleText": licence}]}
    rows = {"metadataRowContainerRenderer": {"rows": [{"metadataRowRenderer": row}]}}
    owner = {"videoOwnerRenderer": {"title": {"simpleText": "Someone"}}}
    offline.VIDEOS["-HG3Omg_89c"] = replace(
        _good(wire),
        details={"title": "Boat"},
        microformat={"uploadDate": "2015-01-31"},
        below={"owner": owner, "metadataRowContainer": rows},
    )
    clips = [_clip(start_s=1)]
    with FetchRun(_config(YoutubeSource()), layout, resume_command="x") as run:
        run.fetch_batch(run.plan(clips).batches[0])
        write_account(run.ledger, clips, layout.fetch, versions={}, videos_per_hour=None)
    lines = (layout.fetch / "videos.csv").read_text().splitlines()
    assert lines[0] == "video_id,title,channel,upload_date,licence"
    assert lines[1] == f"-HG3Omg_89c,Boat,Someone,20150131,{licence}"
    record = json.loads((layout.fetch / "fetch_report.json").read_text())
    assert record["by_licence"] == {licence: 1}


def test_a_damaged_wav_stays_condemned_until_it_is_fetched_anew(wire, layout):
    """`--deep` found it, and the next plain run adopted it again."""
    offline.VIDEOS["-HG3Omg_89c"] = _good(wire)
    config, clips = _config(YoutubeSource()), [_clip()]
    _run(config, layout, clips)
    path = layout.clips / clips[0].file_name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with FetchRun(config, layout, resume_command="x") as run:
        assert run.plan(clips, deep=True).num_due == 1
    with FetchRun(config, layout, resume_command="x") as run:
        assert run.plan(clips).num_due == 1
    _, rows = _run(config, layout, clips)
    assert rows[0].state == "done"
    assert [each.name for each in layout.clips.iterdir()] == [clips[0].file_name]


SIDECARS = {
    ".jpg": b"\xff\xd8\xff\xe0" + bytes(100),
    ".webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    ".json": b'{"id": 1}',
    ".description": "Bäume rauschen".encode(),
    ".csv": b"a,b\n1,2\n",
    ".lrc": b"[00:01.00]la la",
    ".m3u8": b"#EXTM3U\n/etc/passwd\n",
    ".aac": b"",
}


@pytest.mark.parametrize("suffix", SIDECARS)
def test_a_file_beside_the_medium_does_not_hide_it(media, layout, tmp_path, suffix):
    shutil.copy(media / "marker.m4a", tmp_path / "-HG3Omg_89c.m4a")
    (tmp_path / f"-HG3Omg_89c{suffix}").write_bytes(SIDECARS[suffix])
    _, rows = _run(_config(FolderSource(path=tmp_path)), layout, [_clip()])
    assert rows[0].state == "done", rows[0].message


def test_a_film_without_sound_does_not_hide_the_sound_beside_it(media, layout, tmp_path):
    """yt-dlp leaves both where it cannot merge them."""
    shutil.copy(media / "no-audio.mp4", tmp_path / "-HG3Omg_89c.f133.mp4")
    shutil.copy(media / "no-audio.mp4", tmp_path / "-HG3Omg_89c.aaa")
    shutil.copy(media / "marker.webm", tmp_path / "-HG3Omg_89c.webm")
    _, rows = _run(_config(FolderSource(path=tmp_path)), layout, [_clip()])
    assert rows[0].state == "done", rows[0].message


@pytest.mark.parametrize(
    ("name", "first_s"),
    [
        ("-HG3Omg_89c", 0),
        ("Y-HG3Omg_89c", 0),
        ("-HG3Omg_89c_3_12", 3),
        ("-HG3Omg_89c_3.0-12.0", 3),
        ("Y-HG3Omg_89c_3000_12000", 3),
        ("-HG3Omg_89c_000005", 5),
        ("-HG3Omg_89c_5", 5),
    ],
)
def test_the_names_of_other_downloaders_are_understood(media, tmp_path, name, first_s):
    samples, rate_hz = soundfile.read(media / "marker.wav")
    for folder, first in (("whole", 0), ("part", first_s)):
        (tmp_path / folder).mkdir()
        stem = "-HG3Omg_89c" if folder == "whole" else name
        soundfile.write(tmp_path / folder / f"{stem}.wav", samples[first * rate_hz :], rate_hz)
    found = []
    for folder in ("whole", "part"):
        own = Layout(tmp_path / f"workspace-{folder}", "test", clip_length_s=2.0)
        _, rows = _run(_config(FolderSource(path=tmp_path / folder)), own, [_clip()])
        assert rows[0].state == "done", rows[0].message
        found.append(soundfile.read(own.clips / "-HG3Omg_89c_5.wav")[0])
    # Not the first samples, for which a filter has nothing before them where the file begins.
    assert abs(found[0] - found[1])[100:].max() < 0.01


def test_a_stretch_that_does_not_hold_the_clip_is_not_cut(media, layout, tmp_path):
    shutil.copy(media / "marker.wav", tmp_path / "-HG3Omg_89c_30_40.wav")
    _, rows = _run(_config(FolderSource(path=tmp_path)), layout, [_clip()])
    assert _lost(rows) == [("invalid", "not-in-folder")]


def test_waits_that_a_clock_a_year_ahead_left_mean_nothing(wire, layout, monkeypatch):
    config = _config(YoutubeSource(url_template=f"{wire.base}/503/x.m4a?v={{video_id}}"))
    now = time.time
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda: now() + 365 * 86_400)
        _run(config, layout, [_clip()])
    assert _run(config, layout, [_clip()])[0].num_due == 1


def test_an_adopted_wav_has_an_attempt_of_its_own(wire, layout):
    offline.VIDEOS["-HG3Omg_89c"] = _good(wire)
    config = _config(YoutubeSource())
    _run(config, layout, [_clip()])
    layout.ledger.unlink()
    _run(config, layout, [_clip()])
    with sqlite3.connect(layout.ledger) as ledger:
        found = ledger.execute("SELECT clip_id, state, source FROM attempt").fetchall()
    assert found == [(_clip().clip_id, "done", "adopted")]


def test_an_answer_nested_too_deeply_is_tried_again(layout):
    body = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    offline.VIDEOS["-HG3Omg_89c"] = Scenario(PLAYABLE, player_body=body)
    _, rows = _run(_config(YoutubeSource()), layout, [_clip()])
    assert rows[0].state == "retry", rows[0].message


def test_a_mirror_that_asks_for_a_second_is_waited_for_a_second(wire, layout):
    """Its `Retry-After: 1` paused all workers for 30 minutes."""
    paused: list[float] = []
    mirror = YoutubeSource(url_template=f"{wire.base}/429-once/marker.m4a?v={{video_id}}")
    with FetchRun(
        _config(mirror, block_waits_s=(1800.0,)),
        layout,
        resume_command="x",
        on_pause=lambda _failure, seconds: paused.append(seconds),
    ) as run:
        run.fetch_batch(run.plan([_clip()]).batches[0])
        assert run.ledger.rows()[0].state == "done"
    assert paused == [1.0]


# What users of yt-dlp, audioset-download and video2dataset met elsewhere.


def test_a_workspace_with_a_percent_sign_is_no_template(wire, tmp_path):
    """yt-dlp reads `%` in a path as the beginning of a field."""
    layout = Layout(tmp_path / "50% of AVQA %(id)s", "test", clip_length_s=2.0)
    mirror = YoutubeSource(url_template=f"{wire.base}/ok/marker.m4a?v={{video_id}}")
    _, rows = _run(_config(mirror), layout, [_clip()])
    assert rows[0].state == "done", rows[0].message
    assert list(tmp_path.iterdir()) == [layout.workspace]


@pytest.mark.parametrize("stem", ["Boat trip (HD) [-HG3Omg_89c]", "Boat [x] [-HG3Omg_89c]"])
def test_the_names_that_yt_dlp_gives_by_itself_are_understood(media, layout, tmp_path, stem):
    shutil.copy(media / "marker.m4a", tmp_path / f"{stem}.m4a")
    _, rows = _run(_config(FolderSource(path=tmp_path)), layout, [_clip()])
    assert rows[0].state == "done", rows[0].message


def test_media_behind_a_linked_folder_are_found(media, layout, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "shelf").mkdir()
    shutil.copy(media / "marker.m4a", tmp_path / "disk" / "-HG3Omg_89c.m4a")
    (tmp_path / "shelf" / "part-1").symlink_to(tmp_path / "disk")
    (tmp_path / "shelf" / "again").symlink_to(tmp_path / "shelf")
    _, rows = _run(_config(FolderSource(path=tmp_path / "shelf")), layout, [_clip()])
    assert rows[0].state == "done", rows[0].message


def test_cookies_in_another_form_than_netscapes_are_told_before_the_first_video(layout, tmp_path):
    """Browser extensions export JSON."""
    (tmp_path / "cookies.json").write_text('[{"domain": ".youtube.com", "name": "SID"}]')
    source = YoutubeSource(ytdlp={"cookiefile": str(tmp_path / "cookies.json")})
    with pytest.raises(PipelineError, match=r"does not take the options.*Netscape"):
        _run(_config(source), layout, [_clip()])


def test_a_part_of_a_download_in_a_folder_is_no_medium(media, layout, tmp_path):
    content = (media / "marker.m4a").read_bytes()
    (tmp_path / "-HG3Omg_89c.m4a.part").write_bytes(content[:5000])
    _, rows = _run(_config(FolderSource(path=tmp_path)), layout, [_clip()])
    assert _lost(rows) == [("invalid", "not-in-folder")]
