"""The network that learns, behind one contract: its forward does whatever it is given to do.

DDP and FSDP synchronise only what goes through the forward of the module that they wrap, and a
rollout, a packed pass and a reference pass are three different things to do with one network.

Its adapters (arXiv 2106.09685) lie on the language model's layers; with them off, it is GRPO's
reference.

Axes: B prompts, T tokens of a packed row, D width.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import peft
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.config import LoraConfig
from model.network.family import family_of_network
from storage.records.model import ModelRef

Done = TypeVar("Done")
PREFIX = "network."  # of its parameters' names, which no file has


class Policy(nn.Module):
    """A network, perhaps with adapters, that is called with what to do."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a model of transformers, or peft's wrapper of one."""
        super().__init__()
        self.network = network

    def forward(self, run: Callable[[PreTrainedModel], Done]) -> Done:
        """Call `run` with the network, adapters in its layers, and return what it returns."""
        return run(without_adapter(self.network))


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> nn.Module:
    """Put fresh adapters on the language model's layers; nothing else learns.

    The layers are named by a pattern, because the audio encoder has `q_proj`, `k_proj` and `v_proj`
    as well; the towers are also excluded by name, as peft 0.21 takes a mixture of experts' pattern
    for the last names of what it fits.
    """
    names = "|".join(re.escape(name) for name in config.target_modules)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]  peft says int and computes alpha / r
        lora_dropout=config.dropout,
        target_modules=rf"{family_of_network(model).adapted}\.({names})",
        exclude_modules=r".*\.(audio_tower|visual)\..*",
    )
    return _with_placed_dropout(peft.get_peft_model(model, settings))


def load_adapter(model: PreTrainedModel, folder: Path) -> nn.Module:
    """Put saved adapters on the language model, to train on."""
    return _with_placed_dropout(PeftModel.from_pretrained(model, str(folder), is_trainable=True))


def name_base(model: nn.Module, start: ModelRef, training: Path) -> nn.Module:
    """Let the adapter's checkpoints name their base without this machine's paths.

    Args:
        model: With an adapter.
        start: The base.
        training: Folder that the checkpoints will lie in; `<workspace>/<experiment>/training/NAME`.
    """
    name = start.public_name
    if Path(start.path).is_relative_to(training.parents[2]):
        name = os.path.relpath(start.path, training / "checkpoint")
    if isinstance(model, PeftModel):
        model.active_peft_config.base_model_name_or_path = name
    return model


def without_adapter(model: nn.Module) -> PreTrainedModel:
    """The model inside peft's wrapper, adapters in its layers; any other model as it is."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast("PreTrainedModel", inner)


class PlacedDropout(nn.Module):
    """Dropout by the seed, the prompt's position in the run and the token's place behind it.

    So a step drops the same on any number of devices, however its prompts are batched and padded,
    and again where activations are computed twice.
    """

    def __init__(self, share: float, layer_index: int) -> None:
        """Keep the share to drop; each layer draws otherwise."""
        super().__init__()
        self.key_BT = torch.zeros(1, 1, dtype=torch.long)
        self._share = share
        self._first = layer_index << 32

    def forward(self, values_BTD: Tensor) -> Tensor:
        """Drop, and scale what is left up to the same mean; nothing in evaluation."""
        if not self.training:
            return values_BTD
        place_D = torch.arange(values_BTD.shape[-1], device=values_BTD.device) + self._first
        drawn_BTD = mixed(self.key_BT.unsqueeze(-1) + mixed(place_D)) & 0xFFFFFF
        kept_BTD = drawn_BTD >= self._share * (1 << 24)
        return torch.where(kept_BTD, values_BTD / (1 - self._share), 0.0)


def place_tokens(model: nn.Module, key_BT: Tensor) -> None:
    """Tell the dropout of a model's adapters which token lies where, until the next call."""
    for module in model.modules():
        if isinstance(module, PlacedDropout):
            module.key_BT = key_BT


def mixed(number: Tensor) -> Tensor:
    """Int64 as good as random and always the same: the finaliser of SplitMix64."""
    number = (number ^ (number >> 30)) * -4658895280553007687
    number = (number ^ (number >> 27)) * -7723592293110705685
    return number ^ (number >> 31)


def _with_placed_dropout(model: nn.Module) -> nn.Module:
    for index, module in enumerate(list(model.modules())):
        for name, child in module.named_children():
            if isinstance(module, nn.ModuleDict) and isinstance(child, nn.Dropout):
                module[name] = PlacedDropout(child.p, index)
    return model
