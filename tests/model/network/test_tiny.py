"""The demo's small model: real classes, the real chat template, a tokenizer that loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from model import run_network
from model.network import tiny
from model.network.tiny import build_tiny
from model.prompt import PROMPTS, target_text

TEXTS = ["Which sound is heard in the audio?", "rain", "clock", "man", "church bells"]
QUESTION = PROMPTS["answer"].fill(TEXTS[0], TEXTS[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(tmp_path_factory.mktemp("tiny"), TEXTS, clip_length_s=2.0, seed=3)


@pytest.fixture(scope="module")
def processor(folder: Path):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path):
    return Qwen2AudioForConditionalGeneration.from_pretrained(folder)


def chat(processor, text: str) -> str:
    content = [{"type": "audio", "audio_url": "clip.wav"}, {"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def inputs_for(processor, waves: list[np.ndarray], texts: list[str]):
    return processor(
        text=[chat(processor, text) for text in texts],
        audio=waves,
        sampling_rate=16_000,
        return_tensors="pt",
        padding=True,
    )


def test_auto_processor_finds_the_real_class(processor):
    assert isinstance(processor, Qwen2AudioProcessor)
    assert processor.tokenizer.padding_side == "left"
    assert (
        processor.tokenizer.convert_tokens_to_ids("<|im_end|>") == processor.tokenizer.eos_token_id
    )


def test_the_chat_has_the_real_models_shape(processor):
    assert chat(processor, "What?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_known_words_are_single_tokens_in_prompt_and_answer(processor):
    tokenizer = processor.tokenizer
    answer = tokenizer(target_text("rain", TEXTS[1:], PROMPTS["answer"]))["input_ids"]
    assert tokenizer.convert_ids_to_tokens(answer) == ["<answer>", "rain", "</answer>"]
    assert answer[1] in tokenizer(QUESTION)["input_ids"]
    assert len(tokenizer(QUESTION)["input_ids"]) < 50


@given(text=st.text(max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_unchanged(processor, text: str):
    tokenizer = processor.tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids or tokenizer.unk_token in text
    assert tokenizer.decode(ids) == text


def test_two_seconds_are_fifty_audio_tokens_and_a_longer_clip_is_cut(processor):
    noise = np.random.default_rng(0).standard_normal(160_000).astype(np.float32)
    inputs = inputs_for(processor, [noise, noise[:32_000]], [QUESTION, QUESTION])
    is_audio = inputs["input_ids"] == processor.audio_token_id
    assert is_audio.sum(dim=1).tolist() == [50, 50]
    assert inputs["input_features"].shape == (2, 64, 200)
    torch.testing.assert_close(
        inputs["input_features"][0, :, :198], inputs["input_features"][1, :, :198]
    )


def test_it_answers_questions_of_any_length_side_by_side(processor, model):
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    long_question = PROMPTS["think"].fill("Wie groß ist der Hund? " * 10, ["A", "B"])
    inputs = inputs_for(processor, [noise, noise[:8_000]], [long_question, QUESTION])
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[0] == 2
    assert output.shape[1] <= inputs["input_ids"].shape[1] + 3


def test_it_hears(processor, model):
    rng = np.random.default_rng(0)
    waves = [(0.3 * rng.standard_normal(32_000)).astype(np.float32), np.zeros(32_000, np.float32)]
    inputs = inputs_for(processor, waves, [QUESTION, QUESTION])
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_the_seed_decides_the_weights_and_leaves_torchs_own_alone(tmp_path: Path):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = build_tiny(tmp_path / name, TEXTS, clip_length_s=1.0, seed=seed)
        weights.append((folder / "model.safetensors").read_bytes())
    assert torch.rand(1) == expected
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_it_is_small(model):
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000


def test_the_medium_size_has_the_shape_of_the_benchmarks(processor):
    parts = tiny.make_parts(processor.tokenizer, 30.0, tiny.SIZES["medium"])
    text, audio = parts.text, parts.audio
    assert (text["num_hidden_layers"], text["hidden_size"], text["vocab_size"]) == (8, 512, 32_000)
    assert (audio["encoder_layers"], audio["d_model"]) == (4, 256)
    assert audio["max_source_positions"] == 1500


def test_the_command_writes_a_folder_that_loads(tmp_path: Path):
    arguments = {"folder": str(tmp_path / "model"), "texts": ["rain"], "clip_length_s": 1.5}
    (tmp_path / "tiny.json").write_text(json.dumps(arguments))
    assert run_network.main("tiny", str(tmp_path / "tiny.json")) == 0
    loaded = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert loaded.config.audio_config.max_source_positions == 100


def test_a_size_or_family_that_is_not_there_is_one_line(tmp_path: Path, capsys):
    arguments = {"folder": str(tmp_path / "x"), "texts": [], "clip_length_s": 1, "family": "nope"}
    (tmp_path / "tiny.json").write_text(json.dumps(arguments))
    assert run_network.main("tiny", str(tmp_path / "tiny.json")) == 1
    assert "error: random:tiny-nope: expected tiny or medium" in capsys.readouterr().err
