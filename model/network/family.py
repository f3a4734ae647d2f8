"""What differs between kinds of models that hear; everything else in this room serves all of them.

A family is one module of this room, named as transformers' `model_type`, that holds `FAMILY`.
Nothing else names it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from model.config import PartName


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of model: transformers' classes, and how its audio becomes tokens.

    Its network has `model.language_model`, `lm_head` and an audio token in its vocabulary, and its
    processor Whisper's features and a chat template.
    """

    model_type: str
    """Transformers' name, e.g. `qwen2_audio`."""
    network: type[PreTrainedModel]
    """Transformers' class, loaded and saved as it is."""
    processor: type[ProcessorMixin]
    """Transformers' class."""
    encode: Callable[[Any, Tensor, Tensor], Tensor]
    """From the network, mel features (B, M, F) and numbers of real frames (B,) to the audio tokens
    of all clips one after another, (N, D)."""
    num_audio_tokens: Callable[[int], int]
    """Tokens of a clip by its number of real mel frames, 100 a second."""
    audio_token_id: Callable[[Any], int]
    """The id in whose place the audio is put, by the network's config."""
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
    build_tiny: Callable[..., Path]
    """Writes a small model of random weights with its processor, see tiny.py."""


_REGISTERED: dict[str, Family] = {}


def register(family: Family) -> None:
    """Make a family known that has no module here."""
    _REGISTERED[family.model_type] = family


def family_of(model_type: str) -> Family | None:
    """The family of a model's config; None if there is none."""
    return _families().get(model_type)


def family_of_network(network: PreTrainedModel) -> Family:
    """The family of a loaded network."""
    return _families()[network.config.model_type]


def family_of_processor(processor: ProcessorMixin) -> Family:
    """The family of a loaded processor."""
    families = _families().values()
    return next(family for family in families if isinstance(processor, family.processor))


def known_families() -> list[str]:
    """Their names."""
    return sorted(_families())


def _families() -> Mapping[str, Family]:
    return _found() | _REGISTERED


@cache
def _found() -> dict[str, Family]:
    """Families by the modules of this room that hold one."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    families = [getattr(module, "FAMILY", None) for module in modules]
    return {family.model_type: family for family in families if isinstance(family, Family)}
