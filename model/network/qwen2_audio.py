"""Qwen2-Audio (arXiv 2407.10759): Whisper's encoder, 25 tokens a second, and Qwen's language model.

transformers 5.23 leaves the encoder's table of positions trainable after `from_pretrained` (4.49
froze it), so it is named idle here.
"""

from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from model.network.audio_encoder import encode_audio
from model.network.family import Family, TinyParts


def num_audio_tokens(num_frames: int) -> int:
    """Tokens that the encoder makes of a clip: two convolution strides, 25 tokens a second."""
    return (((num_frames - 1) // 2 + 1) - 2) // 2 + 1


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
