"""What decides a training, and what is seen of one from another process."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from model.config import TrainConfig
from model.training_record import training_record
from storage.jsonl import write_jsonl
from storage.layout import Layout
from storage.records.model import ModelRef
from storage.records.training import CHECKPOINT, RUN, CheckpointRecord
from tasks.train import (
    describe_stop,
    examples_digest,
    is_training,
    marked_as_training,
    seen_so_far,
)

ROOT = Path(__file__).parents[2]
GRPO = TrainConfig(name="grpo", method="grpo", model="org/model", max_steps=100, save_steps=20)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An experiment in which `grpo` was begun."""
    layout = Layout(tmp_path, "demo")
    layout.root.mkdir()
    layout.train_jsonl.write_text("")
    begin(layout, GRPO)
    return layout


def begin(layout: Layout, training: TrainConfig) -> None:
    record = training_record(
        training,
        start=ModelRef(key="other", path=training.model, digest=f"hub:{training.model}"),
        examples=layout.train_jsonl,
        examples_sha256=examples_digest(layout.train_jsonl),
        num_examples=0,
    )
    record.write(layout.training(training.name) / RUN)


def save(layout: Layout, step: int, *, size_bytes: int = 4) -> Path:
    folder = layout.training("grpo") / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1234")
    files = {"model.safetensors": size_bytes}
    record = CheckpointRecord(
        step=step, can_resume=False, settings={}, made_with={}, files=files, digests={}
    )
    record.write(folder / CHECKPOINT)
    return folder


def test_a_training_is_seen_while_it_runs_and_several_may_run(layout) -> None:
    assert not is_training(layout)
    with marked_as_training(layout):
        with marked_as_training(layout):
            assert is_training(layout)
        assert is_training(layout)
        assert not is_training(Layout(layout.workspace, "another"))
    assert not is_training(layout)


def test_a_killed_training_runs_until_its_last_process_is_gone(layout, silent_trainer) -> None:
    """Between the two, the trainer may still finish the checkpoint that it was writing."""
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from storage.layout import Layout
        from tasks.running.child_process import run_child
        from tasks.train import marked_as_training
        with marked_as_training(Layout(Path(sys.argv[1]), "demo")):
            run_child(sys.argv[2:], log=Path(sys.argv[1]) / "log", on_line=print)
    """)
    command = [sys.executable, "-c", code, str(layout.workspace), *silent_trainer.command]
    flow = subprocess.Popen(command, cwd=ROOT)
    pids = silent_trainer.pids()
    assert is_training(layout)
    flow.kill()
    flow.wait()
    give_up_s = time.monotonic() + 30
    while is_training(layout):
        assert time.monotonic() < give_up_s
        time.sleep(0.05)
    assert [pid for pid in pids[:2] if Path(f"/proc/{pid}").exists()] == []


def test_whole_checkpoints_are_seen_and_a_torn_one_is_not(layout) -> None:
    whole = save(layout, 20)
    save(layout, 40, size_bytes=5)
    (layout.training("grpo") / "saving.part").mkdir()
    assert [path for path, _ in seen_so_far([GRPO], layout)] == [str(whole)]


def test_a_checkpoint_made_again_is_another_one(layout) -> None:
    folder = save(layout, 20)
    before = seen_so_far([GRPO], layout)
    folder.rename(folder.with_name("aside"))
    save(layout, 20)
    assert seen_so_far([GRPO], layout) != before


@pytest.mark.parametrize("change", [{"seed": 7}, {"model": "org/other"}])
def test_checkpoints_of_other_settings_are_not_taken_for_this_training(layout, change) -> None:
    """They lie there until the training that is about to start sets them aside."""
    save(layout, 20)
    assert seen_so_far([GRPO.model_copy(update=change)], layout) == []


def test_a_training_begun_by_another_version_is_not_this_one(layout) -> None:
    """A setting that this version does not know ended in a traceback."""
    save(layout, 20)
    path = layout.training("grpo") / "run.json"
    record = json.loads(path.read_text())
    record["settings"]["of_another_version"] = 1
    path.write_text(json.dumps(record))
    assert seen_so_far([GRPO], layout) == []


def test_a_training_that_starts_from_an_unfinished_one_has_nothing_yet(layout) -> None:
    follower = GRPO.model_copy(update={"name": "second", "model": "training:grpo"})
    begin(layout, follower)
    assert seen_so_far([follower], layout) == []


def test_where_a_training_stopped_is_told_with_the_last_word_of_its_log(layout) -> None:
    assert describe_stop(GRPO, layout) == "grpo has no checkpoint"
    save(layout, 20)
    log = layout.training("grpo") / "trainer.log"
    log.write_text("step 21/100\nerror: the disk is full\n")
    assert describe_stop(GRPO, layout) == (
        f"grpo has step 20 of 100 (its log ends: the disk is full; {log})"
    )


def test_examples_are_the_same_wherever_their_clips_lie(tmp_path: Path) -> None:
    def lines(name: str, folder: str, answer: int) -> Path:
        row = {"id": 183, "answer": answer, "audio_path": f"{folder}/-HG3Omg_89c_30.wav"}
        write_jsonl(tmp_path / name, [row])
        return tmp_path / name

    here = examples_digest(lines("here", "/data/clips", 1))
    assert examples_digest(lines("moved", "/other/clips", 1)) == here
    assert examples_digest(lines("other", "/data/clips", 2)) != here
