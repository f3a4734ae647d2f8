"""A prompt: how a question is put to a model, and how the answer is taken out of what it says."""

import hashlib
import json
import re
import string
from collections.abc import Sequence
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, model_validator

from storage.config import Config

# Ways to find the answer in a completion, see `model.answers`.
RuleName = Literal[
    "first-answer",
    "answer",
    "response",
    "tag",
    "after-think",
    "boxed",
    "json",
    "the-answer-is",
    "whole",
]


class Prompt(Config):
    """A named template; training and evaluation put their questions by it."""

    name: str
    """E.g. `answer`; one of one's own has a name that no shipped one has."""
    text: str
    """What follows the clip: `{question}`, and the choices as `{choices}` (as Python prints a
    list), `{json}`, `{lines}` (one a line) or `{lettered}` (`A. dog`, one a line)."""
    system: str | None = None
    """The system's text; None: the one that the model's own chat template has, or none."""
    extract: tuple[RuleName, ...] = ("tag", "boxed", "json", "the-answer-is", "whole")
    """Rules that take the answer out of a completion; the first that finds one counts. Where the
    choices have letters, a letter is read as its choice."""
    target: str = "{answer}"
    """What fine-tuning teaches."""
    form: str | None = None
    """Regular expression of the whole completion that the format reward pays; None: any text."""

    @property
    def sha256(self) -> str:
        """Stands for everything but the name."""
        return hashlib.sha256(self.model_dump_json(exclude={"name"}).encode()).hexdigest()

    @property
    def has_letters(self) -> bool:
        """Whether the choices are shown with letters."""
        return "{lettered}" in self.text

    def fill(self, question: str, choices: Sequence[str]) -> str:
        """The text for one question; braces in the question and the choices are left alone."""
        letters = zip(string.ascii_uppercase, choices, strict=False)
        values = {
            "{question}": question,
            "{choices}": repr(list(choices)),
            "{json}": json.dumps(list(choices), ensure_ascii=False),
            "{lines}": "\n".join(choices),
            "{lettered}": "\n".join(f"{letter}. {choice}" for letter, choice in letters),
        }
        pattern = "|".join(map(re.escape, values))
        return re.sub(pattern, lambda found: values[found.group()], self.text)

    @model_validator(mode="after")
    def _check(self) -> "Prompt":
        shown = [f"{{{name}}}" in self.text for name in ("choices", "json", "lines", "lettered")]
        if "{question}" not in self.text or not any(shown):
            raise ValueError(
                f"prompt {self.name}: its text needs {{question}} and the choices, as {{choices}}, "
                "{json}, {lines} or {lettered}"
            )
        try:
            re.compile(self.form or "")
        except re.error as error:
            msg = f"prompt {self.name}: form {self.form!r} is no regular expression: {error}"
            raise ValueError(msg) from error
        return self


def name_of(setting: object) -> object:
    """The name in a profile's `prompt`, which holds a name or a whole prompt."""
    return cast("dict[str, object]", setting)["name"] if isinstance(setting, dict) else setting


# A profile's `prompt` where its name is enough.
NamedPrompt = Annotated[str, BeforeValidator(name_of)]
