"""Keys and values of read tokens, with room for those to come; what of them fits into memory."""

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # tokens: one copy of the cache in so many steps
FREE_SHARE = 0.6  # of the free memory for keys and values; the rest reads the prompts

Row = TypeVar("Row")
Part = TypeVar("Part")


class RoomyLayer(DynamicLayer):
    """One layer's keys and values; a new token is written behind them in place.

    transformers' own layer copies all of them for every token. On the 7B that is 6.5 GB a step for
    16 prompts of 400 tokens, beside 15 GB of weights.
    """

    _room_keys: Tensor
    _room_values: Tensor

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ANN401  unused, as in transformers
        **kwargs: Any,  # noqa: ANN401  unused, as in transformers
    ) -> tuple[Tensor, Tensor]:
        """Add tokens; returns views of all keys and all values, (B, heads, tokens, head width)."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            self._room_keys, self._room_values = key_states, value_states
            return key_states, value_states
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._room_keys.shape[-2]:
            self._room_keys = _with_room(self._room_keys, start, end + ROOM)
            self._room_values = _with_room(self._room_values, start, end + ROOM)
        self._room_keys[..., start:end, :] = key_states
        self._room_values[..., start:end, :] = value_states
        self.keys = self._room_keys[..., :end, :]
        self.values = self._room_values[..., :end, :]
        return self.keys, self.values


def roomy_cache() -> Cache:
    """An empty cache."""
    return Cache(layer_class_to_replicate=RoomyLayer)


def rows_of(cache: Cache, rows: Tensor) -> Cache:
    """A cache of its own that holds these rows of another."""
    made = roomy_cache()
    for index, layer in enumerate(cache.layers):
        kept: Any = layer
        made.update(kept.keys[rows], kept.values[rows], index)
    return made


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


def _with_room(old: Tensor, num_kept: int, num_tokens: int) -> Tensor:
    new = old.new_empty(*old.shape[:-2], num_tokens, old.shape[-1])
    new[..., :num_kept, :] = old[..., :num_kept, :]
    return new
