"""How large a Qwen2-Audio is: parameters by part, counted from its config without loading it."""

# pyright: strict

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import PartName
from storage.errors import PipelineError
from storage.jsonl import read_json


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes that decide memory and work; the defaults are Qwen2-Audio-7B's."""

    num_mel_bins: int = 128
    encoder_layers: int = 32
    encoder_width: int = 1280
    encoder_ffn_width: int = 5120
    encoder_positions: int = 1500
    text_layers: int = 32
    text_width: int = 4096
    text_ffn_width: int = 11_008
    text_kv_width: int = 4096
    """Width of keys and of values, over all their heads."""
    vocabulary: int = 156_032

    @property
    def num_parameters(self) -> dict[PartName, int]:
        """Parameters of each part; 8.4 billion in all for the real one."""
        width, ffn = self.encoder_width, self.encoder_ffn_width
        convolutions = 3 * width * (self.num_mel_bins + width) + 2 * width
        # q, k, v, out with three biases; two ffn layers with theirs; two norms with two vectors.
        encoder_layer = 4 * width**2 + 3 * width + 2 * width * ffn + ffn + width + 4 * width
        encoder = convolutions + self.encoder_positions * width + 2 * width
        encoder += self.encoder_layers * encoder_layer
        embeddings = 2 * self.vocabulary * self.text_width
        return {
            "audio_encoder": encoder,
            "projector": (width + 1) * self.text_width,
            "language_model": self.text_layers * self.text_layer + embeddings + self.text_width,
        }

    @property
    def text_layer(self) -> int:
        """Parameters of one layer of the language model."""
        width, kv_width = self.text_width, self.text_kv_width
        attention = 2 * width**2 + width + 2 * (width + 1) * kv_width
        return attention + 3 * width * self.text_ffn_width + 2 * width


def read_sizes(model: str) -> ModelSizes:
    """The sizes of a model folder; a hub name is taken for the 7B, whose sizes are known.

    Raises:
        PipelineError: If the folder's config.json is not a Qwen2-Audio's.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        return ModelSizes()
    config: dict[str, Any] = read_json(path)
    try:
        audio, text = config["audio_config"], config["text_config"]
        head_width = text["hidden_size"] // text["num_attention_heads"]
        return ModelSizes(
            num_mel_bins=audio["num_mel_bins"],
            encoder_layers=audio["encoder_layers"],
            encoder_width=audio["d_model"],
            encoder_ffn_width=audio["encoder_ffn_dim"],
            encoder_positions=audio["max_source_positions"],
            text_layers=text["num_hidden_layers"],
            text_width=text["hidden_size"],
            text_ffn_width=text["intermediate_size"],
            text_kv_width=text["num_key_value_heads"] * head_width,
            vocabulary=text["vocab_size"],
        )
    except KeyError as error:
        msg = f"{path} lacks {error}: expected the config of a Qwen2-Audio as transformers saves it"
        raise PipelineError(msg) from error
