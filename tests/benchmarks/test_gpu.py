"""The runner of the parts that need a GPU: nothing that a part does ends the program."""

import json
import sys
from pathlib import Path

from benchmarks.gpu import Part, run_parts

GOOD = """print('a line of log'); print('{"number": 1}', flush=True)"""
CRASHES = GOOD + "; raise RuntimeError('out of memory')"
HANGS = GOOD + "; import time; time.sleep(60)"
DIES = GOOD + "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
LEAVES_A_CHILD = GOOD + "; import subprocess; subprocess.Popen(['sleep', '60'])"


def part(name: str, code: str, limit_s: float = 20) -> Part:
    return Part(name, [sys.executable, "-c", code], limit_s)


def test_each_part_runs_whatever_became_of_the_one_before(tmp_path: Path) -> None:
    parts = [
        part("crashes", CRASHES),
        part("hangs", HANGS, 2),
        part("dies", DIES),
        part("leaves", LEAVES_A_CHILD),
        part("good", GOOD),
    ]
    ended = run_parts(parts, tmp_path, seconds=100)
    assert ended == {
        "crashes": "exit code 1",
        "hangs": "time limit",
        "dies": "exit code -9",
        "leaves": "ok",
        "good": "ok",
    }
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows if row.get("number") == 1] == list(ended)  # said in time
    assert {row["part"]: row["ended"] for row in rows if "ended" in row} == ended
    assert "out of memory" in (tmp_path / "crashes.log").read_text()


def test_a_part_for_which_no_time_is_left_is_skipped(tmp_path: Path) -> None:
    parts = [part("hangs", HANGS, 2), part("late", GOOD)]
    assert run_parts(parts, tmp_path, seconds=3) == {"hangs": "time limit", "late": "skipped"}
