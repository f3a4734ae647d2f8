"""A silent trainer with a deaf rank: what a hung collective looks like from outside."""

import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

# The rank has a session of its own (as torchrun's have), ignores SIGTERM, and neither writes.
CODE = textwrap.dedent("""
    import os, subprocess, sys, time
    rank = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    started = subprocess.Popen([sys.executable, "-c", rank], start_new_session=True)
    with open(sys.argv[1] + ".part", "w") as file:
        file.write(f"{os.getpid()} {started.pid} {os.getppid()}")
    os.rename(sys.argv[1] + ".part", sys.argv[1])
    time.sleep(600)
""")


@dataclass(frozen=True)
class SilentTrainer:
    pid_file: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", CODE, str(self.pid_file)]

    def pids(self, *, wait_s: float = 60) -> list[int]:
        """Process ids of the trainer, its rank and its supervisor, once it has started."""
        give_up_s = time.monotonic() + wait_s
        while not self.pid_file.exists():
            assert time.monotonic() < give_up_s, f"{self.pid_file} never came"
            time.sleep(0.05)
        return [int(word) for word in self.pid_file.read_text().split()]

    def await_death(self, *, wait_s: float) -> float:
        """Seconds until all three are gone; fails if one is not in time."""
        started_s = time.monotonic()
        while alive := [pid for pid in self.pids() if is_alive(pid)]:
            waited_s = time.monotonic() - started_s
            assert waited_s < wait_s, f"processes {alive} still run after {waited_s:.0f} s"
            time.sleep(0.1)
        return time.monotonic() - started_s


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def silent_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SilentTrainer:
    monkeypatch.setenv("R1_AQA_GRACE_S", "2")  # between SIGTERM and SIGKILL; ten is too long here
    return SilentTrainer(tmp_path / "pids")


@pytest.fixture(scope="session")
def trainer_class() -> type[SilentTrainer]:
    """For tests that need several."""
    return SilentTrainer
