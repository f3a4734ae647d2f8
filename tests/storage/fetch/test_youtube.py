"""What goes to yt-dlp: the settings of the profile, and nothing shared between threads."""

import threading

import pytest
from pydantic import ValidationError

from storage.config import FetchConfig, YoutubeSource
from storage.errors import PipelineError
from storage.fetch.requirements import check_tools
from storage.fetch.run import FetchRun
from storage.fetch.youtube import Downloader, is_youtube
from storage.layout import Layout
from storage.records.clip import Clip
from tests.storage import offline_youtube as offline
from tests.storage.offline_youtube import PLAYABLE, Scenario, audio_format
from tests.storage.wire import make_media, serve

COOKIES = "# Netscape HTTP Cookie File\n.youtube.com\tTRUE\t/\tTRUE\t4000000000\tSID\tsecret\n"


def _downloader(source: YoutubeSource, tmp_path) -> Downloader:
    config = FetchConfig(deadline_s=60.0, videos_per_hour=None)
    return Downloader(source, config, tmp_path / "cache", threading.Event())


def test_each_thread_has_its_own_client_and_keeps_it(tmp_path):
    downloader = _downloader(YoutubeSource(), tmp_path)
    clients = []

    def work(name: str) -> None:
        (tmp_path / name).mkdir()
        workers = [downloader._worker(tmp_path / name) for _ in range(2)]
        clients.append({id(worker.client) for worker in workers})

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(each) for each in clients] == [1, 1]
    assert clients[0] != clients[1]


def test_options_of_yt_dlp_are_passed_on_in_its_own_form_and_off_by_default(tmp_path):
    plain = _downloader(YoutubeSource(), tmp_path)._worker(tmp_path).client.params
    assert (plain.get("proxy"), plain.get("cookiefile")) == (None, None)
    (tmp_path / "mine.txt").write_text(COOKIES)
    options = {
        "cookiefile": str(tmp_path / "mine.txt"),
        "proxy": "http://127.0.0.1:9",
        "extractor_args": {"youtube": {"player_client": "web", "lang": ["de"]}},
        "cookiesfrombrowser": ["firefox", "profile"],
        "retries": 7,
    }
    downloader = _downloader(YoutubeSource(ytdlp=options), tmp_path)
    params = downloader._worker(tmp_path).client.params
    assert params["proxy"] == "http://127.0.0.1:9"
    assert params["extractor_args"] == {"youtube": {"player_client": ["web"], "lang": ["de"]}}
    assert params["cookiefile"] == str(tmp_path / "cookies.txt")
    assert params["cookiesfrombrowser"] == ("firefox", "profile")
    assert params["retries"] == 7


@pytest.mark.parametrize(
    "name",
    [
        "outtmpl",
        "paths",
        "postprocessors",
        "exec_cmd",
        "download_ranges",
        "netrc_cmd",
        "ignoreerrors",
        "download_archive",
        "format",
        "external_downloader",
        "proxi",
    ],
)
def test_an_option_that_would_break_the_account_is_refused_by_name(name):
    with pytest.raises(ValidationError, match=f"{name}: not passed on"):
        YoutubeSource(ytdlp={name: "x"})


def test_options_that_cannot_work_are_told_before_the_first_video(tmp_path):
    for options in ({"impersonate": "netscape-4"}, {"cookiesfrombrowser": "lynx"}):
        source = YoutubeSource(ytdlp=options, url_template="http://127.0.0.1:9/{video_id}")
        config = FetchConfig(sources=(source,), videos_per_hour=None)
        with (
            pytest.raises(PipelineError, match="does not take the options"),
            FetchRun(config, Layout(tmp_path / "w", "t"), resume_command="x"),
        ):
            pass


def test_the_cookie_file_itself_is_never_written(tmp_path):
    """yt-dlp writes its cookie file anew at the end of a session."""
    make_media(tmp_path / "media", seconds=4)
    (tmp_path / "mine.txt").write_text(COOKIES)
    (tmp_path / "folder").mkdir()
    with serve(tmp_path / "media") as wire:
        url, mime = f"{wire.base}/ok/marker.webm", 'audio/webm; codecs="opus"'
        offline.VIDEOS["cookie-test"] = Scenario(
            PLAYABLE, [audio_format(249, url, mime, bit_rate=50_000, size=10_000)]
        )
        downloader = _downloader(
            YoutubeSource(ytdlp={"cookiefile": str(tmp_path / "mine.txt")}), tmp_path
        )
        clip = Clip("cookie-test_000000", "cookie-test", 0)
        (found,) = downloader.find([clip], tmp_path / "folder")[clip.clip_id]
        assert found.media.format_id == "249"
        downloader._worker(tmp_path / "folder").client.close()
    assert (tmp_path / "mine.txt").read_text() == COOKIES


def test_a_cookie_file_that_is_not_there_is_named_at_the_start(tmp_path):
    source = YoutubeSource(ytdlp={"cookiefile": str(tmp_path / "mine.txt")})
    with pytest.raises(PipelineError, match=r"no cookie file .*mine\.txt"):
        check_tools(FetchConfig(sources=(source,)))


def test_the_seconds_that_a_server_asks_us_to_wait_are_read(tmp_path):
    """yt-dlp itself never reads Retry-After; the test server says 7."""
    with serve(tmp_path) as wire:
        downloader = _downloader(
            YoutubeSource(url_template=f"{wire.base}/429/x.m4a?v={{video_id}}"), tmp_path
        )
        (tmp_path / "folder").mkdir()
        clip = Clip("any-video-0_000000", "any-video-0", 0)
        failure = downloader.find([clip], tmp_path / "folder")[clip.clip_id]
    assert (failure.kind, failure.http_status, failure.retry_after_s) == ("blocked", 429, 7.0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.youtube.com/watch?v={video_id}", True),
        ("https://youtu.be/{video_id}", True),
        ("http://127.0.0.1:8631/watch/{video_id}", False),
        ("https://notyoutube.com/{video_id}", False),
        ("https://mirror.example/youtube.com/{video_id}", False),
    ],
)
def test_only_youtubes_own_hosts_are_youtube(url, expected):
    assert is_youtube(url) is expected


def test_an_address_without_the_place_of_the_id_is_refused():
    with pytest.raises(ValidationError, match="video_id"):
        YoutubeSource(url_template="https://www.youtube.com/watch")
