"""The optimiser and the course of its learning rate."""

from typing import Any

import torch
from torch import nn
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from model.config import TrainConfig

# Parameters without weight decay, as transformers.Trainer chooses them.
UNDECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]

Scheduler = torch.optim.lr_scheduler.LRScheduler


def make_optimizer(policy: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over what learns; biases and norms do not decay."""
    decayed = set(get_parameter_names(policy, [nn.LayerNorm], UNDECAYED))
    learning = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for name, parameter in learning if name in decayed],
            "weight_decay": config.weight_decay,
        },
        {
            "params": [parameter for name, parameter in learning if name not in decayed],
            "weight_decay": 0.0,
        },
    ]
    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    from torchao.optim import AdamW8bit  # noqa: PLC0415  prints about missing CUDA files on import

    return AdamW8bit(groups, lr=rate, bf16_stochastic_round=True)


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Scheduler:
    """The course of the learning rate, from transformers."""
    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=config.max_steps,
    )
