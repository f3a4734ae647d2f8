"""The cache with room holds what transformers' own holds."""

import torch
from transformers import Qwen2AudioConfig
from transformers.cache_utils import Cache, DynamicLayer

from model.network.kv_cache import ROOM, roomy_cache, token_bytes


def test_the_cache_holds_what_transformers_own_holds_past_several_growths():
    ours, theirs = roomy_cache(), Cache(layer_class_to_replicate=DynamicLayer)
    generator = torch.Generator().manual_seed(0)
    for num_tokens in (7, *[1] * (2 * ROOM), 5):
        for layer in range(2):
            keys, values = torch.randn(2, 3, 4, num_tokens, 8, generator=generator)
            expected = theirs.update(keys, values, layer)
            got = ours.update(keys, values, layer)
            assert all(map(torch.equal, got, expected))
    assert ours.get_seq_length() == theirs.get_seq_length() == 7 + 2 * ROOM + 5


def test_what_was_read_first_is_not_written_to():
    keys = torch.zeros(1, 1, 3, 2)
    before = keys.clone()
    cache = roomy_cache()
    cache.update(keys, keys, 0)
    cache.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), 0)
    assert torch.equal(keys, before)


def test_a_token_of_the_published_model_takes_half_a_mebibyte():
    """Keys and values of 4096 numbers of 2 bytes in 32 layers."""
    text = {"model_type": "qwen2", "hidden_size": 4096, "num_hidden_layers": 32}
    config = Qwen2AudioConfig(
        text_config={**text, "num_attention_heads": 32, "num_key_value_heads": 32}
    )
    assert token_bytes(config, element_bytes=2) == 2 * 4096 * 2 * 32
