"""A second family is one value: registered here, and packed, sampled, frozen and adapted by it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from model.config import LoraConfig
from model.network import family as families
from model.network.family import Family, family_of, register
from model.network.freezing import freeze_parts
from model.network.loading import load_base
from model.network.lora import add_adapter
from model.network.packed import prefill, score_completions
from model.network.qwen2_audio import num_audio_tokens
from model.network.sampling import decode

AUDIO, VOCABULARY, GROUP, LONGEST = 290, 300, 3, 7


def encode(network: Any, mel_BMF: torch.Tensor, num_frames_B: torch.Tensor) -> torch.Tensor:
    places_F = torch.arange(mel_BMF.shape[-1])
    mask_BF = (places_F < num_frames_B[:, None]).long()
    return network.model.get_audio_features(mel_BMF, mask_BF, return_dict=True).last_hidden_state


def no_builder(_parts: object) -> Any:
    raise NotImplementedError


THINKER = Family(
    name="qwen2_5_omni_thinker",
    model_types=("qwen2_5_omni_thinker",),
    network=Qwen2_5OmniThinkerForConditionalGeneration,
    processor=Qwen2_5OmniProcessor,
    encode=encode,
    num_audio_tokens=num_audio_tokens,
    special_tokens=("<|AUDIO|>",),
    parts={
        "audio_encoder": ("model.audio_tower.",),
        "language_model": ("model.language_model.", "lm_head."),
    },
    idle=("model.visual.",),
    layers=("Qwen2_5OmniAudioEncoderLayer", "Qwen2_5OmniDecoderLayer"),
    adapted=r"model\.language_model.*",
    as_mask=lambda mask: {"full_attention": mask},
    tiny=no_builder,
)


@pytest.fixture(autouse=True)
def thinker_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_REGISTERED", {})
    register(THINKER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thinker of random weights, as transformers saves it."""
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "use_sliding_window": False,
        "pad_token_id": 0,
        "rope_parameters": rope,
        "initializer_range": 0.2,
    }
    audio = {
        "num_mel_bins": 32,
        "encoder_layers": 1,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "output_dim": 64,
        "n_window": 100,
        "max_source_positions": 1500,
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5OmniThinkerConfig(
        audio_config=audio,
        text_config=text,
        vision_config=vision,
        audio_token_index=AUDIO,
        image_token_index=291,
        video_token_index=292,
        audio_start_token_id=293,
        audio_end_token_id=294,
    )
    config.vision_start_token_id = 295
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("thinker")
    Qwen2_5OmniThinkerForConditionalGeneration(config).save_pretrained(path)
    return path


@pytest.fixture
def prompt() -> dict[str, torch.Tensor]:
    """Two prompts with clips of 2 s and 1 s, padded on the left."""
    frames = [200, 100]
    rows = [[11, 12, *[AUDIO] * num_audio_tokens(n), 13, 14 + n % 7] for n in frames]
    longest = max(map(len, rows))
    generator = torch.Generator().manual_seed(1)
    return {
        "prompt_ids": torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
        "prompt_mask": torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows]),
        "mel": torch.randn(2, 32, max(frames), generator=generator),
        "num_frames": torch.tensor(frames),
    }


def plain_inputs(prompt: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    places_F = torch.arange(prompt["mel"].shape[-1])
    return {
        "input_ids": prompt["prompt_ids"],
        "attention_mask": prompt["prompt_mask"],
        "input_features": prompt["mel"],
        "feature_attention_mask": (places_F < prompt["num_frames"][:, None]).long(),
    }


def test_packed_log_probabilities_of_a_second_family_are_those_of_its_plain_forward(
    folder: Path, prompt: dict[str, torch.Tensor]
) -> None:
    network: Any = load_base(folder, precision="fp32").eval()
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(30, 280, (2, GROUP, LONGEST), generator=generator)
    mask = torch.arange(LONGEST) < torch.tensor([[7, 4, 2], [1, 6, 7]])[..., None]
    repeated = {n: t.repeat_interleave(GROUP, 0) for n, t in plain_inputs(prompt).items()}
    width = repeated["input_ids"].shape[1]
    repeated["input_ids"] = torch.cat([repeated["input_ids"], ids.flatten(0, 1)], 1)
    repeated["attention_mask"] = torch.cat(
        [repeated["attention_mask"], mask.flatten(0, 1).long()], 1
    )
    with torch.no_grad():
        packed = score_completions(network, prompt, completion_ids=ids, completion_mask=mask)
        logits = network(**repeated, use_cache=False).logits[:, width - 1 : -1]
    plain = logits.float().log_softmax(-1).gather(-1, ids.flatten(0, 1)[..., None])
    assert (packed.logprob_BGC - plain.view(ids.shape))[mask].abs().max() < 1e-4


def test_a_second_family_decodes_as_transformers_generates(
    folder: Path, prompt: dict[str, torch.Tensor]
) -> None:
    network: Any = load_base(folder, precision="fp32").eval()
    inputs = plain_inputs(prompt)
    expected = network.generate(
        **inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0
    )[:, inputs["input_ids"].shape[1] :]
    with torch.no_grad():
        found = decode(
            network,
            prefill(network, prompt),
            stop_ids=torch.tensor([-1]),
            pad_id=0,
            max_new_tokens=6,
        )
    assert torch.equal(found.token_BGC[:, 0], expected)


def test_parts_and_adapters_of_a_second_family_are_its_own(folder: Path) -> None:
    network = load_base(folder, precision="fp32")
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning
    assert not any(name.startswith("model.visual.") for name in learning)
    freeze_parts(network, ["audio_encoder"])
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert all(name.startswith(("model.language_model.", "lm_head.")) for name in learning)
    adapted = add_adapter(load_base(folder, precision="fp32"), LoraConfig(rank=2))
    names = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert names
    assert all("language_model" in name for name in names)


def test_a_family_is_found_by_its_module() -> None:
    found = family_of("qwen2_audio")
    assert found is not None
    assert [found.num_audio_tokens(frames) for frames in (100, 1000)] == [25, 250]
    assert family_of("llama") is None
