"""Two processes under torchrun against one, on the same global batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from model.network.tiny import build_tiny
from model.run_training import train
from model.training_record import TrainingRun
from storage.errors import PipelineError
from storage.jsonl import read_json, read_jsonl
from tests.model.conftest import QUESTION, SOUNDS, training_run

# The second run calls the model inside DDP's wrapper, as if the packed pass were not its forward.
WORKER = """
import sys
from model.train.grpo_step import GrpoStep
from model.run_training import main

if main(sys.argv[1:2]):
    sys.exit(1)
wrapped = GrpoStep._scores
unwrap = lambda policy: getattr(policy, "module", policy)
GrpoStep._scores = lambda self, policy, scored: wrapped(self, unwrap(policy), scored)
sys.exit(main(sys.argv[2:3]))
"""

# accelerate shards over GPUs alone, so it is told that these processes have one each. The second
# run resumes the first, whose last checkpoint is gone.
SHARDED_WORKER = """
import os, shutil, sys
os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
import accelerate.state as state
from accelerate.utils import DistributedType

begin = state.PartialState.__init__

def begin_as_if_on_gpus(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU

state.PartialState.__init__ = begin_as_if_on_gpus
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel
from model.run_training import main

read = PreTrainedModel.from_pretrained.__func__

def read_once(cls, *args, **kwargs):
    assert os.environ["RANK"] == "0", "weights are read by each process"
    return read(cls, *args, **kwargs)

PreTrainedModel.from_pretrained = classmethod(read_once)
backward = Accelerator.backward

def backward_and_look(self, *args, **kwargs):
    backward(self, *args, **kwargs)
    gradients = [p.grad for p in self._models[0].parameters() if p.requires_grad]
    assert gradients
    assert all(hasattr(g, "full_tensor") for g in gradients), "whole gradients are kept"

Accelerator.backward = backward_and_look
if main(sys.argv[1:2]):
    sys.exit(1)
torch.distributed.barrier()
if os.environ["RANK"] == "0":
    shutil.move(f"{sys.argv[2]}/checkpoint-2", f"{sys.argv[2]}/../sharded-at-once")
torch.distributed.barrier()
sys.exit(main(sys.argv[1:2]))
"""


GRPO = {
    "group_size": 3,
    "learning_rate": 1e-3,
    "max_completion_tokens": 6,
    "loss_aggregation": "token",  # its denominator has to be added up over devices
    "advantage_scale": "batch",
    "reward": "vowel_count.vowels",
}


def make_run(
    model: Path, lines: Path, output: Path, prompts_per_device: int, changed: dict[str, Any]
) -> TrainingRun:
    settings: dict[str, Any] = {
        "name": "small",
        "max_steps": 2,
        "save_steps": 2,
        "prompts_per_device": prompts_per_device,
        "prompts_per_step": 4,
        "precision": "fp32",
        "dataloader_workers": 0,
        "threads": 1,
        "grpo": GRPO,
    }
    return training_run(model, lines, output, settings | changed)


def movement(start: Path, checkpoint: Path) -> torch.Tensor:
    """Every weight's change from the start model, in one vector."""
    (file,) = checkpoint.glob("*.safetensors")
    before, after = load_file(start / "model.safetensors"), load_file(file)
    moved = [after[name] - before.get(name, 0) for name in sorted(after)]  # an adapter from 0
    return torch.cat([change.flatten() for change in moved])


class Small(NamedTuple):
    """A training of two steps, for one process or several."""

    model: Path
    lines: Path
    folder: Path
    environment: dict[str, str]

    def make(self, name: str, prompts_per_device: int, **settings: Any) -> TrainingRun:
        run = make_run(self.model, self.lines, self.folder / name, prompts_per_device, settings)
        run.record.write(run.output / "run.json")
        return run

    def file(self, run: TrainingRun) -> Path:
        return run.output / "run.json"

    def launch(self, script: str, *arguments: Path) -> None:
        worker = self.folder / "worker.py"
        worker.write_text(script)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run(
            [sys.executable, *launcher, str(worker), *map(str, arguments)],
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def small(
    tiny_model: Path, training_lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Small:
    own = tmp_path / "own"
    own.mkdir()
    (own / "vowel_count.py").write_text(
        "def vowels(completion, example):\n    return sum(completion.count(v) for v in 'aeiou')\n"
    )
    monkeypatch.syspath_prepend(own)
    path = os.pathsep.join([str(Path.cwd()), str(own)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return Small(tiny_model, training_lines, tmp_path, environment)


def assert_same_training(small: Small, run: TrainingRun, expected: TrainingRun) -> None:
    moved = movement(small.model, expected.output / "checkpoint-2")
    assert moved.norm() > 0
    difference = movement(small.model, run.output / "checkpoint-2") - moved
    assert difference.norm() < 1e-3 * moved.norm()
    for one, other in zip(
        read_jsonl(expected.output / "metrics.jsonl"),
        read_jsonl(run.output / "metrics.jsonl"),
        strict=True,
    ):
        for key in ("loss", "reward", "reward_std", "kl", "entropy", "grad_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), key


@pytest.mark.long
def test_two_processes_train_what_one_would_and_only_through_the_wrapped_forward(
    small: Small,
) -> None:
    one, two, bypassed = small.make("one", 2), small.make("two", 1), small.make("bypassed", 1)
    train(one)
    small.launch(WORKER, small.file(two), small.file(bypassed))
    assert_same_training(small, two, one)
    expected = movement(small.model, one.output / "checkpoint-2")
    other = movement(small.model, bypassed.output / "checkpoint-2")
    assert (other - expected).norm() > 0.1 * expected.norm()


@pytest.mark.long
def test_the_number_of_devices_decides_nothing_and_may_change_on_the_way(small: Small) -> None:
    """On 4 GPUs it was another training than on 8, as prompts a step were counted by device."""
    shutil.copy(small.lines, small.lines.with_name("validation.jsonl"))
    settings = {"save_steps": 1, "lora": {"rank": 2, "dropout": 0.5}, "validation_questions": 5}
    settings |= {"max_steps": 9, "stop": {"patience": 1}}  # two validations alike end it
    one, two = small.make("one", 4, **settings), small.make("two", 1, **settings)
    train(one)
    small.launch(
        "import runpy; runpy.run_module('model.run_training', run_name='__main__')", small.file(two)
    )
    assert_same_training(small, two, one)
    assert read_json(two.output / "checkpoint-2" / "checkpoint.json")["made_with"] == {
        **read_json(one.output / "checkpoint-2" / "checkpoint.json")["made_with"],
        "prompts_per_device": 1,
        "num_devices": 2,
    }
    asked = [read_jsonl(run.output / "metrics.jsonl") for run in (one, two)]
    accuracies = [[row["validation_accuracy"] for row in rows] for rows in asked]
    assert accuracies[0] == accuracies[1]
    shutil.rmtree(two.output / "checkpoint-2")
    train(small.make("two", 2, **settings, gradient_checkpointing=True))
    assert_same_training(small, two, one)


def test_a_step_that_does_not_divide_is_refused_with_the_nearest_that_do(small: Small) -> None:
    with pytest.raises(PipelineError) as refusal:
        train(small.make("one", 3))
    assert str(refusal.value) == (
        "training small: prompts_per_step 4 does not divide into 1 device(s) with "
        "prompts_per_device 3; the nearest that do: prompts_per_step 3 or 6, or "
        "prompts_per_device 2 or 4"
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("sharding", "family"),
    [
        ("zero2", "qwen2_audio"),
        ("fsdp", "qwen2_audio"),
        pytest.param("zero2", "qwen2_5_omni", marks=pytest.mark.long),
        pytest.param("fsdp", "qwen2_5_omni", marks=pytest.mark.long),
        pytest.param("fsdp", "qwen3_omni", marks=pytest.mark.long),
    ],
)
def test_a_sharded_training_is_that_of_one_process_and_resumes_bit_for_bit(
    small: Small, sharding: str, family: str
) -> None:
    model = build_tiny(
        small.folder / family, [QUESTION, *SOUNDS], clip_length_s=3.0, seed=0, family=family
    )
    small = small._replace(model=model)
    long = {"grpo": GRPO | {"max_completion_tokens": 120}}  # other lengths on each process
    one = small.make("one", 2, **long)
    sharded = small.make(
        "sharded",
        1,
        sharding=sharding,
        save_steps=1,
        decode="captured",  # fsdp goes on eagerly
        gradient_checkpointing=sharding == "fsdp",
        **long,
    )
    train(one)
    small.launch(SHARDED_WORKER, small.file(sharded), sharded.output)
    assert_same_training(small, sharded, one)
    at_once, resumed = (
        load_file(folder / "model.safetensors")
        for folder in (small.folder / "sharded-at-once", sharded.output / "checkpoint-2")
    )
    assert all(torch.equal(tensor, at_once[name]) for name, tensor in resumed.items())
    assert not list(sharded.output.rglob("pytorch_model_fsdp*"))  # the weights a second time
