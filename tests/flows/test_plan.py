"""What a plan tells before anything has run."""

from pathlib import Path

import pytest

from flows.pipeline_config import STAGES, load_config
from flows.plan import Intention, plan, print_plan
from model.config import TrainConfig
from storage.host.gpus import Gpu
from storage.jsonl import write_jsonl
from storage.layout import Layout
from tasks.cost import Cost, answer_cost, sum_of, train_cost

H100 = Gpu("GPU-a", "0", "NVIDIA H100 80GB HBM3", 80 << 30)
SEVEN_B = "Qwen/Qwen2-Audio-7B-Instruct"


def planned(tmp_path: Path, profile: str, *overrides: str) -> dict[str, Intention]:
    config = load_config(profile, workspace=tmp_path, overrides=list(overrides))
    found = plan(config, config.layout(tmp_path), STAGES, force=False)
    return {line.unit: line for line in found}


def test_every_stage_behind_the_first_is_told_with_its_size(tmp_path: Path) -> None:
    absent = f"annotations.train={tmp_path}/absent.json"
    lines = planned(tmp_path, "paper", absent)
    assert list(lines) == [
        *("fetch", "convert", "train/grpo", "train/sft", "train/sft-lora", "evaluate", "report")
    ]
    assert lines["fetch"].reason.count("absent.json") == 1
    clips = lines["fetch"].cost()
    assert clips.size_bytes == 40_425 * 320_000
    assert clips.least_s == clips.most_s == 40_425 * 15  # 240 an hour
    # Ten checkpoints in bf16; masters and moments of two, and of one in writing.
    assert lines["train/grpo"].cost().size_bytes == pytest.approx(487e9, rel=0.01)
    # 30 checkpoints and two starts (two prompts) on 2 x 1,000 and 1,000 held-out questions, and
    # silence for the three steps that lead and the two starts.
    assert lines["evaluate"].reason == "after fetch: 32 models, 106,000 answers"


def test_a_training_waits_for_the_one_that_it_starts_from(tmp_path: Path) -> None:
    lines = planned(tmp_path, "demo")
    assert lines["train/warm-start"].reason == "after the made world"
    assert lines["train/grpo"].reason == "after warm-start"


def test_in_a_pipe_a_unit_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Offline one error took four lines of 80 columns."""
    config = load_config("paper", workspace=tmp_path, overrides=["annotations.train=/absent.json"])
    print_plan(config, config.layout(tmp_path), ["fetch", "train"], force=False)
    first, fetch, *trainings, whole, unknown = capsys.readouterr().out.splitlines()
    assert first.split() == ["unit", "why"]
    assert fetch.split()[:2] == ["fetch", "run"]
    assert fetch.rstrip().endswith("; 12.94 GB, 7.0 days by count")
    assert len(trainings) == 3
    assert whole.startswith(" in all: 989.85 GB, 7.0 days by count; ")
    assert unknown.endswith("yet: train/grpo, train/sft, train/sft-lora")


def test_hours_are_by_count_until_steps_were_measured(tmp_path: Path) -> None:
    """On 8 cards 0.7 s a step at 16 tokens; then 3 s, as the steps of the training took."""
    layout, training = Layout(tmp_path, "paper"), TrainConfig(sharding="zero2")
    counted = train_cost(training, SEVEN_B, layout, lambda: [H100] * 8, anew=True)
    assert counted.least_s == pytest.approx(1000 * 0.68, rel=0.1)
    assert counted.text().endswith(" by count")
    steps = [{"step": n, "seconds": {"total": 3.0}, "loss": 0.1} for n in (1, 2, 3)]
    steps = [step | {"grad_norm": 1.0, "learning_rate": 1e-6} for step in steps]
    write_jsonl(layout.training("grpo") / "metrics.jsonl", steps)
    measured = train_cost(training, SEVEN_B, layout, lambda: [H100] * 8, anew=True)
    assert measured.least_s == measured.most_s == 3000
    assert measured.text().endswith("50 min as measured")


def test_costs_add_up_as_far_as_they_are_known(tmp_path: Path) -> None:
    config = load_config("paper", workspace=tmp_path).evaluate
    one = answer_cost(config, SEVEN_B, Layout(tmp_path, "paper"), lambda: [H100])
    # 16 tokens of 32 layers at 1 ms for 16 at once, and 350 tokens through 8 B parameters.
    assert one.least_s == pytest.approx(0.032 + 350 * 16e9 / 0.4 / 989e12, rel=0.1)
    assert answer_cost(config, SEVEN_B, Layout(tmp_path, "paper"), list) == Cost()
    known = Cost(5e9, 7200, 7200)
    assert sum_of([known, Cost(), known]).text() == "10.00 GB, 4.0 h as measured"
    assert sum_of([]).text() == ""
