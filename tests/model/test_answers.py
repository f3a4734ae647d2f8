"""From completions to answers and choices: the original's extraction, and a careful reading."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.answers import extract_answer, read_choice, resolve_choice
from model.prompt import PROMPTS

PETS = ("dog", "a cat", "Rain, then wind.", "B flat")
SOUNDS = ("Dog", "Cat", "Man's voice", "Rain")


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
    assert extract_answer(completion, PROMPTS[prompt]).answer == answer


def test_under_the_plain_prompt_the_whole_completion_is_the_answer() -> None:
    assert extract_answer(" dog\n", PROMPTS["plain"]).answer == "dog"
    tagged = "<answer>dog</answer>"
    assert extract_answer(tagged, PROMPTS["plain"]).answer == tagged


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("<answer>dog</answer> or <ANSWER>cat</ANSWER>", ("cat", "tag")),
        ("so <RESPONSE>cat", ("cat", "tag")),
        (r"thus \boxed{cat} I say", ("cat", "boxed")),
        ('{"answer": "cat"}', ("cat", "json")),
        ("I think the answer is cat. Sure", ("cat", "the-answer-is")),
        (" cat ", ("cat", "whole")),
    ],
)
def test_rules_are_tried_in_order_and_the_answer_says_which_found_it(completion, found) -> None:
    assert extract_answer(completion, PROMPTS["mmar"]) == found


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("B", ("cat", "whole, letter")),
        ("(b) cat", ("cat", "whole, letter")),
        ("<answer>A</answer>", ("dog", "tag, letter")),
        ("cat", ("cat", "whole")),
        ("E", ("E", "whole")),
    ],
)
def test_where_choices_have_letters_a_letter_is_its_choice(completion, found) -> None:
    assert extract_answer(completion, PROMPTS["mmsu"], ("dog", "cat")) == found


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
        ("The answer is dog.", 0),
    ],
)
def test_an_answer_that_is_one_choice_is_found(answer, choice_index) -> None:
    assert read_choice(answer, PETS).choice_index == choice_index


@pytest.mark.parametrize(
    ("completion", "choice_index"),
    [
        # as words, whatever stands around them
        ("Dog!", 0),
        ("Dog…", 0),
        ("**Dog**", 0),
        ("Man\u2019s voice", 2),  # a curly apostrophe
        ("dog barking", 0),
        ("Dog (barking)", 0),
        ("I think the sound is a dog", 0),
        # as a letter
        ("[A]", 0),
        ("\uff08A\uff09", 0),  # full-width brackets
        ("**A**", 0),
        ("A - Dog", 0),
        ("A\u2014Dog", 0),
        ("Option A", 0),
        ("Option B: Cat", 1),
        ("I would choose option B.", 1),
        # at a marked place
        ("The answer is A.", 0),
        ("Answer: B", 1),
        ("Final answer: Dog", 0),
        ("The correct answer is (B) Cat.", 1),
        ("The answer is: **Cat**", 1),
        ("The answer is clear: it is a dog barking", 0),
        (r"\boxed{A}", 0),
        (r"So it is \boxed{\text{Cat}}", 1),
        ('{"answer": "Dog"}', 0),
        ("<ANSWER>Dog</ANSWER>", 0),
        ("<answer>Dog", 0),
        ("<RESPONSE>Cat</RESPONSE>", 1),
        ("<answer>dog</answer><answer>Dog.</answer>", 0),
        ("<think>a cat? no</think>Dog", 0),
        ("<think>dog</think><answer>B</answer>", 1),
        # with a reason
        ("Dog. The barking is clear.", 0),
        ("A\nThe dog barks", 0),
        ("A) Dog\n\nExplanation: it barks", 0),
        ("A. Because of the barking", 0),
        ("B: Cat, because it meows", 1),
        ("answer is Dog because the cat is unlikely", 0),
        # with a choice named to reject it
        ("Cat because it meows, not a dog", 1),
        ("It is not a cat but a dog.", 0),
        ("The dog, rather than the cat.", 0),
        ("The cat is incorrect; it must be the rain", 3),
    ],
)
def test_what_a_careful_reader_takes_for_an_answer_is_one(completion, choice_index) -> None:
    assert read_choice(completion, SOUNDS).choice_index == choice_index


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "empty answer"),
        ("<answer></answer>", "empty answer"),
        ("E", "no choice e"),
        ("bird", "not a choice"),
        ("not a dog", "not a choice"),
        ("Neither dog nor cat", "not a choice"),
        ("Dog or Cat", "affirms several choices"),
        ("It could be a dog or a cat.", "affirms several choices"),
        ("<answer>Dog</answer><answer>Cat</answer>", "several answers: tag"),
        ("The answer is Dog. The answer is Cat.", "several answers: the answer is"),
        ("<answer>bird</answer> Dog", "not a choice"),
        ("<think>it may be the dog", "cut off while thinking"),
        ("(A) Cat", "letter and text disagree"),
        ("B Dog", "letter and text disagree"),
        ("(A) bird", "not a choice"),
        ("A and B", "not a choice"),
    ],
)
def test_anything_else_is_no_choice_and_says_why(completion, reason) -> None:
    assert read_choice(completion, SOUNDS)[:2] == (None, reason)


def test_a_letter_that_is_a_choices_own_text_is_never_read_as_a_position() -> None:
    """Two rows of MMAU's original offer the chord "C"; that text is meant, not the third choice."""
    chords = ("B", "A", "F", "D")
    assert read_choice("B", chords).choice_index == 0
    assert read_choice("The answer is B", chords).choice_index == 0
    assert read_choice("Option B", chords).choice_index is None
    assert read_choice("Option C", chords).choice_index == 2


