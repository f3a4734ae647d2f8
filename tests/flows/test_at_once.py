"""Several runs at one workspace at the same time, by the commands that a user types."""

import os
import subprocess

import pytest

from storage.layout import Layout, list_checkpoints
from tasks.running.turns import turn
from tests.flows.test_signals import command, free_port, start

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A workspace that is not there yet."""
    return Layout(tmp_path_factory.mktemp("at-once") / "workspace", "demo")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


def run_at_once(*commands: list[str], codes: tuple[int, ...]) -> list[str]:
    """What each says; all are started before the first is waited for."""
    processes: list[subprocess.Popen[str]] = [start(words) for words in commands]
    said = [process.communicate(timeout=500) for process in processes]
    assert tuple(process.returncode for process in processes) == codes, said
    assert not [errors for _, errors in said if "Traceback" in errors]
    return [output + errors for output, errors in said]


def test_three_pipelines_in_a_fresh_workspace_do_the_work_once(layout: Layout, port: int) -> None:
    """They met in the made world, in one training's folder and on `site.part`."""
    words = command("full_pipeline", layout.workspace, overrides=(f"world.port={port}",))
    said = "".join(run_at_once(words, words, words, codes=(0, 0, 0)))
    assert said.count("train grpo: grpo, ") == 1
    assert said.count("world: making") == 1
    assert not list(layout.root.rglob("*.replaced-*"))
    assert (layout.site / "index.html").exists()
    log = (layout.workspace / "prefect" / "command-server.log").read_text()
    assert "Traceback" not in log


def test_a_report_waits_for_the_run_that_has_set_all_scores_aside(layout: Layout) -> None:
    """It ended in "holds nothing to report" while a run with other settings asked all anew."""
    scores = list(layout.evaluations.glob("*/*/*/score.json"))
    assert scores
    hidden = {score: score.rename(score.with_suffix(".hidden")) for score in scores}
    with turn("evaluate", layout.lock("evaluate")):
        process = start(command("report", layout.workspace, "--force"))
        assert process.stdout is not None
        waited = next(line for line in process.stdout if "waiting" in line)
        for score, aside in hidden.items():
            aside.rename(score)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, said + errors
    assert waited.startswith(f"waiting for evaluate: process {os.getpid()} on ")


def test_two_equal_trainings_at_once_train_one_after_the_other(layout: Layout) -> None:
    """Two trainers wrote into one folder."""
    words = command("train", layout.workspace, overrides=("train.1.seed=7",))
    said = "".join(run_at_once(words, words, codes=(0, 0)))
    assert said.count("train grpo: grpo, ") == 1
    assert "waiting for train/grpo: process " in said
    assert said.count("train/grpo: skipped") == 1


def test_trainings_with_other_settings_do_not_set_each_other_aside_unfinished(
    layout: Layout,
) -> None:
    """The second set the running one's folder aside: both failed, their checkpoints mixed."""
    first, second = (
        command("train", layout.workspace, overrides=(f"train.1.seed={seed}",)) for seed in (8, 9)
    )
    run_at_once(first, second, codes=(0, 0))
    kept = sorted(layout.training("grpo").parent.glob("grpo*"))
    assert len(kept) >= 3
    for folder in kept:
        assert len(list_checkpoints(folder)) == 2


def test_by_setting_the_second_is_refused_in_one_line_that_names_the_first(layout: Layout) -> None:
    refusing = ("train.1.seed=10", "when_busy=refuse")
    words = command("train", layout.workspace, overrides=refusing)
    processes = [start(words), start(words)]
    ends = {process.wait(300): process for process in processes}
    assert set(ends) == {0, 1}
    assert ends[1].stderr is not None
    (said,) = ends[1].stderr.read().splitlines()
    assert f"train/grpo is busy: process {ends[0].pid} on " in said
