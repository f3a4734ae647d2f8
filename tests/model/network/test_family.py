"""Every family by the same tests: packed, sampled, saved, adapted and frozen by its one value.

Expected values are transformers' own: its plain forward, `generate`, tower and extractor.
"""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from model.config import DecodeWay, LoraConfig
from model.infer.decoder import Decoder
from model.network.family import Family, family_of, freeze_parts, known_families
from model.network.features import Batch, Mel, Prompt, collate, mel_features, prompt_tokens
from model.network.loading import load_model, load_processor, stop_tokens
from model.network.packed import embed_prompt, prefill, score_completions
from model.network.policy import add_adapter
from model.network.sampling import (
    CAPTURED_STEPS,
    CHECK_EVERY,
    Completions,
    Sampling,
    decode,
    uniform_numbers,
)
from model.network.tiny import build_tiny
from storage.errors import PipelineError

GROUP, LONGEST = 3, 7
DURATIONS_S = (2.0, 0.47)
QUESTIONS = ("What is the source of the sound?", "Which?")
FAMILIES = sorted(known_families())
KINDS = ("inputs_embeds", "input_ids")


class Case(NamedTuple):
    """Two prompts, padded on the left, with clips of different lengths, and their completions."""

    family: Family
    folder: Path
    network: Any
    processor: Any
    prompt: Batch
    plain: dict[str, torch.Tensor]
    """The same for transformers' own forward, with its extractor's features of whole windows."""
    completion_ids: torch.Tensor
    mask: torch.Tensor


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    build_tiny(folder, QUESTIONS, clip_length_s=3.0, seed=0, family=request.param)
    network: Any = load_model(folder, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():  # the tiny model's initial weights say nearly the same everywhere
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    processor: Any = load_processor(folder)
    rng = np.random.default_rng(0)
    waves = [(rng.standard_normal(int(16_000 * s)) * 0.1).astype(np.float32) for s in DURATIONS_S]
    mels = [mel_features(processor, wave) for wave in waves]
    prompts = [
        Prompt(prompt_tokens(processor, text, mel.num_frames), mel)
        for text, mel in zip(QUESTIONS, mels, strict=True)
    ]
    prompt = collate(prompts, processor.tokenizer.pad_token_id)
    extracted = processor.feature_extractor(
        waves,
        sampling_rate=16_000,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    plain = {
        "input_ids": prompt["prompt_ids"],
        "attention_mask": prompt["prompt_mask"],
        "input_features": extracted["input_features"],
        "feature_attention_mask": extracted["attention_mask"],
    }
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(10, len(processor.tokenizer), (2, GROUP, LONGEST), generator=generator)
    mask = torch.arange(LONGEST) < torch.tensor([[7, 4, 2], [1, 6, 7]])[..., None]
    family = known_families()[request.param]
    return Case(family, folder, network, processor, prompt, plain, ids, mask)


def plain_logprob(case: Case) -> torch.Tensor:
    """Each completion forwarded with its own copy of prompt and audio."""
    repeated = {name: tensor.repeat_interleave(GROUP, 0) for name, tensor in case.plain.items()}
    ids = case.completion_ids.flatten(0, 1)
    width = repeated["input_ids"].shape[1]
    repeated["input_ids"] = torch.cat([repeated["input_ids"], ids], 1)
    mask = case.mask.flatten(0, 1).long()
    repeated["attention_mask"] = torch.cat([repeated["attention_mask"], mask], 1)
    logits = case.network(**repeated, use_cache=False).logits[:, width - 1 : -1]
    logprob = logits.float().log_softmax(-1).gather(-1, ids[..., None])
    return logprob.view(case.completion_ids.shape)


def gradients(network: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    network.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def test_packed_log_probabilities_and_gradients_are_those_of_the_plain_forward(case: Case) -> None:
    weight = torch.randn(case.mask.shape, generator=torch.Generator().manual_seed(3)) * case.mask
    packed = score_completions(
        case.network, case.prompt, completion_ids=case.completion_ids, completion_mask=case.mask
    ).logprob_BGC
    ours = gradients(case.network, (packed * weight).sum())
    plain = plain_logprob(case)
    theirs = gradients(case.network, (plain * weight).sum())
    assert ((packed - plain) * case.mask).abs().max() < 1e-5
    assert ours.keys() == theirs.keys()
    assert any("audio_tower" in name for name in ours)
    norm = sum(float((gradient**2).sum()) for gradient in theirs.values()) ** 0.5
    for name, gradient in theirs.items():
        difference = float((ours[name] - gradient).norm())
        assert difference <= 1e-4 * max(float(gradient.norm()), 1e-3 * norm), name


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "nats"), [(torch.float32, 1e-4), (torch.bfloat16, 0.15)])
def test_on_a_gpu_the_packed_numbers_are_those_of_a_cpu(
    case: Case, dtype: torch.dtype, nats: float
) -> None:
    named = {"completion_ids": case.completion_ids, "completion_mask": case.mask}
    with torch.no_grad():
        expected = score_completions(case.network, case.prompt, **named).logprob_BGC
        found = score_completions(
            copy.deepcopy(case.network).to("cuda", dtype),
            {name: tensor.cuda() for name, tensor in case.prompt.items()},
            **{name: tensor.cuda() for name, tensor in named.items()},
        ).logprob_BGC.cpu()
    assert ((found - expected) * case.mask).abs().max() < nats


def test_everything_that_can_learn_is_reached_by_a_question(case: Case) -> None:
    """DDP would wait for the gradient of a parameter that no question reaches."""
    packed = score_completions(
        case.network, case.prompt, completion_ids=case.completion_ids, completion_mask=case.mask
    ).logprob_BGC
    reached = gradients(case.network, (packed * case.mask).sum())
    learning = {name for name, p in case.network.named_parameters() if p.requires_grad}
    assert reached.keys() == learning


def test_prefill_and_cache_decode_as_transformers_generates(case: Case) -> None:
    pad_id = case.processor.tokenizer.pad_token_id
    expected = case.network.generate(
        **case.plain, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=pad_id
    )[:, case.plain["input_ids"].shape[1] :]
    with torch.no_grad():
        found = decode(
            case.network,
            prefill(case.network, case.prompt),
            stop_ids=torch.tensor([-1]),
            pad_id=pad_id,
            max_new_tokens=6,
        )
    assert torch.equal(found.token_BGC[:, 0], expected)


@pytest.mark.parametrize("sampling", [None, Sampling(), Sampling(top_p=0.8, min_new_tokens=3)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_captured_decoding_gives_the_eager_tokens(
    case: Case, sampling: Sampling | None, device: str
) -> None:
    """Uneven prompts, completions that end early or never, past the keys of one recording.

    A step asks the device for nothing: only whether all are done is asked, at each eighth.
    """
    network = copy.deepcopy(case.network).to(device)
    prompt = {name: tensor.to(device) for name, tensor in case.prompt.items()}
    longest = CAPTURED_STEPS + 10
    uniform = uniform_numbers([4, 9], seed=1, group_size=GROUP, num_tokens=longest)

    def run(way: DecodeWay, stop_ids: list[int]) -> tuple[Completions, int]:
        with torch.no_grad(), Asked() as asked:
            prefilled = prefill(network, prompt)
            asked.times = 0
            found = decode(
                network,
                prefilled,
                stop_ids=torch.tensor(stop_ids),
                pad_id=0,
                max_new_tokens=longest,
                sampling=sampling,
                uniform_BGC=None if sampling is None else uniform,
                way=way,
            )
        return found, asked.times

    endless, asked_times = run("captured", [-1])
    assert all(map(torch.equal, endless, run("eager", [-1])[0]))
    assert endless.token_BGC.shape[-1] == longest
    if device == "cpu" and case.family.name != "qwen3_omni":  # whose experts are told by their rows
        assert asked_times == 2 + (longest - 2) // CHECK_EVERY
    some_ids = endless.token_BGC[0, 0, 2:5].tolist() + endless.token_BGC[1, 0, 4:5].tolist()
    ended, _ = run("captured", some_ids)
    assert all(map(torch.equal, ended, run("eager", some_ids)[0]))
    assert ended.finished_BG.any()


class Asked(TorchDispatchMode):
    """Counts how often a number of a tensor was asked for."""

    times = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.times += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


def interrupt(_module: object, _arguments: object) -> None:
    raise KeyboardInterrupt


def test_what_is_left_out_of_the_last_layer_is_used_by_nothing(case: Case) -> None:
    """Hidden state, keys and values are the whole forward's, prompt by prompt, with adapters too;
    and a reading that fails leaves the model whole.
    """
    network: Any = load_model(case.folder, precision="fp32")
    add_adapter(network, LoraConfig(rank=2, dropout=0.0))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    for model in (case.network, network):
        language_model = model.model.language_model
        with torch.no_grad():
            read = prefill(model, case.prompt)
            embedded = embed_prompt(model, case.prompt["prompt_ids"], case.prompt)
            for row, mask in enumerate(case.prompt["prompt_mask"].bool()):
                cache = DynamicCache()
                alone = language_model(
                    inputs_embeds=embedded[row, mask][None], past_key_values=cache, use_cache=True
                ).last_hidden_state
                assert (read.last_BD[row] - alone[0, -1]).abs().max() < 1e-5
                for ours, theirs in zip(read.cache.layers, cache.layers, strict=True):
                    for one, other in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
                        assert (one[row, :, : mask.sum()] - other[0]).abs().max() < 1e-5
            stop = language_model.norm.register_forward_pre_hook(interrupt)
            with pytest.raises(KeyboardInterrupt):
                prefill(model, case.prompt)
            stop.remove()
        layer = language_model.layers[-1]
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in layer.modules())


def test_texts_about_a_clip_are_read_behind_it_and_answered_as_alone(case: Case) -> None:
    texts = (*QUESTIONS, "What is it?")
    clips = [Mel(*pair) for pair in zip(case.prompt["mel"], [200, 47], strict=True)]
    prompts = [
        Prompt(prompt_tokens(case.processor, text, clip.num_frames), clip)
        for text in texts
        for clip in clips
    ]
    read: list[tuple[str, int]] = []

    def note(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        read.extend((kind, len(kwargs[kind])) for kind in KINDS if kwargs.get(kind) is not None)

    decoder = Decoder(case.network, case.processor, max_new_tokens=5, batch_size=6)
    alone = [decoder.complete([prompt])[0] for prompt in prompts]
    hook = case.network.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    assert decoder.complete(prompts) == alone
    assert read[:2] == [("inputs_embeds", 2), ("input_ids", 6)]  # two beginnings, six texts
    read.clear()
    of_one_clip = slice(0, 6, 2)
    assert decoder.complete(prompts[of_one_clip]) == alone[of_one_clip]
    assert decoder.complete(prompts[2:6:2]) == alone[2:6:2]
    hook.remove()
    begun = [size for kind, size in read if kind == "inputs_embeds"]
    assert begun == [1]  # kept for the next batch


def test_the_tower_on_real_frames_is_transformers_tower_on_whole_windows(case: Case) -> None:
    """Seen where transformers puts the audio into the embedded prompt."""
    seen: list[torch.Tensor] = []

    def look(_module: object, _arguments: object, inputs: dict[str, Any]) -> None:
        seen.append(inputs["inputs_embeds"])

    handle = case.network.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        ours = case.family.encode(case.network, case.prompt["mel"], case.prompt["num_frames"])
        case.network(**case.plain, use_cache=False)
    handle.remove()
    frames = case.plain["feature_attention_mask"].sum(-1).tolist()
    assert len(ours) == sum(case.family.num_audio_tokens(number) for number in frames)
    theirs = seen[0][case.plain["input_ids"] == case.network.config.audio_token_id]
    assert (ours - theirs).abs().max() < 1e-5


def test_a_saved_network_is_loaded_by_plain_transformers_with_equal_logits(
    case: Case, tmp_path: Path
) -> None:
    case.network.save_pretrained(tmp_path)
    plain, loading = case.family.network.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        assert torch.equal(
            plain.eval()(**case.plain, use_cache=False).logits,
            case.network(**case.plain, use_cache=False).logits,
        )
    case.processor.save_pretrained(tmp_path)
    assert load_processor(tmp_path).chat_template == case.processor.chat_template


def test_freezing_and_adapters_reach_their_parts_alone(case: Case) -> None:
    network = load_model(case.folder, precision="fp32")
    freeze_parts(network, ["audio_encoder", "projector"])
    learning = [name for name, p in network.named_parameters() if p.requires_grad]
    assert all(name.startswith(("model.language_model.", "lm_head.")) for name in learning)
    adapted = add_adapter(load_model(case.folder, precision="fp32"), LoraConfig(rank=2))
    names = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 4 * 2  # a pair for q, k, v and o of two layers
    assert all("language_model" in name for name in names)


def test_an_answer_ends_with_either_of_the_chat_s_tokens(case: Case) -> None:
    named = ["<|im_end|>", "<|endoftext|>"]
    wanted = sorted(case.processor.tokenizer.convert_tokens_to_ids(named))
    assert stop_tokens(case.network, case.processor).tolist() == wanted


def test_an_audio_token_that_is_not_the_config_s_is_refused(case: Case, tmp_path: Path) -> None:
    """Qwen3-Omni's class has another default, with which its tower is silently not asked."""
    case.network.save_pretrained(tmp_path)
    case.processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    key = "audio_token_id" if "audio_token_id" in config else "audio_token_index"
    config[key] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PipelineError, match="the model would not hear"):
        load_processor(tmp_path)


def test_the_layers_that_are_sharded_are_the_network_s(case: Case) -> None:
    classes = [type(module).__name__ for module in case.network.modules()]
    for layer in case.family.layers:
        assert classes.count(layer) == 2, layer


@pytest.mark.parametrize(
    "name", [name for name, family in known_families().items() if len(family.model_types) > 1]
)
def test_a_whole_omni_gives_its_thinker_and_nothing_else(name: str, tmp_path: Path) -> None:
    family = known_families()[name]
    thinker, whole = tmp_path / "thinker", tmp_path / "whole"
    build_tiny(thinker, QUESTIONS, clip_length_s=3.0, seed=0, family=name)
    make_whole(thinker, whole, family)
    network, expected = (load_model(folder, precision="fp32") for folder in (whole, thinker))
    found = network.state_dict()
    for key, tensor in expected.state_dict().items():
        if not key.startswith("model.visual."):
            assert torch.equal(found[key], tensor), key
    assert sum(p.numel() for key, p in found.items() if "visual" in key) < 50_000
    processor: Any = load_processor(whole)
    assert processor.chat_template == load_processor(thinker).chat_template
    processor.save_pretrained(tmp_path)  # pictures' settings too, for who loads all of it
    assert (tmp_path / "preprocessor_config.json").read_text() == json.dumps(settings_of(whole))


def settings_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "preprocessor_config.json").read_text())