def test_the_longer_name_counts_where_one_choice_is_within_another() -> None:
    choices = ("dog", "a dog and a cat", "rain")
    assert read_choice("I hear a dog and a cat there", choices).choice_index == 1


def test_duplicate_choices_are_one_choice() -> None:
    assert resolve_choice("six", ("four", "six", "six")).choice_index == 1


def test_choices_that_differ_in_case_only_need_the_exact_text() -> None:
    assert resolve_choice("Dog", ("dog", "Dog")).choice_index == 1
    assert resolve_choice("DOG", ("dog", "Dog"))[:2] == (None, "fits several choices")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=8), st.data())
def test_every_choice_resolves_to_itself(choices, data) -> None:
    answer = data.draw(st.sampled_from(choices))
    for read in (resolve_choice, read_choice):
        index = read(answer, choices).choice_index
        assert index is not None
        assert choices[index] == answer


WORDS = ("dog", "cat", "rain", "two men", "a violin", "yes", "no", "loud thunder")
FRAMES = ("{}", "The answer is {}.", "<answer>{}</answer>", "I hear {} there", "{} or {}", "not {}")


@given(st.permutations(WORDS), st.sampled_from(FRAMES), st.data())
def test_the_order_of_the_choices_never_changes_what_is_read(order, frame, data) -> None:
    said = frame.format(*(data.draw(st.sampled_from(WORDS)) for _ in range(2)))
    chosen = {
        None if (index := read_choice(said, choices).choice_index) is None else choices[index]
        for choices in (WORDS, order, random.Random(0).sample(WORDS, len(WORDS)))
    }
    assert len(chosen) == 1


@given(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from([". ", ", ", "\n"]))
def test_a_reason_after_an_answer_never_makes_it_another(said, named, joint) -> None:
    before = read_choice(said, WORDS).choice_index
    for reason in (f"because of the {named}", f"since the {named} is heard", "as it is clear"):
        after = read_choice(f"{said}{joint}{reason}", WORDS).choice_index
        assert after in {before, None}


@given(st.text().filter(lambda text: "</answer>" not in text))
def test_a_tagged_text_is_read_back(text) -> None:
    assert extract_answer(f"so: <answer>{text}</answer>", PROMPTS["answer"]).answer == text.strip()
