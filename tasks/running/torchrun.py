"""One training over several hosts: the first one calls, the others join.

While the first host's part of a training runs, a call lies in the training's folder, which all
hosts see: the address at which torchrun's parts meet. Whoever joins runs its own part of the
run.json beside it, and writes nothing but a log. torchrun numbers the processes by host (its static
rendezvous), so that the one that writes checkpoints and tells the progress is on the first.

One part that ends takes the others along. The first host then tries again, from the newest whole
checkpoint (the retries of tasks/train.py); whoever joins waits for that.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from model.config import TrainConfig
from model.training_record import config_of
from storage.errors import PipelineError
from storage.jsonl import read_json, write_json
from storage.layout import Layout
from storage.records.training import RUN, TrainingRecord
from tasks.running.child_process import run_child, say_nothing
from tasks.running.console import say
from tasks.running.gpus import gpu_environment, hold_gpus

LOOK_EVERY_S = 2.0
TELL_EVERY_S = 30.0
# Without a new call for so long after its part failed, the first host has given up: the longest
# wait before a retry is 60 s.
PATIENCE_S = 180.0
CALL = "call.json"


class Call(NamedTuple):
    """One attempt of the first host: where the parts meet, and what tells it from another there."""

    address: str
    began_s: float


@contextmanager
def calling(training: TrainConfig, folder: Path) -> Generator[str]:
    """Let other hosts join while the block runs; gives the address, empty for one host."""
    path = folder / CALL
    path.unlink(missing_ok=True)  # of a run that was killed
    if training.num_hosts == 1:
        yield ""
        return
    address = training.rendezvous or f"{_own_name()}:{_free_port()}"
    interface_to(address)  # is the name known?
    say(
        f"train {training.name}: waiting at {address} for {training.num_hosts - 1} other host(s), "
        "each with `python -m flows.train ... --join NUMBER`, from 1"
    )
    call = Call(address, time.time())
    write_json(path, call._asdict())
    try:
        _await_hosts(training, folder, call)
        yield address
    finally:
        path.unlink(missing_ok=True)


def _await_hosts(training: TrainConfig, folder: Path, call: Call) -> None:
    """Wait until the others have answered this call; gloo would wait without a word."""
    began_s = told_s = time.monotonic()
    answers = {index: folder / f"answer-{index}.json" for index in range(1, training.num_hosts)}
    while missing := [
        index
        for index, answer in answers.items()
        if not answer.exists() or read_json(answer) != call.began_s
    ]:
        waited_s = time.monotonic() - began_s
        who = f"train {training.name}: host {', '.join(map(str, missing))} did not come"
        if training.join_wait_s is not None and waited_s > training.join_wait_s:
            msg = f"{who} in {waited_s:.0f} s (train.join_wait_s); start them, then this again"
            raise PipelineError(msg)
        if time.monotonic() - told_s > TELL_EVERY_S:
            told_s = time.monotonic()
            say(f"{who} yet, for {waited_s:.0f} s; waiting at {call.address}")
        time.sleep(LOOK_EVERY_S)


def interface_to(address: str) -> dict[str, str]:
    """What tells gloo to use the network interface that leads to an address, or refuse that.

    Left alone it takes the one of this host's own name, on Debian 127.0.1.1, and hangs.
    """
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))  # sends nothing
        except OSError as error:
            msg = (
                f"{host} cannot be reached from {socket.gethostname()} ({error.strerror}); set "
                "train.rendezvous to an ADDRESS:PORT of the first host that all hosts reach"
            )
            raise PipelineError(msg) from error
        own = probe.getsockname()[0]
    name = next((name for name, found in _interfaces().items() if found == own), None)
    return {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", name)} if name else {}


def _interfaces() -> dict[str, str]:
    """IPv4 addresses by network interface, loopback left out."""
    return {
        name: address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    }


def _own_name() -> str:
    """This host's name, or an address where others could not reach it by that."""
    name = socket.gethostname()
    with suppress(OSError):
        if not socket.gethostbyname(name).startswith("127."):
            return name
    return next(iter(_interfaces().values()), name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def run_part(
    training: TrainConfig,
    folder: Path,
    gpus: Sequence[str],
    address: str,
    *,
    log: str,
    host_index: int = 0,
    on_line: Callable[[str], None] = say_nothing,
    silence_s: float | None = None,
) -> None:
    """Run one host's part (0: the first's), a process a GPU, by torchrun where there are several.

    The hosts meet at `address`, `HOST:PORT`; it is empty where there is one. A host without GPUs
    runs one process on its CPU. `log` lies in `folder`; `on_line`, `silence_s` are `run_child`'s.
    """
    command = ["-m", "model.run_training", str(folder / RUN)]
    if address or len(gpus) > 1:
        host, _, port = address.rpartition(":")
        place = [f"--nnodes={training.num_hosts}", f"--node-rank={host_index}"]
        place += [f"--master-addr={host}", f"--master-port={port}"]
        processes = f"--nproc-per-node={max(1, len(gpus))}"
        launcher = ["torch.distributed.run", *(place if address else ["--standalone"]), processes]
        command = ["-m", *launcher, *command]
    run_child(
        [sys.executable, *command],
        log=folder / log,
        on_line=on_line,
        silence_s=silence_s,
        env=gpu_environment(gpus) | (interface_to(address) if address else {}),
    )


def join(name: str, layout: Layout, host_index: int, is_done: Callable[[], bool]) -> None:
    """Run this host's part of one training when the first host calls, and again when it retries."""
    folder = layout.training(name)
    answered: Call | None = None
    failure: PipelineError | None = None
    give_up_s = 0.0
    say(f"train {name}: waiting for the first host to begin it")
    while not is_done():
        call = None
        with suppress(FileNotFoundError):
            call = Call(**json.loads((folder / CALL).read_text(encoding="utf-8")))
        if call is not None and call != answered:
            answered = call
            try:
                _take_part(name, folder, host_index, call)
            except PipelineError as error:
                if not error.is_transient:
                    raise
                say(f"train {name}: {error}; waiting for the first host to try again")
                failure = error
                give_up_s = time.monotonic() + PATIENCE_S
            else:
                return
        if failure is not None and time.monotonic() > give_up_s:
            raise failure
        time.sleep(LOOK_EVERY_S)
    say(f"train {name}: done before, unchanged")


def _take_part(name: str, folder: Path, host_index: int, call: Call) -> None:
    training = config_of(TrainingRecord.read(folder / RUN))
    if host_index >= training.num_hosts:
        msg = (
            f"--join {host_index}: {name} runs on {training.num_hosts} hosts; besides the first "
            f"there are 1 to {training.num_hosts - 1}"
        )
        raise PipelineError(msg)
    with hold_gpus(training.num_gpus, f"training {name}") as gpus:
        log = f"trainer-host-{host_index}.log"
        say(f"train {name}: joining at {call.address} as host {host_index}; log: {folder / log}")
        interface_to(call.address)  # or refuse, before it is counted on
        write_json(folder / f"answer-{host_index}.json", call.began_s)
        run_part(training, folder, gpus, call.address, log=log, host_index=host_index)
