"""Lay the G completions of each prompt behind one copy of it: [prompt | c1 | ... | cG].

A completion's tokens see their prompt and their own earlier tokens, never another completion, and
their positions go on from the prompt's end; so every completion gets the numbers that it would get
behind a copy of its own. Known for text as shared prefixes (Prefix Grouper, arXiv 2506.05433). Only
tokens that predict another one are laid out: the last token of a completion predicts nothing.

Axes: B prompts, P prompt tokens (left padded), G completions a prompt, C completion tokens (right
padded), S packed completion tokens, T = P + S.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where every completion token lies in the packed row."""

    token_BS: Tensor
    """Completion tokens in packed order, int64; padded with whatever token came first."""
    position_BT: Tensor
    """Positions for the rotary embedding, int64, prompt first."""
    group_BT: Tensor
    """Which completion a token is of, int64; -1 for the prompt's."""
    visible_B1TT: Tensor
    """True where the query (third axis) may look at the key (fourth axis)."""
    slot_BGC: Tensor
    """Index in S of each completion token that is an input; elsewhere 0."""


def completion_mask(token_NC: Tensor, stop_ids: Tensor) -> Tensor:
    """True up to and including the first stop token, or throughout where there is none."""
    is_stop_NC = torch.isin(token_NC, stop_ids)
    num_stops_before_NC = is_stop_NC.long().cumsum(-1) - is_stop_NC.long()
    return num_stops_before_NC == 0


def pack(completion_BGC: Tensor, mask_BGC: Tensor, prompt_mask_BP: Tensor) -> Packing:
    """Pack the completions of each prompt into one row behind it.

    Args:
        completion_BGC: Token ids.
        mask_BGC: True for the tokens that count, a prefix of each completion.
        prompt_mask_BP: True (or 1) for the prompt's real tokens, on the right.
    """
    num_prompts, group_size, num_tokens = completion_BGC.shape
    next_counts_BG1 = mask_BGC.new_zeros(num_prompts, group_size, 1)
    is_input_BGC = mask_BGC & torch.cat([mask_BGC[..., 1:], next_counts_BG1], -1)
    is_input_BX = is_input_BGC.flatten(1)
    num_packed = int(is_input_BX.sum(1).max())
    order_BS = torch.argsort((~is_input_BX).int(), dim=1, stable=True)[:, :num_packed]
    valid_BS = is_input_BX.gather(1, order_BS)
    slots_BS = torch.arange(num_packed, device=order_BS.device).expand(num_prompts, num_packed)
    slot_BX = torch.zeros_like(is_input_BX, dtype=torch.long).scatter(1, order_BS, slots_BS)
    prompt_length_B1 = prompt_mask_BP.long().sum(-1, keepdim=True)
    position_BS = prompt_length_B1 + order_BS % num_tokens
    group_BS = order_BS // num_tokens
    position_BP = (prompt_mask_BP.long().cumsum(-1) - 1).clamp(min=0)  # padding has 0
    group_BT = torch.cat([group_BS.new_full(prompt_mask_BP.shape, -1), group_BS], 1)
    return Packing(
        token_BS=completion_BGC.flatten(1).gather(1, order_BS),
        position_BT=torch.cat([position_BP, position_BS], 1),
        group_BT=group_BT,
        visible_B1TT=_visible(prompt_mask_BP.bool(), group_BT, valid_BS),
        slot_BGC=slot_BX.view(num_prompts, group_size, num_tokens),
    )


def _visible(prompt_mask_BP: Tensor, group_BT: Tensor, valid_BS: Tensor) -> Tensor:
    """The block mask; padding sees itself, so that no row of the attention is empty."""
    total = group_BT.shape[1]
    is_key_BT = torch.cat([prompt_mask_BP, valid_BS], 1)
    is_prompt_BT = group_BT == -1
    same_BTT = (group_BT[:, :, None] == group_BT[:, None, :]) | is_prompt_BT[:, None, :]
    causal_TT = torch.ones(total, total, dtype=torch.bool, device=group_BT.device).tril()
    itself_TT = torch.eye(total, dtype=torch.bool, device=group_BT.device)
    return ((same_BTT & is_key_BT[:, None, :] & causal_TT) | itself_TT)[:, None]
