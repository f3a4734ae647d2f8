"""The GPUs of this host, as the driver's tool lists them; torch would take memory on each."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from storage.errors import PipelineError

MIB = 1 << 20
QUERY = "index,uuid,name,memory.total,memory.used"
QUERY_TIMEOUT_S = 60  # the first call after boot loads the driver, which takes seconds a GPU


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process may use."""

    token: str
    """How CUDA_VISIBLE_DEVICES names it: an index (`0`) or a UUID."""
    name: str
    """How its lock is named: its index where that is known, else its token."""
    model: str = "GPU"
    """What it is, e.g. `NVIDIA H200`."""
    memory_bytes: int | None = None
    """Its memory; None where the driver's tool is missing."""
    used_bytes: int = 0
    """Memory taken at the time of asking, by any program."""


def visible_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, in PCI order.

    Raises:
        PipelineError: If it names a GPU that is not there.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = _ask_driver() or _list_devices()
    if visible is None:
        return present
    tokens = [token.strip() for token in visible.split(",")]
    tokens = [token for token in tokens if token and token not in {"-1", "NoDevFiles"}]
    return [_find(token, present) for token in tokens] if present else []


def _find(token: str, present: list[Gpu]) -> Gpu:
    if token.startswith("MIG-"):  # a slice has a UUID of its own, which this query does not list
        return Gpu(token=token, name=token)
    for gpu in present:
        if token in (gpu.name, gpu.token) or (
            token.startswith("GPU-") and gpu.token.startswith(token)
        ):
            return gpu
    names = ", ".join(gpu.name for gpu in present)
    msg = f"CUDA_VISIBLE_DEVICES names GPU {token}; this host has {names}; set it to some of these"
    raise PipelineError(msg)


def _ask_driver() -> list[Gpu]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listing = subprocess.run(
            [tool, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=QUERY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        msg = (
            f"nvidia-smi did not answer in {QUERY_TIMEOUT_S} s: the driver hangs; restart the host"
        )
        raise PipelineError(msg) from error
    return (
        [] if listing.returncode else [_parse(line) for line in listing.stdout.splitlines() if line]
    )


def _parse(line: str) -> Gpu:
    index, uuid, model, total_mib, used_mib = (field.strip() for field in line.split(","))
    return Gpu(
        token=uuid,
        name=index,
        model=model,
        memory_bytes=int(total_mib) * MIB if total_mib.isdecimal() else None,
        used_bytes=int(used_mib) * MIB if used_mib.isdecimal() else 0,
    )


def _list_devices() -> list[Gpu]:
    """By device file, for containers that have the driver but not its tool."""
    found = [re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*")]
    indices = sorted(int(match.group(1)) for match in found if match)
    return [Gpu(token=str(index), name=str(index)) for index in indices]
