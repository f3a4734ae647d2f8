"""Checkpoints as others load them, by the command: adapters merged, thinkers put back."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from flows.export import main
from model.network.family import known_families
from model.network.loading import load_model
from model.network.tiny import build_tiny
from model.run_training import train
from model.training_record import run_of
from storage import manifest
from storage.errors import PipelineError
from storage.layout import Layout
from storage.records.training import RUN, CheckpointRecord
from tasks.models import resolve
from tests.model.conftest import QUESTION, SOUNDS, training_run, write_training_lines
from tests.model.network.test_family import make_whole

STEP = 1
LORA = {"lora": {"rank": 2, "target_modules": ["q_proj", "v_proj"]}}


class Trained(NamedTuple):
    """A finished training of one step in a workspace."""

    layout: Layout
    start: Path
    checkpoint: Path


def finish(root: Path, family: str, settings: dict[str, Any], start: Path | None = None) -> Trained:
    layout = Layout(root, "demo")
    start = start or layout.models / "tiny"
    build_tiny(start, [QUESTION, *SOUNDS], clip_length_s=1.0, seed=0, family=family)
    lines = write_training_lines(root / "lines", 4)
    settings = {
        "name": "small",
        "method": "sft",
        "max_steps": STEP,
        "save_steps": STEP,
        "precision": "fp32",
        "dataloader_workers": 0,
        "threads": 1,
        "sft": {"learning_rate": 1e-2},
        **settings,
    }
    run = training_run(start, lines, layout.training("small"), settings)
    record = run.record.model_copy(update={"start": resolve(str(start), layout)})
    run = run_of(record, run.config, run.output)
    run.record.write(run.output / RUN)
    train(run)
    manifest.commit(layout.manifest("train/small"), "train/small", {}, [run.output])
    return Trained(layout, start, run.output / f"checkpoint-{STEP}")


def export(trained: Trained, *options: str) -> None:
    main(["small@1", "--workspace", str(trained.layout.workspace), *options])


def local_paths(folder: Path, workspace: Path) -> list[str]:
    """Text files that name the workspace."""
    texts = [path for path in folder.rglob("*") if path.suffix in {".json", ".md", ".jinja"}]
    return [path.name for path in texts if str(workspace) in path.read_text(encoding="utf-8")]


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return finish(tmp_path_factory.mktemp("lora") / "workspace", "qwen2_audio", LORA)


def test_an_adapter_is_found_with_its_base_after_the_workspace_moved(
    lora: Trained, tmp_path: Path
) -> None:
    """Its config held the absolute path of its base: a moved workspace could not be evaluated."""
    expected = load_model(lora.checkpoint, precision="fp32").state_dict()
    moved = tmp_path / "elsewhere"
    shutil.copytree(lora.layout.workspace, moved)
    checkpoint = Path(resolve("training:small", Layout(moved, "demo")).path)
    assert checkpoint.is_relative_to(moved)
    (moved / "demo/training/small/run.json").unlink()  # which has the old place
    shutil.move(lora.start, lora.start.with_name("gone"))
    try:
        found = load_model(checkpoint, precision="fp32").state_dict()
    finally:
        shutil.move(lora.start.with_name("gone"), lora.start)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert local_paths(checkpoint, lora.layout.workspace) == []
    base = resolve(str(lora.start), lora.layout)
    settings = CheckpointRecord.read(checkpoint / "checkpoint.json").settings
    assert settings["start_model_digest"] == base.digest
    assert f"`{base.key}` ({base.digest})" in (checkpoint / "README.md").read_text()


def test_an_adapter_whose_base_holds_other_weights_by_now_is_refused(
    lora: Trained, tmp_path: Path
) -> None:
    moved = Layout(tmp_path / "moved", "demo")
    shutil.copytree(lora.layout.workspace, moved.workspace)
    weights = moved.models / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(PipelineError, match=r"is an adapter for tiny-.* holds other weights"):
        resolve("training:small", moved)


def test_a_base_outside_of_the_workspace_is_published_by_its_name_alone(tmp_path: Path) -> None:
    trained = finish(tmp_path / "a/b/c", "qwen2_audio", LORA, start=tmp_path / "other" / "base")
    config = json.loads((trained.checkpoint / "adapter_config.json").read_text())
    base = resolve(str(trained.start), trained.layout)
    assert config["base_model_name_or_path"] == base.key == f"base-{base.digest[:8]}"
    assert local_paths(trained.checkpoint, tmp_path) == []
    load_model(trained.checkpoint, precision="fp32")  # found by the training's record
    export(trained, "--to", str(tmp_path / "out"))
    exported = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= exported
    assert "optimizer.pt" not in exported


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_merged_adapter_is_loaded_by_plain_transformers(
    lora: Trained, tmp_path: Path, dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "merged"
    export(lora, "--merge", "--dtype", dtype, "--to", str(target))
    assert f"hf upload OWNER/NAME {target}" in capsys.readouterr().out
    family = known_families()["qwen2_audio"]
    plain = family.network.from_pretrained(target, dtype="auto")
    below = family.network.from_pretrained(lora.start)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    start = below.state_dict()[name].clone()
    expected: Any = PeftModel.from_pretrained(below, str(lora.checkpoint)).merge_and_unload()
    wanted = torch.float32 if dtype == "fp32" else torch.bfloat16
    found = plain.state_dict()[name]
    assert found.dtype == wanted
    assert not torch.equal(found.float(), start)
    tolerance = 0 if dtype == "fp32" else 2e-3
    assert (found.float() - expected.state_dict()[name]).abs().max() <= tolerance
    assert "# small, step 1 of 1" in (target / "README.md").read_text()
    with pytest.raises(PipelineError, match="is there already"):
        export(lora, "--merge", "--to", str(target))


def test_another_tool_s_adapter_is_loaded_on_the_base_it_names(
    lora: Trained, tmp_path: Path
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(lora.checkpoint / name, tmp_path / name)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(lora.start)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = load_model(tmp_path, precision="fp32").state_dict()
    expected = load_model(lora.checkpoint, precision="fp32").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni"])
def test_a_thinker_is_exported_alone_and_back_into_its_whole_omni(
    tmp_path: Path, family: str
) -> None:
    trained = finish(tmp_path / "workspace", family, {})
    kind = known_families()[family]
    export(trained, "--dtype", "fp32", "--to", str(tmp_path / "alone"))
    alone = kind.network.from_pretrained(tmp_path / "alone").state_dict()
    expected = load_model(trained.checkpoint, precision="fp32").state_dict()
    assert all(torch.equal(alone[name], tensor) for name, tensor in expected.items())

    whole, target = tmp_path / "whole", tmp_path / "back"
    make_whole(trained.start, whole, kind)
    options = ("--dtype", "fp32", "--to", str(target), "--whole", str(whole))
    export(trained, *options)
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, target))
    assert before.keys() == after.keys()
    kept = [name for name in before if not name.startswith("thinker.") or "visual" in name]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert (target / "config.json").read_text() == (whole / "config.json").read_text()
    found = load_model(target, precision="fp32").state_dict()
    for name, tensor in expected.items():
        if "visual" not in name:
            assert torch.equal(found[name], tensor), name
    untrained = load_model(whole, precision="fp32").state_dict()
    assert any(not torch.equal(found[name], tensor) for name, tensor in untrained.items())


def test_an_omni_of_other_sizes_does_not_take_the_thinker(tmp_path: Path) -> None:
    trained = finish(tmp_path / "workspace", "qwen2_5_omni", {})
    other, whole = tmp_path / "other", tmp_path / "whole"
    family = known_families()["qwen2_5_omni"]
    build_tiny(other, ["further words"], clip_length_s=1.0, seed=0, family="qwen2_5_omni")
    make_whole(other, whole, family)
    with pytest.raises(PipelineError, match="the model has none such"):
        export(trained, "--to", str(tmp_path / "back"), "--whole", str(whole))
