"""What a training needs, estimated before it starts: memory by count of bytes, time by operations.

Memory is what lies on each GPU throughout (weights, gradients, optimiser, reference), and the
largest moment of a step (activations, keys and values of the rollout, logits). The published 7B in
the paper's settings needs about 151 GB of the first kind on one GPU, so it has to be sharded,
adapted, or kept in bf16 with an 8-bit optimiser. Good to about 15%: the allocator's fragments and
kernels' workspaces are covered by a flat reserve.

Operations are two a token and parameter that it goes through in the layers, the vocabulary head
where tokens are predicted, and the encoder; three times for a forward with its backward pass. Not
counted: attention's own products (a few percent at these lengths) and what checkpointing computes
again. Their share of a known GPU's speed is MFU.
"""

# pyright: strict

from typing import NamedTuple

from model.config import EvaluateConfig, TrainConfig
from storage.errors import PipelineError
from storage.records.sizes import ModelSizes

BF16, FP32 = 2, 4  # bytes
PROMPT_TOKENS = 350  # a 10 s clip is 250 tokens; question and template about 100
TARGET_TOKENS = 32  # of what supervised fine-tuning teaches, generously
HEAD_CHUNK = 256  # positions in one pass of the vocabulary head, see vocabulary_head.py
RESERVE_BYTES = 3e9  # CUDA context, workspaces, fragments
EIGHT_BIT_STATES = 2 * (1 + FP32 / 256)  # two moments, a scale for each block of 256
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
# Measured with the 7B on an H200, see benchmarks/README.md: share of the card's peak in passes, and
# seconds for a layer and token while decoding.
PEAK_SHARE = 0.25
LAYER_S = {"eager": 0.0007, "captured": 0.0004}


class MemoryEstimate(NamedTuple):
    """Bytes on one GPU."""

    weights: float
    """The policy, and the bf16 copy that mixed precision computes with."""
    gradients: float
    optimizer: float
    reference: float
    activations: float
    """Kept for the backward pass of one micro-batch of the longest completions allowed."""
    rollout: float
    """Keys and values while one prompt is sampled; not at the same time as the activations."""
    logits: float
    """One chunk of the vocabulary head."""
    reserve: float = RESERVE_BYTES

    @property
    def total(self) -> float:
        """The largest moment of a step."""
        lasting = self.weights + self.gradients + self.optimizer + self.reference + self.reserve
        return lasting + max(self.activations, self.rollout) + self.logits

    def text(self) -> str:
        """One line for a person, in decimal GB."""
        parts = (f"{name} {value / 1e9:.1f}" for name, value in self._asdict().items())
        return f"{self.total / 1e9:.1f} GB a GPU ({', '.join(parts)})"


def estimate(config: TrainConfig, sizes: ModelSizes, *, num_gpus: int = 1) -> MemoryEstimate:
    """Of one GPU, where masters, gradients and optimiser are sharded over `num_gpus` or are not."""
    total = sizes.total
    trained = sum(n for part, n in sizes.parameters.items() if part not in config.freeze)
    if config.lora is not None:
        adapted = config.lora.target_modules
        trained = config.lora.rank * sum(sizes.adapted.get(name, 0) for name in adapted)
    shards = num_gpus if config.sharding != "none" else 1
    width, compute = BF16 if config.precision == "bf16" else FP32, compute_bytes(config)
    copy = BF16 * total if config.precision == "bf16-mixed" else 0
    if config.sharding == "fsdp":  # gathered by layer; both vocabularies are one group
        copy = BF16 * 2 * (sizes.vocabulary * sizes.text_width + sizes.text_layer)
    states = EIGHT_BIT_STATES if config.optimizer == "adamw-8bit-sr" else 2 * width
    token = 2 * sizes.text_kv_width * sizes.text_layers * compute
    is_sampled = config.method == "grpo"
    return MemoryEstimate(
        weights=width * total / shards + copy,
        gradients=width * trained / shards,
        optimizer=states * trained / shards,
        reference=compute * total if config.has_reference else 0.0,
        activations=_activations(config, sizes, compute),
        rollout=is_sampled * token * rollout_tokens(config, _prompt_tokens(config)),
        logits=HEAD_CHUNK * sizes.vocabulary * (compute + 3 * FP32),
    )


def check_fits(needed: MemoryEstimate, card_bytes: float) -> None:
    """Refuse a training that a card cannot hold; a PipelineError says what would help."""
    if needed.total > card_bytes:
        msg = (
            f"the training needs about {needed.text()}, the card has {card_bytes / 1e9:.0f} GB: "
            "use the profile one-gpu (bf16 weights, 8-bit optimiser) or lora, set "
            "gradient_checkpointing, lower prompts_per_device, or shard over more GPUs"
        )
        raise PipelineError(msg)


def estimate_inference(config: EvaluateConfig, sizes: ModelSizes) -> float:
    """Bytes of a GPU for answering, at least: the weights; batches adapt to what is left."""
    return (FP32 if config.precision == "fp32" else BF16) * sizes.total + RESERVE_BYTES


