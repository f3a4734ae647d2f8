"""Qwen2-Audio (arXiv 2407.10759): Whisper's encoder, 25 tokens a second, and Qwen's language model.

transformers 5.23 leaves the encoder's table of positions trainable after `from_pretrained` (4.49
froze it), so it is named idle here.
"""

from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from model.network.audio_encoder import encode_audio
from model.network.family import Family
from model.network.tiny import build_tiny


def num_audio_tokens(num_frames: int) -> int:
    """Tokens that the encoder makes of a clip: two convolution strides, 25 tokens a second."""
    return (((num_frames - 1) // 2 + 1) - 2) // 2 + 1


FAMILY = Family(
    model_type="qwen2_audio",
    network=Qwen2AudioForConditionalGeneration,
    processor=Qwen2AudioProcessor,
    encode=encode_audio,
    num_audio_tokens=num_audio_tokens,
    audio_token_id=lambda config: config.audio_token_id,
    parts={
        "audio_encoder": ("model.audio_tower.",),
        "projector": ("model.multi_modal_projector.",),
        "language_model": ("model.language_model.", "lm_head."),
    },
    idle=("model.audio_tower.embed_positions.",),
    layers=("Qwen2AudioEncoderLayer", "Qwen2DecoderLayer"),
    adapted=r".*language_model.*",
    build_tiny=build_tiny,
)
