"""Whole runs over a loopback server: every fault of the wire, every source, every way to go on."""

import json
import resource
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager

import pytest

from storage.config import FetchConfig, FolderSource, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.account import write_account
from storage.fetch.cut import measure_wav
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.run import FetchRun
from storage.layout import Layout
from storage.records.clip import Clip
from tests.storage import offline_youtube as offline
from tests.storage.offline_youtube import PLAYABLE, Scenario, audio_format, refused
from tests.storage.wire import make_media, serve, wait_until


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


def _config(*sources, **changes) -> FetchConfig:
    settings = {
        "sources": sources,
        "videos_per_hour": None,
        "clip_length_s": 2.0,
        "retry_waits_s": (60.0,),
        "block_waits_s": (),
    }
    return FetchConfig.model_validate(settings | changes)


def _mirror(wire, case: str, name: str) -> YoutubeSource:
    # The id is in the query only: every video of this mirror is the same file.
    return YoutubeSource(url_template=f"{wire.base}/{case}/{name}?v={{video_id}}")


def _clip(video_id: str = "-HG3Omg_89c", start_s: int = 5) -> Clip:
    return Clip(f"{video_id}_{start_s:06d}", video_id, start_s)


def _fetch(config: FetchConfig, layout: Layout, clips: Sequence[Clip], **options) -> list[ClipRow]:
    with FetchRun(config, layout, resume_command="resume", **options) as run:
        for batch in run.plan(clips).batches:
            run.fetch_batch(batch)
        return run.ledger.rows(clips)


@pytest.mark.parametrize(
    ("case", "name", "state", "reason"),
    [
        ("ok", "marker.m4a", "done", ""),
        ("ok", "marker.webm", "done", ""),
        ("ok", "marker.mp4", "done", ""),
        ("no-range", "marker.m4a", "done", ""),
        ("404", "marker.m4a", "invalid", "http-404"),
        ("410", "marker.m4a", "invalid", "http-410"),
        ("403", "marker.m4a", "credentials", "http-403"),
        ("451", "marker.m4a", "geo", "http-451"),
        ("500", "marker.m4a", "retry", "http-500"),
        ("503", "marker.m4a", "retry", "http-503"),
        ("truncated", "marker.m4a", "retry", "truncated"),
        ("reset", "marker.m4a", "retry", "connection-reset"),
        ("zero-bytes", "marker.m4a", "retry", "empty"),
        ("html", "marker.m4a", "invalid", "not-media"),
        ("html-as-audio", "marker.m4a", "invalid", "not-media"),
        ("ok", "no-audio.mp4", "invalid", "no-audio"),
        ("ok", "short.m4a", "invalid", "start-beyond-end"),
        ("ok", "silent.m4a", "done", ""),
    ],
)
def test_each_fault_of_the_wire_is_its_reason(wire, layout, case, name, state, reason):
    clip = _clip()
    (row,) = _fetch(_config(_mirror(wire, case, name)), layout, [clip])
    assert (row.state, row.reason_code) == (state, reason), row.message
    wavs = [path.name for path in layout.clips.iterdir()]
    assert wavs == (["-HG3Omg_89c_5.wav"] if state == "done" else [])
    assert not layout.downloads.exists()
    if state == "done":
        assert measure_wav(layout.clips / wavs[0]).num_samples == 32_000
        assert row.silent == (name == "silent.m4a")


@pytest.mark.parametrize("case", ["drip", "stall"])
def test_a_server_that_drips_or_stalls_is_given_up_at_the_deadline(wire, layout, case):
    config = _config(_mirror(wire, case, "marker.m4a"), deadline_s=1.0)
    (row,) = _fetch(config, layout, [_clip()])
    assert (row.state, row.reason_code) == ("retry", "deadline"), row.message


def test_a_server_that_is_not_there_is_tried_again_later(layout):
    source = YoutubeSource(url_template="http://127.0.0.1:9/{video_id}.m4a")
    (row,) = _fetch(_config(source), layout, [_clip()])
    assert (row.state, row.reason_code, row.attempts) == ("retry", "connection-refused", 1)


def test_a_429_of_a_mirror_stops_the_run_too(wire, layout):
    with pytest.raises(PipelineError) as caught:
        _fetch(_config(_mirror(wire, "429", "x.m4a")), layout, [_clip()])
    assert caught.value.exit_code == 75


