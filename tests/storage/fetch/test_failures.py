"""Every message of the taxonomy, from the real YouTube extractor, and where it puts a clip."""

import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest
import yaml

from storage.config import FetchConfig, YoutubeSource
from storage.errors import PipelineError
from storage.fetch import failures
from storage.fetch.ledger import ClipRow
from storage.fetch.run import FetchRun
from storage.layout import Layout
from storage.records.clip import Clip
from tests.storage import offline_youtube as offline
from tests.storage.offline_youtube import PLAYABLE, Scenario, audio_format, refused
from tests.storage.wire import Wire, make_media, serve

CONFIG = FetchConfig(
    sources=(YoutubeSource(),),
    videos_per_hour=None,
    clip_length_s=2.0,
    block_waits_s=(),
    retry_waits_s=(60.0,),
)
START_S = 5


@dataclass(frozen=True)
class Expected:
    state: str
    reason: str
    attempts: int = 1


def _gone(subreason: str) -> Scenario:
    return Scenario(refused("ERROR", "Video unavailable", subreason))


def _unplayable(reason: str, subreason: str | None = None) -> Scenario:
    return Scenario(refused("UNPLAYABLE", reason, subreason))


def _formats(wire: Wire, case: str) -> list[dict]:
    m4a, opus = 'audio/mp4; codecs="mp4a.40.2"', 'audio/webm; codecs="opus"'
    # Announced as bigger than it is, so that not the size but the class of the format decides.
    return [
        audio_format(140, f"{wire.base}/{case}/marker.m4a", m4a, bit_rate=129_000, size=900_000),
        audio_format(249, f"{wire.base}/{case}/marker.webm", opus, bit_rate=50_000, size=400_000),
        audio_format(251, f"{wire.base}/{case}/marker.webm", opus, bit_rate=130_000, size=900_000),
        audio_format(600, f"{wire.base}/404/none.webm", opus, bit_rate=28_000, size=200_000),
    ]


def _video_only(wire: Wire) -> dict:
    return {
        "itag": 133,
        "url": f"{wire.base}/ok/no-audio.mp4",
        "mimeType": 'video/mp4; codecs="avc1.4d4015"',
        "bitrate": 200_000,
        "width": 320,
        "height": 240,
        "fps": 25,
        "quality": "small",
        "qualityLabel": "240p",
    }


LIVE = {"isLiveContent": True}
NO_URL = [{"itag": 140, "mimeType": 'audio/mp4; codecs="mp4a.40.2"', "bitrate": 129_000}]
WEB_429 = {"watch_status": 429, "player_status": 429, "player_body": b"{}"}

