"""Two processes under torchrun against one, on the same global batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.run_training import TrainingRun, train
from storage.jsonl import read_jsonl, write_json

# The second run calls the model inside DDP's wrapper, as if the packed pass were not its forward.
WORKER = """
import sys
from model.grpo_trainer import GrpoTrainer
from model.run_training import main

if main(sys.argv[1:2]):
    sys.exit(1)
wrapped = GrpoTrainer._scores
GrpoTrainer._scores = lambda self, model, rollout: wrapped(self, self.policy, rollout)
sys.exit(main(sys.argv[2:3]))
"""


def make_run(model: Path, lines: Path, output: Path, prompts_per_device: int) -> TrainingRun:
    settings: dict[str, Any] = {
        "name": "small",
        "max_steps": 2,
        "save_steps": 2,
        "prompts_per_device": prompts_per_device,
        "gradient_accumulation": 2,
        "precision": "fp32",
        "dataloader_workers": 0,
        "threads": 1,
        "grpo": {
            "group_size": 3,
            "learning_rate": 1e-3,
            "max_completion_tokens": 6,
            "loss_aggregation": "token",  # its denominator has to be added up over devices
            "advantage_scale": "batch",
            "reward": "vowel_reward.vowels",
        },
    }
    return TrainingRun.model_validate(
        {
            "train": settings,
            "start_model": str(model),
            "start_model_key": "tiny",
            "train_jsonl": str(lines),
            "output": str(output),
        }
    )


def movement(start: Path, checkpoint: Path) -> torch.Tensor:
    """Every weight's change from the start model, in one vector."""
    before, after = (load_file(folder / "model.safetensors") for folder in (start, checkpoint))
    return torch.cat([(after[name] - before[name]).flatten() for name in sorted(after)])


@pytest.mark.slow
def test_two_processes_train_what_one_would_and_only_through_the_wrapped_forward(
    tiny_model: Path, training_lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "vowel_reward.py").write_text(
        "def vowels(completion, example):\n    return sum(completion.count(v) for v in 'aeiou')\n"
    )
    monkeypatch.syspath_prepend(own)
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(own)]),
        "OMP_NUM_THREADS": "1",
    }

    def make(name: str, prompts_per_device: int) -> TrainingRun:
        run = make_run(tiny_model, training_lines, tmp_path / name, prompts_per_device)
        write_json(tmp_path / f"{name}.json", run.model_dump(mode="json"))
        return run

    one, two, bypassed = make("one", 2), make("two", 1), make("bypassed", 1)
    train(one)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    launch += ["--rdzv_endpoint=localhost:0", str(worker)]
    runs = [str(tmp_path / "two.json"), str(tmp_path / "bypassed.json")]
    done = subprocess.run(
        [sys.executable, *launch, *runs],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    expected = movement(tiny_model, one.output / "checkpoint-2")
    assert expected.norm() > 0
    same = movement(tiny_model, two.output / "checkpoint-2")
    assert (same - expected).norm() < 1e-3 * expected.norm()
    other = movement(tiny_model, bypassed.output / "checkpoint-2")
    assert (other - expected).norm() > 0.1 * expected.norm()
    for alone, together in zip(
        read_jsonl(one.output / "metrics.jsonl"),
        read_jsonl(two.output / "metrics.jsonl"),
        strict=True,
    ):
        for key in ("loss", "reward", "reward_std", "kl", "entropy", "grad_norm"):
            assert together[key] == pytest.approx(alone[key], rel=1e-4, abs=1e-6), key
