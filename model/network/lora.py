"""Low-rank adapters on the language model; with the adapter off, the base is GRPO's reference."""

import re
from pathlib import Path
from typing import cast

import peft
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from model.config import LoraConfig
from model.network.family import family_of_network


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> nn.Module:
    """Put fresh adapters on the language model's layers; nothing else learns.

    The layers are named by a pattern, because the audio encoder has `q_proj`, `k_proj` and `v_proj`
    as well; the towers are also excluded by name, as peft 0.21 takes a mixture of experts' pattern
    for the last names of what it fits.
    """
    names = "|".join(re.escape(name) for name in config.target_modules)
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]  peft says int and computes alpha / r
            lora_dropout=config.dropout,
            target_modules=rf"{family_of_network(model).adapted}\.({names})",
            exclude_modules=r".*\.(audio_tower|visual)\..*",
        ),
    )


def load_adapter(model: PreTrainedModel, folder: Path) -> nn.Module:
    """Put saved adapters on the language model, to train on."""
    return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def without_adapter(model: nn.Module) -> PreTrainedModel:
    """The model inside peft's wrapper, adapters in its layers; any other model as it is."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast("PreTrainedModel", inner)