# (scenario, what becomes of the clip). The wording is YouTube's.
OF_THE_CLIP: dict[str, tuple[Scenario, Expected]] = {
    "private": (
        Scenario(
            refused(
                "LOGIN_REQUIRED",
                "Private video",
                "Sign in if you've been granted access to this video",
            )
        ),
        Expected("invalid", "private"),
    ),
    "removed by the uploader": (
        _gone("This video has been removed by the uploader"),
        Expected("invalid", "removed"),
    ),
    "account terminated": (
        _gone(
            "This video is no longer available because the YouTube account associated with this "
            "video has been terminated."
        ),
        Expected("invalid", "account-terminated"),
    ),
    "account closed": (
        _gone(
            "This video is no longer available because the uploader has closed their YouTube "
            "account."
        ),
        Expected("invalid", "account-closed"),
    ),
    "copyright claim": (
        _gone("This video is no longer available due to a copyright claim by Acme Corp"),
        Expected("invalid", "copyright"),
    ),
    "terms of service": (
        Scenario(
            refused("ERROR", "This video has been removed for violating YouTube's Terms of Service")
        ),
        Expected("invalid", "terms-of-service"),
    ),
    "community guidelines": (
        Scenario(
            refused(
                "ERROR",
                "This video has been removed for violating YouTube's Community Guidelines",
            )
        ),
        Expected("invalid", "terms-of-service"),
    ),
    "hate speech, with a link about one's country": (
        Scenario(
            refused(
                "ERROR",
                "This video has been removed for violating YouTube's policy on hate speech. Learn "
                "more about combating hate speech in your country.",
            )
        ),
        Expected("invalid", "terms-of-service"),
    ),
    "trademark claim": (
        _gone("This video is no longer available due to a trademark claim by Acme Corp"),
        Expected("invalid", "copyright"),
    ),
    "YouTube Premium": (
        _unplayable("This video is available only to YouTube Premium members"),
        Expected("invalid", "paid"),
    ),
    "court order": (
        _gone(
            "This content is not available on this country domain due to a legal complaint from "
            "the government."
        ),
        Expected("geo", "country"),
    ),
    "inappropriate for some": (
        Scenario(refused("UNPLAYABLE", "This video may be inappropriate for some users.")),
        Expected("credentials", "age"),
    ),
    "content check": (
        _unplayable(
            "The following content has been identified by the YouTube community as inappropriate "
            "or offensive to some audiences."
        ),
        Expected("credentials", "content-check"),
    ),
    "another content check": (
        _unplayable("The following content may contain suicide or self-harm topics"),
        Expected("credentials", "content-check"),
    ),
    "fault of the player": (
        _gone("This video is unavailable. Error code: 152 - 18"),
        Expected("retry", "player-error", attempts=0),
    ),
    "no such video": (offline.NO_SUCH_VIDEO, Expected("invalid", "no-such-video")),
    "members only": (
        _unplayable(
            "Join this channel to get access to members-only content like this video, and other "
            "exclusive perks."
        ),
        Expected("invalid", "members-only"),
    ),
    "paid": (
        _unplayable("This video requires payment to watch."),
        Expected("invalid", "paid"),
    ),
    "music premium": (
        _unplayable("This video is only available to Music Premium members"),
        Expected("invalid", "paid"),
    ),
    "live, not recorded": (
        Scenario(
            refused("LIVE_STREAM_OFFLINE", "This live stream recording is not available."),
            details=LIVE,
        ),
        Expected("invalid", "no-recording"),
    ),
    "DRM": (
        Scenario(PLAYABLE, formats=[], streaming={"licenseInfos": [{"drmFamily": "WIDEVINE"}]}),
        Expected("invalid", "drm"),
    ),
    "not in this country": (
        _unplayable(
            "Video unavailable",
            "The uploader has not made this video available in your country",
        ),
        Expected("geo", "country"),
    ),
    "blocked in this country by copyright": (
        _unplayable(
            "Video unavailable",
            "This video contains content from SME, who has blocked it in your country on "
            "copyright grounds",
        ),
        Expected("geo", "country"),
    ),
    "age": (
        Scenario(
            refused(
                "LOGIN_REQUIRED",
                "Sign in to confirm your age",
                "This video may be inappropriate for some users.",
            )
        ),
        Expected("credentials", "age"),
    ),
    "age, and the way around it broken": (
        Scenario(
            refused("LOGIN_REQUIRED", "Sign in to confirm your age"),
            embed_status=404,
        ),
        Expected("retry", "key-error"),
    ),
    "not available any more": (
        _gone("This video isn't available anymore"),
        Expected("unconfirmed", "unavailable"),
    ),
    "still processed": (
        _unplayable("We're processing this video. Check back later."),
        Expected("retry", "processing"),
    ),
    "page to be reloaded": (
        _unplayable("The page needs to be reloaded."),
        Expected("retry", "page-reload", attempts=0),
    ),
    "not embeddable": (
        _unplayable("Video unavailable", "Playback on other websites has been disabled"),
        Expected("retry", "not-embeddable", attempts=0),
    ),
    "unavailable, nothing more": (
        Scenario(refused("ERROR", "Video unavailable")),
        Expected("unconfirmed", "unavailable"),
    ),
    "content not available": (
        _unplayable("Video unavailable", "This content isn\u2019t available."),
        Expected("unconfirmed", "unavailable"),
    ),
    "premiere": (
        Scenario(
            refused("LIVE_STREAM_OFFLINE", "Premieres in 3 hours"),
            details={**LIVE, "isUpcoming": True},
        ),
        Expected("retry", "not-yet-live"),
    ),
    "interface times out": (
        Scenario(PLAYABLE, times_out=True),
        Expected("retry", "timeout"),
    ),
    "consent page instead of JSON": (
        Scenario(PLAYABLE, player_body=b"<html>consent</html>"),
        Expected("retry", "no-player-response"),
    ),
    "no formats": (
        Scenario(PLAYABLE, formats=[]),
        Expected("retry", "no-formats", attempts=0),
    ),
    "formats without address": (
        Scenario(PLAYABLE, formats=NO_URL),
        Expected("retry", "no-formats", attempts=0),
    ),
}
REFUSALS: dict[str, tuple[Scenario, str]] = {
    "bot check": (
        Scenario(
            refused(
                "LOGIN_REQUIRED",
                "Sign in to confirm you\u2019re not a bot",
                "This helps protect our community. Learn more",
            )
        ),
        "bot-check",
    ),
    "rate limit": (
        _unplayable("This content isn't available, try again later."),
        "rate-limit",
    ),
    "please sign in": (Scenario(refused("LOGIN_REQUIRED", "Please sign in")), "sign-in"),
    "captcha": (
        Scenario(
            {
                "status": "UNPLAYABLE",
                "reason": "Video unavailable",
                "errorScreen": {"playerCaptchaViewModel": {"x": 1}},
            }
        ),
        "captcha",
    ),
    "other app": (
        _unplayable(
            "The following content is not available on this app..",
            "Watch on the latest version of YouTube.",
        ),
        "address-blocked",
    ),
    "another video's answer": (
        Scenario(refused("ERROR", "Video unavailable"), other_video_id="aQvGIIdgFDM"),
        "address-blocked",
    ),
    "429 everywhere": (Scenario(PLAYABLE, **WEB_429), "http-429"),
    "403 of the interface": (
        Scenario(PLAYABLE, player_status=403, player_body=b"{}"),
        "http-403",
    ),
}


