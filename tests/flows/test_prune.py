"""What `python -m flows.prune` frees, after what runs by commands have left."""

from pathlib import Path

import pytest

from storage.layout import Layout, list_checkpoints
from tests.flows.test_at_once import run_at_once
from tests.flows.test_signals import command, free_port

pytestmark = pytest.mark.long


def test_it_frees_what_is_measured_or_left_and_nothing_is_made_again(tmp_path: Path) -> None:
    """Deleting a checkpoint to make room made the next run train from before it."""
    layout = Layout(tmp_path / "workspace", "demo")
    every_step = (f"world.port={free_port()}", "train.1.save_steps=1", "evaluate.controls=[]")

    def run(stage: str, *more: str, code: int = 0) -> str:
        words = command(stage, layout.workspace, *more, overrides=every_step)
        return run_at_once(words, codes=(code,))[0]

    run("full_pipeline")
    for file in ("report.json", "provenance.html"):
        assert str(layout.workspace) not in (layout.site / file).read_text()
    kept_aside = layout.training("grpo.replaced-1")
    kept_aside.mkdir()
    (kept_aside / "weights").write_bytes(b"0" * 3_000_000)
    said = run("prune", code=1)
    assert "3.0 MB  replaced by a later run" in said
    assert "checkpoint-" not in said
    assert said.endswith("nothing was freed: agree by --yes\n")
    every_step = (*every_step, "train.checkpoints.weights=[best,last]")
    assert len(list_checkpoints(layout.training("grpo"))) == 4
    assert "demo/training/grpo/checkpoint-" in run("prune", "--yes")
    left = [path.name for path in list_checkpoints(layout.training("grpo"))]
    assert "checkpoint-4" in left
    assert len(left) <= 2
    assert [path.name for path in list_checkpoints(layout.training("warm-start"))] == [
        "checkpoint-3"
    ]
    assert not kept_aside.exists()
    assert not (layout.workspace / "features").exists()
    assert run("full_pipeline").count("skipped") == 5
    assert run("prune").count("there is nothing to free") == 1
