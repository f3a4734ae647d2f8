"""The whole pipeline on a very small world: what is skipped, what runs again, what survives."""

import contextlib
import csv
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows import STOPPED
from flows.full_pipeline import STAGE_FLOWS
from flows.pipeline_config import STAGES, PipelineConfig, StageName, load_config
from flows.plan import plan
from storage.errors import PipelineError
from storage.jsonl import read_json, read_jsonl
from storage.layout import Layout, list_checkpoints
from storage.manifest import file_digest
from storage.records.training import CHECKPOINT, CheckpointRecord
from tasks.asked import asked_models
from tasks.running.prefect_form import as_flow
from tests.flows.small_demo import SMALL
from tests.flows.test_serve import descendants
from tests.tasks.conftest import is_alive

pytestmark = pytest.mark.long

OVERRIDES = [
    *SMALL,
    "world.port=18631",
    "train.1.method=sft",  # GRPO from a model that knows nothing earns and changes nothing
]
SCORE = "grpo-step-{}/demo-mmau-????????/answer/score.json"


@pytest.fixture(scope="module", autouse=True)
def server() -> Generator[None]:
    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which everything has been run once."""
    folder = tmp_path_factory.mktemp("workspace")
    assert run(folder) == dict.fromkeys(STAGES, "Completed")
    return folder


def config_of(folder: Path, *overrides: str) -> PipelineConfig:
    return load_config("demo", workspace=folder, overrides=[*OVERRIDES, *overrides])


def run(
    folder: Path, *overrides: str, stages: tuple[StageName, ...] = STAGES, force: bool = False
) -> dict[StageName, str]:
    """Run stages and tell the name of the state in which each ended."""
    config = config_of(folder, *overrides)
    names: dict[StageName, str] = {}
    for stage in stages:
        state = as_flow(STAGE_FLOWS[stage])(config, folder, force=force, return_state=True)
        state.result()
        names[stage] = state.name
    return names


def command(folder: Path, *overrides: str, options: Sequence[str] = ()) -> str:
    """Run the pipeline by its command; what it said, its errors too."""
    words = [part for override in [*OVERRIDES, *overrides] for part in ("--set", override)]
    module = [sys.executable, "-m", "flows.full_pipeline", "--profile", "demo"]
    done = subprocess.run(
        [*module, "--workspace", str(folder), *words, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def weights(folder: Path) -> dict[str, str]:
    training = Layout(folder, "demo").training("grpo")
    return {
        path.name: file_digest(path / "model.safetensors") for path in list_checkpoints(training)
    }


def test_the_leaderboard_has_the_start_model_and_every_checkpoint(workspace: Path) -> None:
    with (Layout(workspace, "demo").site / "leaderboard.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["scorer"] == "official"]
    assert {(row["model"], row["step"]) for row in rows} == {
        ("warm-start-step-3", ""),
        ("grpo-step-2", "2"),
        ("grpo-step-4", "4"),
    }
    assert {row["num_questions"] for row in rows} == {"30"}


def test_a_second_run_skips_everything(workspace: Path) -> None:
    assert run(workspace) == dict.fromkeys(STAGES, "Skipped")


def test_where_nothing_is_due_a_command_starts_nothing_and_reads_no_heavy_package(
    workspace: Path,
) -> None:
    """It took 11 s of CPU, most of them for a Prefect server that had nothing to do."""
    heavy = {
        "prefect",
        "torch",
        "transformers",
        "pandas",
        "scipy",
        "statsmodels",
        "matplotlib",
        "fastapi",
    }
    code = (
        "import runpy, subprocess, sys\n"
        "def refuse(event, _): assert event != 'subprocess.Popen'\n"
        "sys.addaudithook(refuse)\n"
        "try: runpy.run_module('flows.full_pipeline', run_name='__main__')\n"
        f"finally: print(sorted({heavy} & set(sys.modules)))"
    )
    words = [part for override in OVERRIDES for part in ("--set", override)]
    done = subprocess.run(
        [sys.executable, "-c", code, "--workspace", str(workspace), *words],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for stage in STAGES:
        assert f"{stage}: skipped (" in done.stdout
    assert "demo-mmau, official scorer" in done.stdout
    assert done.stdout.endswith("index.html\n[]\n")


def test_another_evaluation_setting_reruns_evaluation_and_report_alone(workspace: Path) -> None:
    assert run(workspace, "evaluate.scorers=[strict]") == {
        "fetch": "Skipped",
        "convert": "Skipped",
        "train": "Skipped",
        "evaluate": "Completed",
        "report": "Completed",
    }
    run(workspace)  # as it was


def test_a_deleted_checkpoint_whose_evaluation_stands_is_no_reason_to_train(
    workspace: Path, tmp_path: Path
) -> None:
    """It made the next run train again from before it; where none stands, that is told."""
    layout = Layout(workspace, "demo")
    gone = layout.training("grpo") / "checkpoint-2"
    gone.rename(tmp_path / "kept")
    assert command(workspace).count("skipped") == len(STAGES)
    assert run(workspace) == dict.fromkeys(STAGES, "Skipped")
    manifests = layout.manifest("any").parent
    manifest = next(manifests.glob("evaluate--grpo-step-2--demo-mmau-*--answer.json"))
    unit = manifest.stem.replace("--", "/")
    manifest.rename(tmp_path / "manifest.json")
    said = command(workspace)
    assert f"{unit}: not evaluated: its checkpoint is gone" in said
    assert "train/grpo: skipped" in said
    (tmp_path / "kept").rename(gone)
    run(workspace)  # as it was


def test_an_evaluation_without_a_training_says_what_to_do(workspace: Path) -> None:
    with pytest.raises(PipelineError, match=r"checkpoint missing: other has not .*--from train"):
        run(workspace, "train.1.name=other", stages=("evaluate",))


def test_start_models_whose_paths_end_alike_are_two_models_and_a_copy_is_the_same(
    workspace: Path, tmp_path: Path
) -> None:
    """X/final and Y/final shared one evaluation folder and overwrote each other's answers."""
    training = Layout(workspace, "demo").training("grpo")
    for name, step in (("x", 2), ("y", 4), ("copy", 4)):
        shutil.copytree(training / f"checkpoint-{step}", tmp_path / name / "final")
    starts = [f"train.{index}.model={tmp_path / name / 'final'}" for index, name in enumerate("xy")]
    overrides = ["experiment=alike", "train.max_steps=2", "train.0.evaluate=true", *starts]
    command(workspace, *overrides)
    layout = Layout(workspace, "alike")
    found = sorted(path.name for path in (layout.root / "evaluation").glob("final-*"))
    assert len(found) == 2
    starts[1] = f"train.1.model={tmp_path / 'copy' / 'final'}"
    planned = command(
        workspace, *overrides, *starts, "train.progress_every_s=9", options=["--plan"]
    )
    assert set(re.findall(r"(?:train|evaluate)/\S+ +(run|skip)", planned)) == {"skip"}


