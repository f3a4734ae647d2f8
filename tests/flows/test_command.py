"""What all commands have in common."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
