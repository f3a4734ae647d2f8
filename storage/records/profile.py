"""What a profile asks for, told by digests: which evaluations on the disk are its own.

Trainings, models, prompts and benchmarks are replaced, renamed and removed, and what was measured
of them stays where it is. Nothing of it may lead, choose or join a curve of the present profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from storage.records.evaluation import EvaluationRun


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What a profile asks, and of whom."""

    models: frozenset[tuple[str, str]]
    """Digests of each model and of its prompt: checkpoints that its trainings have written, models
    that they start from, further ones."""
    benchmarks: Mapping[str, bool]
    """Whether zeros stand for the clips, by key of each benchmark, held-out examples included."""


def belongs(run: EvaluationRun, facts: ProfileFacts) -> bool:
    """Whether an evaluation is of a model, a prompt and a benchmark of the profile.

    What a person brought from another tool is asked of no model: its benchmark tells.
    """
    if run.role == "imported":
        return run.key.benchmark in facts.benchmarks
    is_asked = run.prompt and (run.model.digest, run.prompt.sha256) in facts.models
    return bool(is_asked) and facts.benchmarks.get(run.key.benchmark) == run.silence
