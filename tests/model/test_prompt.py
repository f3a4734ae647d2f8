"""The prompts of R1-AQA, byte for byte."""

from model.prompt import as_audio_question, question_text, target_text

CHOICES = ("motorboat", "Yacht's horn", 'a "b"')


def test_the_answer_prompt_is_the_papers() -> None:
    assert question_text("What happened in the audio?", ("dog", "cat"), "answer") == (
        "What happened in the audio? Please choose the answer from the following options: "
        "['dog', 'cat']. Output the final answer in <answer> </answer>."
    )


def test_the_think_prompt_is_the_papers() -> None:
    assert question_text("What?", ("dog", "cat"), "think") == (
        "What? Please choose the answer from the following options: ['dog', 'cat']. "
        "Output the thinking process in <think> </think> and final answer in <answer> </answer>."
    )


def test_the_plain_prompt_ends_with_the_options_as_python_prints_them() -> None:
    assert question_text("What?", CHOICES, "plain").endswith(
        """options: ['motorboat', "Yacht's horn", 'a "b"']."""
    )


def test_braces_in_a_question_are_left_alone() -> None:
    text = question_text("Is {choices} or {question} said?", ("{0}", "b"), "plain")
    assert text.startswith("Is {choices} or {question} said? Please")
    assert text.endswith("options: ['{0}', 'b'].")


def test_training_asks_about_the_audio_in_lower_case_only() -> None:
    assert as_audio_question("What is in the video? Video 2") == "What is in the audio? Video 2"


def test_the_target_of_fine_tuning_has_the_form_that_the_prompt_asks_for() -> None:
    assert target_text("dog", "plain") == "dog"
    assert target_text("dog", "answer") == "<answer>dog</answer>"
