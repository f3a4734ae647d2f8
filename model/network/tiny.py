"""A model of a family's own classes, small enough to learn on a CPU core; random weights.

Same processor, chat template, special tokens and file layout as the published ones, so that no code
has to know which of the two it holds. What differs is sizes: it hears `clip_length_s`, and its
vocabulary is the words that it is given. All other text falls back to bytes, so that any text can
be read, and comes back unchanged.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from model.network.family import TinyParts, known_families
from model.prompt import PROMPTS
from storage.errors import PipelineError

SAMPLE_RATE_HZ = 16_000
MEL_FRAMES_PER_S = 100
ENCODER_POSITIONS_PER_S = 50  # the second convolution halves the frames

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# A tag, or a word with the space before it, or a run of punctuation with the space before it.
WORD = r"</?(?:answer|think)>| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9<]+|\s|<"

# What the chat template puts around every question.
PAPERS = [PROMPTS[name].text for name in ("plain", "answer", "think")]
TEMPLATE_TEXTS = ("system\nYou are a helpful assistant.", "user\nAudio 1: \n", "assistant\n")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model."""

    num_mel_bins: int
    encoder_layers: int
    encoder_width: int
    text_layers: int
    text_width: int
    text_ffn_width: int
    num_heads: int
    vocab_size: int | None
    """Rows of the embedding; None: as many as the tokenizer has words."""
    initializer_range: float
    """Standard deviation of the random weights."""


SIZES: dict[str, Sizes] = {
    # 0.05 rather than 0.02: so small a model with smaller weights starts out nearly deaf.
    "tiny": Sizes(64, 2, 64, 2, 64, 192, 4, None, 0.05),
    # For timing: the shape of the real one at 1/200 of its parameters.
    "medium": Sizes(128, 4, 256, 8, 512, 1376, 8, 32_000, 0.02),
}


def build_tiny(
    folder: Path | str,
    texts: Iterable[str],
    *,
    clip_length_s: float,
    seed: int = 0,
    size: Literal["tiny", "medium"] = "tiny",
    family: str = "qwen2_audio",
) -> Path:
    """Write a random-weight model with its processor, for `from_pretrained`.

    Args:
        folder: Where to; made if missing.
        texts: Questions and choices, whose words become tokens; those of the prompts always are.
        clip_length_s: Longest audio that it hears, s; rounded up to a whole second. The rest
            of a longer clip is cut off.
        seed: Of the weights.
        size: `tiny` has about 0.2 million parameters, `medium` 58 million.
        family: Its name.

    Returns:
        The folder.

    Raises:
        PipelineError: If there is no such size or family.
    """
    if family not in known_families() or size not in SIZES:
        known = ", ".join(sorted(known_families()))
        msg = f"random:{size}-{family}: expected tiny or medium, and a family of {known}"
        raise PipelineError(msg)
    kind = known_families()[family]
    tokenizer = _build_tokenizer(texts, kind.special_tokens)
    processor, config = kind.tiny(make_parts(tokenizer, clip_length_s, SIZES[size]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.network(config)
    # As in the real ones' generation_config.json: either token ends an answer.
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return Path(folder)


def make_parts(tokenizer: PreTrainedTokenizerFast, clip_length_s: float, sizes: Sizes) -> TinyParts:
    """Feature extractor and settings that all families share."""
    length_s = math.ceil(clip_length_s)  # the extractor counts in whole seconds
    extractor = WhisperFeatureExtractor(
        feature_size=sizes.num_mel_bins,
        sampling_rate=SAMPLE_RATE_HZ,
        hop_length=SAMPLE_RATE_HZ // MEL_FRAMES_PER_S,
        chunk_length=length_s,
        n_fft=400,
    )
    audio = {
        "num_mel_bins": sizes.num_mel_bins,
        "encoder_layers": sizes.encoder_layers,
        "d_model": sizes.encoder_width,
        "encoder_attention_heads": sizes.num_heads,
        "encoder_ffn_dim": 2 * sizes.encoder_width,
        "max_source_positions": ENCODER_POSITIONS_PER_S * length_s,
        "initializer_range": sizes.initializer_range,
    }
    text = {
        "vocab_size": sizes.vocab_size or len(tokenizer),
        "hidden_size": sizes.text_width,
        "num_hidden_layers": sizes.text_layers,
        "num_attention_heads": sizes.num_heads,
        "num_key_value_heads": sizes.num_heads,
        "intermediate_size": sizes.text_ffn_width,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "initializer_range": sizes.initializer_range,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
    }
    return TinyParts(tokenizer, extractor, audio, text)


def _build_tokenizer(texts: Iterable[str], audio: Sequence[str]) -> PreTrainedTokenizerFast:
    words: dict[str, None] = {}
    for text in (*TEMPLATE_TEXTS, *PAPERS, "<answer></answer><think></think>", *texts):
        # A choice appears bare in an answer, quoted in a prompt and after a space in a sentence.
        for form in (text, f"a: ['{text}', '{text}'].", f'a: ["{text}", "{text}"].'):
            words.update(dict.fromkeys(re.findall(WORD, form)))
    special = [END_OF_TEXT, TURN_START, TURN_END, *audio]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    # Unigram takes the likeliest pieces: a word known as a whole beats its bytes.
    pieces = [(token, 0.0) for token in [*special, "<unk>", *bytes_]]
    pieces += [(word, -1.0) for word in words if word not in special]
    unigram = models.Unigram(pieces, unk_id=len(special), byte_fallback=True)
    tokenizer = Tokenizer(unigram)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106  a word, no password
        pad_token=END_OF_TEXT,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START, *audio],
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