def test_silent_clips_are_unusable_where_the_settings_say_so(wire, layout):
    config = _config(_mirror(wire, "ok", "silent.m4a"), drop_silent=True)
    (row,) = _fetch(config, layout, [_clip()])
    assert (row.state, row.reason_code) == ("invalid", "silent")
    assert not list(layout.clips.iterdir())


def test_a_clip_that_its_source_ends_in_is_done_and_flagged(wire, layout):
    config = _config(_mirror(wire, "ok", "short.m4a"))
    (row,) = _fetch(config, layout, [_clip(start_s=3)])
    assert (row.state, row.short) == ("done", True)
    assert row.duration_s is not None
    assert 0.9 < row.duration_s < 1.2


def test_several_clips_of_one_video_take_one_download(wire, layout):
    wire.requests.clear()
    source = YoutubeSource(url_template=f"{wire.base}/ok/marker.webm?v={{video_id}}")
    rows = _fetch(_config(source), layout, [_clip(start_s=start_s) for start_s in (1, 4, 8, 30)])
    assert [row.state for row in rows] == ["done", "done", "done", "invalid"]
    # One request of the extractor, one of the downloader.
    assert wire.requests["/ok/marker.webm"] == 2


def test_what_the_first_source_lacks_is_asked_of_the_next(wire, media, layout, tmp_path):
    shelf = tmp_path / "shelf" / "deep"
    shelf.mkdir(parents=True)
    by_clip, by_video, elsewhere = _clip("byclip-name"), _clip("-by_video-i"), _clip("elsewhere-_")
    shutil.copy(media / "short.m4a", shelf / f"{by_clip.clip_id}.m4a")
    shutil.copy(media / "marker.webm", shelf / f"{by_video.video_id}.webm")
    config = _config(FolderSource(path=tmp_path / "shelf"), _mirror(wire, "ok", "marker.m4a"))
    rows = _fetch(config, layout, [by_clip, by_video, elsewhere])
    assert [(row.state, row.source) for row in rows] == [
        ("done", "folder"),
        ("done", "folder"),
        ("done", "mirror"),
    ]


def test_of_two_failures_the_one_that_leaves_more_hope_is_told(wire, layout, tmp_path):
    config = _config(_mirror(wire, "503", "x.m4a"), FolderSource(path=tmp_path))
    (row,) = _fetch(config, layout, [_clip()])
    assert (row.state, row.reason_code) == ("retry", "http-503")


def test_a_folder_that_is_not_there_is_named(layout, tmp_path):
    with pytest.raises(PipelineError, match="shelf is missing"):
        _fetch(_config(FolderSource(path=tmp_path / "shelf")), layout, [_clip()])
    _fetch(_config(FolderSource(path=tmp_path)), layout, [_clip()])  # the lock is free again


def test_what_is_done_is_not_done_again(wire, layout):
    config = _config(_mirror(wire, "ok", "marker.m4a"))
    _fetch(config, layout, [_clip()])
    wire.requests.clear()
    (row,) = _fetch(config, layout, [_clip()])
    assert (row.state, row.attempts) == ("done", 1)
    assert not wire.requests


def test_a_lost_or_cut_off_wav_is_fetched_again(wire, layout):
    config = _config(_mirror(wire, "ok", "marker.m4a"))
    clips = [_clip(start_s=start_s) for start_s in (1, 2, 3)]
    _fetch(config, layout, clips)
    (layout.clips / clips[0].file_name).unlink()
    whole = (layout.clips / clips[1].file_name).read_bytes()
    (layout.clips / clips[1].file_name).write_bytes(whole[:-100])
    rows = _fetch(config, layout, clips)
    assert [row.attempts for row in rows] == [2, 2, 1]
    assert (layout.clips / clips[1].file_name).read_bytes() == whole


def test_only_a_deep_look_sees_a_flipped_bit(wire, layout):
    config, clip = _config(_mirror(wire, "ok", "marker.m4a")), _clip()
    _fetch(config, layout, [clip])
    path = layout.clips / clip.file_name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with FetchRun(config, layout, resume_command="x") as run:
        assert run.plan([clip]).num_due == 0
        assert run.plan([clip], deep=True).num_due == 1


