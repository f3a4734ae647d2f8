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

# The last part shards a model as FSDP2 does on GPUs, and reads and scores through its forward.
# The second run calls the model inside DDP's wrapper, as if the packed pass were not its forward.
WORKER = """
import sys
from model.grpo_trainer import GrpoTrainer
from model.run_training import main

if main(sys.argv[1:2]):
    sys.exit(1)
wrapped = GrpoTrainer._scores
GrpoTrainer._scores = lambda self, model, rollout: wrapped(self, self.policy, rollout)
if main(sys.argv[2:3]):
    sys.exit(1)

import torch
from torch.distributed.fsdp import fully_shard
from torch.distributed.device_mesh import init_device_mesh
from model.qwen2_audio import load_base, prefill
from model.sampling import decode

def numbers(model):
    generator = torch.Generator().manual_seed(0)
    prompt_ids = torch.randint(10, 200, (2, 30), generator=generator)
    prompt_ids[:, 4:16] = model.config.audio_token_id
    prompt = {
        "prompt_ids": prompt_ids,
        "prompt_mask": torch.ones(2, 30, dtype=torch.long),
        "mel": torch.randn(2, 64, 49, generator=generator),
        "num_frames": torch.tensor([48, 48]),
    }

    def continue_prompts(policy):
        return decode(policy, prefill(policy, **prompt), stop_ids=torch.tensor([-1]), pad_id=0,
                      max_new_tokens=5).token_BGC

    with torch.no_grad():
        tokens = model(run=continue_prompts)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    logprob = model(**prompt, completion_ids=tokens, completion_mask=mask).logprob_BGC
    logprob.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    whole = [g.full_tensor() if hasattr(g, "full_tensor") else g for g in gradients]
    return tokens, logprob.detach(), torch.cat([g.flatten() for g in whole])

plain, sharded = (load_base(sys.argv[3], precision="fp32") for _ in range(2))
mesh = init_device_mesh("cpu", (2,))
for layer in [*sharded.model.audio_tower.layers, *sharded.model.language_model.layers]:
    fully_shard(layer, mesh=mesh, reshard_after_forward=False)
fully_shard(sharded, mesh=mesh, reshard_after_forward=False)
for expected, found in zip(numbers(plain), numbers(sharded), strict=True):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
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
            "reward": "vowel_count.vowels",
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
    (own / "vowel_count.py").write_text(
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
    runs = [str(tmp_path / "two.json"), str(tmp_path / "bypassed.json"), str(tiny_model)]
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
