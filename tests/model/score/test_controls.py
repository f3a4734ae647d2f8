import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.score.controls import asked_questions, runs_of, shuffled_audio
from storage.records.question import Question


def make(name: str, *choices: str, task: str = "sound") -> Question:
    return Question(
        id=name,
        clips=(f"{name}.wav",),
        question="Who?",
        choices=choices or ("dog", "cat"),
        answer=(choices or ("dog",))[0],
        task=task,
        category="Reasoning",
        sub_category="Counting",
        difficulty="easy",
        dataset="AudioSet",
        split="test-mini",
    )


def test_controls_become_runs_and_the_trivial_baselines_need_none() -> None:
    """The unshifted order is the proper run's: a fourth shift of four choices asked it again."""
    assert runs_of(["silence", "shuffled-audio", "first-choice", "longest-choice"]) == [
        "silence",
        "shuffled-audio",
    ]
    assert runs_of(["cyclic-shifts"]) == [f"cyclic-shift-{shift}" for shift in (1, 2, 3)]


@pytest.mark.parametrize(
    ("control", "choices"),
    [
        (None, "abcd"),
        ("silence", "abcd"),
        ("cyclic-shift-1", "bcda"),
        ("cyclic-shift-3", "dabc"),
    ],
)
def test_a_cyclic_shift_rotates_the_choices_and_keeps_the_answer(control, choices) -> None:
    (asked,) = asked_questions([make("q", *"abcd")], control)
    assert asked.choices == tuple(choices)
    assert asked.answer == "a"


def test_two_choices_are_swapped_by_the_odd_shifts() -> None:
    shifted = [asked_questions([make("q")], f"cyclic-shift-{k}")[0].choices for k in (1, 2)]
    assert shifted == [("cat", "dog"), ("dog", "cat")]


@given(
    st.lists(st.sampled_from(["sound", "music", "speech"]), min_size=1, max_size=30), st.integers()
)
def test_shuffled_audio_stays_in_its_task_and_moves_every_clip(tasks, seed) -> None:
    questions = [make(f"q{index}", task=task) for index, task in enumerate(tasks)]
    heard = shuffled_audio(questions, seed)
    by_clip = {question.clips: question for question in questions}
    for question in questions:
        assert by_clip[heard[question.id]].task == question.task
        alone = tasks.count(question.task) == 1
        assert (heard[question.id] == question.clips) is alone
    assert len(set(heard.values())) == len(questions)


def test_shuffled_audio_is_the_same_each_time() -> None:
    questions = [make(f"q{index}") for index in range(20)]
    assert shuffled_audio(questions) == shuffled_audio(list(reversed(questions)))
