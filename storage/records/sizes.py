"""How large a network is, as transformers' own model says on the meta device.

What memory and work are estimated from. A model that is published has its sizes in sizes.json;
others are measured by a child (model/network/measure.py), which has torch.
"""

import json
from pathlib import Path

from storage.config import Config

PUBLISHED = Path(__file__).with_name("sizes.json")


class ModelSizes(Config):
    """Parameters and widths of a network."""

    parameters: dict[str, int]
    """Of each part that can learn: audio_encoder, projector, language_model."""
    text_layers: int
    """Layers of the language model."""
    text_layer: int
    """Parameters of one of them."""
    text_layer_active: int
    """Of these, the ones that one token goes through; fewer where there are experts."""
    text_width: int
    text_ffn_width: int
    """Over all experts that one token goes through."""
    text_kv_width: int
    """Width of keys and of values, over all their heads."""
    vocabulary: int
    adapted: dict[str, int]
    """Input and output widths of the layers of each name in which an adapter can lie, over all
    text layers: rank times this is its parameters."""
    encoder_layers: int
    encoder_layer: int
    """Parameters of one layer of the audio encoder."""
    encoder_width: int
    encoder_ffn_width: int
    encoder_positions: int
    """Of a clip of 30 s; 1,500 where each is two mel frames."""

    @property
    def total(self) -> int:
        """Parameters of all parts."""
        return sum(self.parameters.values())


def published_sizes(name: str) -> ModelSizes | None:
    """The sizes of a model that is known by its name on the hub."""
    known = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return ModelSizes.model_validate(known[name]) if name in known else None