def test_a_good_wav_without_a_row_is_adopted_and_a_bad_one_is_not(wire, layout):
    config, clips = _config(_mirror(wire, "ok", "marker.m4a")), [_clip(), _clip(start_s=6)]
    _fetch(config, layout, [clips[0]])
    layout.ledger.unlink()
    shutil.copy(layout.clips / clips[0].file_name, layout.clips / clips[1].file_name)
    with (layout.clips / clips[1].file_name).open("ab") as file:
        file.truncate(1000)
    with FetchRun(config, layout, resume_command="x") as run:
        plan = run.plan(clips)
        assert [clip for batch in plan.batches for clip in batch] == [clips[1]]
        assert run.ledger.rows()[0].source == "adopted"


def test_a_stop_ends_the_run_between_clips_and_breaks_off_the_download(wire, layout):
    clips = [_clip(f"video-{number:05d}") for number in range(50)]
    config = _config(_mirror(wire, "drip", "marker.m4a"))
    with FetchRun(config, layout, resume_command="x") as run:
        (batch,) = run.plan(clips).batches
        wire.requests.clear()
        stopper = threading.Thread(
            target=lambda: (wait_until(lambda: wire.requests.total() >= 4), run.stop_event.set())
        )
        stopper.start()
        run.fetch_batch(batch)
        stopper.join()
        assert [(row.state, row.attempts) for row in run.ledger.rows()] == [("pending", 0)] * 50


