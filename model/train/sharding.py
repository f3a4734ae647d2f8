"""One process or many: what accelerate is told, and what it spreads over them."""

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy

from model.config import TrainConfig

# While the main process reads: 34 GB from a slow disk take longer than NCCL's 10 minutes.
WAIT = timedelta(minutes=30)


def make_accelerator(config: TrainConfig, layers: Sequence[str]) -> Accelerator:
    """Accelerate as the settings ask for it; layers of these classes are sharded one by one."""
    sharding = None
    if config.sharding != "none" and world_size() > 1:
        sharding = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            reshard_after_forward=config.sharding == "fsdp",
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=list(layers),
            state_dict_type="FULL_STATE_DICT",
            cpu_ram_efficient_loading=False,
        )
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if config.precision == "bf16-mixed" else "no",
        fsdp_plugin=sharding,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)],
    )
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.mixed_precision_policy is not None:
        # accelerate's choice for bf16 would round outputs, and the sums of gradients, to it.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
        )
    return accelerator


def share_weights(accelerator: Accelerator, policy: nn.Module, weights: dict[str, Any]) -> None:
    """Give every process the weights that the main one alone has read; DDP does so by itself."""
    if is_sharded(accelerator):
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(policy, weights, options=options)
        share(accelerator, policy.buffers())


def share(accelerator: Accelerator, tensors: Iterable[Tensor]) -> None:
    """Give every process the numbers of the main one."""
    if accelerator.num_processes > 1:
        for tensor in tensors:
            torch.distributed.broadcast(tensor.detach(), 0)


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether weights and optimiser are spread over the processes."""
    return bool(accelerator.is_fsdp2)


def gradient_sync(
    accelerator: Accelerator, policy: nn.Module, *, is_last: bool
) -> AbstractContextManager[None]:
    """How a micro-batch's gradients meet those of other processes: once a step, with the last.

    Sharded ones are spread after every micro-batch: each GPU would else add up whole fp32 gradients
    until the last, 34 GB for the 7B.
    """
    if is_last or is_sharded(accelerator):
        return nullcontext()
    return accelerator.no_sync(policy)


def world_size() -> int:
    """Training processes, as torchrun tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes the files."""
    return os.environ.get("RANK", "0") == "0"
