"""Questions in batches of like lengths, and prompts kept for further models."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.infer.jobs import Item
from model.infer.prompts import PromptCache, Reader, by_clip, evenly, guess_tokens, split
from model.network.loading import load_processor
from model.network.qwen2_audio import FAMILY
from storage.errors import PipelineError


def test_like_lengths_share_a_batch(tmp_path: Path) -> None:
    durations_s = [0.5, 2.0, 1.0, 1.8]
    items = [Item(f"q{i}", "What?", None, seconds) for i, seconds in enumerate(durations_s)]
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 3), 16_000)
    items.append(Item("clip", "What?", tmp_path / "long.wav"))
    items.append(Item("gone", "What?", tmp_path / "gone.wav"))
    items.append(Item("wordy", "What? " * 400, None, 0.5))  # 600 tokens of text, 24 s of audio
    num_tokens = [guess_tokens(item, FAMILY) for item in items]
    order = by_clip(items, num_tokens)
    assert order == [6, 0, 4, 1, 3, 2, 5]  # q0 hears what the first one hears
    # 25 tokens a second of audio and one for four letters: 612.5, 76.25, 51.25, 46.25, 26.25, ...
    assert split(order, num_tokens, batch_size=4) == [[6], [0], [4], [1, 3], [2], [5]]
    assert evenly(order, 3) == [6, 4, 3]
    assert evenly(order, 99) == order


def test_a_batch_ends_when_it_is_full_or_its_padding_grows() -> None:
    num_tokens = [100.0, 95, 90, 86, 84, 83, 20]
    assert split(range(7), num_tokens, batch_size=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert split(range(7), num_tokens, batch_size=9) == [[0, 1, 2, 3], [4, 5], [6]]
    assert split([], num_tokens, batch_size=9) == []


def test_a_full_shelf_keeps_what_it_has(tiny_model: Path) -> None:
    processor = load_processor(tiny_model)
    items = [Item(f"q{i}", "What?", None, 1.0) for i in range(4)]
    cache = PromptCache(free_bytes=Reader(items, processor, None)[0].mel.nbytes * 2.5)
    reader = Reader(items, processor, None, cache)
    batches = reader.batches(reader.order, batch_size=2, num_workers=0)
    assert [list(indices) for indices, _ in batches] == [[0, 1], [2, 3]]
    assert [item.id for _, item in cache.kept] == ["q0", "q1"]
    again = reader.batches(reader.order, batch_size=2, num_workers=0)
    assert [len(prompts) for _, prompts in again] == [2, 2]


def test_a_question_that_holds_the_audio_token_is_refused(tiny_model: Path) -> None:
    items = [Item("q7", "What is <|AUDIO|>?", None, 1.0)]
    with pytest.raises(PipelineError, match=r"question q7 holds the audio token <\|AUDIO\|>"):
        Reader(items, load_processor(tiny_model), None)