def _id(number: int) -> str:
    return f"off-line_{number:02d}"


def _clip(video_id: str) -> Clip:
    return Clip(f"{video_id}_{START_S:06d}", video_id, START_S)


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    make_media(root)
    with serve(root) as running:
        yield running


@pytest.fixture(scope="module")
def rows(wire, tmp_path_factory) -> dict[str, ClipRow]:
    """One run over all the scenarios that are about the clip, by scenario."""
    scenarios = {name: scenario for name, (scenario, _) in OF_THE_CLIP.items()}
    # Good videos in between, or five faults of the extractor in a row would stop the run.
    good = Scenario(PLAYABLE, formats=_formats(wire, "ok"))
    order: list[str] = []
    for name in scenarios:
        order += [name, f"good after {name}"]
    media = {
        "media 404": Scenario(PLAYABLE, formats=_formats(wire, "404")),
        "media 503": Scenario(PLAYABLE, formats=_formats(wire, "503")),
        "media 503 twice": Scenario(PLAYABLE, formats=_formats(wire, "503-twice")),
        "media truncated": Scenario(PLAYABLE, formats=_formats(wire, "truncated")),
        "media reset": Scenario(PLAYABLE, formats=_formats(wire, "reset")),
        "media of zero bytes": Scenario(PLAYABLE, formats=_formats(wire, "zero-bytes")),
        "html as media": Scenario(PLAYABLE, formats=_formats(wire, "html-as-audio")),
        "video only": Scenario(PLAYABLE, formats=[_video_only(wire)]),
        "known to be too short": Scenario(PLAYABLE, formats=_formats(wire, "ok"), length_s=4),
        "watch page 429, interface good": replace(good, watch_status=429),
    }
    order += media
    offline.VIDEOS.clear()
    ids = {name: _id(number) for number, name in enumerate(order)}
    for name, video_id in ids.items():
        offline.VIDEOS[video_id] = scenarios.get(name) or media.get(name) or good
    layout = Layout(tmp_path_factory.mktemp("workspace"), "test")
    clips = [_clip(video_id) for video_id in ids.values()]
    config = CONFIG.model_copy(update={"workers": 1})
    with FetchRun(config, layout, resume_command="resume") as run:
        for batch in run.plan(clips).batches:
            run.fetch_batch(batch)
        by_id = {row.video_id: row for row in run.ledger.rows()}
    return {name: by_id[video_id] for name, video_id in ids.items()}


