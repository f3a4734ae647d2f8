"""The prompts of the paper, byte for byte; one template per run, shared by training and evaluation.

Source: src/dataset/dataset.py and src/test_mmau.py of xiaomi-research/r1-aqa (prompts <2> and <3>).
Prompt <1>, used for supervised fine-tuning, is not in the released code: it is taken to be the same
up to and including the options.
"""

from collections.abc import Sequence

from model.config import PromptName

TEMPLATES: dict[PromptName, str] = {
    "plain": "{question} Please choose the answer from the following options: {choices}.",
    "answer": (
        "{question} Please choose the answer from the following options: {choices}. "
        "Output the final answer in <answer> </answer>."
    ),
    "think": (
        "{question} Please choose the answer from the following options: {choices}. "
        "Output the thinking process in <think> </think> and final answer in <answer> </answer>."
    ),
}


def question_text(question: str, choices: Sequence[str], prompt: PromptName) -> str:
    """The text put to the model after the audio; the choices appear as Python prints a list."""
    # str.format would read braces in the question as fields; replacing the last part first leaves
    # it alone.
    head, tail = TEMPLATES[prompt].split("{choices}")
    return head.replace("{question}", question) + repr(list(choices)) + tail


def as_audio_question(question: str) -> str:
    """Ask about the audio what AVQA asks about the video; lower case only, as the original does."""
    return question.replace("video", "audio")


def target_text(answer: str, prompt: PromptName) -> str:
    """What fine-tuning teaches: the bare choice for `plain`, else the choice in its tag."""
    if prompt == "plain":
        return answer
    return f"<answer>{answer}</answer>"
