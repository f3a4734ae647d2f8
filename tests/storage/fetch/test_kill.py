"""A fetch that is killed at any moment, and started again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.fetch.cut import measure_wav
from storage.fetch.ledger import Ledger
from storage.layout import Layout
from tests.storage.fetch.fetch_child import clips_of
from tests.storage.wire import make_media, serve, wait_until

NUM_CLIPS = 120
NUM_WORKERS = 2
KILL_AFTER = (20, 50, 85)  # wavs


def _start(workspace: Path, url_template: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.storage.fetch.fetch_child"]
    return subprocess.Popen(
        [*command, str(workspace), url_template, str(NUM_CLIPS)],
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )


def _wavs(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.clips.glob("*"))


@pytest.mark.long
def test_three_kills_lose_no_clip_leave_no_bad_wav_and_redo_nothing(tmp_path):
    make_media(tmp_path / "media", seconds=6)
    layout = Layout(tmp_path / "workspace", "test", clip_length_s=1.0)
    with serve(tmp_path / "media") as wire:
        url_template = f"{wire.base}/ok/marker.m4a?v={{video_id}}"
        for num_wavs in KILL_AFTER:
            child = _start(layout.workspace, url_template)
            wait_until(
                lambda limit=num_wavs: len(_wavs(layout)) >= limit,
                timeout_s=120,
            )
            # The whole session, so that no ffmpeg is left.
            os.killpg(child.pid, signal.SIGKILL)
            assert child.wait() == -signal.SIGKILL
            assert len(_wavs(layout)) < NUM_CLIPS, "it was killed in the midst"
            for path in layout.clips.iterdir():
                assert measure_wav(path).num_samples == 16_000, path.name
        assert _start(layout.workspace, url_template).wait(120) == 0
        num_downloads = wire.requests["/ok/marker.m4a"] / 2
    with Ledger(layout.ledger, clip_length_s=1.0) as ledger:
        rows = ledger.rows(clips_of(NUM_CLIPS))
    assert {row.state for row in rows} == {"done"}
    assert len(rows) == NUM_CLIPS
    # A wav that was renamed but not yet written down is adopted: no attempt is counted for it.
    assert {row.attempts for row in rows} <= {0, 1}
    assert all((row.attempts == 0) == (row.source == "adopted") for row in rows)
    for row in rows:
        assert measure_wav(layout.clips / row.clip.file_name).sha256 == row.sha256
    assert _wavs(layout) == sorted(row.clip.file_name for row in rows)
    assert not layout.downloads.exists()
    assert num_downloads <= NUM_CLIPS + len(KILL_AFTER) * NUM_WORKERS


def test_a_sigkilled_fetch_leaves_the_workspace_free(tmp_path):
    make_media(tmp_path / "media", seconds=6)
    layout = Layout(tmp_path / "workspace", "test", clip_length_s=1.0)
    with serve(tmp_path / "media") as wire:
        url_template = f"{wire.base}/drip/marker.m4a?v={{video_id}}"
        child = _start(layout.workspace, url_template)
        wait_until(lambda: wire.requests.total() > 0, timeout_s=60)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        # A new process takes the lock and goes to work.
        before = wire.requests.total()
        child = _start(layout.workspace, url_template)
        wait_until(lambda: wire.requests.total() > before, timeout_s=60)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
