"""What a GPU has to show, in one command that needs no network: the most valuable first.

    python -m benchmarks.gpu --out DIR [--minutes 9] [--only PART,...] [--size 7b|tiny]

Each part (benchmarks/gpu_parts.py) is a process of its own with a time limit. What it measures is
in DIR/results.jsonl as soon as it says it, one JSON object a line, with `part`; its output is in
DIR/PART.log; a last line for each part says how it ended. A part that fails, hangs, is killed or
runs out of memory ends alone. Without a GPU all of it runs at CPU size, as a rehearsal.

Wheels that the card's Python lacks: `make gpu-wheels` here, then there
`pip install --no-index --no-deps --target SITE gpu-wheels/*.whl; export PYTHONPATH=SITE`.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

LEAST_S = 15.0  # a part with less time left is not begun


class Part(NamedTuple):
    """One part of the program."""

    name: str
    command: Sequence[str]
    limit_s: float


# Seconds of each part on a card at most, of nine minutes, by what it is worth: most end earlier, so
# together they may take more. In a rehearsal each may take half of all.
LIMITS_S = {
    "tests": 150,
    "decode": 80,
    "step-16": 60,
    "one-gpu": 170,  # makes the model's folder, and compiles the 8-bit optimiser
    "captured": 170,
    "evaluation": 85,
    "step-200": 60,
    "lora": 50,
    "resume": 40,
    "two-processes": 25,
}


def main() -> int:
    """Run the parts; exit code 1 if one did not end well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of results and logs")
    parser.add_argument("--minutes", type=float, default=9.0, help="of all parts together")
    parser.add_argument("--only", default="", metavar="PART,...", help=", ".join(LIMITS_S))
    parser.add_argument("--size", choices=["7b", "tiny"], help="default: 7b on a GPU")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(LIMITS_S)
    has_card = options.size != "tiny" and which("nvidia-smi")
    limits_s = {name: limit / 9 if has_card else 30 for name, limit in LIMITS_S.items()}
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        arguments = ["--scratch", scratch, *(["--size", options.size] if options.size else [])]
        parts = [
            Part(
                name,
                [sys.executable, "-m", "benchmarks.gpu_parts", name, *arguments],
                limits_s[name] * options.minutes,
            )
            for name in names
        ]
        ended = run_parts(parts, options.out, seconds=60 * options.minutes)
    return 0 if all(how == "ok" for how in ended.values()) else 1


def run_parts(parts: Iterable[Part], out: Path, *, seconds: float) -> dict[str, str]:
    """Run parts one after another, whatever becomes of each.

    Args:
        parts: In their order.
        out: Folder of results.jsonl and the logs.
        seconds: For all of them; a part that would begin too late is skipped.

    Returns:
        How each ended: `ok`, `exit code N`, `time limit`, `skipped`.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = out / "results.jsonl"
    end_s = time.monotonic() + seconds
    ended: dict[str, str] = {}
    for part in parts:
        started_s, before_s = time.monotonic(), _cpu_s()
        left_s = end_s - started_s
        limit_s = min(part.limit_s, left_s)
        enough = left_s >= min(LEAST_S, part.limit_s)
        ended[part.name] = _run(part, out, limit_s) if enough else "skipped"
        took = {"seconds": time.monotonic() - started_s, "cpu_seconds": _cpu_s() - before_s}
        told = {name: round(value, 1) for name, value in took.items()}
        _append(results, {"part": part.name, "ended": ended[part.name], **told})
    return ended


def _cpu_s() -> float:
    """Of all parts so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(part: Part, out: Path, limit_s: float) -> str:
    """One part in a session of its own, so that all of it can be ended."""
    child = subprocess.Popen(
        part.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    relay = threading.Thread(target=_relay, args=(child, part.name, out), daemon=True)
    relay.start()
    try:
        code = child.wait(limit_s)
        how = "ok" if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        how = "time limit"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # whatever it has left behind, too
    child.wait()
    relay.join(5)
    return how


def _relay(child: "subprocess.Popen[str]", name: str, out: Path) -> None:
    """Each line to the part's log and the terminal; what is JSON also to the results."""
    assert child.stdout is not None
    with (out / f"{name}.log").open("w", encoding="utf-8") as log:
        for line in child.stdout:
            log.write(line)
            log.flush()
            if not line.startswith("{"):
                continue
            try:
                measured = json.loads(line)
            except json.JSONDecodeError:
                continue
            _append(out / "results.jsonl", {"part": name, **measured})


def _append(results: Path, measured: dict[str, Any]) -> None:
    line = json.dumps(measured)
    print(line, flush=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