def test_a_deleted_clip_is_fetched_again_and_only_the_report_follows(workspace: Path) -> None:
    clip = sorted(Layout(workspace, "demo", clip_length_s=2.0).clips.glob("*.wav"))[0]
    content = clip.read_bytes()
    clip.unlink()
    assert run(workspace) == {
        "fetch": "Completed",
        "convert": "Skipped",
        "train": "Skipped",
        "evaluate": "Skipped",
        "report": "Completed",  # it shows when clips were fetched
    }
    assert clip.read_bytes() == content


def test_a_checkpoint_evaluated_while_its_training_ran_is_not_evaluated_again(
    workspace: Path,
) -> None:
    config, layout = config_of(workspace), Layout(workspace, "demo")
    running, finished = (
        asked_models(config.train, config.evaluate, layout, so_far=so_far)
        for so_far in (True, False)
    )
    assert [each.model for each in running] == [each.model for each in finished]


def test_force_runs_a_stage_whose_outputs_stand(workspace: Path) -> None:
    assert run(workspace, stages=("convert", "report"), force=True) == {
        "convert": "Completed",
        "report": "Completed",
    }


def test_force_trains_anew_and_keeps_what_was_there(workspace: Path) -> None:
    """Setting aside stood in the retried task: a retry would have begun from the start."""
    before = weights(workspace)
    assert run(workspace, stages=("train",), force=True) == {"train": "Completed"}
    assert weights(workspace) == before
    kept = sorted(Layout(workspace, "demo").training("grpo").parent.glob("*.replaced-1"))
    assert [path.name for path in kept] == ["grpo.replaced-1", "warm-start.replaced-1"]
    for path in kept:
        shutil.rmtree(path)


def test_the_plan_says_what_would_run_and_why(workspace: Path) -> None:
    config = config_of(workspace, "train.1.prompt=think")
    lines = list(plan(config, config.layout(workspace), STAGES, force=False))
    by_unit = {line.unit: (line.runs, line.reason) for line in lines}
    assert by_unit["fetch"] == (False, "done before, unchanged")
    assert by_unit["train/warm-start"] == (False, "done before, unchanged")
    runs, reason = by_unit["train/grpo"]
    assert runs
    assert reason.startswith("changed: settings (prompt.")
    assert "prompt.name answer -> think" in reason
    assert "starts anew; what is there (step 4, " in reason
    assert reason.endswith(" and its evaluations are kept in grpo.replaced-1")
    told = "if train makes something else than before: 3 models, 270 answers"  # to 30 + 60
    assert by_unit["evaluate"] == (True, told)
    costs = {line.unit: line.cost() for line in lines}
    assert costs["train/grpo"].most_s > 0
    assert not costs["train/grpo"].is_counted
    assert costs["train/warm-start"] == costs["fetch"] == (0, 0, 0, False)


