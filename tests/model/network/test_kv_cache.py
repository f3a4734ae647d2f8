"""The cache with room holds what transformers' own holds."""

import torch
from transformers import DynamicCache, Qwen2AudioConfig

from model.network.kv_cache import make_room, roomy_cache, token_bytes


def test_the_cache_holds_what_transformers_own_holds_and_the_read_keys_stay():
    ours, theirs = roomy_cache(), DynamicCache()
    generator = torch.Generator().manual_seed(0)
    for layer in range(2):
        keys, values = torch.randn(2, 3, 4, 7, 8, generator=generator)
        for cache in (ours, theirs):
            for part in (slice(5), slice(5, None)):  # a beginning, and what follows it
                cache.update(keys[:, :, part], values[:, :, part], layer)
    read = [layer.keys.clone() for layer in theirs.layers]
    room = make_room(ours, 7 + 3 * 5 + 1, 3)
    for step in range(5):
        room.num_seen = 7 + 3 * (step + 1)
        for layer in range(2):
            keys, values = torch.randn(2, 3, 4, 3, 8, generator=generator)
            expected = theirs.update(keys, values, layer)
            assert all(map(torch.equal, ours.update(keys, values, layer), expected))
        room.place_G += 3
    room.num_seen += 1
    room.place_G = room.place_G[:0]
    seen, _ = ours.update(keys[:, :, :0], values[:, :, :0], 0)
    assert not seen[:, :, -1].any()  # nothing that a hidden place could spoil a sum with
    assert torch.equal(seen[:, :, :7], read[0])


def test_a_token_of_the_published_model_takes_half_a_mebibyte():
    """Keys and values of 4096 numbers of 2 bytes in 32 layers."""
    text = {"model_type": "qwen2", "hidden_size": 4096, "num_hidden_layers": 32}
    config = Qwen2AudioConfig(
        text_config={**text, "num_attention_heads": 32, "num_key_value_heads": 32}
    )
    assert token_bytes(config, element_bytes=2) == 2 * 4096 * 2 * 32


def test_values_keep_the_type_that_autocast_gives_them():
    """Keys are rotated in fp32; kept in another type, values could not be written behind those."""
    cache = roomy_cache()
    keys, values = torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2, dtype=torch.bfloat16)
    cache.update(keys, values, 0)
    make_room(cache, 4, 1).num_seen = 4
    found = cache.update(keys[:, :, :1], values[:, :, :1], 0)
    assert [tensor.dtype for tensor in found] == [torch.float32, torch.bfloat16]