def rollout_tokens(config: TrainConfig, prompt_tokens: int) -> int:
    """Tokens whose keys and values lie in memory for each prompt of a rollout, at the longest."""
    return prompt_tokens + config.grpo.group_size * config.grpo.max_completion_tokens


def compute_bytes(config: TrainConfig) -> int:
    """Of a number that is computed with."""
    return FP32 if config.precision == "fp32" else BF16


def _prompt_tokens(config: TrainConfig) -> int:
    return min(PROMPT_TOKENS, config.max_prompt_tokens)


def _activations(config: TrainConfig, sizes: ModelSizes, compute: int) -> float:
    """What the backward pass keeps: per layer its input, or all that its operations keep."""
    prompt = _prompt_tokens(config)
    row = rollout_tokens(config, prompt) if config.method == "grpo" else prompt + TARGET_TOKENS
    tokens = config.prompts_per_device * row
    text = tokens * compute * (10 * sizes.text_width + 4 * sizes.text_ffn_width)
    frames = config.prompts_per_device * sizes.encoder_positions
    audio = frames * compute * (10 * sizes.encoder_width + 2 * sizes.encoder_ffn_width)
    if not config.gradient_checkpointing:
        return sizes.text_layers * text + sizes.encoder_layers * audio
    inputs = tokens * compute * sizes.text_width * sizes.text_layers
    inputs += frames * compute * sizes.encoder_width * sizes.encoder_layers
    return inputs + max(text, audio)


def operations(
    sizes: ModelSizes,
    training: TrainConfig | None,
    *,
    text_tokens: float,
    predicted_tokens: float,
    encoder_positions: float,
    is_sampled: bool = True,
) -> float:
    """Floating-point operations of a training step, or of one pass, which is an answer's.

    Args:
        sizes: Of the model.
        training: What learns, and with how many passes; None: one pass.
        text_tokens: Through the language model in one pass, prompts and completions.
        predicted_tokens: Of these, the ones that the head predicts.
        encoder_positions: Pairs of mel frames that are heard, 50 a second.
        is_sampled: Whether GRPO samples for this step; a rollout may serve several.
    """
    text_passes = encoder_passes = 1
    if training is not None:
        num_forwards = 0  # without backward: rollout and reference
        if training.method == "grpo" and is_sampled:
            num_forwards = 1 + (training.grpo.beta > 0)
        has_adapter = training.lora is not None  # gradients pass the language model's own weights
        is_fixed = has_adapter or "language_model" in training.freeze
        text_passes = num_forwards + (2 if is_fixed else FORWARD_AND_BACKWARD)
        is_fixed = has_adapter or "audio_encoder" in training.freeze
        encoder_passes = num_forwards + (1 if is_fixed else FORWARD_AND_BACKWARD)
    positions = encoder_positions * sizes.encoder_positions / POSITIONS_OF_30_S
    text = 2 * (
        text_tokens * sizes.text_layers * sizes.text_layer_active
        + predicted_tokens * sizes.vocabulary * sizes.text_width
    )
    encoder = 2 * positions * sizes.encoder_layers * sizes.encoder_layer
    return text * text_passes + encoder * encoder_passes


def peak_operations_per_s(device_name: str) -> float | None:
    """A GPU's speed by its name, e.g. `NVIDIA H100 80GB HBM3`; None if it is not known."""
    return next((peak for key, peak in PEAK_OPERATIONS_PER_S.items() if key in device_name), None)


def forecast_step_s(
    training: TrainConfig, sizes: ModelSizes, card: str, num_gpus: int
) -> tuple[float, float] | None:
    """Seconds of a training's step by count, for short answers and for the longest allowed.

    None for a card whose speed is not known; measured steps tell better.
    """
    peak = peak_operations_per_s(card)
    if peak is None:
        return None
    group, longest, layer_s = 1, TARGET_TOKENS, 0.0
    if training.method == "grpo":
        group, longest = training.grpo.group_size, training.grpo.max_completion_tokens
        layer_s = LAYER_S[training.decode]
    seconds: list[float] = []
    for num_tokens in (SHORT_ANSWER, longest):
        predicted = training.prompts_per_step * group * num_tokens
        needed = operations(
            sizes,
            training,
            text_tokens=training.prompts_per_step * PROMPT_TOKENS + predicted,
            predicted_tokens=predicted,
            encoder_positions=training.prompts_per_step * CLIP_POSITIONS,
        )
        sampling_s = num_tokens * sizes.text_layers * layer_s
        seconds.append(needed / (peak * PEAK_SHARE * num_gpus) + sampling_s)
    return seconds[0], seconds[1]


def forecast_answer_s(sizes: ModelSizes, card: str, num_tokens: int, at_once: int) -> float:
    """Seconds of an answer by count, where so many are given at once; 0: as None above."""
    peak = peak_operations_per_s(card)
    if peak is None:
        return 0.0
    needed = operations(
        sizes,
        None,
        text_tokens=PROMPT_TOKENS + num_tokens,
        predicted_tokens=num_tokens,
        encoder_positions=CLIP_POSITIONS,
    )
    decoding_s = num_tokens * sizes.text_layers * LAYER_S["eager"]
    return needed / (peak * PEAK_SHARE) + decoding_s / at_once
