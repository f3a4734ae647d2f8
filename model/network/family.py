"""What differs between kinds of models that hear; everything else in this room serves all of them.

A family is one module of this room that holds `FAMILY`. Nothing else names it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    WhisperFeatureExtractor,
)

from model.config import PartName
from storage.errors import PipelineError


class TinyParts(NamedTuple):
    """What a small model of random weights is made of, see tiny.py."""

    tokenizer: PreTrainedTokenizerFast
    extractor: WhisperFeatureExtractor
    audio: dict[str, Any]
    """Settings of the audio encoder, as Whisper's."""
    text: dict[str, Any]
    """Settings of the language model, as Qwen2's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of model: transformers' classes, and how its audio becomes tokens.

    Its network has `model.audio_tower`, `model.language_model` and `lm_head`, and its processor
    Whisper's features and a chat template.
    """

    name: str
    """Of its module; its tiny model is `random:tiny-<name>`."""
    model_types: tuple[str, ...]
    """Transformers' names of the configs in which its network is found, its own first."""
    network: type[PreTrainedModel]
    """Transformers' class, loaded and saved as it is."""
    network_config: Callable[[Any], Any] = lambda config: config
    """From a checkpoint's config to the network's own, where that is a part of it."""
    processor: type[ProcessorMixin]
    """Transformers' class, or one that reads its files."""
    encode: Callable[[Any, Tensor, Tensor], Tensor]
    """From the network, mel features (B, M, F) and numbers of real frames (B,) to the audio tokens
    of all clips one after another, (N, D)."""
    num_audio_tokens: Callable[[int], int]
    """Tokens of a clip by its number of real mel frames, 100 a second."""
    positions_per_token: int = 2
    """Positions of the audio encoder that are pooled into one token."""
    special_tokens: tuple[str, ...]
    """Of the chat template; the first is the one in whose place the audio is put."""
    stop_tokens: tuple[str, ...] = ()
    """End a completion, besides what tokenizer and model name."""
    parts: Mapping[PartName, tuple[str, ...]]
    """Where each part's parameters are, as beginnings of transformers' names."""
    idle: tuple[str, ...] = ()
    """Parameters that no question about audio reaches, as beginnings of their names, e.g. a vision
    tower's; they never learn."""
    layers: tuple[str, ...]
    """Class names of the layers that are sharded one by one."""
    adapted: str
    """Pattern of the names of modules in which adapters may lie, to be followed by a layer's."""
    as_mask: Callable[[Any], Any] = lambda mask: mask
    """The form in which its language model takes an attention mask of four axes."""
    tiny: Callable[[TinyParts], tuple[ProcessorMixin, PretrainedConfig]]
    """Processor and config of a small model."""

    @property
    def audio_token(self) -> str:
        """The token in whose place the audio is put."""
        return self.special_tokens[0]


def family_of(model_type: str) -> Family | None:
    """The family of a model's config; None if there is none."""
    families = known_families().values()
    return next((family for family in families if model_type in family.model_types), None)


def family_of_network(network: PreTrainedModel) -> Family:
    """The family of a loaded network."""
    families, model_type = known_families().values(), network.config.model_type
    return next(family for family in families if model_type in family.model_types)


def family_of_processor(processor: ProcessorMixin) -> Family:
    """The family of a loaded processor."""
    families = known_families().values()
    return next(family for family in families if type(processor) is family.processor)


@cache
def known_families() -> Mapping[str, Family]:
    """By name: those of the modules of this room that hold one."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    families = [getattr(module, "FAMILY", None) for module in modules]
    return {family.name: family for family in families if isinstance(family, Family)}


def part_of(parameter_name: str, family: Family) -> PartName | None:
    """The part that a parameter belongs to; None for one that no question reaches."""
    for part, beginnings in family.parts.items():
        if parameter_name.startswith(beginnings):
            return part
    if parameter_name.startswith(family.idle):
        return None
    msg = (
        f"the parameter {parameter_name} is in no part of a {family.name}: expected one of "
        f"{family.parts}"
    )
    raise ValueError(msg)


def freeze_parts(model: PreTrainedModel, parts: Sequence[PartName]) -> None:
    """Stop parts from learning.

    Raises:
        PipelineError: If that leaves nothing to learn.
    """
    family = family_of_network(model)
    for name, parameter in model.named_parameters():
        if part_of(name, family) in parts:
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        msg = f"freeze {list(parts)} leaves nothing to train: take a part out of it"
        raise PipelineError(msg)