def test_the_plan_of_a_moved_workspace_is_what_then_runs(workspace: Path, tmp_path: Path) -> None:
    """It said of every stage behind convert that it runs `if convert makes something else`."""
    moved = shutil.copytree(workspace, tmp_path / "moved")
    config = config_of(moved, "evaluate.batch_size=7")  # decides nothing
    lines = list(plan(config, config.layout(moved), STAGES, force=False))
    assert {line.unit for line in lines if line.runs} == {"convert", "report"}
    ran = run(moved)
    assert {stage for stage, state in ran.items() if state == "Completed"} == {"convert", "report"}


def test_settings_that_decide_nothing_leave_a_finished_training_alone(workspace: Path) -> None:
    """A progress line every 9 s instead of every 2 threw a finished training away."""
    idle = ["progress_every_s=9", "feature_cache=cache", "max_bad_share=0.9"]
    overrides = [f"train.{setting}" for setting in idle]
    said = command(workspace, *overrides, options=["--only", "train"])
    assert said == "train: skipped (2 x done before, unchanged)\n"


def test_another_prompt_trains_anew_and_keeps_what_was_there(workspace: Path) -> None:
    layout = Layout(workspace, "demo")
    before = weights(workspace)
    run(workspace, "train.1.prompt=think", stages=("train",))
    kept = layout.training("grpo").with_name("grpo.replaced-1")
    assert {path.name for path in list_checkpoints(kept)} == set(before)
    assert weights(workspace) != before
    shutil.rmtree(layout.training("grpo"))
    kept.rename(layout.training("grpo"))  # as it was


def test_a_run_killed_in_training_ends_the_same_when_started_again(
    workspace: Path, tmp_path: Path
) -> None:
    """kill -9 of the whole pipeline; the child must be gone before the next start."""
    folder = tmp_path / "killed"
    folder.mkdir()
    for shared in ("world", "clips-2s"):
        shutil.copytree(workspace / shared, folder / shared)
    options = [part for override in OVERRIDES for part in ("--set", override)]
    command = [sys.executable, "-m", "flows.full_pipeline", "--profile", "demo", *options]
    command += ["--workspace", str(folder)]
    training = Layout(folder, "demo").training("grpo")
    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    give_up_s = time.monotonic() + 180
    while not list_checkpoints(training):
        assert time.monotonic() < give_up_s
        assert first.poll() is None
        time.sleep(0.05)
    kill(first)
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert again.returncode == 0, again.stdout + again.stderr
    assert weights(folder) == weights(workspace)


def test_watching_takes_up_a_running_trainings_checkpoints_and_ends_with_it(
    workspace: Path,
) -> None:
    """The trainer is halted in mid-run, so that its first checkpoint is evaluated while it runs."""
    overrides = ["experiment=watched", "train.1.max_steps=60", "train.1.save_steps=20"]
    # By a command: two that start at once would both make Prefect's database.
    begin = start(workspace, overrides, "full_pipeline", "--only", "fetch,convert")
    _, error = begin.communicate(timeout=120)
    assert begin.returncode == 0, error
    layout = Layout(workspace, "watched")
    watch_until_the_training_is_killed(layout, overrides)

    # By one command, which is stopped and started again, on the CPU that both share.
    overrides += ["evaluate.while_training=true"]
    stop_while_it_trains(layout, overrides)
    size = {"optimizer.pt": 10**18}  # no disk has room for another
    huge = CheckpointRecord(
        step=1, can_resume=True, settings={}, made_with={}, files=size, digests={}
    )
    huge.write(layout.training("another") / "checkpoint-1" / CHECKPOINT)
    pipeline = start(workspace, overrides, "full_pipeline", "--from", "train")
    said, error = pipeline.communicate(timeout=240)
    assert pipeline.returncode == 0, error
    assert "evaluate: every training is finished" in said
    assert said.count("low disk: ") == 1
    assert "evaluate: skipped (8 run(s) done before, unchanged)" in said
    *_, pipeline_run = runs(workspace, "full-pipeline-watched")
    *_, trained = runs(workspace, "train-watched")
    *_, beside, after = runs(workspace, "evaluate-watched")
    assert (beside.state, after.state) == ("Completed", "Skipped")
    assert beside.began < trained.ended < after.began
    assert beside.below == trained.below == after.below == pipeline_run.run_id
    asked = task_names(workspace, beside)
    assert asked
    assert all(name.startswith("answer-0-from-grpo-step-") for name in asked)

    watching = start(workspace, overrides, "evaluate", "--watch")
    said, error = watching.communicate(timeout=240)
    assert (watching.returncode, error) == (0, "")
    assert "evaluate: every training is finished" in said
    seen = answers(layout)
    assert len(seen) == 8  # the start model and three checkpoints, on the test and on validation
    run(workspace, *overrides, stages=("evaluate",), force=True)
    assert answers(layout) == seen


