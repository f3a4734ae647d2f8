"""Sizes on the meta device: those kept in sizes.json are what transformers' own models have."""

import json
from typing import Any

import pytest
import torch

from model.network.family import known_families
from model.network.measure import measure
from storage.records.sizes import PUBLISHED, ModelSizes, published_sizes

WHISPER = {
    "num_mel_bins": 128,
    "encoder_layers": 32,
    "d_model": 1280,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "max_source_positions": 1500,
}
# What the hub's config.json of each says.
QWEN2_AUDIO = {
    "audio_config": {"model_type": "qwen2_audio_encoder", **WHISPER},
    "text_config": {
        "model_type": "qwen2",
        "vocab_size": 156_032,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11_008,
        "tie_word_embeddings": False,
    },
}
OMNI_3B = {
    "audio_config": {**WHISPER, "output_dim": 2048},
    "text_config": {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
}
OMNI_7B = {
    "audio_config": {**WHISPER, "output_dim": 3584},
    "text_config": {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
OMNI_30B = {
    "audio_config": {**WHISPER, "output_dim": 2048, "downsample_hidden_size": 480},
    "text_config": {
        "vocab_size": 152_064,
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "head_dim": 128,
        "num_key_value_heads": 4,
    },
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen2-Audio-7B-Instruct": ("qwen2_audio", QWEN2_AUDIO),
    "Qwen/Qwen2-Audio-7B": ("qwen2_audio", QWEN2_AUDIO),
    "Qwen/Qwen2.5-Omni-3B": ("qwen2_5_omni", OMNI_3B),
    "Qwen/Qwen2.5-Omni-7B": ("qwen2_5_omni", OMNI_7B),
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": ("qwen3_omni", OMNI_30B),
    "Qwen/Qwen3-Omni-30B-A3B-Thinking": ("qwen3_omni", OMNI_30B),
}


def measured(name: str) -> ModelSizes:
    family_name, settings = CONFIGS[name]
    family = known_families()[family_name]
    with torch.device("meta"):
        config: Any = family.network.config_class
        return measure(family.network(family.network_config(config(**settings))))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_sizes_of_a_published_model_are_those_of_transformers_own(name: str) -> None:
    assert published_sizes(name) == measured(name)


def test_only_published_models_with_a_known_config_have_kept_sizes() -> None:
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")).keys() == CONFIGS.keys()
    assert published_sizes("org/unknown") is None


def test_one_token_goes_through_8_of_128_experts() -> None:
    """30 B parameters, 3.3 B of them at a time: 2.7 in the layers, 0.6 in two vocabularies."""
    sizes = measured("Qwen/Qwen3-Omni-30B-A3B-Instruct")
    assert sizes.parameters["language_model"] / 1e9 == pytest.approx(30.5, abs=0.1)
    assert sizes.text_layers * sizes.text_layer_active / 1e9 == pytest.approx(2.73, abs=0.05)
