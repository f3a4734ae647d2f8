"""Estimates against counts by hand and against the table of the published sizes."""

from pathlib import Path

import pytest

from model.config import GrpoConfig, LoraConfig, TrainConfig
from model.network.loading import load_model
from model.network.measure import measure_config
from model.train.estimates import check_fits, estimate, operations, peak_operations_per_s
from storage.errors import PipelineError
from storage.records.sizes import published_sizes

PUBLISHED = published_sizes("Qwen/Qwen2-Audio-7B-Instruct")
assert PUBLISHED is not None


def test_the_published_model_has_8_4_billion_parameters() -> None:
    """6.48 in 32 layers, 1.28 in two vocabularies, 0.64 in the encoder."""
    parameters = PUBLISHED.parameters
    assert sum(parameters.values()) / 1e9 == pytest.approx(8.40, abs=0.01)
    assert parameters["audio_encoder"] / 1e9 == pytest.approx(0.64, abs=0.01)


def test_parameters_are_counted_as_the_model_has_them(tiny_model: Path) -> None:
    model = load_model(tiny_model, precision="fp32")
    counted = measure_config(tiny_model).parameters
    assert sum(counted.values()) == sum(p.numel() for p in model.parameters())
    encoder = model.model.audio_tower
    assert counted["audio_encoder"] == sum(p.numel() for p in encoder.parameters())


def test_the_papers_settings_do_not_fit_one_card_and_are_refused_with_what_helps() -> None:
    """34 fp32 weights + 17 bf16 copy + 34 gradients + 67 moments + 17 reference."""
    needed = estimate(TrainConfig(), PUBLISHED)
    lasting = needed.weights + needed.gradients + needed.optimizer + needed.reference
    assert lasting / 1e9 == pytest.approx(168, abs=1)
    with pytest.raises(PipelineError, match=r"the card has 80 GB: use the profile one-gpu"):
        check_fits(needed, 80e9)


def test_bf16_weights_with_an_8_bit_optimiser_fit_80_gb() -> None:
    config = TrainConfig(precision="bf16", optimizer="adamw-8bit-sr", gradient_checkpointing=True)
    needed = estimate(config, PUBLISHED)
    assert needed.weights == needed.reference == 2 * PUBLISHED.total
    assert needed.total < 80e9
    check_fits(needed, 80e9)


def test_eight_gpus_share_masters_gradients_and_moments() -> None:
    needed = estimate(TrainConfig(sharding="zero2"), PUBLISHED, num_gpus=8)
    parameters = PUBLISHED.total
    assert needed.weights == pytest.approx(parameters * (4 / 8 + 2))
    assert needed.gradients == pytest.approx(parameters * 4 / 8)
    assert needed.optimizer == pytest.approx(parameters * 8 / 8)
    assert needed.total < 80e9
    regathered = estimate(TrainConfig(sharding="fsdp"), PUBLISHED, num_gpus=8)
    assert regathered.weights < needed.weights - 10e9


def test_an_adapter_needs_no_second_model_and_fits_48_gb() -> None:
    """Rank 16 on four square layers of 4096: 16 x 8 x 4096 x 32 layers = 16.8 million."""
    config = TrainConfig(precision="bf16", lora=LoraConfig(), gradient_checkpointing=True)
    needed = estimate(config, PUBLISHED)
    assert needed.reference == 0
    assert needed.gradients == 2 * 16 * 8 * 4096 * 32
    assert needed.total < 48e9


def test_no_reference_and_frozen_parts_take_less() -> None:
    config = TrainConfig(grpo=GrpoConfig(beta=0), freeze=("audio_encoder",))
    needed = estimate(config, PUBLISHED)
    assert needed.reference == 0
    assert needed.gradients < estimate(TrainConfig(), PUBLISHED).gradients


def test_a_rollout_needs_room_for_one_prompt() -> None:
    """350 tokens with 8 x 256 to come, half a MiB each; more prompts where there is more room."""
    for number in (1, 16):
        config = TrainConfig(prompts_per_step=number)
        assert estimate(config, PUBLISHED).rollout == (350 + 8 * 256) * 2**19


def test_a_packed_step_of_the_published_model_takes_33_trillion_operations() -> None:
    """A prompt of 310 tokens, 8 completions of 16, a 10 s clip; with attention it is 33."""
    counted = operations(
        PUBLISHED,
        TrainConfig(),
        text_tokens=310 + 8 * 16,
        predicted_tokens=8 * 16,
        encoder_positions=500,
    )
    assert counted / 1e12 == pytest.approx(33, rel=0.05)


def test_an_adapter_computes_no_gradient_of_the_weights_below_it() -> None:
    """MFU counted one. Without a head and an encoder: 2 + 3 passes, or 2 + 2."""
    trainings = (TrainConfig(), TrainConfig(lora=LoraConfig()))
    passes = {"text_tokens": 100, "predicted_tokens": 0, "encoder_positions": 0}
    full, adapted = (operations(PUBLISHED, training, **passes) for training in trainings)
    assert adapted / full == pytest.approx(4 / 5)
    heard = passes | {"text_tokens": 0, "encoder_positions": 500}
    full, adapted = (operations(PUBLISHED, training, **heard) for training in trainings)
    assert adapted / full == pytest.approx(3 / 5)


def test_the_speed_of_a_gpu_is_known_by_its_name() -> None:
    assert peak_operations_per_s("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_operations_per_s("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_operations_per_s("some other card") is None
