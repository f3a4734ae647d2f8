"""What differs between kinds of models that hear; everything else in this room serves all of them.

A family is one module of this room that holds `FAMILY`. Nothing else names it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
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


_REGISTERED: dict[str, Family] = {}


def register(family: Family) -> None:
    """Make a family known that has no module here."""
    _REGISTERED[family.name] = family


def family_of(model_type: str) -> Family | None:
    """The family of a model's config; None if there is none."""
    families = known_families().values()
    return next((family for family in families if model_type in family.model_types), None)


def family_of_network(network: PreTrainedModel) -> Family:
    """The family of a loaded network."""
    family = family_of(network.config.model_type)
    if family is None:
        msg = f"a {network.config.model_type} is of no known family"
        raise ValueError(msg)
    return family


def family_of_processor(processor: ProcessorMixin) -> Family:
    """The family of a loaded processor."""
    families = known_families().values()
    return next(family for family in families if type(processor) is family.processor)


def known_families() -> Mapping[str, Family]:
    """By name."""
    return _found() | _REGISTERED


@cache
def _found() -> dict[str, Family]:
    """Families by the modules of this room that hold one."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    families = [getattr(module, "FAMILY", None) for module in modules]
    return {family.name: family for family in families if isinstance(family, Family)}
