"""The demo's media server, asked by plain HTTP and by the real yt-dlp."""

import http.client
import socket
from pathlib import Path

import numpy as np
import pytest
import yt_dlp

from storage.errors import PipelineError
from storage.world.media_server import ServedVideo, serve_media
from storage.world.videos import AnnotatedClip, Video, encode, make_fillers, make_soundtrack

CONTENT = bytes(range(256)) * 12  # 3072 bytes


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("media")
    (folder / "plain.m4a").write_bytes(CONTENT)
    plain = folder / "plain.m4a"
    videos = {
        "-plain_____": ServedVideo(plain, None),
        "truncated__": ServedVideo(plain, "truncated"),
        "page_______": ServedVideo(None, "html"),
        "pageasaudio": ServedVideo(None, "html-as-audio"),
        "empty______": ServedVideo(None, "zero-bytes"),
        **{f"status{code}__": ServedVideo(None, code) for code in ("404", "403", "410")},
        **encoded_videos(folder),
    }
    with serve_media(videos, port=0) as address:
        yield address


def encoded_videos(folder: Path) -> dict[str, ServedVideo]:
    """A real video in each container."""
    fillers = make_fillers(slot_s=2, seed=1)
    served: dict[str, ServedVideo] = {}
    for suffix in (".m4a", ".webm", ".mp4"):
        video = Video(f"-video_{suffix[1:]:_<4}", 20, (AnnotatedClip(4, "siren"),), suffix, None)
        rng = np.random.default_rng(0)
        track = make_soundtrack(video, slot_s=2, fillers=fillers, rng=rng)
        encode(video, track, folder / str(video.file_name))
        served[video.video_id] = ServedVideo(folder / str(video.file_name), None)
    return served


def ask(address: str, video_id: str, *, method: str = "GET", byte_range: str | None = None):
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=5)
    headers = {"Range": byte_range} if byte_range else {}
    connection.request(method, f"/watch/{video_id}", headers=headers)
    return connection.getresponse()


def test_a_whole_file_comes_with_its_type_and_length(address: str):
    answer = ask(address, "-plain_____")
    assert answer.status == 200
    assert answer.getheader("Content-Type") == "audio/mp4"
    assert answer.getheader("Accept-Ranges") == "bytes"
    assert answer.read() == CONTENT


def test_a_head_request_gets_no_body(address: str):
    answer = ask(address, "-plain_____", method="HEAD")
    assert answer.getheader("Content-Length") == "3072"
    assert answer.read() == b""


@pytest.mark.parametrize(
    ("byte_range", "content_range", "body"),
    [
        ("bytes=0-", "bytes 0-3071/3072", CONTENT),
        ("bytes=100-199", "bytes 100-199/3072", CONTENT[100:200]),
        ("bytes=3000-9999", "bytes 3000-3071/3072", CONTENT[3000:]),
        ("bytes=-72", "bytes 3000-3071/3072", CONTENT[3000:]),
    ],
)
def test_a_range_is_answered_with_its_bytes(
    address: str, byte_range: str, content_range: str, body: bytes
):
    answer = ask(address, "-plain_____", byte_range=byte_range)
    assert answer.status == 206
    assert answer.getheader("Content-Range") == content_range
    assert answer.read() == body


def test_a_range_past_the_end_is_refused(address: str):
    answer = ask(address, "-plain_____", byte_range="bytes=3072-")
    assert answer.status == 416
    assert answer.getheader("Content-Range") == "bytes */3072"


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_missing_video_answers_with_its_status(address: str, status: int):
    assert ask(address, f"status{status}__").status == status


def test_an_unknown_video_is_not_found(address: str):
    assert ask(address, "nobodyknows").status == 404


def test_a_truncated_body_breaks_off_even_when_resumed(address: str):
    for byte_range in (None, "bytes=1024-"):
        answer = ask(address, "truncated__", byte_range=byte_range)
        assert answer.status == 200
        assert answer.getheader("Content-Length") == "3072"
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_pages_and_empty_bodies_are_what_they_are(address: str):
    assert ask(address, "page_______").getheader("Content-Type") == "text/html"
    assert ask(address, "pageasaudio").getheader("Content-Type") == "audio/mp4"
    assert b"<html>" in ask(address, "pageasaudio").read()
    assert ask(address, "empty______").read() == b""


@pytest.mark.parametrize(
    ("video_id", "ext"), [("-video_m4a_", "m4a"), ("-video_webm", "webm"), ("-video_mp4_", "mp4")]
)
def test_yt_dlp_downloads_each_container(address: str, tmp_path: Path, video_id: str, ext: str):
    options = {
        "format": "ba/b",
        "outtmpl": str(tmp_path / "media.%(ext)s"),
        "quiet": True,
        "noprogress": True,
        "fixup": "never",
    }
    with yt_dlp.YoutubeDL(options) as downloader:
        found = downloader.extract_info(f"{address}/watch/{video_id}")
    assert found["extractor"] == "generic"
    path = Path(found["requested_downloads"][0]["filepath"])
    assert path.suffix in {f".{ext}", ".mp4"}  # yt-dlp names audio/mp4 either way
    assert path.read_bytes() == ask(address, video_id).read()


def test_a_port_in_use_is_named_with_the_remedy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(PipelineError, match=rf"127\.0\.0\.1:{port}.*--set world\.port="),
            serve_media({}, port=port),
        ):
            pass


def test_the_port_is_free_again_afterwards():
    with serve_media({}, port=0) as address:
        port = int(address.rsplit(":", 1)[1])
    with serve_media({}, port=port) as again:
        assert again == address
