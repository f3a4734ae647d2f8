"""Operations of a step against the count by formula for the published sizes."""

import pytest

from model.train.flops import operations, peak_operations_per_s
from storage.records.sizes import published_sizes


def test_a_packed_step_of_the_published_model_takes_33_trillion_operations() -> None:
    """A prompt of 310 tokens, 8 completions of 16, a 10 s clip; with attention it is 33."""
    sizes = published_sizes("Qwen/Qwen2-Audio-7B-Instruct")
    assert sizes is not None
    counted = operations(
        sizes,
        text_tokens=310 + 8 * 16,
        predicted_tokens=8 * 16,
        encoder_positions=500,
        num_forwards=2,
    )
    assert counted / 1e12 == pytest.approx(33, rel=0.05)


def test_an_adapter_computes_no_gradient_of_the_weights_below_it() -> None:
    """MFU counted one. Without a head and an encoder: 2 + 3 passes, or 2 + 2."""
    sizes = published_sizes("Qwen/Qwen2-Audio-7B-Instruct")
    assert sizes is not None
    passes = {"text_tokens": 100, "predicted_tokens": 0, "encoder_positions": 0, "num_forwards": 2}
    full, adapted = (operations(sizes, has_adapter=has, **passes) for has in (False, True))
    assert adapted / full == pytest.approx(4 / 5)
    heard = passes | {"text_tokens": 0, "encoder_positions": 500}
    full, adapted = (operations(sizes, has_adapter=has, **heard) for has in (False, True))
    assert adapted / full == pytest.approx(3 / 5)


def test_the_speed_of_a_gpu_is_known_by_its_name() -> None:
    assert peak_operations_per_s("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_operations_per_s("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_operations_per_s("some other card") is None
