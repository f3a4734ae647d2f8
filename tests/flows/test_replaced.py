"""What was measured of a replaced training, or asked with other questions, leads nothing."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from storage.jsonl import read_json, write_json
from storage.layout import Layout
from storage.records.evaluation import StoredRun, list_runs
from tests.flows.small_demo import SMALL

pytestmark = pytest.mark.long

USUAL = [
    *SMALL,
    "world.port=18641",
    "train.1.method=sft",  # GRPO from a model that knows nothing earns and changes nothing
    "evaluate.controls=[silence]",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo run by its command."""
    folder = tmp_path_factory.mktemp("workspace")
    run(folder)
    return folder


def run(workspace: Path, *overrides: str) -> str:
    settings = [part for each in [*USUAL, *overrides] for part in ("--set", each)]
    command = [sys.executable, "-m", "flows.full_pipeline", "--profile", "demo", *settings]
    command += ["--workspace", str(workspace)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(workspace: Path) -> dict[str, str]:
    """The step of each of our rows in the leaderboard, by model."""
    with (Layout(workspace, "demo").site / "leaderboard.csv").open(encoding="utf-8") as file:
        return {row["model"]: row["step"] for row in csv.DictReader(file) if row["scorer"]}


def runs(workspace: Path) -> list[StoredRun]:
    return list_runs(Layout(workspace, "demo").evaluations)


def test_the_controls_are_run_on_the_step_that_leads(workspace: Path) -> None:
    """They ran on the last checkpoint, and the page of the chosen step had none."""
    (training,) = {
        run.model.training
        for _, run in runs(workspace)
        if run.key.control == "silence" and run.role == "checkpoint"
    }
    page = (Layout(workspace, "demo").site / "training-grpo.html").read_text(encoding="utf-8")
    assert training
    assert f"Step {training.step} (" in page
    others = {2, 4} - {training.step}
    run(workspace, f"evaluate.declared_step={others.pop()}")
    steps = {
        run.model.training.step
        for _, run in runs(workspace)
        if run.key.control == "silence" and run.role == "checkpoint" and run.model.training
    }
    assert steps == {2, 4}


def test_a_replaced_trainings_evaluations_are_set_aside_with_it(workspace: Path) -> None:
    """The report was led by step 300 of the training before, and its curve joined both."""
    layout = Layout(workspace, "demo")
    run(workspace, "train.1.max_steps=2", "train.1.seed=7")
    assert set(rows(workspace)) == {"warm-start-step-3", "grpo-step-2"}
    kept = list_runs(layout.training("grpo.replaced-1") / "evaluation")
    assert {run.key.model for _, run in kept} == {"grpo-step-2", "grpo-step-4"}
    assert all((folder / "answers.jsonl").exists() for folder, _ in kept)


def test_answers_to_other_held_out_questions_are_stale_and_asked_anew(workspace: Path) -> None:
    """It ended in "judges 60 questions, validation has 40", and advice to delete GPU hours."""
    changed = ["train.1.max_steps=2", "train.1.seed=7", "annotations.validation_size=5"]
    before = {folder for folder, run in runs(workspace) if not run.is_test}
    run(workspace, *changed)
    held_out = {folder: run.num_questions for folder, run in runs(workspace) if not run.is_test}
    assert before < set(held_out)
    assert {held_out[folder] for folder in set(held_out) - before} == {5}
    assert rows(workspace)["grpo-step-2"] == "2"


def test_a_benchmark_whose_file_changed_under_its_name_is_another(workspace: Path) -> None:
    """Old rows stood judged by old answers in one table with new ones."""
    changed = ["train.1.max_steps=2", "train.1.seed=7", "annotations.validation_size=5"]
    layout = Layout(workspace, "demo")
    before = {run.key.benchmark for _, run in runs(workspace) if run.is_test}
    shorter = workspace / "shorter.json"
    write_json(shorter, read_json(layout.world / "benchmark/questions.json")[:24])
    run(workspace, *changed, f"evaluate.benchmarks.0.questions={shorter}")
    after = {run.key.benchmark for _, run in runs(workspace) if run.is_test}
    assert before < after
    with (layout.site / "leaderboard.csv").open(encoding="utf-8") as file:
        numbers = {row["num_questions"] for row in csv.DictReader(file) if row["scorer"]}
    assert numbers == {"24"}
