"""Every command line of README.md and docs/ does what it says when it is typed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INLINE = re.compile(r"`((?:python -m|make) [^`]+)`")
FENCE = re.compile(r"^```(?:sh|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
TIMEOUT_S = 240


def _commands() -> list[str]:
    lines: list[str] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in FENCE.findall(text):
            lines += [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        lines += INLINE.findall(FENCE.sub("", text))
    programs = ("python ", "make ", "prefect ", "export ", ".ci/run")
    return list(dict.fromkeys(line for line in lines if line.startswith(programs)))


COMMANDS = _commands()
OURS = [command for command in COMMANDS if command.startswith("python ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_shell_takes_a_bracket_for_a_pattern(command: str) -> None:
    """`--set evaluate.controls=[silence]` is `no matches found` in zsh."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|\\.", "", command.partition(" #")[0])
    assert not re.search(r"[][{}*?<>]", bare)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_every_target_is_in_the_makefile(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", OURS)
def test_every_module_is_there(command: str) -> None:
    words = shlex.split(command, comments=True)
    assert find_spec(words[words.index("-m") + 1])


@pytest.mark.parametrize("command", OURS)
def test_a_zsh_takes_it(command: str) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed")
    typed = f"setopt interactivecomments; python() {{ : }}; {command}"
    done = subprocess.run([zsh, "-c", typed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("command", [c for c in OURS if "--join" not in c])  # waits for a host
def test_a_command_as_typed_works_or_says_in_one_line_what_is_missing(
    command: str, tmp_path: Path
) -> None:
    """Without network and in an empty workspace, with only the environment activated."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # a profile reads an example from there
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | NO_NETWORK | {"PATH": path, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error")]
    assert done.returncode == 0 or len(errors) == 1 or "flows.preflight" in command, said
