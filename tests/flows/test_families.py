"""Every family through the whole pipeline, by the commands that a user types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.pipeline_config import load_config
from model.network.family import known_families
from model.train.estimates import estimate
from storage.jsonl import read_json, read_jsonl
from storage.layout import Layout
from storage.records.sizes import published_sizes
from tests.flows.small_demo import SMALL

LORA = "train.1.lora={rank: 2}"


def run(module: str, workspace: Path, port: int, *options: str) -> str:
    command = [sys.executable, "-m", module, "--profile", "demo", "--workspace", str(workspace)]
    settings = [f"--set={key}" for key in (*SMALL, f"world.port={port}")]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [*command, *settings, *options],
        check=False,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "changes"),
    [("qwen2_5_omni", []), ("qwen3_omni", [LORA])],
    ids=["all weights", "LoRA on experts"],
)
def test_a_family_is_fetched_for_trained_evaluated_reported_and_exported(
    tmp_path: Path, family: str, changes: list[str]
) -> None:
    keys = [f"train.warm-start.model=random:tiny-{family}", "evaluate.controls=[silence]"]
    options = [f"--set={key}" for key in (*keys, *changes)]
    port = 8700 + len(family)
    run("flows.full_pipeline", tmp_path, port, *options)
    layout = Layout(tmp_path, "demo", 2.0)
    rows = read_json(layout.site / "leaderboard.json")
    method = "GRPO, LoRA" if changes else "GRPO"
    assert {(row["method"], row["step"]) for row in rows} == {
        ("direct", None),
        (method, 2),
        (method, 4),
    }
    silent = layout.evaluations.glob("grpo-step-*/demo-mmau-*/answer+silence/answers.jsonl")
    assert len(read_jsonl(next(iter(silent)))) == 30
    target = tmp_path / "exported"
    run("flows.export", tmp_path, port, *options, "grpo@4", "--merge", "--to", str(target))
    loaded = known_families()[family].network.from_pretrained(target)
    assert loaded.config.model_type.endswith("_thinker")
    assert "| grpo" in (target / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("profile", "num_gpus", "gigabytes"),
    [("omni-3b", 1, 37), ("omni-7b", 8, 54), ("omni-30b-lora", 1, 67), ("one-gpu", 1, 72)],
)
def test_a_profile_needs_what_the_readme_says_and_fits_80_gb(
    tmp_path: Path, profile: str, num_gpus: int, gigabytes: int
) -> None:
    (training,) = load_config(profile, workspace=tmp_path).train
    sizes = published_sizes(training.model)
    assert sizes is not None
    needed = estimate(training, sizes, num_gpus=num_gpus)
    assert needed.total / 1e9 == pytest.approx(gigabytes, abs=0.5)
    assert f"| {gigabytes} |" in Path("README.md").read_text(encoding="utf-8")
