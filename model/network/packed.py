"""A prompt and its completions through a network at once, whatever its family.

A prompt and its G completions go through it in one packed pass (see packing.py), which saves work
against a plain forward of every completion, with equal numbers (fp32: within 2e-6):

- the audio encoder runs on the real mel frames, not on 30 s of padding;
- audio and prompt are encoded once a prompt instead of once a completion;
- the vocabulary head runs on completion positions only, in chunks that are recomputed in the
  backward pass.

Log-probabilities are those of the model at temperature 1, whatever the rollout's, as in TRL 0.15.2.

Axes: B prompts, P prompt tokens, G completions a prompt, C completion tokens, S packed completion
tokens, T = P + S, Q queries, K keys, D width, N audio tokens of all clips.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from model.config import Attention
from model.network.family import family_of_network
from model.network.features import Batch
from model.network.kv_cache import roomy_cache
from model.network.packing import pack
from model.network.policy import mixed, place_tokens
from model.network.vocabulary_head import HEAD_CHUNK, CompletionScores, score_tokens

BY_MASK = "by_mask"  # name of `attend` among transformers' attentions
# On Hopper torch prefers cuDNN's attention, which plans anew for each length: decoding the 7B on an
# H200 took 63 ms a token with it, and 21 without. In convolutions it would round fp32 to 10 bits.
torch.backends.cuda.enable_cudnn_sdp(enabled=False)
torch.backends.cudnn.allow_tf32 = False


class Prefilled(NamedTuple):
    """A batch of prompts that the model has read."""

    cache: Cache
    """Keys and values of every prompt token."""
    last_BD: Tensor
    """Hidden state at the last prompt token, which predicts the first completion token."""
    mask_BP: Tensor
    """True for real tokens, on the left."""


def embed_prompt(model: PreTrainedModel, prompt_ids: Tensor, prompt: Batch) -> Tensor:
    """Embed prompts, with the encoded audio in place of the audio tokens; (B, P, D)."""
    family = family_of_network(model)
    embedded_BPD = model.get_input_embeddings()(prompt_ids)
    audio_ND = family.encode(model, prompt["mel"], prompt["num_frames"])
    is_audio_BP1 = (prompt_ids == model.config.audio_token_id).unsqueeze(-1)
    return embedded_BPD.masked_scatter(is_audio_BP1, audio_ND.to(embedded_BPD.dtype))


def prefill(model: PreTrainedModel, prompt: Batch) -> Prefilled:
    """Read a batch of left-padded prompts once, keeping keys and values for decoding.

    The padding is moved to the right, where no real token looks under a causal mask. So attention
    needs no other mask: flash kernels take it, and half the products are left out.
    """
    prompt_ids = prompt["prompt_ids"]
    longest = prompt_ids.shape[1]
    length_B = prompt["prompt_mask"].sum(-1)
    places_P = torch.arange(longest, device=prompt_ids.device)
    prompt_ids = prompt_ids.gather(1, (places_P - length_B[:, None]) % longest)
    cache = roomy_cache()
    mask_BP = places_P < length_B[:, None]
    embedded_BPD = embed_prompt(model, prompt_ids, prompt)
    return Prefilled(cache, _read(model, cache, mask_BP, inputs_embeds=embedded_BPD), mask_BP)


def read_on(
    model: PreTrainedModel, read: Prefilled, rows: Tensor, token_BS: Tensor, mask_BS: Tensor
) -> Prefilled:
    """Read on behind what several prompts share, which was read once.

    Args:
        model: The model.
        read: The beginnings.
        rows: Of each prompt, which of them it begins with, (B,).
        token_BS: What follows, right padded.
        mask_BS: True for its real tokens.
    """
    num_rest = token_BS.shape[1]
    begun_BP = read.mask_BP[rows]
    places_S = torch.arange(num_rest, device=token_BS.device)
    before_BSP = begun_BP[:, None].expand(-1, num_rest, -1)
    earlier_BSS = (places_S <= places_S[:, None]).expand(len(rows), -1, -1)
    cache = roomy_cache()
    for index, layer in enumerate(read.cache.layers):
        begun: Any = layer
        cache.update(begun.keys[rows], begun.values[rows], index)
    last_BD = _read(
        model,
        cache,
        mask_BS,
        input_ids=token_BS,
        attention_mask=family_of_network(model).as_mask(
            torch.cat([before_BSP, earlier_BSS], -1)[:, None]
        ),
        position_ids=begun_BP.sum(-1, keepdim=True) + places_S,
    )
    return Prefilled(cache, last_BD, mask_BP=torch.cat([begun_BP, mask_BS], -1))


def _read(model: PreTrainedModel, cache: Cache, mask_BP: Tensor, **inputs: Tensor) -> Tensor:
    """Read right-padded tokens into a cache; the hidden state at each row's last one, (B, D).

    All that is used of the last layer's other tokens is keys and values: its queries, what its
    attention gives out and its MLP, five sixths of its weights, are computed for the last alone.
    """
    inner: Any = model
    layer = inner.model.language_model.layers[-1]
    at = torch.arange(len(mask_BP), device=mask_BP.device), mask_BP.sum(-1) - 1

    def take_last(_module: nn.Module, arguments: tuple[Tensor]) -> Tensor:
        return arguments[0][at][:, None]

    def repeat(_module: nn.Module, _arguments: tuple[Tensor], query_B1D: Tensor) -> Tensor:
        return query_B1D.expand(-1, mask_BP.shape[1], -1)

    attention = layer.self_attn
    alone = (attention.q_proj, attention.o_proj, layer.mlp)
    hooks = [module.register_forward_pre_hook(take_last) for module in alone]
    hooks.append(attention.q_proj.register_forward_hook(repeat))
    try:
        hidden_BPD = inner.model.language_model(
            past_key_values=cache, use_cache=True, **inputs
        ).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return hidden_BPD[at]


def score_completions(
    model: PreTrainedModel,
    prompt: Batch,
    *,
    completion_ids: Tensor,
    completion_mask: Tensor,
    attention: Attention = "sdpa",
    head_chunk: int = HEAD_CHUNK,
) -> CompletionScores:
    """Log-probability and entropy of every completion token, in one packed pass.

    Args:
        model: The model.
        prompt: Left-padded prompts with their features, see `features.collate`.
        completion_ids: (B, G, C), right padded.
        completion_mask: (B, G, C), True for tokens that count.
        attention: What the model was loaded with, which decides the form of the mask.
        head_chunk: Positions per pass of the vocabulary head.
    """
    prompt_ids = prompt["prompt_ids"]
    packing = pack(completion_ids, completion_mask, prompt["prompt_mask"])
    if "draw" in prompt:
        at_BT = packing.position_BT + (packing.group_BT << 32)
        place_tokens(model, mixed(at_BT + prompt["draw"].unsqueeze(-1)))
    prompt_BPD = embed_prompt(model, prompt_ids, prompt)
    completion_BSD = model.get_input_embeddings()(packing.token_BS)
    embedded_BTD = torch.cat([prompt_BPD, completion_BSD.to(prompt_BPD.dtype)], 1)
    inner: Any = model
    hidden_BTD = inner.model.language_model(
        inputs_embeds=embedded_BTD,
        attention_mask=family_of_network(model).as_mask(
            attention_mask(packing.visible_B1TT, attention)
        ),
        position_ids=packing.position_BT,
        use_cache=False,
    ).last_hidden_state
    last = prompt_ids.shape[1] - 1
    return score_tokens(
        inner.lm_head,
        first_BD=hidden_BTD[:, last],
        rest_BSD=hidden_BTD[:, last + 1 :],
        slot_BGC=packing.slot_BGC,
        completion_BGC=completion_ids,
        mask_BGC=completion_mask,
        head_chunk=head_chunk,
    )


def attention_mask(visible_B1QK: Tensor, attention: Attention) -> Tensor | BlockMask:
    """Who sees whom, in the form that an attention takes."""
    match attention:
        case "sdpa":
            return visible_B1QK
        case "flex":
            num_prompts, _, num_queries, num_keys = visible_B1QK.shape

            def is_visible(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
                return visible_B1QK[row, 0, query, key]

            return create_block_mask(
                is_visible, num_prompts, None, num_queries, num_keys, device=visible_B1QK.device
            )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    **kwargs: Any,  # noqa: ANN401  passed on
) -> tuple[Tensor, Tensor | None]:
    """FlexAttention where its blocks are given, else torch's own.

    Prompts are read and completions decoded without it: it would compile a kernel for each length.
    """
    match attention_mask:
        case BlockMask():
            return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)
        case _:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(BY_MASK, attend)
AttentionMaskInterface.register(BY_MASK, sdpa_mask)
