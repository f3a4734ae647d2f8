"""The packed pass against a naive one: each completion forwarded with its own prompt and audio."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, Qwen2AudioForConditionalGeneration

from model.config import Attention, Precision
from model.network.features import Prompt, collate, mel_features, prompt_tokens
from model.network.loading import load_model, load_processor, stop_tokens
from model.network.packed import prefill, score_completions
from model.network.packing import completion_mask, pack
from model.network.sampling import Sampling, decode, draw, uniform_numbers
from storage.errors import PipelineError

GROUP = 4
DURATIONS_S = (3.0, 0.77, 1.9)
QUESTIONS = (
    "What is the source of the sound in the audio?",
    "What is it? Please choose the answer from the following options: ['tone', 'noise'].",
    "Which?",
)


class Case(NamedTuple):
    """Three prompts of different lengths with completions of 1 to 9 tokens, with and without an
    end.
    """

    model: Qwen2AudioForConditionalGeneration
    processor: Any
    prompt: dict[str, torch.Tensor]
    naive_inputs: dict[str, torch.Tensor]
    completion_ids: torch.Tensor
    mask: torch.Tensor


@pytest.fixture
def case(tiny_model: Path) -> Case:
    model = load_model(tiny_model, precision="fp32")
    torch.manual_seed(1)
    with torch.no_grad():  # the tiny model's initial weights say nearly the same everywhere
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    processor = load_processor(tiny_model)
    rng = np.random.default_rng(0)
    waves = [(rng.standard_normal(int(16_000 * s)) * 0.1).astype(np.float32) for s in DURATIONS_S]
    mels = [mel_features(processor, wave) for wave in waves]
    prompts = [
        Prompt(prompt_tokens(processor, text, mel.num_frames), mel)
        for text, mel in zip(QUESTIONS, mels, strict=True)
    ]
    chats = [
        processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "audio", "audio_url": ""}, {"type": "text", "text": text}],
                }
            ],
            add_generation_prompt=True,
            tokenize=False,
        )
        for text in QUESTIONS
    ]
    naive_inputs = processor(
        text=chats, audio=waves, sampling_rate=16_000, return_tensors="pt", padding=True
    )
    vocabulary = model.config.get_text_config().vocab_size
    eos, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    ids = torch.randint(10, vocabulary, (len(prompts), GROUP, 9))
    lengths = torch.tensor([[1, 9, 4, 2], [9, 9, 3, 1], [5, 6, 7, 8]])
    for row in range(3):
        for g in range(GROUP):
            length = int(lengths[row, g])
            if length < 9 or g % 2:
                ids[row, g, length - 1] = eos
                ids[row, g, length:] = pad
    return Case(
        model,
        processor,
        collate(prompts, pad),
        dict(naive_inputs),
        ids,
        completion_mask(ids.flatten(0, 1), torch.tensor([eos])).view(3, GROUP, 9),
    )


def naive_logprob(model: Any, case: Case, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """As the original: every completion with its own copy of prompt and audio, logits
    everywhere.
    """
    repeated = {key: value.repeat_interleave(GROUP, 0) for key, value in inputs.items()}
    ids = torch.cat([repeated["input_ids"], case.completion_ids.flatten(0, 1)], 1)
    mask = torch.cat([repeated["attention_mask"], case.mask.flatten(0, 1).long()], 1)
    logits = Qwen2AudioForConditionalGeneration.forward(
        model,
        input_ids=ids,
        attention_mask=mask,
        input_features=repeated["input_features"],
        feature_attention_mask=repeated["feature_attention_mask"],
    ).logits
    start = inputs["input_ids"].shape[1] - 1
    logprob = logits[:, start:-1].float().log_softmax(-1)
    return logprob.gather(-1, case.completion_ids.flatten(0, 1)[..., None])[..., 0].view(
        3, GROUP, -1
    )


def scores(model: Any, case: Case, **kwargs: Any) -> Any:
    return score_completions(
        model,
        case.prompt,
        completion_ids=case.completion_ids,
        completion_mask=case.mask,
        **kwargs,
    )


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def greedy(model: Qwen2AudioForConditionalGeneration, case: Case) -> torch.Tensor:
    completions = decode(
        model,
        prefill(model, case.prompt),
        stop_ids=stop_tokens(model, case.processor),
        pad_id=case.processor.tokenizer.pad_token_id,
        max_new_tokens=12,
    )
    return completions.token_BGC[:, 0]


def test_prompts_are_what_the_processor_makes(case: Case) -> None:
    assert torch.equal(case.prompt["prompt_ids"], case.naive_inputs["input_ids"])
    assert torch.equal(case.prompt["prompt_mask"], case.naive_inputs["attention_mask"])
    for row, frames in enumerate(case.prompt["num_frames"].tolist()):
        assert frames == int(case.naive_inputs["feature_attention_mask"][row].sum())
        seen = min(2 * ((frames - 1) // 2 + 1) + 1, case.prompt["mel"].shape[2])
        difference = (
            case.prompt["mel"][row, :, :seen] - case.naive_inputs["input_features"][row, :, :seen]
        )
        assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("head_chunk", [3, 256])
def test_packed_log_probabilities_and_gradients_equal_the_naive_ones(
    case: Case, head_chunk: int
) -> None:
    model = case.model.train()
    weight = torch.randn(case.mask.shape, generator=torch.Generator().manual_seed(3)) * case.mask
    packed = scores(model, case, head_chunk=head_chunk).logprob_BGC
    packed_gradients = gradients(model, (packed * weight).sum())
    naive = naive_logprob(model, case, case.naive_inputs)
    naive_gradients = gradients(model, (naive * weight).sum())
    assert ((packed - naive) * case.mask).abs().max() < 1e-5
    assert packed_gradients.keys() == naive_gradients.keys()
    norm = sum(float((g**2).sum()) for g in naive_gradients.values()) ** 0.5
    for name, gradient in naive_gradients.items():
        difference = float((packed_gradients[name] - gradient).norm())
        assert difference <= 1e-4 * max(float(gradient.norm()), 1e-3 * norm), name


def test_flex_attention_changes_no_log_probability_and_no_completion(
    case: Case, tmp_path: Path
) -> None:
    case.model.save_pretrained(tmp_path)
    flex = load_model(tmp_path, precision="fp32", attention="flex")
    # It has no backward pass on a CPU, and its compilation pickles what other tests may import.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        difference = (
            scores(flex, case, attention="flex").logprob_BGC - scores(case.model, case).logprob_BGC
        )
        ours, theirs = (greedy(model, case) for model in (flex, case.model))
    assert (difference * case.mask).abs().max() < 1e-5
    assert torch.equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flex"])
@pytest.mark.parametrize(
    ("precision", "nats", "relative"), [("fp32", 1e-4, 1e-3), ("bf16", 0.15, 0.1)]
)
def test_on_a_gpu_packed_numbers_are_close_to_the_naive_ones_of_a_cpu(
    case: Case,
    tmp_path: Path,
    attention: Attention,
    precision: Precision,
    nats: float,
    relative: float,
) -> None:
    case.model.save_pretrained(tmp_path)
    weight = case.mask / case.mask.sum()
    naive = naive_logprob(case.model, case, case.naive_inputs)
    naive_gradients = gradients(case.model, (naive * weight).sum())
    model = load_model(tmp_path, precision=precision, attention=attention, device="cuda")
    packed = score_completions(
        model,
        {name: tensor.cuda() for name, tensor in case.prompt.items()},
        completion_ids=case.completion_ids.cuda(),
        completion_mask=case.mask.cuda(),
        attention=attention,
    ).logprob_BGC
    packed_gradients = gradients(model, (packed * weight.cuda()).sum())
    assert ((packed.cpu() - naive) * case.mask).abs().max() < nats
    ours, theirs = (
        torch.cat([found[name].float().cpu().flatten() for name in naive_gradients])
        for found in (packed_gradients, naive_gradients)
    )
    assert (ours - theirs).norm() <= relative * theirs.norm()


def test_gradient_checkpointing_changes_no_gradient(case: Case) -> None:
    model = case.model.train()
    plain = gradients(model, (scores(model, case).logprob_BGC * case.mask).sum())
    model.gradient_checkpointing_enable()
    recomputed = gradients(model, (scores(model, case).logprob_BGC * case.mask).sum())
    for name, gradient in plain.items():
        assert torch.allclose(recomputed[name], gradient, rtol=1e-5, atol=1e-7), name


def test_bf16_autocast_stays_close_to_fp32(case: Case) -> None:
    """bf16 has 8 bits of mantissa; packed and naive round differently, both within 0.15 nats of
    fp32 here.
    """
    exact = scores(case.model, case).logprob_BGC * case.mask
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed = scores(case.model, case).logprob_BGC * case.mask
        naive = naive_logprob(case.model, case, case.naive_inputs) * case.mask
    assert packed.dtype == torch.float32
    assert (packed - exact).abs().max() < 0.15
    assert (packed - exact).abs().mean() < 2 * (naive - exact).abs().mean() + 1e-3


def test_padding_and_the_other_prompts_change_nothing(case: Case) -> None:
    together = scores(case.model, case).logprob_BGC
    for row in range(3):
        width = int(case.prompt["prompt_mask"][row].sum())
        alone = score_completions(
            case.model,
            {
                "prompt_ids": case.prompt["prompt_ids"][row : row + 1, -width:],
                "prompt_mask": case.prompt["prompt_mask"][row : row + 1, -width:],
                "mel": case.prompt["mel"][row : row + 1],
                "num_frames": case.prompt["num_frames"][row : row + 1],
            },
            completion_ids=case.completion_ids[row : row + 1],
            completion_mask=case.mask[row : row + 1],
        ).logprob_BGC
        assert ((alone[0] - together[row]) * case.mask[row]).abs().max() < 1e-5


def test_each_completion_is_scored_with_its_own_prompts_audio(case: Case) -> None:
    """The original repeated features [a, b, a, b] beside prompts [a, a, b, b] with two prompts a
    device.
    """
    swapped = {**case.prompt, "mel": case.prompt["mel"].clone()}
    swapped["mel"][0] = 0
    before = scores(case.model, case).logprob_BGC
    after = scores(case.model, case._replace(prompt=swapped)).logprob_BGC
    changed = ((before - after).abs() * case.mask).amax(dim=(1, 2)) > 1e-6
    assert changed.tolist() == [True, False, False]


def test_entropy_is_that_of_the_naive_distribution(case: Case) -> None:
    entropy = scores(case.model, case).entropy_BGC
    ids = torch.cat([case.naive_inputs["input_ids"][:1], case.completion_ids[:1, 1]], 1)
    mask = torch.cat([case.naive_inputs["attention_mask"][:1], torch.ones(1, 9).long()], 1)
    logits = Qwen2AudioForConditionalGeneration.forward(
        case.model,
        input_ids=ids,
        attention_mask=mask,
        input_features=case.naive_inputs["input_features"][:1],
        feature_attention_mask=case.naive_inputs["feature_attention_mask"][:1],
    ).logits[0, -10:-1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(entropy[0, 1], expected, atol=1e-4)


def test_greedy_decoding_equals_generate(case: Case) -> None:
    generation = GenerationConfig(
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=case.processor.tokenizer.pad_token_id,
        eos_token_id=stop_tokens(case.model, case.processor).tolist(),
    )
    expected = case.model.generate(**case.naive_inputs, generation_config=generation)
    expected = expected[:, case.naive_inputs["input_ids"].shape[1] :]
    with torch.no_grad():
        assert torch.equal(greedy(case.model, case), expected)


def test_a_sampled_completion_depends_on_its_position_alone(case: Case) -> None:
    def sampled(rows: list[int]) -> torch.Tensor:
        prompt = {key: value[rows] for key, value in case.prompt.items()}
        with torch.no_grad():
            return decode(
                case.model,
                prefill(case.model, prompt),
                stop_ids=torch.tensor([-1]),
                pad_id=0,
                max_new_tokens=6,
                sampling=Sampling(),
                uniform_BGC=uniform_numbers(rows, seed=5, group_size=GROUP, num_tokens=6),
            ).token_BGC

    together = sampled([0, 1, 2])
    assert torch.equal(sampled([2, 0])[0], together[2])
    assert not torch.equal(together[0, 0], together[0, 1])


def test_sampled_tokens_come_as_often_as_the_model_says() -> None:
    """20,000 draws; each word within 4.5 binomial standard deviations of its probability."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 1.5, -30.0]])
    num_draws = 20_000
    uniform = uniform_numbers([0], seed=1, group_size=num_draws, num_tokens=1).flatten()
    cases = {
        Sampling(top_k=0): logits.softmax(-1)[0],
        Sampling(top_k=0, temperature=2.0): (logits / 2).softmax(-1)[0],
        # The three likeliest words are 0, 4 and 1.
        Sampling(top_k=3): torch.tensor([2.0, 1.0, -1e9, -1e9, 1.5, -1e9]).softmax(-1),
        # Their shares of all are 0.47, 0.28, 0.17: 0.7 needs the first two.
        Sampling(top_k=0, top_p=0.7): torch.tensor([2.0, -1e9, -1e9, -1e9, 1.5, -1e9]).softmax(-1),
    }
    for sampling, probability in cases.items():
        drawn = draw(logits.expand(num_draws, -1), uniform, sampling)
        counts = torch.bincount(drawn, minlength=6).double()
        deviation = (num_draws * probability * (1 - probability)).sqrt().double()
        assert ((counts - num_draws * probability).abs() <= 4.5 * deviation + 1e-6).all(), sampling


