"""The model card of a checkpoint, and the report of what a training moved."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from model.config import PartName, TrainConfig
from model.network.family import family_of_network
from model.network.freezing import part_of
from model.network.loading import load_model


class Movement(NamedTuple):
    """How far one part of the model moved from the start model."""

    num_parameters: int
    moved_share: float
    """Share of its weights that are not bit for bit what they were."""
    relative_change: float
    """Norm of the change over norm of the start, both over the whole part."""


def measure_movement(
    start: str | Path, trained: str | Path, config: TrainConfig
) -> dict[PartName, Movement]:
    """Compare two models on the CPU, adapters merged; needs memory for both.

    At the paper's learning rate a part moves by about 1e-5 of its norm; 0 for a part that should
    have learned says that its updates vanished in rounding or that it was frozen.
    """
    before = dict(load_model(start, precision=config.precision).named_parameters())
    model = load_model(trained, precision=config.precision)
    family = family_of_network(model)
    sums: dict[PartName, torch.Tensor] = defaultdict(lambda: torch.zeros(4, dtype=torch.float64))
    for name, weight in model.named_parameters():
        part = part_of(name, family)
        if part is None:
            continue
        old = before.pop(name).detach()
        change = weight.detach().float() - old.float()
        numbers = (weight.numel(), (change != 0).sum(), (change**2).sum(), (old.float() ** 2).sum())
        sums[part] += torch.tensor([float(number) for number in numbers]).double()
    return {
        part: Movement(int(number), float(moved / number), float((change / norm).sqrt()))
        for part, (number, moved, change, norm) in sums.items()
    }


def card_text(
    config: TrainConfig, step: int, *, start_model: str, num_examples: int, num_dropped: int
) -> str:
    """The card as Hugging Face shows it: where the model comes from and how it was trained."""
    settings = config.model_dump(
        mode="json", exclude={"sft" if config.method == "grpo" else "grpo"}
    )
    lines: Sequence[str] = (
        "---",
        f"base_model: {json.dumps(start_model)}",
        "library_name: transformers",
        "pipeline_tag: audio-text-to-text",
        f"tags: [audio-question-answering, {config.method}]",
        "---",
        "",
        f"# {config.name}, step {step} of {config.max_steps}",
        "",
        f"Trained from `{start_model}` by {METHODS[config.method]} on AVQA's questions about "
        f"audio, put as the prompt `{config.prompt}`.",
        "",
        f"Data: {num_examples} examples; {num_dropped} more could not be used (audio that cannot "
        "be read, or a prompt that is too long).",
        "",
        "Settings:",
        "",
        "```json",
        json.dumps(settings, indent=1),
        "```",
        "",
        "Results: in the leaderboard of the experiment that made this model.",
        "",
    )
    return "\n".join(lines)


METHODS: Mapping[str, str] = {
    "grpo": "group relative policy optimisation",
    "sft": "supervised fine-tuning",
}