def watch_until_the_training_is_killed(layout: Layout, overrides: list[str]) -> None:
    """By two commands; the first checkpoint is evaluated while the trainer is halted."""
    watching, training = start(layout.workspace, overrides, "evaluate", "--watch"), None
    try:
        training = start(layout.workspace, overrides, "train")
        wait_for(layout.training("grpo") / "checkpoint-20", training)
        halt_trainer(layout)
        wait_for_file(layout.evaluations, SCORE.format(20), watching)
        assert training.poll() is None
        kill(training)
        said, error = watching.communicate(timeout=120)
    finally:
        for process in (watching, training):
            if process is not None:
                kill(process)
    assert watching.returncode == 1
    assert "grpo-step-20 on demo-mmau, answer: right " in said
    assert error.count("\n") == 1
    assert error.startswith("error: no training runs any more: grpo has step ")
    assert "`python -m flows.train` goes on with it" in error


def stop_while_it_trains(layout: Layout, overrides: list[str]) -> None:
    """Ctrl-C where a checkpoint was evaluated in one command with the training, which is halted."""
    pipeline = start(layout.workspace, overrides, "full_pipeline", "--from", "train")
    try:
        wait_for(layout.training("grpo") / "checkpoint-40", pipeline)
        halt_trainer(layout)
        wait_for_file(layout.evaluations, SCORE.format(40), pipeline)
        below = descendants(pipeline.pid)
        os.killpg(pipeline.pid, signal.SIGINT)
        _, error = pipeline.communicate(timeout=30)
    finally:
        kill(pipeline)
    assert (pipeline.returncode, error) == (130, f"{STOPPED}\n")
    assert not [pid for pid in below if is_alive(pid)]


def start(folder: Path, overrides: list[str], stage: str, *options: str) -> subprocess.Popen[str]:
    """One of the commands, as a person starts it."""
    settings = [part for override in [*SMALL, *overrides] for part in ("--set", override)]
    command = [sys.executable, "-m", f"flows.{stage}", "--profile", "demo", *settings]
    return subprocess.Popen(
        [*command, "--workspace", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "R1_AQA_GRACE_S": "1"},  # the halted trainer hears no SIGTERM
    )


class Run(NamedTuple):
    """A flow run of a command, as Prefect's database has it; times are ISO texts."""

    run_id: str
    below: str | None
    """The run that began it."""
    state: str
    began: str
    ended: str


def runs(folder: Path, name: str) -> list[Run]:
    """Oldest first."""
    query = """
        SELECT run.id, task.flow_run_id, run.state_name, run.start_time, run.end_time
        FROM flow_run AS run LEFT JOIN task_run AS task ON task.id = run.parent_task_run_id
        WHERE run.name = ? ORDER BY run.created
    """
    with contextlib.closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as database:
        return [Run(*row) for row in database.execute(query, [name])]


def task_names(folder: Path, run: Run) -> list[str]:
    query = "SELECT name FROM task_run WHERE flow_run_id = ?"
    with contextlib.closing(sqlite3.connect(folder / "prefect" / "prefect.db")) as database:
        return [name for (name,) in database.execute(query, [run.run_id])]


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9 of a command and of its own Prefect server, which would outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    give_up_s = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < give_up_s, f"{path} never came"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def wait_for_file(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    give_up_s = time.monotonic() + 180
    while not list(folder.glob(pattern)):
        assert time.monotonic() < give_up_s, f"{pattern} never came"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def halt_trainer(layout: Layout) -> None:
    """Stop the trainer's process alone; its flow and its supervisor go on."""
    run_file = str(layout.training("grpo") / "run.json").encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().split(b"\0")
            if words[1:4] == [b"-m", b"model.run_training", run_file]:
                os.kill(int(entry.parent.name), signal.SIGSTOP)
                return
    pytest.fail("no trainer runs")


def answers(layout: Layout) -> dict[str, object]:
    """What every model said, wherever that was made, and its score, by path."""
    found: dict[str, object] = {}
    for path in (layout.root / "evaluation").glob("*/*/*/answers.jsonl"):
        lines = sorted(read_jsonl(path), key=lambda line: str(line["id"]))
        said = [{**line, "made_in": ""} for line in lines]
        score = read_json(path.with_name("score.json"))
        del score["hashes"]["answers"]
        found[str(path.parent)] = (said, score)
    return found
