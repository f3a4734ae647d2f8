"""The prompts known by name, from prompts.yaml, shared by training and evaluation."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from storage.records.prompt import Prompt

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FILE = Path(__file__).parent / "prompts.yaml"
PROMPTS: Mapping[str, Prompt] = {
    name: Prompt(name=name, **fields)
    for name, fields in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()
}


def _named(setting: Any) -> Any:  # noqa: ANN401  a profile's value, checked next
    if isinstance(setting, str) and setting not in PROMPTS:
        raise ValueError(
            f"there is no prompt {setting!r}: expected one of {', '.join(PROMPTS)}, or a whole one"
        )
    return PROMPTS[setting] if isinstance(setting, str) else setting


def _own_name(prompt: Prompt) -> Prompt:
    if not NAME.fullmatch(prompt.name):
        msg = f"prompt {prompt.name!r} names a folder too: letters, digits, `.`, `_` and `-` alone"
        raise ValueError(msg)
    if PROMPTS.get(prompt.name, prompt) != prompt:
        msg = f"{prompt.name} is the name of a shipped prompt with another text; take another name"
        raise ValueError(msg)
    return prompt


# A profile's `prompt`: the name of a shipped one, or one in full.
PromptSetting = Annotated[
    Prompt,
    BeforeValidator(_named, json_schema_input_type=str | Prompt),
    AfterValidator(_own_name),
    PlainSerializer(lambda p: p.name if p.name in PROMPTS else p.model_dump(mode="json")),
]


def target_text(answer: str, choices: Sequence[str], prompt: Prompt) -> str:
    """What fine-tuning teaches: e.g. the bare choice for `plain`, else the choice in its tag."""
    letter = ascii_uppercase[list(choices).index(answer)] if "{letter}" in prompt.target else ""
    return prompt.target.replace("{letter}", letter).replace("{answer}", answer)
