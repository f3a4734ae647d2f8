"""Keys and values of read tokens, with room for those to come."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # tokens: one copy of the cache in so many steps


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


def _with_room(old: Tensor, num_kept: int, num_tokens: int) -> Tensor:
    new = old.new_empty(*old.shape[:-2], num_tokens, old.shape[-1])
    new[..., :num_kept, :] = old[..., :num_kept, :]
    return new