@pytest.mark.parametrize("name", OF_THE_CLIP)
def test_what_youtube_says_of_a_clip_decides_its_state(rows, name):
    row, expected = rows[name], OF_THE_CLIP[name][1]
    assert Expected(row.state, row.reason_code, row.attempts) == expected, row.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("good after private", Expected("done", "")),
        ("media 404", Expected("retry", "http-404")),
        ("media 503", Expected("retry", "http-503")),
        ("media 503 twice", Expected("done", "")),
        ("media truncated", Expected("retry", "truncated")),
        ("media reset", Expected("retry", "connection-reset")),
        ("media of zero bytes", Expected("retry", "empty")),
        ("html as media", Expected("retry", "not-media")),
        ("video only", Expected("invalid", "no-audio")),
        ("known to be too short", Expected("invalid", "start-beyond-end")),
        ("watch page 429, interface good", Expected("done", "")),
    ],
)
def test_what_happens_to_the_media_decides_the_clips_state(rows, name, expected):
    row = rows[name]
    assert Expected(row.state, row.reason_code, row.attempts) == expected, row.message


def test_of_the_formats_the_small_opus_above_45_kbit_is_taken(rows):
    assert rows["good after private"].format_id == "249"


def test_messages_carry_no_advice_about_the_options_of_another_tool(rows):
    for row in rows.values():
        assert "--cookies" not in row.message
        assert "report this issue" not in row.message


@pytest.mark.parametrize("name", [*REFUSALS, "media 403", "media 429"])
def test_a_refusal_is_never_the_clips_fault(wire, tmp_path: Path, name):
    if name in REFUSALS:
        scenario, reason = REFUSALS[name]
    else:
        status = name.split()[1]
        scenario, reason = Scenario(PLAYABLE, formats=_formats(wire, status)), f"http-{status}"
    clip = _clip("refused-000")
    offline.VIDEOS[clip.video_id] = scenario
    layout = Layout(tmp_path, "test", clip_length_s=2.0)
    with (
        pytest.raises(PipelineError, match="resume-command") as caught,
        FetchRun(CONFIG, layout, resume_command="resume-command") as run,
    ):
        run.fetch_batch(run.plan([clip]).batches[0])
    assert caught.value.exit_code == 75
    with sqlite3.connect(layout.ledger) as ledger:
        assert ledger.execute("SELECT state, attempts FROM clip").fetchall() == [("pending", 0)]
        assert ledger.execute("SELECT state, reason_code FROM attempt").fetchall() == [
            ("blocked", reason)
        ]
        assert ledger.execute("SELECT outcome FROM run").fetchall() == [("blocked",)]


@pytest.mark.parametrize(
    "text",
    [
        "This video is restricted. Please check the Google Workspace administrator and/or the "
        "network administrator restrictions.",
        "This video is unavailable with Restricted Mode enabled. To view this video, you will need "
        "to disable Restricted Mode.",
    ],
)
def test_a_network_that_hides_videos_stops_the_run_with_what_to_do(tmp_path: Path, text):
    """They were counted as `no-such-video` and `unavailable`."""
    clip = _clip("hidden-0000")
    offline.VIDEOS[clip.video_id] = _gone(text)
    layout = Layout(tmp_path, "test", clip_length_s=2.0)
    with (
        pytest.raises(PipelineError, match="this network or account hides videos") as caught,
        FetchRun(CONFIG, layout, resume_command="x") as run,
    ):
        run.fetch_batch(run.plan([clip]).batches[0])
    assert caught.value.exit_code == 1
    with sqlite3.connect(layout.ledger) as ledger:
        found = ledger.execute("SELECT state, attempts, reason_code FROM clip").fetchall()
    assert found == [("pending", 0, "restricted-network")]


def test_every_line_of_the_table_of_messages_has_its_source_and_date():
    path = Path(failures.__file__).with_name("messages.yaml")
    lines = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {tuple(line) for line in lines} == {("kind", "reason", "text", "source", "date")}
    assert {line["kind"] for line in lines} <= {*get_args(failures.Kind), "session"}


def test_a_media_403_is_asked_for_once_more_with_a_new_address(wire, tmp_path: Path):
    clip = _clip("expired-000")
    offline.VIDEOS[clip.video_id] = Scenario(PLAYABLE, formats=_formats(wire, "403"))
    wire.requests.clear()
    with (
        pytest.raises(PipelineError),
        FetchRun(CONFIG, Layout(tmp_path, "test"), resume_command="x") as run,
    ):
        run.fetch_batch(run.plan([clip]).batches[0])
    assert wire.requests["/403/marker.webm"] == 2
