"""The prompts of R1-AQA, byte for byte."""

import re

import pytest
from pydantic import ValidationError

from model.config import TrainConfig
from model.prompt import PROMPTS, target_text
from storage.records.prompt import Prompt, name_of
from storage.records.question import as_audio_question

CHOICES = ("motorboat", "Yacht's horn", 'a "b"')


def test_the_answer_prompt_is_the_papers() -> None:
    assert PROMPTS["answer"].fill("What happened in the audio?", ("dog", "cat")) == (
        "What happened in the audio? Please choose the answer from the following options: "
        "['dog', 'cat']. Output the final answer in <answer> </answer>."
    )


def test_the_think_prompt_is_the_papers() -> None:
    assert PROMPTS["think"].fill("What?", ("dog", "cat")) == (
        "What? Please choose the answer from the following options: ['dog', 'cat']. "
        "Output the thinking process in <think> </think> and final answer in <answer> </answer>."
    )


def test_the_plain_prompt_ends_with_the_options_as_python_prints_them() -> None:
    assert (
        PROMPTS["plain"]
        .fill("What?", CHOICES)
        .endswith("""options: ['motorboat', "Yacht's horn", 'a "b"'].""")
    )


def test_braces_in_a_question_are_left_alone() -> None:
    text = PROMPTS["plain"].fill("Is {choices} or {question} said?", ("{0}", "b"))
    assert text.startswith("Is {choices} or {question} said? Please")
    assert text.endswith("options: ['{0}', 'b'].")


def test_training_asks_about_the_audio_in_lower_case_only() -> None:
    assert as_audio_question("What is in the video? Video 2") == "What is in the audio? Video 2"


def test_the_target_of_fine_tuning_has_the_form_that_the_prompt_asks_for() -> None:
    assert target_text("dog", ("dog", "cat"), PROMPTS["plain"]) == "dog"
    assert target_text("dog", ("dog", "cat"), PROMPTS["answer"]) == "<answer>dog</answer>"
    assert target_text("cat", ("dog", "cat"), PROMPTS["mmsu"]) == "B"


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("mmar", "What?\nSelect one option from the provided choices:\nsnow\nrain"),
        (
            "mmsu",
            "Choose the most suitable answer from options A, B, C, and D. You must respond with "
            "only A, B, C, or D.\n\nQuestion: What?\n\nA. snow\nB. rain",
        ),
    ],
)
def test_other_benchmarks_prompts_are_as_their_authors_put_them(prompt: str, text: str) -> None:
    assert PROMPTS[prompt].fill("What?", ("snow", "rain")) == text


def test_a_prompt_in_full_may_show_the_choices_as_json_and_has_its_own_hash() -> None:
    mine = Prompt(name="mine", text="{question} {json}")
    assert mine.fill("Was?", ("Bär", 'a "b"')) == 'Was? ["Bär", "a \\"b\\""]'
    again = Prompt(name="other", text="{question} {json}")
    assert mine.sha256 == again.sha256 != Prompt(name="mine", text="{question}  {json}").sha256


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("anser", "expected one of plain, answer, think"),
        ({"name": "mine", "text": "{question}?"}, "needs {question} and the choices"),
        ({"name": "answer", "text": "{question} {json}"}, "take another name"),
        ({"name": "mine", "text": "{question} {json}", "form": "("}, "no regular expression"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_refused_with_what_to_do(setting, told) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        TrainConfig(prompt=setting)


def test_a_setting_is_read_back_as_it_was_written() -> None:
    mine = {"name": "mine", "text": "{question} {lines}", "extract": ["boxed"]}
    for setting in ("think", mine):
        written = TrainConfig.model_validate({"prompt": setting}).model_dump(mode="json")
        assert name_of(written["prompt"]) == name_of(setting)
        assert TrainConfig.model_validate(written).prompt.extract
