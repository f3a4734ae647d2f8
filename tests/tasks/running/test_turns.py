import contextlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.errors import PipelineError
from tasks.running.turns import turn

ROOT = Path(__file__).parents[3]
HOLD = (
    "import sys; from pathlib import Path; from tasks.running.turns import turn\n"
    "with turn('train/grpo', Path(sys.argv[1])): print('held', flush=True); input()"
)


@contextlib.contextmanager
def held_by_another(path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_who_comes_second_waits_and_is_told_for_whom(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("tasks.running.turns.WAIT_S", 0.1)
    path = tmp_path / "train--grpo.lock"
    with held_by_another(path) as process:
        threading.Timer(1.0, process.kill).start()
        began_s = time.monotonic()
        with turn("train/grpo", path):
            assert time.monotonic() - began_s > 0.9
    said = capsys.readouterr().out
    assert f"waiting for train/grpo: process {process.pid} on " in said


def test_by_setting_it_is_refused_with_who_is_at_it_since_when(tmp_path) -> None:
    path = tmp_path / "train--grpo.lock"
    with held_by_another(path) as process:
        text = f"train/grpo is busy: process {process.pid} on .*, since .* is at it; wait"
        with pytest.raises(PipelineError, match=text), turn("train/grpo", path, "refuse"):
            pass