@contextmanager
def _no_file_over(size: int):
    """What a full disk does to a write, done by the system's limit on the size of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("is_download", [True, False])
def test_a_disk_that_takes_no_more_stops_at_once_and_costs_no_clip(
    wire, media, layout, tmp_path, is_download
):
    clips = [_clip(f"video-{number:05d}") for number in range(20)]
    for clip in clips:
        shutil.copy(media / "marker.m4a", tmp_path / f"{clip.video_id}.m4a")
    source = _mirror(wire, "ok", "marker.m4a") if is_download else FolderSource(path=tmp_path)
    with FetchRun(_config(source), layout, resume_command="x") as run:
        (batch,) = run.plan(clips).batches
        with (
            _no_file_over(40_000),
            pytest.raises(PipelineError, match=r"File too large.*Free some space"),
        ):
            run.fetch_batch(batch)
        assert {(row.state, row.attempts) for row in run.ledger.rows()} == {("pending", 0)}
    rows = _fetch(_config(source), layout, clips)
    assert {(row.state, row.attempts) for row in rows} == {("done", 1)}


def test_a_ledger_that_cannot_grow_stops_with_what_to_do(layout):
    clips = [_clip(f"{number:011d}") for number in range(5000)]
    with Ledger(layout.ledger) as ledger:
        ledger.add(clips[:1])
        with _no_file_over(100_000), pytest.raises(PipelineError, match="free some space"):
            ledger.add(clips)
        assert len(ledger.rows()) == 1
        ledger.add(clips)
        assert len(ledger.rows()) == 5000


def test_batches_keep_the_clips_of_a_video_together(layout, tmp_path):
    clips = [_clip(f"video-{n % 7:05d}", start_s=n) for n in range(21)]
    config = _config(FolderSource(path=tmp_path), batch_size=5)
    with FetchRun(config, layout, resume_command="x") as run:
        batches = run.plan(clips).batches
    assert [len(batch) for batch in batches] == [3, 3, 3, 3, 3, 3, 3]
    assert all(len({clip.video_id for clip in batch}) == 1 for batch in batches)


def test_the_plan_tells_the_days_that_the_budget_takes(layout, tmp_path):
    clips = [_clip(f"{n:011d}") for n in range(2400)]
    config = _config(FolderSource(path=tmp_path), videos_per_hour=240)
    with FetchRun(config, layout, resume_command="x") as run:
        assert run.plan(clips).eta_s == 10 * 3600


def test_the_account_tells_every_clip_and_every_reason(media, layout, tmp_path):
    shutil.copy(media / "marker.m4a", tmp_path / "present-vid.m4a")
    config = _config(FolderSource(path=tmp_path))
    clips = [_clip("present-vid"), _clip("absent-vid1"), _clip("absent-vid2")]
    with FetchRun(config, layout, resume_command="x") as run:
        for batch in run.plan(clips).batches:
            run.fetch_batch(batch)
        report = write_account(
            run.ledger, clips, layout.fetch, versions=run.versions, videos_per_hour=None
        )
    assert (report.num_requested, report.num_usable, report.num_open) == (3, 1, 0)
    record = json.loads((layout.fetch / "fetch_report.json").read_text())
    assert record["by_state"] == {"done": 1, "invalid": 2}
    assert record["by_reason"] == [{"state": "invalid", "reason": "not-in-folder", "count": 2}]
    lines = (layout.fetch / "invalid.jsonl").read_text().splitlines()
    assert [json.loads(line)["clip_id"] for line in lines] == [clip.clip_id for clip in clips[1:]]
    table = (layout.fetch / "clips.csv").read_text().splitlines()
    assert table[0].startswith("clip_id,state,reason,source,sha256,duration_s,peak_dbfs")
    assert len(table) == 4


# What YouTube does to an address that it distrusts.


def _youtube(**changes) -> FetchConfig:
    return _config(YoutubeSource(), workers=1, **changes)


def _good(wire) -> Scenario:
    url = f"{wire.base}/ok/marker.webm"
    mime = 'audio/webm; codecs="opus"'
    return Scenario(PLAYABLE, [audio_format(249, url, mime, bit_rate=50_000, size=72_000)])


AMBIGUOUS = Scenario(refused("ERROR", "Video unavailable"))
BOT_CHECK = Scenario(refused("LOGIN_REQUIRED", "Sign in to confirm you\u2019re not a bot"))


def _videos(scenario: Scenario, count: int, prefix: str) -> list[Clip]:
    clips = [_clip(f"{prefix}-{number:0{10 - len(prefix)}d}") for number in range(count)]
    offline.VIDEOS.update({clip.video_id: scenario for clip in clips})
    return clips


@pytest.fixture(autouse=True)
def _no_videos():
    offline.VIDEOS.clear()


def test_twenty_losses_in_a_row_are_taken_for_a_refusal_if_nothing_known_is_there(layout):
    clips = _videos(AMBIGUOUS, 30, "hid")
    with pytest.raises(PipelineError, match="none has come yet") as caught:
        _fetch(_youtube(), layout, clips)
    assert caught.value.exit_code == 75
    with FetchRun(_youtube(), layout, resume_command="x") as run:
        states = [row.state for row in run.ledger.rows(clips)]
    assert states == ["unconfirmed"] * 19 + ["pending"] * 11


def test_losses_in_a_row_are_believed_while_a_video_that_came_is_still_there(wire, layout):
    clips = _videos(_good(wire), 1, "good") + _videos(offline.NO_SUCH_VIDEO, 30, "gone")
    rows = _fetch(_youtube(), layout, clips)
    assert [row.state for row in rows] == ["done"] + ["invalid"] * 30


def test_an_outage_pauses_the_run_and_ends_it_before_it_has_gone_through_the_list(wire, layout):
    """A night without a network tried each of its clips once, in vain, and ended well."""
    url = f"{wire.base}/reset/marker.webm"
    formats = [audio_format(249, url, 'audio/webm; codecs="opus"', bit_rate=50_000, size=72_000)]
    clips = _videos(Scenario(PLAYABLE, formats), 40, "off")
    with pytest.raises(PipelineError, match="downloads in a row broke") as caught:
        _fetch(_youtube(), layout, clips)
    assert caught.value.exit_code == 75
    with FetchRun(_youtube(), layout, resume_command="x") as run:
        states = Counter(row.state for row in run.ledger.rows(clips))
    assert states["retry"] + states["pending"] == 40
    assert states["pending"] > 10


def test_a_canary_that_is_there_settles_an_ambiguous_loss_at_once(wire, layout):
    offline.VIDEOS["canary-0000"] = _good(wire)
    config = _youtube(canary_video_id="canary-0000")
    rows = _fetch(config, layout, _videos(AMBIGUOUS, 2, "amb"))
    assert [(row.state, row.reason_code) for row in rows] == [("invalid", "unavailable")] * 2


def test_a_canary_that_is_hidden_leaves_the_loss_unconfirmed(layout):
    config = _youtube(canary_video_id="canary-0000")
    (row,) = _fetch(config, layout, _videos(AMBIGUOUS, 1, "amb"))
    assert row.state == "unconfirmed"


def test_a_refused_clip_is_asked_for_again_after_the_others(wire, layout):
    clips = _videos(BOT_CHECK, 1, "bot") + _videos(_good(wire), 3, "good")
    order: list[str] = []

    def note(row: ClipRow) -> None:
        order.append(row.video_id)
        if len(order) == 3:
            offline.VIDEOS[clips[0].video_id] = _good(wire)

    rows = _fetch(_youtube(block_waits_s=(0.2, 0.2)), layout, clips, on_clip=note)
    assert [(row.state, row.attempts) for row in rows] == [("done", 1)] * 4
    assert order == [clip.video_id for clip in (*clips[1:], clips[0])]


def test_a_video_that_is_always_refused_holds_up_no_other(wire, layout):
    clips = _videos(BOT_CHECK, 1, "bot") + _videos(_good(wire), 3, "good")
    config = _youtube(block_waits_s=(0.05, 0.05))
    rows = _fetch(config, layout, clips)
    assert [row.state for row in rows] == ["pending", "done", "done", "done"]
    with FetchRun(config, layout, resume_command="x") as run:
        more = _videos(_good(wire), 1, "more")
        (batch,) = run.plan([*clips, *more]).batches
    assert batch == (more[0], clips[0]), "what was refused before comes last"


def test_an_error_of_one_worker_ends_the_pause_of_the_others(wire, layout):
    """A full disk found by one worker must not wait for the hours that another one sits out."""
    clips = _videos(BOT_CHECK, 1, "bot") + _videos(_good(wire), 1, "good")
    config = _config(YoutubeSource(), workers=2, block_waits_s=(600.0,))
    began_s = time.monotonic()
    pauses_s: list[float] = []

    def disk_fails_after_the_pause_began(_row: ClipRow) -> None:
        wait_until(lambda: pauses_s)
        raise PipelineError("disk full")

    with (
        FetchRun(
            config,
            layout,
            resume_command="x",
            on_clip=disk_fails_after_the_pause_began,
            on_pause=lambda _, s: pauses_s.append(s),
        ) as run,
        pytest.raises(PipelineError, match="disk full"),
    ):
        run.fetch_batch(run.plan([*clips, *_videos(_good(wire), 3, "more")]).batches[0])
    assert time.monotonic() - began_s < 60


def test_five_faults_of_the_extractor_in_a_row_stop_and_cost_nothing(layout):
    clips = _videos(Scenario(PLAYABLE, formats=[]), 10, "sabr")
    with pytest.raises(PipelineError, match="pip install -U yt-dlp") as caught:
        _fetch(_youtube(), layout, clips)
    assert caught.value.exit_code == 1
    with FetchRun(_youtube(), layout, resume_command="x") as run:
        assert {row.attempts for row in run.ledger.rows(clips)} == {0}
        assert "invalid" not in {row.state for row in run.ledger.rows(clips)}


def test_of_several_languages_the_original_is_taken_though_a_dub_is_smaller(wire, layout):
    mime = 'audio/webm; codecs="opus"'
    original = audio_format(
        251, f"{wire.base}/ok/marker.webm", mime, bit_rate=130_000, size=900_000, language="en.4"
    )
    dubbed = audio_format(
        249, f"{wire.base}/404/x.webm", mime, bit_rate=50_000, size=90_000, language="hi.3"
    )
    clips = _videos(Scenario(PLAYABLE, [dubbed, original]), 1, "lang")
    (row,) = _fetch(_youtube(), layout, clips)
    assert (row.state, row.language) == ("done", "en"), row.message


def test_a_geo_class_tried_again_from_a_country_that_has_it_is_done(wire, layout):
    hidden = Scenario(
        refused(
            "UNPLAYABLE", "Video unavailable", "blocked it in your country on copyright grounds"
        )
    )
    clips = _videos(hidden, 1, "geo")
    (row,) = _fetch(_youtube(), layout, clips)
    assert row.state == "geo"
    offline.VIDEOS[clips[0].video_id] = _good(wire)
    assert _fetch(_youtube(), layout, clips)[0].state == "geo"
    with FetchRun(_youtube(), layout, resume_command="x") as run:
        assert run.ledger.retry("geo") == 1
    assert _fetch(_youtube(), layout, clips)[0].state == "done"
