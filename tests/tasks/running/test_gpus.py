import contextlib
import contextvars
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from storage.errors import PipelineError
from storage.host.gpus import Gpu, visible_gpus
from tasks.running.child_process import run_child, stopping_children
from tasks.running.gpus import hold_gpus, is_any_free, limit_name

ROOT = Path(__file__).parents[3]
TWO_H200 = "0, GPU-aaa, NVIDIA H200, 143771, 0\n1, GPU-bbb, NVIDIA H200, 143771, 90000\n"


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """A host whose nvidia-smi says what the test wants; no Prefect server is in use."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("R1_AQA_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def says(listing: str) -> None:
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
        tool.chmod(0o755)

    says(TWO_H200)
    return says


def test_the_driver_s_list_is_read():
    mib = 1024 * 1024
    assert visible_gpus() == [
        Gpu("GPU-aaa", "0", "NVIDIA H200", 143771 * mib, 0),
        Gpu("GPU-bbb", "1", "NVIDIA H200", 143771 * mib, 90000 * mib),
    ]


@pytest.mark.parametrize(
    ("visible", "names"),
    [("1", ["1"]), ("1,0", ["1", "0"]), ("GPU-b", ["1"]), ("", []), ("-1", [])],
)
def test_cuda_visible_devices_narrows_the_list_by_index_or_uuid(monkeypatch, visible, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.name for gpu in visible_gpus()] == names


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(PipelineError, match="names GPU 7; this host has 0, 1; set it to some"):
        visible_gpus()


def test_a_host_without_gpus_works_on_its_cpu(host):
    host("")
    for count in (None, 0, 8):
        with hold_gpus(count) as gpus:
            assert gpus == []


def test_a_gpu_is_free_unless_all_are_held_and_a_host_without_has_its_cpu(host):
    with hold_gpus(1):
        assert is_any_free()
    with hold_gpus(2):
        assert not is_any_free()
    host("")
    assert is_any_free()


def test_the_emptier_gpu_is_taken_first_and_all_by_default():
    with hold_gpus(1) as gpus:
        assert gpus == ["GPU-aaa"]
        with hold_gpus(1) as others:
            assert others == ["GPU-bbb"]
    with hold_gpus(None) as gpus:
        assert gpus == ["GPU-aaa", "GPU-bbb"]
    with hold_gpus(0) as gpus:
        assert gpus == []


def test_asking_for_more_gpus_than_there_are_is_refused_at_once():
    with (
        pytest.raises(PipelineError, match=r"8 GPUs are asked for, .* may use 2 \(0, 1\)"),
        hold_gpus(8),
    ):
        pass


def test_two_never_hold_one_gpu_and_the_second_waits_for_the_first(monkeypatch):
    monkeypatch.setattr("tasks.running.turns.WAIT_S", 0.05)
    inside = []

    def hold() -> None:
        with hold_gpus(2):
            inside.append("in")
            time.sleep(0.3)
            inside.append("out")

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == ["in", "out"] * 3


def test_who_waits_is_told_for_whom_and_what_to_do(monkeypatch, capsys):
    """Prefect's log lines do not show in a terminal: an evaluation beside a training was silent."""
    monkeypatch.setattr("tasks.running.turns.WAIT_S", 0.1)
    code = (
        "from tasks.running.gpus import hold_gpus\n"
        "with hold_gpus(2, 'training grpo'): print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    other.stdout.readline()
    started_s = time.monotonic()
    threading.Timer(1.0, other.kill).start()
    with hold_gpus(1, "evaluation"):
        waited_s = time.monotonic() - started_s
    assert waited_s > 0.9
    said = capsys.readouterr().out
    assert "waiting for 1 GPU(s) for evaluation: GPU 0 is held by process" in said
    assert f"process {other.pid} on {socket.gethostname()} for training grpo, since" in said
    assert "set CUDA_VISIBLE_DEVICES; empty: the CPU" in said


def test_waiting_for_a_gpu_ends_when_the_flow_is_told_to_stop(monkeypatch):
    """A signal does not reach a submitted task's thread: Ctrl-C hung until the GPU was free."""
    monkeypatch.setattr("tasks.running.turns.WAIT_S", 0.05)
    stopped = []

    def wait() -> None:
        try:
            with hold_gpus(1):
                pass
        except PipelineError as error:
            stopped.append(str(error))

    with hold_gpus(2):
        with contextlib.suppress(KeyboardInterrupt), stopping_children():
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(wait,))
            thread.start()
            raise KeyboardInterrupt
        thread.join(10)
    (said,) = stopped
    assert said.startswith("stopped with its flow while waiting for 1 GPU(s)")


def test_a_gpu_stays_locked_while_a_process_of_the_killed_run_still_lives(
    silent_trainer, tmp_path, monkeypatch
):
    """The flow process dies at once, its trainer after the grace: the GPU is not free before."""
    monkeypatch.setattr("tasks.running.turns.WAIT_S", 0.05)
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tasks.running.child_process import run_child, stopping_children
        from tasks.running.gpus import hold_gpus
        with hold_gpus(None):
            run_child(sys.argv[2:], log=Path(sys.argv[1]), on_line=print)
    """)
    flow = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log"), *silent_trainer.command], cwd=ROOT
    )
    pids = silent_trainer.pids()
    flow.kill()
    flow.wait()
    with hold_gpus(1):
        alive = [pid for pid in pids[:2] if Path(f"/proc/{pid}").exists()]
    assert alive == []


def test_a_child_sees_the_gpus_that_are_held(tmp_path):
    lines = []
    with hold_gpus(1) as gpus:
        run_child(
            [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"],
            log=tmp_path / "log",
            on_line=lines.append,
            env={"CUDA_VISIBLE_DEVICES": ",".join(gpus)},
        )
    assert lines == ["GPU-aaa"]


def test_every_user_of_the_host_can_lock(tmp_path):
    previous = os.umask(0o077)
    try:
        with hold_gpus(1):
            pass
    finally:
        os.umask(previous)
    folder = tmp_path / "locks"
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert (folder / "gpu-0.lock").stat().st_mode & 0o777 == 0o666


def test_a_limit_s_name_can_tell_hosts_apart(monkeypatch):
    gpu = Gpu("GPU-aaa", "3")
    assert limit_name(gpu) == "gpu-3"
    monkeypatch.setenv("R1_AQA_GPU_LIMIT", "{host}-gpu-{gpu}")
    monkeypatch.setattr("socket.gethostname", lambda: "Node7")
    assert limit_name(gpu) == "node7-gpu-3"
    monkeypatch.setenv("R1_AQA_GPU_LIMIT", "")
    assert limit_name(gpu) == ""
