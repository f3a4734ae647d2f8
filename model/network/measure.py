"""Sizes of a network, told by its layers on the meta device: no weight is read."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from model.network.family import family_of_network, part_of
from model.network.loading import read_config
from storage.jsonl import write_text
from storage.records.sizes import ModelSizes

FRAMES_OF_30_S = 3000


def measure(network: PreTrainedModel) -> ModelSizes:
    """Count a network's parameters by part, and take its widths from its layers."""
    family = family_of_network(network)
    parameters: dict[str, int] = {}
    for name, parameter in network.named_parameters():
        part = part_of(name, family)
        if part is not None:
            parameters[part] = parameters.get(part, 0) + parameter.numel()
    adapted: dict[str, int] = {}
    for name, module in network.named_modules():
        found = re.fullmatch(rf"{family.adapted}\.([^.]+)", name)
        if found and isinstance(module, nn.Linear):
            widths = module.in_features + module.out_features
            adapted[found[1]] = adapted.get(found[1], 0) + widths
    inner: Any = network.model
    text: Any = network.config.get_text_config()
    audio = network.config.audio_config
    layer = inner.language_model.layers[0]
    in_experts = sum(p.numel() for name, p in layer.named_parameters() if ".experts." in name)
    ffn_width, idle = text.intermediate_size, 0
    if in_experts:
        ffn_width = text.num_experts_per_tok * text.moe_intermediate_size
        idle = in_experts - in_experts * text.num_experts_per_tok // text.num_experts
    return ModelSizes(
        parameters=parameters,
        text_layers=text.num_hidden_layers,
        text_layer=_count(layer),
        text_layer_active=_count(layer) - idle,
        text_width=text.hidden_size,
        text_ffn_width=ffn_width,
        text_kv_width=layer.self_attn.k_proj.out_features,
        vocabulary=text.vocab_size,
        adapted=adapted,
        encoder_layers=audio.encoder_layers,
        encoder_layer=_count(inner.audio_tower.layers[0]),
        encoder_width=audio.d_model,
        encoder_ffn_width=audio.encoder_ffn_dim,
        encoder_positions=family.positions_per_token * family.num_audio_tokens(FRAMES_OF_30_S),
    )


def measure_config(name: str | Path) -> ModelSizes:
    """The sizes of a model that is not loaded.

    Args:
        name: Folder or hub name.

    Raises:
        PipelineError: If its config cannot be had or is of no known family.
    """
    family, config = read_config(name)
    with torch.device("meta"):
        return measure(family.network(config))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def write_sizes(model: str, file: str) -> None:
    """Keep a model's sizes in a file."""
    write_text(Path(file), measure_config(model).model_dump_json())
