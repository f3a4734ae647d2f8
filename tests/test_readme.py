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

from flows.pipeline_config import PROFILES, load_config
from model.train.estimates import estimate
from storage.host.gpus import Gpu
from tasks.cost import (
    Cost,
    answer_cost,
    count_answers,
    disk_needs,
    most_clips,
    start_models,
    sum_of,
    train_cost,
)
from tasks.models import sizes_of

H100 = Gpu("GPU-a", "0", "NVIDIA H100 80GB HBM3", 80 << 30)
SEVEN_B = "Qwen/Qwen2-Audio-7B-Instruct"
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


def _estimated(profile: str, models: Path) -> tuple[str, str, str]:
    """GB a GPU of each training, GB of disk, and hours on H100s, as README rounds them."""
    config = load_config(profile, workspace=models)
    starts, num_clips = start_models(config.train), most_clips(config.fetch)
    memory: list[str] = []
    costs: list[Cost] = []
    layout = config.layout(models)
    for training in config.train:
        sizes = sizes_of(starts[training.name], models)
        assert sizes is not None
        gpus = training.num_gpus or 8
        memory.append(f"{estimate(training, sizes, num_gpus=gpus).total / 1e9:.0f}")
        start = starts[training.name]
        costs.append(
            train_cost(training, start, layout, lambda gpus=gpus: [H100] * gpus, anew=True)
        )
    held_out = config.annotations.validation_size if config.annotations.validation else 0
    _, num_answers = count_answers(config.train, config.evaluate, held_out, layout)
    start = next(iter(starts.values()), SEVEN_B)
    costs.append(answer_cost(config.evaluate, start, layout, lambda: [H100]).times(num_answers))
    needs = disk_needs(config.train, config.fetch, num_clips, models) if config.train else {}
    whole = sum_of(costs)
    hours = dict.fromkeys(f"{bound / 3600:.0f}" for bound in (whole.least_s, whole.most_s))
    disk = f"{sum(needs.values()) / 1e9:.0f}" if needs else ""
    return ", ".join(memory), disk, " to ".join(hours)


def test_the_table_of_profiles_is_what_the_estimators_say(tmp_path: Path) -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \|.*\| (.*)\| (.*)\| (.*)\|$", PAGES[0].read_text(), re.MULTILINE
    )
    told = {name: tuple(cell.strip() for cell in cells) for name, *cells in rows}
    assert set(told) == {path.stem for path in PROFILES.glob("*.yaml")} - {"own-data"}
    small = {name for name, cells in told.items() if not any(cells)}
    assert small == {"demo", "real-questions", "example-row"}  # a laptop is enough
    for name in told.keys() - small:
        assert told[name] == _estimated(name, tmp_path), name
