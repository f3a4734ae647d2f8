import os
import re
import subprocess
import sys
from pathlib import Path

from storage.locks import holder, is_locked, locked, try_lock

ROOT = Path(__file__).parents[2]


def test_who_holds_a_lock_is_told_with_process_host_purpose_and_time(tmp_path) -> None:
    path = tmp_path / "folder" / "unit.lock"
    assert holder(path) == "another process"
    with locked(path, "training grpo") as descriptor:
        assert descriptor is not None
        with locked(path, "another") as second:
            assert second is None
        text = f"process {os.getpid()} on .+ for training grpo, since .. ... ..:..:.."
        assert re.fullmatch(text, holder(path))
    assert not is_locked(path)


def test_several_share_a_lock_and_nobody_then_has_it_alone(tmp_path) -> None:
    path = tmp_path / "unit.lock"
    with locked(path, shared=True) as first, locked(path, shared=True) as second:
        assert first is not None
        assert second is not None
        assert try_lock(path) is None
        assert is_locked(path)
    assert not is_locked(path)


def test_a_lock_is_free_when_the_last_process_that_inherited_it_is_gone(tmp_path) -> None:
    path = tmp_path / "unit.lock"
    code = (
        "import subprocess, sys, time; from pathlib import Path;"
        "from storage.locks import try_lock;"
        "lock = try_lock(Path(sys.argv[1]));"
        "child = subprocess.Popen(['sleep', '600'], pass_fds=[lock]);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert is_locked(path)
    os.kill(child, 9)
    with locked(path, wait=True) as descriptor:
        assert descriptor is not None
