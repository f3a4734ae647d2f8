"""Qwen2-Audio (arXiv 2407.10759): Whisper's encoder, 25 tokens a second, and Qwen's language model.

transformers 5.23 leaves the encoder's table of positions trainable after `from_pretrained` (4.49
froze it), so it is named idle here.

Axes: B clips, M mel bands, F mel frames, L encoder positions, D width, N audio tokens of all clips.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout, gelu
from transformers import (
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)
from transformers.masking_utils import create_bidirectional_mask

from model.network.family import Family, TinyParts


def num_audio_tokens(num_frames: int) -> int:
    """Tokens that the encoder makes of a clip: two convolution strides, 25 tokens a second."""
    return (((num_frames - 1) // 2 + 1) - 2) // 2 + 1


def encode_audio(model: PreTrainedModel, mel_BMF: Tensor, num_frames_B: Tensor) -> Tensor:
    """Encode the real frames of each clip and project them to the language model's width.

    Exact, not an approximation: the encoder masks its padding, so only the two convolutions look
    beyond the real frames, and position L - 1 reads mel frame 2L at most. transformers' own forward
    insists on 30 s of frames.

    Args:
        model: The model.
        mel_BMF: Log-mel features, real frames first, at least 2L + 1 of them (or all that the
            extractor made).
        num_frames_B: Real mel frames of each clip.

    Returns:
        The audio tokens of all clips one after another, (sum of tokens, D).
    """
    inner: Any = model.model
    tower = inner.audio_tower
    length_B = (num_frames_B - 1) // 2 + 1
    longest = int(length_B.max())
    mel_BMF = mel_BMF[..., : 2 * longest + 1].to(tower.conv1.weight.dtype)
    hidden_BDF = gelu(tower.conv1(mel_BMF))[..., : 2 * longest]
    hidden_BLD = gelu(tower.conv2(hidden_BDF)).transpose(1, 2)
    hidden_BLD = hidden_BLD + tower.embed_positions.weight[:longest]
    hidden_BLD = dropout(hidden_BLD, p=tower.dropout, training=tower.training)
    places_L = torch.arange(longest, device=mel_BMF.device)
    is_real_BL = places_L < length_B[:, None]
    mask: Tensor | None = None
    if not bool(is_real_BL.all()):
        mask = create_bidirectional_mask(
            config=tower.config, inputs_embeds=hidden_BLD, attention_mask=is_real_BL.long()
        )
    for layer in tower.layers:
        hidden_BLD = layer(hidden_BLD, mask)
    pooled_BLD = tower.layer_norm(tower.avg_pooler(hidden_BLD.transpose(1, 2)).transpose(1, 2))
    num_tokens_B = (length_B - 2) // 2 + 1
    is_token_BL = places_L[: pooled_BLD.shape[1]] < num_tokens_B[:, None]
    return inner.multi_modal_projector(pooled_BLD[is_token_BL])


def tiny(parts: TinyParts) -> tuple[Qwen2AudioProcessor, Qwen2AudioConfig]:
    """A small one, with the chat template of Qwen2-Audio-7B-Instruct, which its class holds."""
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **parts.audio},
        text_config={"model_type": "qwen2", **parts.text},
        audio_token_index=parts.tokenizer.get_vocab()[FAMILY.audio_token],
    )
    processor = Qwen2AudioProcessor(feature_extractor=parts.extractor, tokenizer=parts.tokenizer)
    return processor, config


FAMILY = Family(
    name="qwen2_audio",
    model_types=("qwen2_audio",),
    network=Qwen2AudioForConditionalGeneration,
    processor=Qwen2AudioProcessor,
    encode=encode_audio,
    num_audio_tokens=num_audio_tokens,
    special_tokens=("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    parts={
        "audio_encoder": ("model.audio_tower.",),
        "projector": ("model.multi_modal_projector.",),
        "language_model": ("model.language_model.", "lm_head."),
    },
    idle=("model.audio_tower.embed_positions.",),
    layers=("Qwen2AudioEncoderLayer", "Qwen2DecoderLayer"),
    adapted=r".*language_model.*",
    tiny=tiny,
)
