"""The demo's training lines, made by the command from its made world, held to what was committed.

Where a change is meant, `python -m tests.golden.test_demo_examples --write` writes them anew.
"""

import argparse
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from storage.jsonl import read_json, write_json

GOLDEN = Path(__file__).with_name("demo_examples.json")
FILES = ("train.jsonl", "validation.jsonl", "dropped.jsonl")


def make_examples(workspace: Path) -> dict[str, dict[str, str | int]]:
    """Fetch and convert as typed; digest and first line of each file, at any place on the disk."""
    command = [sys.executable, "-m", "flows.full_pipeline", "--profile", "demo"]
    command += ["--only", "fetch,convert", "--workspace", str(workspace)]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command += ["--set", f"world.port={port}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: _described(workspace / "demo" / name, workspace) for name in FILES}


def _described(path: Path, workspace: Path) -> dict[str, str | int]:
    text = path.read_text(encoding="utf-8").replace(str(workspace), "{workspace}")
    if path.name == "dropped.jsonl":  # its details are ffmpeg's words, by version
        rows = [json.loads(line) | {"detail": ""} for line in text.splitlines()]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    lines = text.splitlines()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"lines": len(lines), "first": lines[0], "sha256": digest}


@pytest.mark.long
def test_the_demos_training_lines_are_those_of_before(tmp_path: Path) -> None:
    assert make_examples(tmp_path) == read_json(GOLDEN)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.test_demo_examples")
    parser.add_argument("--write", action="store_true", required=True, help="write them anew")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_json(GOLDEN, make_examples(Path(folder)))


if __name__ == "__main__":
    main()
