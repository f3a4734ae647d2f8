"""How much arithmetic a step asks for, and which share of a known GPU's speed that is (MFU).

Counted: two operations a token and parameter that it goes through in the layers, the vocabulary
head where tokens are predicted, and the encoder; three times for a forward with its backward pass.
Not counted: attention's own products (a few percent at these lengths) and what checkpointing
computes again.
"""

# pyright: strict

from collections.abc import Collection

from model.config import PartName, TrainConfig
from model.train.memory import PROMPT_TOKENS
from storage.records.sizes import ModelSizes

# Dense bf16 operations a second, from the makers' data sheets (SXM modules where there are two).
PEAK_OPERATIONS_PER_S = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
FORWARD_AND_BACKWARD = 3
POSITIONS_OF_30_S = 1500  # pairs of mel frames
SHORT_ANSWER = 16  # tokens of `<answer>dog barking</answer>`
CLIP_POSITIONS = 500  # of a clip of 10 s
# Guessed, not measured: of a card's peak in passes; for a layer and token while sampling, where
# launches are waited for.
PEAK_SHARE, LAYER_S = 0.4, 0.001


def operations(
    sizes: ModelSizes,
    *,
    text_tokens: float,
    predicted_tokens: float,
    encoder_positions: float,
    num_forwards: int,
    freeze: Collection[PartName] = (),
    has_adapter: bool = False,
) -> float:
    """Floating-point operations of one training step's passes.

    Args:
        sizes: Of the model.
        text_tokens: Tokens through the language model in one pass, prompts and completions.
        predicted_tokens: Of these, the ones that the head predicts.
        encoder_positions: Pairs of mel frames that are heard, 50 a second.
        num_forwards: Passes without backward (rollout, reference); one more is with it.
        freeze: Parts that do not learn.
        has_adapter: Only adapters on the language model learn: it passes gradients on and computes
            none for its own weights.
    """
    positions = encoder_positions * sizes.encoder_positions / POSITIONS_OF_30_S
    text = 2 * (
        text_tokens * sizes.text_layers * sizes.text_layer_active
        + predicted_tokens * sizes.vocabulary * sizes.text_width
    )
    encoder = 2 * positions * sizes.encoder_layers * sizes.encoder_layer
    text_passes = 2 if has_adapter or "language_model" in freeze else FORWARD_AND_BACKWARD
    encoder_passes = 1 if has_adapter or "audio_encoder" in freeze else FORWARD_AND_BACKWARD
    return text * (num_forwards + text_passes) + encoder * (num_forwards + encoder_passes)


def peak_operations_per_s(device_name: str) -> float | None:
    """A GPU's speed by its name, e.g. `NVIDIA H100 80GB HBM3`; None if it is not known."""
    return next((peak for key, peak in PEAK_OPERATIONS_PER_S.items() if key in device_name), None)


def forecast_step_s(
    training: TrainConfig, sizes: ModelSizes, card: str, num_gpus: int
) -> tuple[float, float] | None:
    """Seconds of a training's step by count, for short answers and for the longest allowed.

    None for a card whose speed is not known. After ten steps the measured speed tells better.
    """
    peak = peak_operations_per_s(card)
    if peak is None:
        return None
    samples = training.method == "grpo"
    group = training.grpo.group_size if samples else 1
    seconds: list[float] = []
    for num_tokens in (SHORT_ANSWER, training.grpo.max_completion_tokens if samples else 32):
        predicted = training.prompts_per_step * group * num_tokens
        needed = operations(
            sizes,
            text_tokens=training.prompts_per_step * PROMPT_TOKENS + predicted,
            predicted_tokens=predicted,
            encoder_positions=training.prompts_per_step * CLIP_POSITIONS,
            num_forwards=samples + (samples and training.grpo.beta > 0),
            freeze=training.freeze,
            has_adapter=training.lora is not None,
        )
        sampling_s = samples * num_tokens * sizes.text_layers * LAYER_S
        seconds.append(needed / (peak * PEAK_SHARE * num_gpus) + sampling_s)
    return seconds[0], seconds[1]


def forecast_answer_s(sizes: ModelSizes, card: str, num_tokens: int, at_once: int) -> float:
    """Seconds of an answer by count, where so many are given at once; 0: as None above."""
    peak = peak_operations_per_s(card)
    if peak is None:
        return 0.0
    needed = operations(
        sizes,
        text_tokens=PROMPT_TOKENS + num_tokens,
        predicted_tokens=num_tokens,
        encoder_positions=CLIP_POSITIONS,
        num_forwards=1 - FORWARD_AND_BACKWARD,  # one pass in all
    )
    return needed / (peak * PEAK_SHARE) + num_tokens * sizes.text_layers * LAYER_S / at_once
