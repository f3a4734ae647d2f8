"""What is checked before a fetch begins, and what the user is told to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yt_dlp.version

from storage.config import FetchConfig, FolderSource, YoutubeSource
from storage.errors import PipelineError
from storage.fetch import requirements
from storage.host.ffmpeg import ffmpeg_version, find_ffmpeg

MIRROR = FetchConfig(sources=(YoutubeSource(url_template="http://127.0.0.1/{video_id}"),))


@pytest.fixture(autouse=True)
def _forget():
    requirements.find_js_runtime.cache_clear()
    yield
    requirements.find_js_runtime.cache_clear()


def test_this_installation_can_fetch_from_youtube():
    requirements.check_tools(FetchConfig())
    assert set(requirements.tool_versions()) == {
        "yt-dlp",
        "yt-dlp-ejs",
        "ffmpeg",
        "js_runtime",
        "python",
    }


def test_an_ffmpeg_is_found_without_one_in_the_system(tmp_path):
    """In a process of its own, as the place of ffmpeg is remembered."""
    code = "from storage.host.ffmpeg import find_ffmpeg; print(find_ffmpeg())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PATH": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "imageio_ffmpeg" in done.stdout
    assert Path(find_ffmpeg()).is_file()
    assert ffmpeg_version()


def _without_runtime(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _scheme: str(tmp_path))


def test_youtube_without_a_js_runtime_is_refused_with_what_to_install(monkeypatch, tmp_path):
    _without_runtime(monkeypatch, tmp_path)
    with pytest.raises(PipelineError, match="pip install deno"):
        requirements.check_tools(FetchConfig())


def test_a_node_that_is_too_old_is_no_runtime(monkeypatch, tmp_path):
    """Debian's node 20 is there and yt-dlp does not take it."""
    _without_runtime(monkeypatch, tmp_path)
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v20.20.2\n")
    node.chmod(0o755)
    assert requirements.find_js_runtime() is None
    node.write_text("#!/bin/sh\necho v22.1.0\n")
    requirements.find_js_runtime.cache_clear()
    assert requirements.find_js_runtime() == "node 22.1.0"


def test_other_sources_need_no_js_runtime(monkeypatch, tmp_path):
    _without_runtime(monkeypatch, tmp_path)
    requirements.check_tools(MIRROR)
    requirements.check_tools(FetchConfig(sources=(FolderSource(path=tmp_path),)))


def test_a_yt_dlp_whose_messages_we_do_not_know_is_refused(monkeypatch):
    assert yt_dlp.version.__version__ == "2026.10.26"
    monkeypatch.setattr(requirements, "ytdlp_version", "2026.8.19")
    with pytest.raises(PipelineError, match=r"pip install yt-dlp==2026\.10\.26"):
        requirements.check_tools(FetchConfig())
    requirements.check_tools(MIRROR)
