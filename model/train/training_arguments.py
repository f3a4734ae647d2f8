"""A training's settings in transformers' and accelerate's words: schedule, precision, sharding."""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from model.config import TrainConfig


def training_arguments(config: TrainConfig, output: Path) -> TrainingArguments:
    """The settings in transformers' words."""
    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    on_gpu = torch.cuda.is_available()
    sharding = _sharding(config)
    # Otherwise each GPU would add up whole fp32 gradients until the last micro-batch: 34 GB.
    accumulation = {"sync_each_batch": True} if sharding is not None else None
    return TrainingArguments(
        output_dir=str(output),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.prompts_per_device,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=config.precision == "bf16-mixed",
        use_cpu=not on_gpu,
        ddp_backend=("nccl" if on_gpu else "gloo") if world_size() > 1 else None,
        ddp_find_unused_parameters=False,
        activation_checkpointing=config.gradient_checkpointing,
        accelerator_config={"gradient_accumulation_kwargs": accumulation},
        fsdp_config=sharding,
        fsdp=sharding is not None,  # pyright: ignore[reportArgumentType]  its docs ask for a bool
        use_cache=True,  # goes into the saved config; training passes it by hand
        seed=config.seed,
        data_seed=config.seed,
        train_sampling_strategy="sequential",  # the data set has its own order
        ignore_data_skip=True,  # the data set starts at the resumed step
        dataloader_num_workers=config.dataloader_workers,
        dataloader_prefetch_factor=4 if config.dataloader_workers else None,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=config.save_steps,
        logging_strategy="steps" if config.report_to else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        run_name=config.name,
        disable_tqdm=True,
        average_tokens_across_devices=False,
    )


def _sharding(config: TrainConfig) -> dict[str, Any] | None:
    """FSDP2's settings; None on one device, where there is nothing to split."""
    if config.sharding == "none" or world_size() == 1:
        return None
    return {
        "version": 2,
        "transformer_layer_cls_to_wrap": ["Qwen2AudioEncoderLayer", "Qwen2DecoderLayer"],
        "reshard_after_forward": config.sharding == "fsdp",
        "state_dict_type": "FULL_STATE_DICT",
    }


def keep_log_probabilities_exact(accelerator: Accelerator) -> None:
    """Undo accelerate's choice for bf16: FSDP would round outputs and gradient sums to it."""
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
        )


def world_size() -> int:
    """Training processes, as torchrun tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes the files."""
    return os.environ.get("RANK", "0") == "0"


def own_optimizer(
    config: TrainConfig,
) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """An optimiser that transformers does not know by name; None: it makes AdamW itself."""
    if config.optimizer == "adamw":
        return None
    from torchao.optim import AdamW8bit  # noqa: PLC0415  prints about missing CUDA files on import

    rate = config.grpo.learning_rate if config.method == "grpo" else config.sft.learning_rate
    return AdamW8bit, {
        "lr": rate,
        "weight_decay": config.weight_decay,
        "bf16_stochastic_round": True,
    }
