"""Qwen3-Omni's thinker (arXiv 2509.17765): blocks of 1 s, 13 tokens a second, a mixture of experts.

Read and saved as Qwen2.5-Omni's. It wants no system text, and its template inserts none. Its audio
token is 151675 where the class's default is 151646, and with another one its tower hears nothing
without a word: so the checkpoint's is compared with the tokenizer's. Adapters lie in the attention
only, as transformers keeps all experts of a layer in one parameter.
"""

from functools import partial

from transformers import (
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
)

from model.network.family import Family, TinyParts
from model.network.qwen2_5_omni import (
    TEMPLATE,
    OmniProcessor,
    encode,
    thinker_config,
    tiny_settings,
)

AUDIO = "<|audio_start|><|audio_pad|><|audio_end|>"
STUMP = {
    "depth": 0,
    "hidden_size": 8,
    "num_heads": 1,
    "out_hidden_size": 8,
    "num_position_embeddings": 1,
    "deepstack_visual_indexes": [],
}
BLOCK_FRAMES, BLOCK_TOKENS = 100, 13


class Qwen3OmniProcessor(OmniProcessor):
    """What audio needs of Qwen3-Omni's processor."""


def num_audio_tokens(num_frames: int) -> int:
    """Tokens of a clip: 13 a whole second, and three halvings of the frames that are left."""
    blocks, left = divmod(num_frames, BLOCK_FRAMES)
    for _ in range(3):
        left = (left - 1) // 2 + 1
    return blocks * BLOCK_TOKENS + left


def tiny(parts: TinyParts) -> tuple[Qwen3OmniProcessor, Qwen3OmniMoeThinkerConfig]:
    """A small thinker with four experts."""
    settings = tiny_settings(parts, FAMILY)
    audio, _, _, image, video, _ = settings.pop("token_ids")
    settings["audio_config"]["downsample_hidden_size"] = 16
    settings["text_config"] |= {
        "head_dim": parts.text["hidden_size"] // parts.text["num_attention_heads"],
        "moe_intermediate_size": parts.text["intermediate_size"] // 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    config = Qwen3OmniMoeThinkerConfig(
        **settings,
        vision_config=STUMP,
        audio_token_id=audio,
        image_token_id=image,
        video_token_id=video,
    )
    template = TEMPLATE.replace("SYSTEM_TEXT", "").replace("AUDIO_HERE", AUDIO)
    return Qwen3OmniProcessor(parts.extractor, parts.tokenizer, template), config


FAMILY = Family(
    name="qwen3_omni",
    model_types=("qwen3_omni_moe_thinker", "qwen3_omni_moe"),
    network=Qwen3OmniMoeThinkerForConditionalGeneration,
    network_config=partial(thinker_config, stump=STUMP),
    processor=Qwen3OmniProcessor,
    encode=encode,
    num_audio_tokens=num_audio_tokens,
    positions_per_token=1,
    special_tokens=(
        *("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
        *("<|image_pad|>", "<|video_pad|>", "<|vision_start|>"),
    ),
    stop_tokens=("<|im_end|>", "<|endoftext|>"),
    parts={
        "projector": ("model.audio_tower.proj",),
        "audio_encoder": ("model.audio_tower.",),
        "language_model": ("model.language_model.", "lm_head."),
    },
    idle=("model.visual.",),
    layers=("Qwen3OmniMoeAudioEncoderLayer", "Qwen3OmniMoeThinkerTextDecoderLayer"),
    adapted=r"model\.language_model.*",
    tiny=tiny,
)
