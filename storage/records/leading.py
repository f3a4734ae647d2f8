"""Which evaluations count: those that the profile asks for, and the step that leads a training.

Trainings, models, prompts and benchmarks are replaced, renamed and removed, and what was measured
of them stays where it is. Nothing of it may lead, choose or join a curve of the present profile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from storage.records.evaluation import EvaluationRun, Tally


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What a profile asks, and of whom."""

    models: frozenset[tuple[str, str]]
    """Digests of each model and of its prompt: checkpoints, their start models, further ones."""
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


class Leading(NamedTuple):
    """The step of a training to quote, and why."""

    step: int
    reason: str
    """`declared step`, `chosen on validation` or `last step`."""
    coverage: str
    """What was not evaluated, e.g. `2 of 3 steps evaluated; step 300: 50 of 120`; empty: all."""


class Done(NamedTuple):
    """How far an evaluation has come."""

    run: EvaluationRun
    num_answered: int
    right: Tally | None
    """Under the leading scorer; None where it is not whole, or the answers are withheld."""


def leading(
    training: str,
    prompt: str,
    saved: Sequence[int],
    done: Iterable[Done],
    *,
    num_asked: int,
    declared: int | None,
) -> Leading | None:
    """The step of a training that leads: declared, else chosen on validation, else the last.

    The test's own questions never decide it, and nothing leads by another's absence: validation
    chooses only where every saved step has a whole score on it, and where the last saved step is
    not wholly evaluated the last that is leads, under a reason that says so. None where no step is
    wholly evaluated, which is where all questions of all tests (`num_asked`) have an answer.

    `done` may hold evaluations of other models and prompts, which say nothing; where the steps that
    the training's settings save are not known, they are those that were asked.
    """
    answered: Counter[int] = Counter()
    validation: dict[int, Tally] = {}
    for run, number, right in done:
        made, key = run.model.training, run.key
        is_own = made and made.name == training and run.role == "checkpoint"
        if not made or not is_own or key.control or key.prompt != prompt:
            continue
        if run.is_test:
            answered[made.step] += number
        elif right is not None:
            validation[made.step] = right
    saved = saved or sorted(answered)
    whole = [step for step in saved if step in answered and answered[step] == num_asked]
    if not whole:
        return None
    partly = [
        f"step {step}: {answered[step]} of {num_asked}"
        for step in saved
        if step in answered and step not in whole
    ]
    said = [f"{len(whole)} of {len(saved)} steps evaluated", *partly]
    coverage = "; ".join(said) if len(whole) < len(saved) else ""
    if declared is not None and declared in whole:
        return Leading(declared, "declared step", coverage)
    if validation and all(step in validation for step in saved):
        best = min(saved, key=lambda step: (-validation[step].accuracy, step))
        if best in whole:
            return Leading(best, "chosen on validation", coverage)
    reason = "last step" if whole[-1] == saved[-1] else "last evaluated step"
    return Leading(whole[-1], reason, coverage)
