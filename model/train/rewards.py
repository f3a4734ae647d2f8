"""What a completion earns: accuracy, format, and whatever function the user names.

Source: src/utils/rewards.py of xiaomi-research/r1-aqa; both rewards are 0 or 1 and are added up.
Differences, on purpose: the answer is compared as text (the original first asks math_verify, which
pays 1.0 for "2 women and 1 man" where the answer is "2 men and 1 woman": only the last number after
a space counts), and a line break inside the tag is accepted by both rewards (the original's
accuracy refuses what its format accepts).
"""

# pyright: strict

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from model.answers import extract_answer
from model.config import GrpoConfig
from model.own_functions import import_function
from storage.errors import PipelineError
from storage.records.prompt import Prompt

Score = Callable[[str, Mapping[str, object]], float]

FINAL_PUNCTUATION = ".!?,;: "


class Reward(NamedTuple):
    """One part of what a completion earns."""

    name: str
    """Name in the metrics, e.g. `accuracy`."""
    weight: float
    """Factor in the sum."""
    score: Score
    """From a completion and its example (keys question, choices, answer, id, ...) to a number."""


def rewards_of(config: GrpoConfig, prompt: Prompt) -> tuple[Reward, ...]:
    """The rewards of a run, accuracy and format first.

    Raises:
        PipelineError: If the user's own reward cannot be imported.
    """
    rewards = (
        Reward("accuracy", config.accuracy_weight, _accuracy(config, prompt)),
        Reward("format", config.format_weight, _format(prompt)),
    )
    if config.reward is None:
        return rewards
    own = import_function(
        config.reward, key="grpo.reward", signature="(completion: str, example: dict) -> float"
    )
    return (*rewards, Reward("own", 1.0, own))


def is_right(
    completion: str,
    answer: str,
    *,
    prompt: Prompt,
    choices: Sequence[str] = (),
    ignore_case: bool = False,
    ignore_final_punctuation: bool = False,
) -> bool:
    """Whether the completion gives the answer: by the prompt's rules, or as all its text."""

    def normal(text: str) -> str:
        text = text.strip()
        text = text.casefold() if ignore_case else text
        return text.rstrip(FINAL_PUNCTUATION) if ignore_final_punctuation else text

    extracted = extract_answer(completion, prompt, choices).answer
    return normal(completion if extracted is None else extracted) == normal(answer)


def has_format(completion: str, *, prompt: Prompt) -> bool:
    """Whether the whole completion is what the prompt asks for; without a form, some text."""
    if prompt.form is None:
        return bool(completion.strip())
    return re.fullmatch(prompt.form, completion, re.DOTALL) is not None


def math_verify_score(completion: str, answer: str) -> float:
    """The original's accuracy rule, for comparison only; it pays for wrong choices.

    Raises:
        PipelineError: If the package math-verify is not installed.
    """
    try:
        # Not a dependency of the project: a rule that nobody should train with.
        from math_verify import (  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
            parse,
            verify,
        )
    except ImportError as error:
        msg = "accuracy_rule math-verify needs the package math-verify: install it, or use exact"
        raise PipelineError(msg) from error
    if float(verify(parse(f"<answer>{answer}</answer>"), parse(completion))) > 0:  # pyright: ignore[reportUnknownArgumentType]  it has no types
        return 1.0
    match = re.search(r"<answer>(.*?)</answer>", completion)
    given = match.group(1).strip() if match else completion.strip()
    return 1.0 if given == answer.strip() else 0.0


def _accuracy(config: GrpoConfig, prompt: Prompt) -> Score:
    def score(completion: str, example: Mapping[str, object]) -> float:
        answer = str(example["answer"])
        if config.accuracy_rule == "math-verify":
            return math_verify_score(completion, answer)
        right = is_right(
            completion,
            answer,
            prompt=prompt,
            choices=cast("Sequence[str]", example["choices"]) if prompt.has_letters else (),
            ignore_case=config.ignore_case,
            ignore_final_punctuation=config.ignore_final_punctuation,
        )
        return float(right)

    return score


def _format(prompt: Prompt) -> Score:
    def score(completion: str, example: Mapping[str, object]) -> float:
        del example  # the format does not depend on it
        return float(has_format(completion, prompt=prompt))

    return score
