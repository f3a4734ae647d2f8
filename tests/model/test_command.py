import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "names", "given"),
    [("run_endpoint", "RUN.json", []), ("run_endpoint", "RUN.json", ["a.json", "b.json"])],
)
def test_a_command_says_its_own_name_where_it_is_given_too_little_or_too_much(
    module: str, names: str, given: list[str]
) -> None:
    command = [sys.executable, "-m", f"model.{module}", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"usage: python -m model.{module} {names}\n")