def make_whole(thinker: Path, whole: Path, family: Family) -> None:
    """An Omni's folder around a thinker: other prefixes, a real vision tower's shapes, a talker.

    Settings of pictures lie among the extractor's, and the template in the older file, as in the
    published ones.
    """
    whole.mkdir()
    for file in thinker.iterdir():
        (whole / file.name).write_bytes(file.read_bytes())
    template = (whole / "chat_template.jinja").read_text()
    (whole / "chat_template.jinja").unlink()
    (whole / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    pictures = {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136}
    settings = settings_of(whole) | pictures | {"processor_class": "Qwen2_5OmniProcessor"}
    (whole / "preprocessor_config.json").write_text(json.dumps(settings))
    config = json.loads((thinker / "config.json").read_text())
    config["vision_config"] = {"depth": 2, "hidden_size": 64, "num_heads": 4}
    outer = {"model_type": family.model_types[-1], "thinker_config": config}
    (whole / "config.json").write_text(json.dumps(outer))
    tensors = load_file(thinker / "model.safetensors")
    visual = {name: torch.ones(64, 3, 2, 14, 14) for name in tensors if "patch_embed" in name}
    tensors = {f"thinker.{name}": tensor for name, tensor in (tensors | visual).items()}
    tensors |= {"thinker.visual.blocks.0.x": torch.ones(9), "talker.x": torch.ones(3)}
    save_file(tensors, whole / "model.safetensors", metadata={"format": "pt"})


def test_a_family_is_found_by_its_module() -> None:
    frames = (100, 500, 1000, 1001)
    tokens = {
        "qwen2_audio": [25, 125, 250, 250],
        "qwen2_5_omni": [25, 125, 250, 250],
        "qwen3_omni": [13, 65, 130, 131],
    }
    for name, family in known_families().items():
        assert [family.num_audio_tokens(number) for number in frames] == tokens[name]
    assert family_of("llama") is None
