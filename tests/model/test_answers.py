import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.answers import extract_answer, resolve_choice

PETS = ("dog", "a cat", "Rain, then wind.", "B flat")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>dog</answer>", "dog"),
        ("<answer>\n dog\n</answer>", "dog"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<think>a < b</think><answer>dog</answer>", "dog"),
        ("<answer>dog</answer><answer>cat</answer>", "dog"),
        ("<answer></answer>", ""),
        ("<answer>dog", None),
        ("dog", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("prompt", ["answer", "think"])
def test_the_first_answer_tag_holds_the_answer(prompt, completion, answer) -> None:
    assert extract_answer(completion, prompt) == answer


def test_under_the_plain_prompt_the_whole_completion_is_the_answer() -> None:
    assert extract_answer(" dog\n", "plain") == "dog"
    assert extract_answer("<answer>dog</answer>", "plain") == "<answer>dog</answer>"


@pytest.mark.parametrize(
    ("answer", "choice_index"),
    [
        ("dog", 0),
        ("Dog.", 0),
        ("'dog'", 0),
        ("“a cat”", 1),
        (" A  CAT ", 1),
        ("rain, then wind", 2),
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B.", 1),
        ("B)", 1),
        ("(B) a cat", 1),
        ("B. a cat", 1),
        ("B: a cat.", 1),
        ("B) A cat", 1),
        ("B flat", 3),
    ],
)
def test_an_answer_that_is_one_choice_is_found(answer, choice_index) -> None:
    assert resolve_choice(answer, PETS).choice_index == choice_index


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer"),
        ("The answer is dog.", "not a choice"),
        ("dog or a cat", "not a choice"),
        ("E", "no choice E"),
        ("(A) a cat", "letter and text disagree"),
        ("(A) a bird", "not a choice"),
        ("B dog", "not a choice"),
        ("cat", "not a choice"),
    ],
)
def test_anything_else_is_no_choice_and_says_why(answer, reason) -> None:
    assert resolve_choice(answer, PETS) == (None, reason)


def test_a_choice_that_is_a_letter_is_taken_as_text() -> None:
    """Two rows of MMAU's original offer the chord "C"; that text is meant, not the third choice."""
    assert resolve_choice("B", ("B", "A", "C", "D")).choice_index == 0


def test_duplicate_choices_are_one_choice() -> None:
    assert resolve_choice("six", ("four", "six", "six")).choice_index == 1


def test_choices_that_differ_in_case_only_need_the_exact_text() -> None:
    assert resolve_choice("Dog", ("dog", "Dog")).choice_index == 1
    assert resolve_choice("DOG", ("dog", "Dog")) == (None, "fits several choices")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=8), st.data())
def test_every_choice_resolves_to_itself(choices, data) -> None:
    answer = data.draw(st.sampled_from(choices))
    index = resolve_choice(answer, choices).choice_index
    assert index is not None
    assert choices[index] == answer


@given(st.text().filter(lambda text: "</answer>" not in text))
def test_a_tagged_text_is_read_back(text) -> None:
    assert extract_answer(f"so: <answer>{text}</answer>", "answer") == text.strip()
