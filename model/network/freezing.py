"""Which parts of the model learn, and how far each has moved."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from model.config import PartName
from model.network.family import Family, family_of_network
from storage.errors import PipelineError


def part_of(parameter_name: str, family: Family) -> PartName | None:
    """The part that a parameter belongs to; None for one that no question reaches."""
    for part, beginnings in family.parts.items():
        if parameter_name.startswith(beginnings):
            return part
    if parameter_name.startswith(family.idle):
        return None
    msg = (
        f"the parameter {parameter_name} is in no part of a {family.model_type}: expected one of "
        f"{family.parts}"
    )
    raise ValueError(msg)


def freeze_parts(model: PreTrainedModel, parts: Sequence[PartName]) -> None:
    """Stop parts from learning.

    Raises:
        PipelineError: If that leaves nothing to learn.
    """
    family = family_of_network(model)
    for name, parameter in model.named_parameters():
        if part_of(name, family) in parts:
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        msg = f"freeze {list(parts)} leaves nothing to train: take a part out of it"
        raise PipelineError(msg)
