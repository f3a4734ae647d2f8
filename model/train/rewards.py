"""What a completion earns: accuracy, format, and whatever function the user names.

Source: src/utils/rewards.py of xiaomi-research/r1-aqa; both rewards are 0 or 1 and are added up.
Differences, on purpose: the answer is compared as text (the original first asks math_verify, which
pays for "2 women and 1 man" where "2 men and 1 woman" is right, as only the last number after a
space counts), and both rewards accept a line break inside the tag (there, format alone).
"""

# pyright: strict

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from model.answers import extract_answer
from model.config import GrpoConfig
from model.own_functions import call_own, import_function
from storage.errors import PipelineError
from storage.records.prompt import Prompt

Score = Callable[[str, Mapping[str, object]], float]

FINAL_PUNCTUATION = ".!?,;: "


class Reward(NamedTuple):
    """One part of what a completion earns."""

    name: str
    weight: float
    score: Score
    """From a completion and its example (keys question, choices, answer, id, ...) to a number."""


def rewards_of(config: GrpoConfig, prompt: Prompt) -> tuple[Reward, ...]:
    """The rewards of a run: accuracy, format, and the user's own where there is one."""
    rewards = (
        Reward("accuracy", config.accuracy_weight, _accuracy(config, prompt)),
        Reward("format", config.format_weight, _format(prompt)),
    )
    return rewards if config.reward is None else (*rewards, Reward("own", 1.0, _own(config.reward)))


def _accuracy(config: GrpoConfig, prompt: Prompt) -> Score:
    """Whether the completion gives the answer: by the prompt's rules, or as all its text."""

    def normal(text: str) -> str:
        text = text.strip()
        text = text.casefold() if config.ignore_case else text
        return text.rstrip(FINAL_PUNCTUATION) if config.ignore_final_punctuation else text

    def score(completion: str, example: Mapping[str, object]) -> float:
        answer = str(example["answer"])
        if config.accuracy_rule == "math-verify":
            return math_verify_score(completion, answer)
        choices = cast("Sequence[str]", example["choices"]) if prompt.has_letters else ()
        extracted = extract_answer(completion, prompt, choices).answer
        return float(normal(completion if extracted is None else extracted) == normal(answer))

    return score


def _format(prompt: Prompt) -> Score:
    """Whether the whole completion is what the prompt asks for; without a form, some text."""

    def score(completion: str, example: Mapping[str, object]) -> float:
        del example  # the format does not depend on it
        if prompt.form is None:
            return float(bool(completion.strip()))
        return float(re.fullmatch(prompt.form, completion, re.DOTALL) is not None)

    return score


def _own(path: str) -> Score:
    setting, signature = f"grpo.reward {path}", "(completion: str, example: dict) -> float"
    own = import_function(path, key="grpo.reward", signature=signature)

    def score(completion: str, example: Mapping[str, object]) -> float:
        of = f"example {example['id']} with the completion {completion!r}"
        given: Any = call_own(own, completion, example, setting=setting, of=of)
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            msg = f"{setting} gives {given!r} for {of}; expected a finite number"
            raise PipelineError(msg)
        return number

    return score


def math_verify_score(completion: str, answer: str) -> float:
    """The original's accuracy rule, for comparison only; it pays for wrong choices."""
    # Not a dependency of the project: a rule that nobody should train with. Preflight asks for it.
    from math_verify import (  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
        parse,
        verify,
    )

    if float(verify(parse(f"<answer>{answer}</answer>"), parse(completion))) > 0:  # pyright: ignore[reportUnknownArgumentType]  it has no types
        return 1.0
    match = re.search(r"<answer>(.*?)</answer>", completion)
    given = match.group(1).strip() if match else completion.strip()
    return 1.0 if given == answer.strip() else 0.0