def test_a_completion_cannot_end_before_the_minimum(case: Case) -> None:
    stop = stop_tokens(case.model, case.processor)
    prompt = {key: value[:1] for key, value in case.prompt.items()}
    with torch.no_grad():
        case.model.lm_head.weight[stop] = case.model.lm_head.weight.abs().max() * 5
        completions = decode(
            case.model,
            prefill(case.model, prompt),
            stop_ids=stop,
            pad_id=0,
            max_new_tokens=5,
            sampling=Sampling(min_new_tokens=4),
            uniform_BGC=uniform_numbers([0], seed=0, group_size=64, num_tokens=5),
        )
    assert not torch.isin(completions.token_BGC[..., :4], stop).any()


def test_a_completion_counts_up_to_its_first_end() -> None:
    mask = completion_mask(
        torch.tensor([[5, 2, 2, 7], [5, 6, 7, 8], [2, 5, 5, 5]]), torch.tensor([2])
    )
    assert mask.tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [True, False, False, False],
    ]


def test_a_packed_token_sees_its_prompt_and_its_own_past_only() -> None:
    """Prompt of 2 with one place of padding; completions of 3 and 2 tokens; the last ones are no
    inputs.
    """
    packing = pack(
        torch.tensor([[[11, 12, 13], [21, 22, 0]]]),
        torch.tensor([[[True, True, True], [True, True, False]]]),
        torch.tensor([[0, 1, 1]]),
    )
    assert packing.token_BS.tolist() == [[11, 12, 21]]
    assert packing.position_BT.tolist() == [[0, 0, 1, 2, 3, 2]]
    assert packing.visible_B1TT[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 1],
    ]


def test_the_table_of_positions_is_frozen(case: Case) -> None:
    """transformers 5.23 leaves it trainable after from_pretrained."""
    assert not case.model.model.audio_tower.embed_positions.weight.requires_grad


def test_a_saved_model_is_loaded_by_plain_transformers(case: Case, tmp_path: Path) -> None:
    case.model.save_pretrained(tmp_path)
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path)
    assert plain.config.architectures == ["Qwen2AudioForConditionalGeneration"]
    loaded = plain.state_dict()
    for name, tensor in case.model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_another_kind_of_model_is_refused_with_what_it_is(tmp_path: Path) -> None:
    """The original chose the class by "Qwen2-Audio" in the path, so a renamed folder was taken for
    another model.
    """
    folder = tmp_path / "Qwen2-Audio-looking-name"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        PipelineError, match="is a llama model, which cannot be used here: expected a model of "
    ):
        load_model(folder, precision="fp32")
