"""What all commands have in common."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from storage.locks import locked
from storage.records.training import CHECKPOINT, CheckpointRecord
from tasks.running.alive import tells_low_disk

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["full_pipeline", "serve"])
def test_help_makes_nothing_and_warns_of_nothing(tmp_path: Path, name: str) -> None:
    """Prefect warned of a home that it could not create where there was no workspace yet."""
    done = subprocess.run(
        [sys.executable, "-m", f"flows.{name}", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: python -m flows.{name}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """The lock of a server's start ended in a traceback."""
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "flows.full_pipeline", "--workspace", str(tmp_path / "file" / "w")],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written (Not a directory); choose another: --workspace DIR" in done.stderr


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[str]]]:
    """A webhook's address, and what it is told."""
    told: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(404 if self.path == "/gone" else 200)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()


@pytest.mark.parametrize("path", ["/hook", "/gone"])
def test_the_end_of_a_run_is_told_to_a_webhook_once(
    tmp_path: Path, webhook: tuple[str, list[str]], path: str
) -> None:
    """Once for the whole run, not for its stages; a webhook that is gone fails nothing else."""
    address, told = webhook
    arguments = ["--profile", "own-data", "--workspace", str(tmp_path), "--only", "convert"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.full_pipeline", *arguments, "--set", "notify=env:HOOK"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
        | {"HOOK": f"{address}{path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (text,) = told
    assert text.startswith("full-pipeline-own-data failed (")
    assert "rows.csv" in text
    assert ("answers 404" in done.stdout) == (path == "/gone")
    assert address not in done.stdout + done.stderr


def test_low_disk_is_told_before_a_checkpoint_meets_it(
    tmp_path: Path, webhook: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, told = webhook
    root = tmp_path / "demo"
    assert not tells_low_disk(address, "full-pipeline-demo", root)
    size = 10**18  # no disk has room for another
    record = CheckpointRecord(
        step=2, can_resume=True, settings={}, made_with={}, files={"optimizer.pt": size}, digests={}
    )
    record.write(root / "training" / "grpo" / "checkpoint-2" / CHECKPOINT)
    assert tells_low_disk(address, "full-pipeline-demo", root)
    (text,) = told
    assert text.startswith("full-pipeline-demo runs out of disk: ")
    assert f" free at {tmp_path}, 1000000000.0 GB may be needed next; `python -m flows.p" in text
    assert capsys.readouterr().out.startswith("low disk: ")


def test_status_without_a_server_tells_who_works_here(tmp_path: Path) -> None:
    with locked(tmp_path / "locks" / "demo" / "convert.lock", "convert"):
        done = subprocess.run(
            [sys.executable, "-m", "flows.serve", "--status", "--workspace", str(tmp_path)],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
            | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "server     none answers at http://127.0.0.1:9/api" in done.stdout
    assert f"works      process {os.getpid()} on " in done.stdout
    assert " GB free" in done.stdout
