"""Trainings that differ from one another in one deciding setting: a seed, beta, the prompt.

They are recognised by what each recorded before it started, never by a name. Means and intervals
over seeds are not claimed here.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reports.sheets import TrainingSheet, flat

# A training's own name decides nothing of what it learns; a prompt's name stands for all of it.
NAMES = ("name", "prompt")


class Variants(NamedTuple):
    """Trainings that are alike in all but one setting."""

    setting: str
    """E.g. `grpo.beta`."""
    members: Mapping[str, str]
    """Value of the setting by training."""


def variants(trainings: Sequence[TrainingSheet]) -> list[Variants]:
    """One group a setting and common rest; a training may stand in several."""
    settings = {training.name: _deciding(training) for training in trainings if training.settings}
    found: list[Variants] = []
    for key in sorted({key for own in settings.values() for key in own}):
        groups: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        for name, own in settings.items():
            rest = tuple(sorted((other, text) for other, text in own.items() if other != key))
            groups.setdefault(rest, {})[name] = own.get(key, "none")
        found += [Variants(key, group) for group in groups.values() if len({*group.values()}) > 1]
    return found


def _deciding(training: TrainingSheet) -> dict[str, str]:
    start = training.start.digest if training.start else ""
    own = {"seed": str(training.seed), "prompt": training.prompt, "start model": start[:12]}
    settings = {key: value for key, value in training.settings.items() if key not in NAMES}
    return dict(flat(settings)) | own
