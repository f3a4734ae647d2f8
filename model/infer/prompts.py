"""Questions as the model reads them: read ahead by workers, in batches of like lengths.

Prompts and features are those of training (`model.network.features`). Features depend on the clip
alone and are kept on disk; whole prompts are kept in memory while there is room, because ten
checkpoints are asked the same.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from transformers import ProcessorMixin

from model.infer.jobs import Item
from model.network.family import Family, family_of_processor
from model.network.features import (
    FeatureStore,
    Mel,
    Prompt,
    is_cut,
    mel_features,
    prompt_tokens,
)
from storage.audio import SAMPLE_RATE_HZ, UnreadableAudioError, silence
from storage.errors import PipelineError
from storage.manifest import digest_of

KEPT_BYTES = 512e6  # prompts in memory: all of the demo's benchmarks, half of MMAU's test-mini
FRAMES_PER_S = 100
CHARACTERS_PER_TOKEN = 4  # of English text, roughly
LEAST_SHARE = 0.85  # of the longest prompt's length: attention over padding costs its square


class EncodedPrompt(NamedTuple):
    """An item as the model reads it, or why it cannot be asked.

    Arrays, not tensors: those would cross processes in shared memory, which containers cut short.
    """

    token_ids: list[int]
    mel: NDArray[np.float32]
    num_frames: int
    error: str | None = None
    is_cut: bool = False
    """Whether the clip goes on beyond what the model hears."""

    def prompt(self) -> Prompt:
        """As tensors."""
        mel = Mel(torch.from_numpy(self.mel), self.num_frames)
        return Prompt(torch.tensor(self.token_ids, dtype=torch.long), mel)


class PromptCache:
    """Prompts kept in memory for further models, first come, first kept, up to a size."""

    def __init__(self, free_bytes: float = KEPT_BYTES) -> None:
        """Start empty."""
        self._free_bytes = free_bytes
        self.kept: dict[tuple[str, Item], EncodedPrompt] = {}

    def keep(self, key: tuple[str, Item], prompt: EncodedPrompt) -> None:
        """Keep a prompt if there is room."""
        if key not in self.kept and prompt.mel.nbytes <= self._free_bytes:
            self._free_bytes -= prompt.mel.nbytes
            self.kept[key] = prompt


class Reader(Dataset[EncodedPrompt]):
    """Items made ready one by one, or in batches of like lengths, those about one clip together."""

    def __init__(
        self,
        items: Sequence[Item],
        processor: ProcessorMixin,
        features: Path | None,
        cache: PromptCache | None = None,
    ) -> None:
        """Sort the items by length; nothing is read yet.

        Args:
            items: What to ask.
            processor: Of the model.
            features: Folder that keeps the clips' features; None: they are not kept.
            cache: What earlier models left; None: nothing.

        Raises:
            PipelineError: If a text holds the audio token; names the question.
        """
        self._items = list(items)
        family = family_of_processor(processor)
        for item in self._items:
            if family.audio_token in item.text:
                raise PipelineError(
                    f"question {item.id} holds the audio token {family.audio_token}: "
                    "expected plain text; correct the benchmark's questions"
                )
        self._processor = processor
        self._store = FeatureStore(processor, memory_mb=0, folder=features)
        self._cache = cache or PromptCache()
        readers = readers_digest(processor)
        self._keys = [(readers, item) for item in self._items]
        self._silent: dict[float, Mel] = {}
        self._num_tokens = [guess_tokens(item, family) for item in self._items]
        self.order = by_clip(self._items, self._num_tokens)
        self.longest = max(self._num_tokens, default=0.0)  # about so many tokens

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def __getitem__(self, index: int) -> EncodedPrompt:
        """One item, ready; a clip that cannot be read is an error in it."""
        item, kept = self._items[index], self._cache.kept.get(self._keys[index])
        if kept is not None:
            return kept
        try:
            mel = self._mel(item)
        except UnreadableAudioError as error:
            return EncodedPrompt([], np.zeros((0, 0), np.float32), 0, str(error))
        tokens = prompt_tokens(self._processor, item.text, mel.num_frames, system=item.system)
        was_cut = is_cut(item.num_samples, self._processor)
        return EncodedPrompt(tokens.tolist(), mel.mel_MF.numpy(), mel.num_frames, is_cut=was_cut)

    def batches(
        self, indices: Sequence[int], *, batch_size: int, num_workers: int
    ) -> Iterator[tuple[Sequence[int], list[EncodedPrompt]]]:
        """Batches of prompts with their positions; workers read ahead, unless all are kept."""
        chunks = split(indices, self._num_tokens, batch_size=batch_size)
        num_unread = sum(self._keys[index] not in self._cache.kept for index in indices)
        loader = DataLoader(
            self,
            batch_sampler=chunks,  # pyright: ignore[reportArgumentType]  any iterable of indices does
            num_workers=min(num_workers, num_unread),
            collate_fn=list,
        )
        for chunk, prompts in zip(chunks, loader, strict=True):
            for index, prompt in zip(chunk, prompts, strict=True):
                self._cache.keep(self._keys[index], prompt)
            yield chunk, prompts

    def _mel(self, item: Item) -> Mel:
        if item.error is not None:
            raise UnreadableAudioError(item.error)
        if item.clip is not None:
            return self._store.features(item.clip)
        if item.silence_s not in self._silent:
            self._silent[item.silence_s] = mel_features(self._processor, silence(item.silence_s))
        return self._silent[item.silence_s]


@lru_cache(maxsize=1)  # a tokenizer's text is megabytes
def readers_digest(processor: ProcessorMixin) -> str:
    """Names everything that turns a question into a prompt."""
    tokenizer = processor.tokenizer
    parts = [processor.feature_extractor.to_json_string(), tokenizer.backend_tokenizer.to_str()]
    return digest_of([*parts, processor.chat_template])


def by_clip(items: Sequence[Item], num_tokens: Sequence[float]) -> list[int]:
    """Positions of the items, the longest prompt first and behind it all others about its clip.

    So like lengths share a batch, whether memory suffices shows at once, and a clip is read once
    for all that is asked about it.
    """
    order = sorted(range(len(items)), key=lambda index: -num_tokens[index])
    about: dict[Path | float, list[int]] = {}
    for index in order:
        about.setdefault(items[index].clip or items[index].silence_s, []).append(index)
    return [index for group in about.values() for index in group]


def split(
    indices: Sequence[int], num_tokens: Sequence[float], *, batch_size: int
) -> list[list[int]]:
    """Cut positions, in their order, into batches that are full or would hold too much padding."""
    batches: list[list[int]] = []
    for index in indices:
        lengths = [num_tokens[other] for other in (*(batches[-1] if batches else ()), index)]
        if not batches or len(lengths) > batch_size or min(lengths) < LEAST_SHARE * max(lengths):
            batches.append([])
        batches[-1].append(index)
    return batches


def guess_tokens(item: Item, family: Family) -> float:
    """About how many tokens a prompt has, told from its clip's header and its text."""
    num_frames = max(1, round(item.num_samples / SAMPLE_RATE_HZ * FRAMES_PER_S))
    return family.num_audio_tokens(num_frames) + len(item.text) / CHARACTERS_PER_TOKEN


def evenly(order: Sequence[int], number: int) -> list[int]:
    """That many positions, spread over the order: of every length some."""
    number = min(number, len(order))
    return [order[i * len(order) // number] for i in range(number)]
