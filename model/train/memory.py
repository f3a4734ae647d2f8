"""How much memory a training needs, estimated before it starts; knows nothing of torch.

By count of bytes: what lies on each GPU throughout (weights, gradients, optimiser, reference), and
the largest moment of a step (activations, keys and values of the rollout, logits). The published
7B in the paper's settings needs about 151 GB of the first kind on one GPU, so it has to be sharded,
adapted, or kept in bf16 with an 8-bit optimiser. An estimate within about 15%, not a promise: the
allocator's fragments and kernels' workspaces are covered by a flat reserve.
"""

# pyright: strict

from typing import NamedTuple

from model.config import EvaluateConfig, TrainConfig
from storage.errors import PipelineError
from storage.records.sizes import ModelSizes

BF16, FP32 = 2, 4  # bytes
PROMPT_TOKENS = 350  # a 10 s clip is 250 tokens; question and template about 100
HEAD_CHUNK = 256  # positions in one pass of the vocabulary head, see vocabulary_head.py
RESERVE_BYTES = 3e9  # CUDA context, workspaces, fragments
PROCESS_BYTES = 3e9  # Python, torch, CUDA, data workers
EIGHT_BIT_STATES = 2 * (1 + FP32 / 256)  # two moments, a scale for each block of 256


class MemoryEstimate(NamedTuple):
    """Bytes on one GPU."""

    weights: float
    """The policy, and the bf16 copy that mixed precision computes with."""
    gradients: float
    optimizer: float
    """Moments of AdamW."""
    reference: float
    """The frozen start model in bf16."""
    activations: float
    """Kept for the backward pass of one micro-batch of the longest completions allowed."""
    rollout: float
    """Keys and values while one prompt is sampled, as many more as there is room for; not at the
    same time as the activations."""
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
    """Estimate one GPU's memory.

    Args:
        config: Of the training.
        sizes: Of the model.
        num_gpus: Over which masters, gradients and optimiser are sharded, where they are.
    """
    total = sizes.total
    trained = sum(n for part, n in sizes.parameters.items() if part not in config.freeze)
    if config.lora is not None:
        adapted = config.lora.target_modules
        trained = config.lora.rank * sum(sizes.adapted.get(name, 0) for name in adapted)
    shards = num_gpus if config.sharding != "none" else 1
    width = BF16 if config.precision == "bf16" else FP32
    copy = BF16 * total if config.precision == "bf16-mixed" else 0
    if config.sharding == "fsdp":  # gathered by layer; both vocabularies are one group
        copy = BF16 * 2 * (sizes.vocabulary * sizes.text_width + sizes.text_layer)
    states = EIGHT_BIT_STATES if config.optimizer == "adamw-8bit-sr" else 2 * width
    compute = FP32 if config.precision == "fp32" else BF16
    return MemoryEstimate(
        weights=width * total / shards + copy,
        gradients=width * trained / shards,
        optimizer=states * trained / shards,
        reference=compute * total if _holds_reference(config) else 0.0,
        activations=_activations(config, sizes, compute),
        rollout=_rollout(config, sizes, compute),
        logits=HEAD_CHUNK * sizes.vocabulary * (compute + 3 * FP32),
    )


def estimate_host(config: TrainConfig, sizes: ModelSizes, *, num_processes: int) -> float:
    """Bytes of a host's memory, at its largest moment.

    One process reads the policy and the reference before they go to all GPUs; later it gathers
    what is sharded, with its optimiser, for a checkpoint.

    Args:
        config: Of the training.
        sizes: Of the model.
        num_processes: On this host, one a GPU.
    """
    total = sizes.total
    width = BF16 if config.precision == "bf16" else FP32
    compute = FP32 if config.precision == "fp32" else BF16
    loading = total * (width + compute * _holds_reference(config))
    gathering = 0 if config.sharding == "none" else 3 * FP32 * total
    return max(loading, gathering) + num_processes * PROCESS_BYTES


def check_fits(needed: MemoryEstimate, card_bytes: float) -> None:
    """Refuse a training that a card cannot hold.

    Raises:
        PipelineError: If so; says what would help.
    """
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


def _holds_reference(config: TrainConfig) -> bool:
    """Whether the start model lies beside the policy; an adapter's base is its own reference."""
    return config.method == "grpo" and config.grpo.beta > 0 and config.lora is None


def _tokens(config: TrainConfig) -> int:
    """Tokens of a packed micro-batch at its longest."""
    prompt = min(PROMPT_TOKENS, config.max_prompt_tokens)
    completions = config.grpo.group_size * config.grpo.max_completion_tokens
    return config.prompts_per_device * (prompt + (completions if config.method == "grpo" else 32))


def _activations(config: TrainConfig, sizes: ModelSizes, compute: int) -> float:
    """What the backward pass keeps: per layer its input, or all that its operations keep."""
    text = _tokens(config) * compute * (10 * sizes.text_width + 4 * sizes.text_ffn_width)
    frames = config.prompts_per_device * sizes.encoder_positions
    audio = frames * compute * (10 * sizes.encoder_width + 2 * sizes.encoder_ffn_width)
    if not config.gradient_checkpointing:
        return sizes.text_layers * text + sizes.encoder_layers * audio
    inputs = _tokens(config) * compute * sizes.text_width * sizes.text_layers
    inputs += frames * compute * sizes.encoder_width * sizes.encoder_layers
    return inputs + max(text, audio)


def _rollout(config: TrainConfig, sizes: ModelSizes, compute: int) -> float:
    """Keys and values of one prompt, and of all its completions at their longest."""
    if config.method != "grpo":
        return 0.0
    prompt = min(PROMPT_TOKENS, config.max_prompt_tokens)
    token = 2 * sizes.text_kv_width * sizes.text_layers * compute
    return token * rollout_tokens(config, prompt)


def rollout_tokens(config: TrainConfig, prompt_tokens: int) -> int:
    """Tokens whose keys and values lie in memory for each prompt of a rollout, at the longest."""
    return prompt_tokens + config.grpo.group_size * config.grpo.max_completion_tokens
