"""Qwen2.5-Omni's thinker (arXiv 2503.20215): an encoder of 2 s blocks, 25 tokens a second, Qwen2.5.

The thinker is read out of a whole Omni checkpoint or from its own folder. The talker is never read,
and of the vision tower a stump of some thousand parameters is left, so that transformers' own
class loads what it saved; `python -m flows.export --whole` puts a trained thinker back. Audio alone
makes positions plain: they are passed as those of any text.

No system text is set: the chat template inserts its own ("You are a helpful assistant."), as in the
trainings of others; the long one about a virtual human is for speech output. The tower's embedding
of begin and end of audio is used by nothing, so it is idle.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    ProcessorMixin,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from model.network.family import Family, TinyParts
from model.network.qwen2_audio import num_audio_tokens

PROCESSOR_FILES = (
    *("*processor_config.json", "chat_template*", "tokenizer*", "vocab*", "merges.txt"),
    *("added_tokens.json", "special_tokens_map.json"),
)
# The published template without pictures, videos and tools.
TEMPLATE = (
    "{% for message in messages %}SYSTEM_TEXT<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'audio' %}AUDIO_HERE"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
)
AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"
STUMP = {"depth": 0, "hidden_size": 8, "num_heads": 1, "out_hidden_size": 8, "window_size": 28}


class OmniProcessor(ProcessorMixin):
    """What audio needs of an Omni's processor; pictures and videos would need torchvision.

    Saving copies the files that it was read from, so that the whole processor can be loaded too.
    """

    folder: Path | None = None
    """Of its files; None for one that was made here."""

    def __init__(
        self,
        feature_extractor: WhisperFeatureExtractor,
        tokenizer: Any,  # noqa: ANN401  transformers' base class says less
        chat_template: str | None = None,
    ) -> None:
        """Put the parts together."""
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, name: str, **_unused: object) -> "OmniProcessor":  # pyright: ignore[reportIncompatibleMethodOverride]  nothing else is asked of it
        """Read it from a folder or the hub."""
        if not Path(name).is_dir():
            name = snapshot_download(name, allow_patterns=list(PROCESSOR_FILES))
        tokenizer = AutoTokenizer.from_pretrained(name)
        template = cls.get_processor_dict(name)[0].get("chat_template") or tokenizer.chat_template
        processor = cls(WhisperFeatureExtractor.from_pretrained(name), tokenizer, template)
        processor.folder = Path(name)
        return processor

    def save_pretrained(self, save_directory: str | Path, **_unused: object) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]  nothing else is asked of it
        """Write its files to a folder."""
        folder = Path(save_directory)
        if self.folder is None:
            self.feature_extractor.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            (folder / "chat_template.jinja").write_text(str(self.chat_template), encoding="utf-8")
            return []
        files = [file for pattern in PROCESSOR_FILES for file in self.folder.glob(pattern)]
        return [str(shutil.copy(file, folder / file.name)) for file in files]


def encode(network: Any, mel_BMF: Tensor, num_frames_B: Tensor) -> Tensor:  # noqa: ANN401  either thinker
    """The audio tokens of all clips, by transformers' own tower on the real frames."""
    places_F = torch.arange(mel_BMF.shape[-1], device=mel_BMF.device)
    is_real_BF = (places_F < num_frames_B[:, None]).long()
    return network.model.get_audio_features(mel_BMF, is_real_BF, return_dict=True).last_hidden_state


def thinker_config(config: PretrainedConfig, *, stump: Mapping[str, object]) -> PretrainedConfig:
    """The thinker's config, with a stump of a vision tower."""
    thinker: Any = getattr(config, "thinker_config", config)
    thinker.vision_config = type(thinker.vision_config)(**stump)
    return thinker


def tiny_settings(parts: TinyParts, family: Family) -> dict[str, Any]:
    """What the configs of small thinkers share."""
    vocabulary, text = parts.tokenizer.get_vocab(), parts.text
    ids = [vocabulary[token] for token in family.special_tokens]
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    return {
        "audio_config": {**parts.audio, "output_dim": text["hidden_size"]},
        "text_config": {**text, "rope_parameters": rope},
        "audio_start_token_id": ids[1],
        "audio_end_token_id": ids[2],
        "vision_start_token_id": ids[5],
        "token_ids": ids,
    }


def tiny(parts: TinyParts) -> tuple[OmniProcessor, Qwen2_5OmniThinkerConfig]:
    """A small thinker."""
    settings = tiny_settings(parts, FAMILY)
    audio, _, _, image, video, _ = settings.pop("token_ids")
    config = Qwen2_5OmniThinkerConfig(
        **settings,
        vision_config=STUMP,
        audio_token_index=audio,
        image_token_index=image,
        video_token_index=video,
    )
    template = TEMPLATE.replace("SYSTEM_TEXT", SYSTEM).replace("AUDIO_HERE", AUDIO)
    return OmniProcessor(parts.extractor, parts.tokenizer, template), config


FAMILY = Family(
    name="qwen2_5_omni",
    model_types=("qwen2_5_omni_thinker", "qwen2_5_omni"),
    network=Qwen2_5OmniThinkerForConditionalGeneration,
    network_config=partial(thinker_config, stump=STUMP),
    processor=OmniProcessor,
    encode=encode,
    num_audio_tokens=num_audio_tokens,
    special_tokens=(
        *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
        *("<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>"),
    ),
    stop_tokens=("<|im_end|>", "<|endoftext|>"),
    parts={
        "projector": ("model.audio_tower.proj.",),
        "audio_encoder": (
            *("model.audio_tower.conv1.", "model.audio_tower.conv2."),
            *("model.audio_tower.layers.", "model.audio_tower.ln_post."),
        ),
        "language_model": ("model.language_model.", "lm_head."),
    },
    idle=("model.visual.", "model.audio_tower.audio_bos_eos_token."),
    layers=("Qwen2_5OmniAudioEncoderLayer", "Qwen2_5OmniDecoderLayer"),
    adapted=r"model\.language_model.*",
    as_mask=lambda mask: {"full_attention": mask},
    tiny=tiny,
)
