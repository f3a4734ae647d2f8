"""From a question and its clip to what the model reads: tokens and mel frames.

The extractor would pad every clip to 30 s; here it pads by what its window needs, and only the
frames that the encoder can see are kept (see `qwen2_audio.encode_audio`), with the same numbers
in them. Features depend on the clip alone, so they can be kept, in memory and on disk, whatever is
asked about the clip.

Axes: B prompts, P prompt tokens, M mel bands, F mel frames.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers import ProcessorMixin

from model.network.family import family_of_processor
from storage.audio import UnreadableAudioError, read_audio

Batch = dict[str, Tensor]


class Mel(NamedTuple):
    """The features of one clip."""

    mel_MF: Tensor
    """Log-mel features, float32: the real frames and one more where the extractor has it."""
    num_frames: int
    """Real frames; 100 a second."""


class Prompt(NamedTuple):
    """What the model reads for one question."""

    token_P: Tensor
    """Token ids, int64, as many audio tokens as the family makes of the clip."""
    mel: Mel
    """The clip's features."""


def num_frames_of(num_samples: int, processor: ProcessorMixin) -> int:
    """Mel frames of a clip, cut at the extractor's longest (30 s)."""
    extractor: Any = processor.feature_extractor
    return -(-min(num_samples, extractor.n_samples) // extractor.hop_length)


def too_short(num_samples: int, processor: ProcessorMixin) -> str | None:
    """Why the model hears nothing of a clip of so many samples; None: it hears it."""
    num_tokens = family_of_processor(processor).num_audio_tokens
    if num_tokens(num_frames_of(num_samples, processor)) > 0:
        return None
    extractor: Any = processor.feature_extractor
    hop_s = extractor.hop_length / extractor.sampling_rate
    least = next(frames for frames in range(1, extractor.nb_max_frames) if num_tokens(frames) > 0)
    seconds = num_samples / extractor.sampling_rate
    return f"{seconds:g} s; the model hears nothing of {(least - 1) * hop_s:g} s or less"


def is_cut(num_samples: int, processor: ProcessorMixin) -> bool:
    """Whether a clip goes on beyond what the model hears (30 s with Qwen2-Audio)."""
    extractor: Any = processor.feature_extractor
    return num_samples > extractor.n_samples


def mel_features(
    processor: ProcessorMixin, waveform: NDArray[np.float32], name: str = "a clip"
) -> Mel:
    """Features of mono samples at the extractor's rate; its longest clip (30 s) is all it hears.

    Raises:
        UnreadableAudioError: If it is too short to be heard.
    """
    if fault := too_short(len(waveform), processor):
        msg = f"{name} is too short: {fault}"
        raise UnreadableAudioError(msg)
    extractor: Any = processor.feature_extractor
    num_samples = min(len(waveform), extractor.n_samples)
    padded = min(num_samples + 2 * extractor.n_fft, extractor.n_samples)
    padded = min(-(-padded // extractor.hop_length) * extractor.hop_length, extractor.n_samples)
    extracted = extractor(
        waveform[:num_samples],
        sampling_rate=extractor.sampling_rate,
        padding="max_length",
        max_length=padded,
        return_tensors="pt",
    )
    num_frames = num_frames_of(num_samples, processor)
    num_kept = 2 * ((num_frames - 1) // 2 + 1) + 1
    return Mel(extracted["input_features"][0][:, :num_kept].contiguous(), num_frames)


def prompt_tokens(
    processor: ProcessorMixin, text: str, num_frames: int, *, system: str | None = None
) -> Tensor:
    """Tokens of the chat template around a clip and a text; its own system text, or another.

    Raises:
        ValueError: If the text itself holds the audio token.
    """
    content: Any = [{"type": "audio", "audio_url": ""}, {"type": "text", "text": text}]
    turns = [] if system is None else [{"role": "system", "content": system}]
    turns.append({"role": "user", "content": content})
    chat: Any = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    family = family_of_processor(processor)
    num_tokens = family.num_audio_tokens(num_frames)
    expanded = str(chat).replace(family.audio_token, family.audio_token * num_tokens, 1)
    tokens = processor.tokenizer(expanded)["input_ids"]
    if tokens.count(processor.tokenizer.convert_tokens_to_ids(family.audio_token)) != num_tokens:
        msg = f"the question {text!r} holds {family.audio_token}: expected plain text"
        raise ValueError(msg)
    return torch.tensor(tokens, dtype=torch.long)


class FeatureStore:
    """Features by clip, kept in memory up to a size, and on disk where a folder is given."""

    def __init__(
        self, processor: ProcessorMixin, *, memory_mb: float, folder: Path | None = None
    ) -> None:
        """Start empty, with whatever the folder holds."""
        self._processor = processor
        self._free_bytes = memory_mb * 1e6
        self._kept: dict[Path, Mel] = {}
        # Other settings of the extractor have other features.
        settings = hashlib.sha256(processor.feature_extractor.to_json_string().encode()).hexdigest()
        self._folder = None if folder is None else folder / settings[:16]

    def features(self, clip: Path) -> Mel:
        """The features of a clip.

        Raises:
            UnreadableAudioError: If the clip cannot be read.
        """
        kept = self._kept.get(clip)
        if kept is not None:
            return kept
        mel = self._from_disk(clip)
        size_bytes = mel.mel_MF.numel() * mel.mel_MF.element_size()
        if size_bytes <= self._free_bytes:
            self._free_bytes -= size_bytes
            self._kept[clip] = mel
        return mel

    def _from_disk(self, clip: Path) -> Mel:
        if self._folder is None or not clip.exists():
            return mel_features(self._processor, read_audio(clip), str(clip))
        stat = clip.stat()
        key = f"{clip}|{stat.st_size}|{stat.st_mtime_ns}"
        cached = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        if cached.exists():
            with np.load(cached) as stored:
                return Mel(torch.from_numpy(stored["mel"]), int(stored["num_frames"]))
        mel = mel_features(self._processor, read_audio(clip), str(clip))
        self._folder.mkdir(parents=True, exist_ok=True)
        # Each process writes under its own name; the last to rename wins, with the same content.
        part = cached.with_name(
            f"{cached.stem}.{id(self)}-{np.random.default_rng().integers(2**32)}.part"
        )
        with part.open("wb") as file:
            np.savez(file, mel=mel.mel_MF.numpy(), num_frames=np.int64(mel.num_frames))
        part.replace(cached)
        return mel


def collate(prompts: Sequence[Prompt], pad_id: int) -> Batch:
    """Prompts as one batch, padded on the left, clips on the right.

    Returns:
        What `packed.prefill` and `packed.score_completions` read: prompt_ids (B, P),
        prompt_mask (B, P) int64, mel (B, M, F) float32, num_frames (B,) int64.
    """
    longest = max(len(prompt.token_P) for prompt in prompts)
    most_frames = max(prompt.mel.mel_MF.shape[1] for prompt in prompts)
    num_bands = prompts[0].mel.mel_MF.shape[0]
    prompt_ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    prompt_mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    mel = torch.zeros(len(prompts), num_bands, most_frames)
    for row, prompt in enumerate(prompts):
        prompt_ids[row, longest - len(prompt.token_P) :] = prompt.token_P
        prompt_mask[row, longest - len(prompt.token_P) :] = 1
        mel[row, :, : prompt.mel.mel_MF.shape[1]] = prompt.mel.mel_MF
    num_frames = torch.tensor([prompt.mel.num_frames for prompt in prompts], dtype=torch.long)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "mel": mel,
        "num_frames": num_frames,
    }


def join(batches: Sequence[Batch]) -> Batch:
    """Batches one behind another, padded to the longest prompt and the longest clip of them."""
    joined: Batch = {}
    for name in batches[0]:
        rows = [batch[name] for batch in batches]
        if rows[0].ndim > 1:
            missing = [max(row.shape[-1] for row in rows) - row.shape[-1] for row in rows]
            sides = [(n, 0) if name.startswith("prompt") else (0, n) for n in missing]
            rows = [pad(*pair) for pair in zip(rows, sides, strict=True)]
        joined[name] = torch.cat(rows)
    return joined


def take(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some prompts of a batch, without the padding that none of them needs.

    The encoder cuts the clips' padding off by itself.
    """
    taken = {name: tensor[list(rows)] for name, tensor in batch.items()}
    longest = int(taken["prompt_mask"].sum(-1).max())
    for name in ("prompt_ids", "prompt_mask"):
        taken[name] = taken[name][:, -longest:]
    return taken
