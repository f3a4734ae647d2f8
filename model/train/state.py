"""A run's state: its optimiser and schedule, written whole or not at all, taken up bit for bit."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from peft import PeftModel
from pydantic import JsonValue
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import LambdaLR
from transformers import ProcessorMixin, get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from model import checkpoints
from model.config import CheckpointsConfig, PartName, TrainConfig
from model.network.family import family_of_network, part_of
from model.network.loading import load_model
from model.network.policy import PREFIX, Policy
from storage.jsonl import write_text

# Parameters without weight decay, as transformers.Trainer chooses them.
UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def make_optimizer(policy: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over what learns; biases and norms do not decay."""
    decayed = set(get_parameter_names(policy, [nn.LayerNorm], UNDECAYED))
    learning = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    decaying = [parameter for name, parameter in learning if name in decayed]
    others = [parameter for name, parameter in learning if name not in decayed]
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    from torchao.optim import AdamW8bit  # noqa: PLC0415  prints about missing CUDA files on import

    return AdamW8bit(groups, lr=rate, bf16_stochastic_round=True)


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps_done: int
) -> LambdaLR:
    """The course of the learning rate, from transformers, as it stands after some steps."""
    scheduler: Any = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=config.max_steps,
    )
    pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    rates = [base * course(steps_done) for base, course in pairs]
    place = {"last_epoch": steps_done, "_step_count": steps_done + 1, "_last_lr": rates}
    scheduler.load_state_dict(scheduler.state_dict() | place)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return scheduler


class State:
    """What of a run goes into its checkpoints."""

    def __init__(
        self, accelerator: Accelerator, policy: Policy, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keep what accelerate has prepared."""
        self._accelerator = accelerator
        self._policy = policy
        self._optimizer = optimizer

    def save(
        self,
        output: Path,
        step: int,
        *,
        processor: ProcessorMixin,
        card: str,
        settings: dict[str, JsonValue],
        made_with: dict[str, JsonValue],
        kept: CheckpointsConfig,
    ) -> None:
        """Write a checkpoint beside its place, then move it there when it is whole.

        Args:
            output: Folder of the training.
            step: Optimiser steps done.
            processor: Of the model.
            card: The model card.
            settings: What a resumed run must share.
            made_with: What it need not.
            kept: What of earlier checkpoints stays.

        Raises:
            PipelineError: If the disk is full; says what to do.
        """
        accelerator = self._accelerator
        folder = output / checkpoints.SAVING / f"checkpoint-{step}"
        if accelerator.is_main_process:
            checkpoints.discard_unfinished(output)
            folder.mkdir(parents=True)
        accelerator.wait_for_everyone()
        with checkpoints.naming_a_full_disk(folder):
            self._save_into(folder)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                processor.save_pretrained(folder)
                (folder / "README.md").write_text(card, encoding="utf-8")
                checkpoints.seal(folder, settings, made_with)
                checkpoints.publish(folder, output)
                checkpoints.discard_unfinished(output)
                checkpoints.strip_old(output, kept)
        accelerator.wait_for_everyone()

    def _save_into(self, folder: Path) -> None:
        """All processes take part: they gather what is sharded."""
        accelerator = self._accelerator
        weights: Any = accelerator.get_state_dict(self._policy)
        if accelerator.is_main_process:
            network: Any = accelerator.unwrap_model(self._policy).network
            named = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
            if accelerator.mixed_precision == "bf16" and not isinstance(network, PeftModel):
                network.save_pretrained(str(folder / checkpoints.MASTERS), state_dict=named)
                named = {name: tensor.to(torch.bfloat16) for name, tensor in named.items()}
            network.save_pretrained(str(folder), state_dict=named)
            if (folder / checkpoints.MASTERS).is_dir():
                told = (folder / "config.json").read_text(encoding="utf-8")  # the masters' type
                write_text(folder / "config.json", told.replace('"float32"', '"bfloat16"'))
            del named, weights  # before the optimiser's state is gathered
        optimizer = get_optimizer_state_dict(
            self._policy,
            self._optimizer,
            options=StateDictOptions(full_state_dict=True, cpu_offload=True),
        )
        if accelerator.is_main_process:
            torch.save(optimizer, folder / checkpoints.OPTIMIZER)

    def load(self, folder: Path, rates: Sequence[float | Tensor]) -> None:
        """Take up the optimiser; the weights were loaded from it before.

        The schedule and every random draw follow from the step, so there is nothing else, and the
        state names parameters: it goes on over any number of devices, sharded or not.

        Args:
            folder: The checkpoint.
            rates: Learning rates of the step to come, which the schedule says.
        """
        accelerator = self._accelerator
        state: dict[str, Any] = {}
        if accelerator.is_main_process:
            state = torch.load(
                folder / checkpoints.OPTIMIZER, map_location="cpu", weights_only=True
            )
        set_optimizer_state_dict(
            self._policy,
            self._optimizer,
            state,
            options=StateDictOptions(
                full_state_dict=True, broadcast_from_rank0=accelerator.num_processes > 1
            ),
        )
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


class Movement(NamedTuple):
    """How far one part of the model moved from the start model."""

    num_parameters: int
    moved_share: float
    """Share of its weights that are not bit for bit what they were."""
    relative_change: float
    """Norm of the change over norm of the start, both over the whole part."""


def measure_movement(
    start: str | Path, trained: str | Path, config: TrainConfig
) -> dict[PartName, Movement]:
    """Compare two models on the CPU, adapters merged; needs memory for both.

    At the paper's learning rate a part moves by about 1e-5 of its norm; 0 for a part that should
    have learned says that its updates vanished in rounding or that it was frozen.
    """
    before = dict(load_model(start, precision=config.precision).named_parameters())
    model = load_model(trained, precision=config.precision)
    family = family_of_network(model)
    sums: dict[PartName, torch.Tensor] = defaultdict(lambda: torch.zeros(4, dtype=torch.float64))
    for name, weight in model.named_parameters():
        part = part_of(name, family)
        if part is None:
            continue
        old = before.pop(name).detach()
        change = weight.detach().float() - old.float()
        numbers = (weight.numel(), (change != 0).sum(), (change**2).sum(), (old.float() ** 2).sum())
        sums[part] += torch.tensor([float(number) for number in numbers]).double()
    return {
        part: Movement(int(number), float(moved / number), float((change / norm).sqrt()))
        for part, (number, moved, change, norm) in sums.items()
    }
