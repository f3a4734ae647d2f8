"""What a training's files say of it: run.json, its settings and back, a checkpoint's card."""

# pyright: strict

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import JsonValue, ValidationError

from model.config import TrainConfig, deciding_settings, idle_settings
from model.own_functions import source_digest
from storage.errors import PipelineError
from storage.records.model import ModelRef
from storage.records.training import RUN, TrainingRecord

OWN = "own functions"  # key of their digests among the settings
PACKAGES = ("torch", "transformers", "accelerate", "peft", "torchao")  # those that compute

RESULTS = "Results: in the leaderboard of the experiment that made this model."

METHODS: Mapping[str, str] = {
    "grpo": "group relative policy optimisation",
    "sft": "supervised fine-tuning",
}


def training_record(
    config: TrainConfig,
    *,
    start: ModelRef,
    parent: ModelRef | None = None,
    examples: Path,
    examples_sha256: str = "",
    num_examples: int,
    num_devices: int = 1,
) -> TrainingRecord:
    """What a training is, before it begins.

    Args:
        config: Its settings.
        start: The model that it starts from.
        parent: The checkpoint that it continues.
        examples: train.jsonl.
        examples_sha256: Of its lines.
        num_examples: Its lines.
        num_devices: Training processes.
    """
    return TrainingRecord(
        name=config.name,
        method=config.method,
        variant="full" if config.lora is None else "lora",
        prompt=config.prompt.name,
        seed=config.seed,
        start=start,
        is_start_rounded=_is_rounded(start),
        parent=parent,
        examples=examples,
        examples_sha256=examples_sha256,
        num_examples=num_examples,
        num_devices=num_devices,
        settings=decided_by(config),
        idle=idle_settings(config),
        versions=_versions(),
    )


def _is_rounded(start: ModelRef) -> bool:
    """Whether a start model's weights are rounded from the masters of its own training."""
    run = Path(start.path).parent / RUN
    if start.training is None or not run.exists():
        return False
    made_by = TrainingRecord.read(run)
    return made_by.variant == "full" and made_by.settings.get("precision") == "bf16-mixed"


def decided_by(config: TrainConfig) -> dict[str, JsonValue]:
    """The settings that decide what is learned, and the source of the user's own functions."""
    named = (config.grpo.reward if config.method == "grpo" else None, config.example_repeats)
    own: dict[str, JsonValue] = {path: source_digest(path) for path in named if path is not None}
    return deciding_settings(config) | ({OWN: own} if own else {})


def config_of(record: TrainingRecord) -> TrainConfig:
    """The settings of a training.

    Raises:
        PipelineError: If this version does not know one of them; names it.
    """
    settings = {"name": record.name, **record.settings, **record.idle}
    settings.pop(OWN, None)
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        msg = f"training {record.name} has settings that this version does not know: {error}"
        raise PipelineError(msg) from error


def card_text(
    config: TrainConfig, step: int, *, start: ModelRef, num_examples: int, num_dropped: int
) -> str:
    """The card as Hugging Face shows it: where the model comes from and how it was trained."""
    lines: Sequence[str] = (
        "---",
        f"base_model: {json.dumps(start.public_name)}",
        "library_name: transformers",
        "pipeline_tag: audio-text-to-text",
        f"tags: [audio-question-answering, {config.method}]",
        "---",
        "",
        f"# {config.name}, step {step} of {config.max_steps}",
        "",
        f"Trained from `{start.public_name}` ({start.digest}) by {METHODS[config.method]} on "
        f"AVQA's questions about audio, put as the prompt `{config.prompt.name}`.",
        "",
        f"Data: {num_examples} examples; {num_dropped} more could not be used (audio that cannot "
        "be read, or a prompt that is too long).",
        "",
        "Settings:",
        "",
        "```json",
        json.dumps(deciding_settings(config), indent=1),
        "```",
        "",
        RESULTS,
        "",
    )
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a host that only evaluates may lack one
            continue
    return found
