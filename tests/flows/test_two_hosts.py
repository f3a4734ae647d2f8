"""A training over two hosts with a network of their own: two namespaces and a cable between."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from model.network.tiny import build_tiny
from storage.jsonl import read_appended
from storage.layout import Layout
from tests.model.conftest import QUESTION, SOUNDS, write_training_lines

ROOT = Path(__file__).parents[2]
NUM_STEPS = 24
IP = shutil.which("ip") or ""
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
    pytest.mark.skipif(not IP, reason="needs iproute2"),
]


def ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two namespaces on one cable; as on Debian, each knows its own name as 127.0.1.1."""
    names = [f"r1aqa{os.getpid()}{letter}" for letter in "ab"]
    folders = [Path("/etc/netns") / name for name in names]
    try:
        for number, (name, folder) in enumerate(zip(names, folders, strict=True), start=1):
            folder.mkdir(parents=True)
            hosts = f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n10.77.0.1 first\n"
            (folder / "hosts").write_text(hosts)
            ip("netns", "add", name)
            if number == 2:
                peer = ("type", "veth", "peer", "name", "cable", "netns", names[0])
                ip("-n", name, "link", "add", "cable", *peer)
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name, folder in zip(names, folders, strict=True):
            subprocess.run([IP, "netns", "delete", name], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


class Training:
    """A small training that both hosts see."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / "workspace", "small")
        self.folder = self.layout.training("grpo")
        self.folder.mkdir(parents=True)
        write_training_lines(self.layout.root, 12)
        model = build_tiny(folder / "model", [QUESTION, *SOUNDS], clip_length_s=3.0, seed=0)
        self.profile = folder / "small.yaml"
        self.settings = {
            "name": "grpo",
            "method": "sft",
            "model": str(model),
            "num_hosts": 2,
            "max_steps": NUM_STEPS,
            "save_steps": NUM_STEPS,
            "precision": "fp32",
            "dataloader_workers": 0,
            "threads": 1,
            "prompts_per_step": 4,
        }

    def start(self, host: str, *more: str, **changed: object) -> subprocess.Popen[str]:
        profile = {"experiment": "small", "world": {}, "train": [self.settings | changed]}
        self.profile.write_text(yaml.safe_dump(profile))
        command = [sys.executable, "-m", "flows.train", "--profile", str(self.profile)]
        command += ["--workspace", str(self.layout.workspace), *more]
        own = {"PREFECT_API_URL", "PREFECT_HOME"}
        kept = {name: value for name, value in os.environ.items() if name not in own}
        return subprocess.Popen(
            [IP, "netns", "exec", host, *command],
            cwd=ROOT,
            env=kept | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def num_steps(self) -> int:
        return len(read_appended(self.folder / "metrics.jsonl"))


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_by_its_own_name_a_late_host_and_a_link_away_for_20_s(
    hosts: list[str], training: Training
) -> None:
    """Debian's name on 127.0.1.1 made gloo hang without end."""
    first = training.start(hosts[0])
    assert first.stdout is not None
    for line in first.stdout:
        if "did not come yet" in line:
            break
    assert "train grpo: host 1 did not come yet, for 3" in line
    assert "waiting at 10.77.0.1:" in line
    second = training.start(hosts[1], "--join", "1")
    give_up_s = time.monotonic() + 240
    while training.num_steps < 3:
        assert time.monotonic() < give_up_s
        assert first.poll() is None
        time.sleep(0.1)
    ip("-n", hosts[1], "link", "set", "cable", "down")
    time.sleep(3)
    before = training.num_steps
    time.sleep(17)
    assert training.num_steps <= before + 1
    ip("-n", hosts[1], "link", "set", "cable", "up")
    assert first.wait(300) == 0, first.stdout.read()
    assert second.wait(60) == 0, second.communicate()
    assert training.num_steps == NUM_STEPS


def test_a_host_that_never_comes_is_given_up_by_setting(
    hosts: list[str], training: Training
) -> None:
    first = training.start(hosts[0], join_wait_s=5)
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 1
    assert "train grpo: host 1 did not come in " in said
    assert said.count("\n") < 6


def test_an_unknown_name_is_told_at_once(hosts: list[str], training: Training) -> None:
    first = training.start(hosts[0], rendezvous="nowhere.invalid:29500")
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 1
    assert "nowhere.invalid cannot be reached from" in said
    assert "set train.rendezvous to an ADDRESS:PORT" in said
