"""Which evaluation a folder holds, and which step of a training leads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import leading as rule
from storage.records.evaluation import RunKey, Tally
from storage.records.leading import Done, Leading
from storage.records.model import TrainingRef
from storage.records.question import VALIDATION
from tests.storage.records.made_run import make_run

NAMES = st.sampled_from(["a", "a-silence", "silence", "a.b"])
CONTROLS = st.none() | st.sampled_from(["silence", "cyclic-shift-1"])
KEYS = st.builds(RunKey, model=NAMES, benchmark=NAMES, prompt=NAMES, control=CONTROLS)
WHOLE, HALF = Tally(120, 120), Tally(50, 120)


def done(step: int, tally: Tally, benchmark: str = "demo", **changes: object) -> Done:
    made = TrainingRef(name="grpo", seed=42, step=step)
    run = make_run(benchmark=benchmark, training=made, **changes)
    return Done(run, tally.num_correct, tally)


def leading(
    saved: list[int],
    answered: dict[int, Tally],
    validation: dict[int, Tally],
    *,
    declared: int | None,
) -> Leading | None:
    found = [done(step, tally) for step, tally in answered.items()]
    found += [done(step, tally, VALIDATION) for step, tally in validation.items()]
    # Another prompt's, a control's and a further model's answers say nothing of a step.
    found += [done(100, HALF, prompt="think"), done(100, HALF, control="silence")]
    found += [done(100, HALF, role="other")]
    return rule.leading("grpo", "answer", saved, found, num_asked=120, declared=declared)


@given(KEYS, KEYS)
def test_only_one_key_has_a_folder(one: RunKey, other: RunKey):
    assert (one.folder == other.folder) == (one == other)
    assert len(one.folder.parts) == 3


def test_the_declared_step_leads_before_validation_and_the_last():
    answered = {100: WHOLE, 200: WHOLE, 300: WHOLE}
    validation = {100: Tally(9, 10), 200: Tally(5, 10), 300: Tally(9, 10)}
    steps = [100, 200, 300]
    assert leading(steps, answered, validation, declared=200) == (200, "declared step", "")
    assert leading(steps, answered, validation, declared=None) == (100, "chosen on validation", "")
    assert leading(steps, answered, {}, declared=None) == (300, "last step", "")


def test_a_step_that_is_not_wholly_evaluated_is_said_and_nothing_is_called_last():
    """A checkpoint-300 evaluated by half let step 200 lead as `last step`."""
    found = leading([100, 200, 300], {100: WHOLE, 200: WHOLE, 300: HALF}, {}, declared=None)
    coverage = "2 of 3 steps evaluated; step 300: 50 of 120"
    assert found == (200, "last evaluated step", coverage)
    missing = leading([100, 200, 300], {100: WHOLE, 200: WHOLE}, {}, declared=None)
    assert missing == (200, "last evaluated step", "2 of 3 steps evaluated")


def test_validation_chooses_only_where_every_saved_step_has_a_score():
    """With a validation score of step 100 alone, step 100 led as `chosen on validation`."""
    answered = {100: WHOLE, 200: WHOLE}
    assert leading([100, 200], answered, {100: Tally(9, 10)}, declared=None) == (
        200,
        "last step",
        "",
    )


@pytest.mark.parametrize("answered", [{}, {100: HALF}])
def test_nothing_leads_where_no_step_is_wholly_evaluated(answered):
    assert leading([100], answered, {}, declared=100) is None
