"""Short trainings of the tiny model by the command, and the numbers that they leave behind.

Nothing here knows how a step is made: a training is a run.json, its numbers are in metrics.jsonl
and in the weights of its last checkpoint.
"""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from model.checkpoints import masters_of
from storage.jsonl import read_appended, read_jsonl, write_json
from tests.model.conftest import QUESTION, SOUNDS, training_run, write_training_lines

Json = dict[str, Any]

COLUMNS = ("loss", "reward", "grad_norm", "learning_rate", "kl", "entropy", "completion_length")
ROOT = Path(__file__).parent.parent.parent

# One thread, and the same instructions on every x86 of the last ten years.
EXACT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "HF_HUB_OFFLINE": "1",
}

# accelerate shards over GPUs alone, so it is told that these processes have one each.
SHARDED = """
import os, runpy, sys
os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
import accelerate.state as state
from accelerate.utils import DistributedType

begin = state.PartialState.__init__

def begin_as_if_on_gpus(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU

state.PartialState.__init__ = begin_as_if_on_gpus
runpy.run_module("model.run_training", run_name="__main__", alter_sys=True)
"""

USUAL: Json = {
    "name": "golden",
    "max_steps": 6,
    "save_steps": 6,
    "prompts_per_device": 2,
    "prompts_per_step": 4,
    "precision": "fp32",
    "dataloader_workers": 0,
    "threads": 1,
    "completions_every": 1,
    "grpo": {
        "group_size": 4,
        "learning_rate": 3e-4,
        "max_completion_tokens": 24,
        "reward": "vowel_count.vowels",
    },
}
TWO: Json = {"prompts_per_device": 1, "num_processes": 2}
LONG: Json = {"grpo": {"max_completion_tokens": 60}}  # other lengths on each process
TOKEN: Json = {"grpo": {"loss_aggregation": "token", "advantage_scale": "batch"}}

# What each training changes of the usual one; `num_processes` is no setting.
CASES: dict[str, Sequence[Json]] = {
    "grpo": [{"max_steps": 30, "save_steps": 15}],
    "ddp": [TWO, LONG, TOKEN],
    "ddp-lora": [TWO, LONG, {"lora": {"rank": 4, "dropout": 0.1}}],
    "zero2": [TWO, LONG, TOKEN, {"sharding": "zero2"}],
    "fsdp": [TWO, LONG, {"sharding": "fsdp", "gradient_checkpointing": True}],
    "lora": [{"lora": {"rank": 4, "dropout": 0.1}}],
    "sft": [
        {"method": "sft", "sft": {"learning_rate": 1e-3, "random_target_share": 0.3}},
        {"warmup_steps": 2, "lr_scheduler": "cosine", "weight_decay": 0.1},
    ],
    "sft-ddp": [TWO, {"method": "sft", "sft": {"learning_rate": 1e-3}}],
    "two-steps-a-rollout": [{"grpo": {"steps_per_rollout": 2}}],
    "resample": [{"grpo": {"zero_variance": "resample", "max_completion_tokens": 3}}],
    "checkpointing": [{"gradient_checkpointing": True, "freeze": ["audio_encoder"]}],
    "bf16-mixed": [{"precision": "bf16-mixed"}],
}


def build_model(folder: Path) -> None:
    """Write the tiny model, and the examples that it learns from, into a folder."""
    arguments = {"folder": str(folder / "model"), "texts": [QUESTION, *SOUNDS], "clip_length_s": 3}
    write_json(folder / "tiny.json", arguments)
    _run([sys.executable, "-m", "model.run_network", "tiny", str(folder / "tiny.json")], folder)
    write_training_lines(folder, 12)
    (folder / "vowel_count.py").write_text(
        "def vowels(completion, example):\n    return sum(completion.count(v) for v in 'aeiou')\n"
    )


def train(name: str, folder: Path) -> Path:
    """Run a case by the command, from wherever it stands, and return its folder."""
    settings = dict(USUAL)
    for change in CASES[name]:
        settings |= change | {"grpo": settings["grpo"] | change.get("grpo", {})}
    num_processes = settings.pop("num_processes", 1)
    output = folder / name
    run = output / "run.json"
    made = training_run(folder / "model", folder / "train.jsonl", output, settings)
    made.record.write(run)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    program = ["-m", "model.run_training"]
    if "sharding" in settings:
        (folder / "sharded.py").write_text(SHARDED)
        program = [str(folder / "sharded.py")]
    _run([sys.executable, *(launcher if num_processes > 1 else []), *program, str(run)], folder)
    return output


def _run(command: Sequence[str], folder: Path) -> None:
    environment = os.environ | EXACT | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def numbers(output: Path) -> Json:
    """Columns of metrics.jsonl, and what stands for logged completions and the last weights."""
    lines = read_jsonl(output / "metrics.jsonl")
    columns = {name: [line.get(name) for line in lines] for name in COLUMNS if name in lines[0]}
    texts: dict[int, list[str]] = {}
    for sampled in read_appended(output / "completions.jsonl"):
        texts.setdefault(sampled["step"], []).append(sampled["completion"])
    columns["completions"] = [_digest("\n".join(texts.get(line["step"], []))) for line in lines]
    (file,) = masters_of(output / f"checkpoint-{lines[-1]['step']}").glob("*.safetensors")
    weights = load_file(file)
    content = b"".join(weights[name].float().numpy().tobytes() for name in sorted(weights))
    described = [f"{name} {tuple(weights[name].shape)} {weights[name].dtype}" for name in weights]
    norm = sum(float(tensor.double().square().sum()) for tensor in weights.values()) ** 0.5
    return {
        **columns,
        "weights": {
            "file": file.name,
            "names": _digest("\n".join(sorted(described))),
            "norm": norm,
            "content": _digest(content),
        },
    }


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[
        :16
    ]


def machine() -> dict[str, str]:
    """What the last bits of a floating-point number depend on."""
    cpu = Path("/proc/cpuinfo")
    words = ("model name", "cpu family", "model")
    facts = dict(
        (part.strip() for part in line.split(":", 1))
        for line in (cpu.read_text().splitlines() if cpu.exists() else [])
        if ":" in line
    )
    named = " ".join(facts[word] for word in words if word in facts) or platform.processor()
    return {"cpu": named, "torch": torch.__version__}
