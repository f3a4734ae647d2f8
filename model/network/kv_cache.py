"""Keys and values of read tokens, with room for those to come; what of them fits into memory."""

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

FREE_SHARE = 0.6  # of the free memory for keys and values; the rest reads the prompts

Row = TypeVar("Row")
Part = TypeVar("Part")


@dataclass
class Room:
    """Where a decoding step writes its keys and values, the same in every layer."""

    place_G: Tensor
    """Places of the step's tokens, int64; on the device, so that a captured step moves on."""
    num_seen: int = 0
    """Keys that the attention is given; it hides by its mask what is not written yet."""


class RoomyLayer(DynamicLayer):
    """One layer's keys and values; once it has room, new tokens are written in place.

    transformers' own layer copies all of them for every token: on the 7B 6.5 GB a step for 16
    prompts of 400 tokens, beside 15 GB of weights. It also gives values the keys' type, which
    autocast leaves in fp32.
    """

    room: Room | None = None

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ANN401  unused, as in transformers
        **kwargs: Any,  # noqa: ANN401  unused, as in transformers
    ) -> tuple[Tensor, Tensor]:
        """Add tokens; returns what is to be looked at, (B, heads, tokens, head width)."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        if self.room is None:
            return super().update(key_states, value_states)
        keys, values = cast("tuple[Tensor, Tensor]", (self.keys, self.values))
        keys.index_copy_(2, self.room.place_G, key_states)
        values.index_copy_(2, self.room.place_G, value_states)
        return keys[:, :, : self.room.num_seen], values[:, :, : self.room.num_seen]


def roomy_cache() -> Cache:
    """An empty cache."""
    return Cache(layer_class_to_replicate=RoomyLayer)


def make_room(cache: Cache, num_tokens: int, num_more: int) -> Room:
    """Give a cache room for so many tokens in all, of which a step adds `num_more`."""
    first: Any = cache.layers[0]
    num_read = first.keys.shape[2]
    room = Room(torch.arange(num_read, num_read + num_more, device=first.keys.device))
    for layer in cache.layers:
        read: Any = layer
        # Zeros, as what is hidden counts nothing times what lies there.
        missing = (0, 0, 0, num_tokens - num_read)
        read.keys, read.values = pad(read.keys, missing), pad(read.values, missing)
        read.room = room
    return room


def token_bytes(config: PreTrainedConfig, *, element_bytes: int) -> int:
    """Bytes of one token's keys and values in all layers; 0.5 MB in bf16 on Qwen2-Audio-7B."""
    text: Any = config.get_text_config()
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * head_width * element_bytes


def rows_that_fit(
    config: PreTrainedConfig, device: torch.device, *, num_tokens: float, element_bytes: int
) -> float:
    """How many rows of so many tokens a GPU's free memory holds; endless elsewhere."""
    if device.type != "cuda":
        return math.inf
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free_bytes = torch.cuda.mem_get_info(device)[0] + unused
    return FREE_SHARE * free_bytes / (num_tokens * token_bytes(config, element_bytes=element_bytes))


def in_groups(
    rows: Sequence[Row], size: int, run: Callable[[Sequence[Row]], Part]
) -> tuple[list[Part], int]:
    """Run on rows group by group, with half the size as often as memory runs out.

    Returns:
        What each group gave, and the size that went well.

    Raises:
        torch.OutOfMemoryError: If memory does not suffice for a single row.
    """
    parts: list[Part] = []
    first = 0
    while first < len(rows):
        group = rows[first : first + size]
        part = None
        try:
            part = run(group)
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
        if part is None:  # what it held is free now that its error is gone
            size = len(group) // 2
            gc.collect()
            torch.cuda.empty_cache()
        else:
            parts.append(part)
            first += len(group)
    return parts, size
