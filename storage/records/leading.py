"""Which step of a training is quoted: one rule, for the controls that are run and the report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from storage.records.evaluation import EvaluationRun, Tally


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
    """Questions that have an answer."""
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
    not wholly evaluated the last that is leads, under a reason that says so.

    Args:
        training: Its name.
        prompt: Name of its prompt; asked with another one, a step says nothing.
        saved: Steps of its checkpoints, by its settings; empty: not known, those that were asked.
        done: Evaluations, of other models too.
        num_asked: Questions of all tests.
        declared: Step that the settings name.

    Returns:
        None where no step is wholly evaluated.
    """
    answered: dict[int, Tally] = {}
    validation: dict[int, Tally] = {}
    for run, number, right in done:
        made, key = run.model.training, run.key
        is_own = made and made.name == training and run.role == "checkpoint"
        if not made or not is_own or key.control or key.prompt != prompt:
            continue
        if run.is_test:
            before = answered[made.step].num_correct if made.step in answered else 0
            answered[made.step] = Tally(before + number, num_asked)
        elif right is not None:
            validation[made.step] = right
    saved = saved or sorted(answered)
    whole = [step for step in saved if step in answered and _is_whole(answered[step])]
    if not whole:
        return None
    coverage = _coverage(saved, whole, answered)
    if declared is not None and declared in whole:
        return Leading(declared, "declared step", coverage)
    if validation and all(step in validation for step in saved):
        best = min(saved, key=lambda step: (-validation[step].accuracy, step))
        if best in whole:
            return Leading(best, "chosen on validation", coverage)
    if whole[-1] == saved[-1]:
        return Leading(whole[-1], "last step", coverage)
    return Leading(whole[-1], "last evaluated step", coverage)


def _is_whole(tally: Tally) -> bool:
    return tally.num_correct == tally.num_questions


def _coverage(saved: Sequence[int], whole: Sequence[int], answered: Mapping[int, Tally]) -> str:
    if len(whole) == len(saved):
        return ""
    partly = [
        f"step {step}: {answered[step].num_correct} of {answered[step].num_questions}"
        for step in saved
        if step in answered and step not in whole
    ]
    return "; ".join([f"{len(whole)} of {len(saved)} steps evaluated", *partly])
