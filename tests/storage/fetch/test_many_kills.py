"""Sixty kills at random moments of a fetch, and then a ledger as if there had been none."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.fetch.cut import measure_wav
from storage.fetch.ledger import Ledger
from storage.layout import Layout
from tests.storage.fetch.fetch_child import clips_of
from tests.storage.wire import make_media, serve

NUM_KILLS = 60
NUM_CLIPS = 1500  # more than a quick machine fetches within all these lives
LONGEST_LIFE_S = 3.0  # the first second goes into starting Python and the plan


def _start(workspace: Path, url_template: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.storage.fetch.fetch_child"]
    return subprocess.Popen(
        [*command, str(workspace), url_template, str(NUM_CLIPS)],
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )


def _outcome(layout: Layout) -> dict[str, tuple[str, str, str]]:
    with Ledger(layout.ledger, clip_length_s=1.0) as ledger:
        rows = ledger.rows(clips_of(NUM_CLIPS))
        assert ledger._read("SELECT count(*) FROM run WHERE outcome = 'running'")[0][0] == 0
    return {row.clip_id: (row.state, row.reason_code, row.sha256) for row in rows}


@pytest.mark.long
def test_sixty_kills_at_random_moments_change_no_state_no_reason_and_no_sample(tmp_path):
    """At start, in the plan, in downloads, cuts, renames and commits: wherever a kill falls."""
    make_media(tmp_path / "media", seconds=6)
    rng = random.Random(13)
    killed, whole = (
        Layout(tmp_path / name, "test", clip_length_s=1.0) for name in ("killed", "whole")
    )
    with serve(tmp_path / "media") as wire:
        # Every seventh video is not there: the names in the table decide, not the moment.
        url_template = f"{wire.base}/every-seventh-404/marker.m4a?v={{video_id}}"
        num_done: list[int] = []
        for _ in range(NUM_KILLS):
            child = _start(killed.workspace, url_template)
            time.sleep(rng.uniform(0.1, LONGEST_LIFE_S))
            os.killpg(child.pid, signal.SIGKILL)
            num_done.append(child.wait() == 0)
            for path in killed.clips.glob("*.wav"):
                assert path.stat().st_size == 44 + 2 * 16_000, path.name
        assert sum(num_done) < NUM_KILLS / 4, "most kills fell into a run"
        assert _start(killed.workspace, url_template).wait(300) == 0
        assert _start(whole.workspace, url_template).wait(300) == 0
    assert _outcome(killed) == _outcome(whole)
    states = {state for state, _, _ in _outcome(whole).values()}
    assert states == {"done", "invalid"}
    for clip in clips_of(NUM_CLIPS)[::50]:
        if (killed.clips / clip.file_name).exists():
            digests = {
                measure_wav(layout.clips / clip.file_name).sha256 for layout in (killed, whole)
            }
            assert len(digests) == 1
    assert not killed.downloads.exists()
