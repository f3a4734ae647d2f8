"""Which parts of the model learn, and how far each has moved."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from model.config import PartName
from storage.errors import PipelineError

# Where each part's parameters are, as prefixes of transformers' names.
PREFIXES: dict[PartName, tuple[str, ...]] = {
    "audio_encoder": ("model.audio_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.", "lm_head."),
}


def part_of(parameter_name: str) -> PartName:
    """The part that a parameter belongs to."""
    for part, prefixes in PREFIXES.items():
        if parameter_name.startswith(prefixes):
            return part
    msg = (
        f"the parameter {parameter_name} is in no part of a Qwen2-Audio: expected one of {PREFIXES}"
    )
    raise ValueError(msg)


def freeze_parts(model: PreTrainedModel, parts: Sequence[PartName]) -> None:
    """Stop parts from learning.

    Raises:
        PipelineError: If that leaves nothing to learn.
    """
    for name, parameter in model.named_parameters():
        if part_of(name) in parts:
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        msg = f"freeze {list(parts)} leaves nothing to train: take a part out of it"
        raise PipelineError(msg)
