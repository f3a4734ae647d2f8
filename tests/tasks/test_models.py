"""What a name in the settings means."""

import shutil
from pathlib import Path

import pytest

from model.checkpoints import seal
from storage import manifest
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.model import ModelRef
from storage.records.training import RUN, TrainingRecord
from tasks.models import is_gone, resolve, trained, trained_so_far


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "workspace", "demo")


def write_model(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def finish(layout: Layout, *steps: int) -> Path:
    """A finished training `grpo` with checkpoints of these steps."""
    folder = layout.training("grpo")
    start = ModelRef(key="a--b", path="a/b", digest="hub:a/b")
    for step in steps:
        seal(write_model(folder / f"checkpoint-{step}", b"%d" % step), {}, {})
    TrainingRecord(
        name="grpo",
        method="grpo",
        variant="full",
        prompt="answer",
        seed=7,
        start=start,
        examples=layout.train_jsonl,
        examples_sha256="",
        num_examples=1,
        num_devices=1,
        settings={},
        idle={},
        versions={},
    ).write(folder / RUN)
    manifest.commit(layout.manifest("train/grpo"), "train/grpo", {}, [folder])
    return folder


def test_a_copy_is_the_same_model_and_other_weights_under_its_name_are_not(
    tmp_path: Path, layout: Layout
) -> None:
    here = resolve(str(write_model(tmp_path / "x" / "final", b"one")), layout)
    other = resolve(str(write_model(tmp_path / "y" / "final", b"two")), layout)
    copy = tmp_path / "copy" / "final"
    shutil.copytree(here.path, copy, copy_function=shutil.copyfile)  # at another time
    (copy / "optimizer.pt").write_text("what only resuming needs")
    (copy / ".cache").mkdir()
    assert resolve(str(copy), layout).digest == here.digest
    assert resolve(str(copy), layout).key == here.key == f"final-{here.digest[:8]}"
    assert other.key != here.key


def test_a_model_on_the_hub_is_named_with_its_owner(layout: Layout) -> None:
    found = resolve("Qwen/Qwen2-Audio-7B", layout)
    assert (found.key, found.digest) == ("Qwen--Qwen2-Audio-7B", "hub:Qwen/Qwen2-Audio-7B")


def test_a_training_is_its_last_checkpoint_or_that_of_a_step(layout: Layout) -> None:
    finish(layout, 2, 10)
    last = resolve("training:grpo", layout)
    assert last.key == "grpo-step-10"
    assert last.training is not None
    assert (last.training.name, last.training.seed, last.training.step) == ("grpo", 7, 10)
    assert resolve("training:grpo@2", layout).key == "grpo-step-2"
    with pytest.raises(PipelineError, match="no checkpoint of step 5; it has 2, 10"):
        resolve("training:grpo@5", layout)


def test_a_checkpoint_is_known_by_one_digest_while_its_training_runs_after_and_as_a_folder(
    layout: Layout,
) -> None:
    folder = finish(layout, 2)
    (model,) = trained("grpo", layout)
    assert [model] == trained_so_far("grpo", layout)
    assert resolve(str(folder / "checkpoint-2"), layout).digest == model.digest


def test_a_deleted_checkpoint_of_a_finished_training_is_known_and_known_to_be_gone(
    layout: Layout,
) -> None:
    folder = finish(layout, 2, 4)
    before = trained("grpo", layout)
    shutil.rmtree(folder / "checkpoint-2")
    assert trained("grpo", layout) == before
    assert [is_gone(model) for model in before] == [True, False]
    assert [model.key for model in trained_so_far("grpo", layout)] == ["grpo-step-4"]


def test_a_training_that_was_not_finished_is_named_with_what_to_do(layout: Layout) -> None:
    with pytest.raises(PipelineError, match=r"grpo has not been finished.*python -m flows.train"):
        resolve("training:grpo", layout)
