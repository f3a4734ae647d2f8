"""What a training's files say of it: run.json, its settings and back, a checkpoint's card."""

# pyright: strict

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from model.config import TrainConfig, deciding_settings, idle_settings
from model.own_functions import source_digest
from storage.errors import PipelineError
from storage.manifest import flat
from storage.records.model import ModelRef
from storage.records.training import RUN, TrainingRecord

OWN = "own functions"  # key of their digests among the settings
PACKAGES = ("torch", "transformers", "accelerate", "peft", "torchao")  # those that compute

RESULTS = "Results: in the leaderboard of the experiment that made this model."

METHODS = {"grpo": "group relative policy optimisation", "sft": "supervised fine-tuning"}


class TrainingRun(NamedTuple):
    """One training."""

    record: TrainingRecord
    config: TrainConfig
    output: Path
    """Its folder: checkpoints, metrics.jsonl, completions.jsonl, dropped.jsonl."""
    deciding: Mapping[str, JsonValue]
    """What decides what it learns and a resumed run must share, flat: `grpo.beta: 0.04`; as it was
    when the process began, user's own functions included."""

    @property
    def start_model(self) -> str:
        """Folder or hub name of the model that it starts from."""
        return self.record.start.path


def read_run(path: Path) -> TrainingRun:
    """Read a training's run.json; a PipelineError names what is wrong in it."""
    record = TrainingRecord.read(path)
    return run_of(record, config_of(record), path.parent)


def run_of(record: TrainingRecord, config: TrainConfig, output: Path) -> TrainingRun:
    """A training with the settings that its checkpoints are held to."""
    settings = decided_by(config) | {"start_model_digest": record.start.digest}
    settings.pop("stop", None)  # it changes no step, and may be raised
    if record.parent is not None:
        settings["continues"] = record.parent.digest
    return TrainingRun(record, config, output, dict(flat(settings)))


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
    """What a training is, before it begins; see `TrainingRecord`."""
    versions: dict[str, str] = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):  # a host that only evaluates may lack one
            versions[package] = version(package)
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
        versions=versions,
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
    """The settings of a training; a PipelineError names one that this version does not know."""
    idle = {name: value for name, value in record.idle.items() if name in TrainConfig.model_fields}
    settings = {"name": record.name, **record.settings, **idle}
    settings.pop(OWN, None)
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        msg = f"training {record.name} has settings that this version does not know: {error}"
        raise PipelineError(msg) from error


def card_text(run: TrainingRun, step: int, *, num_examples: int, num_dropped: int) -> str:
    """The card as Hugging Face shows it: where the model comes from and how it was trained."""
    config, start = run.config, run.record.start
    return f"""---
base_model: {json.dumps(start.public_name)}
library_name: transformers
pipeline_tag: audio-text-to-text
tags: [audio-question-answering, {config.method}]
---

# {config.name}, step {step} of {config.max_steps}

Trained from `{start.public_name}` ({start.digest}) by {METHODS[config.method]} on AVQA's \
questions about audio, put as the prompt `{config.prompt.name}`.

Data: {num_examples} examples; {num_dropped} more could not be used (audio that cannot be read, or \
a prompt that is too long).

Settings:

```json
{json.dumps(deciding_settings(config), indent=1)}
```

{RESULTS}
"""
