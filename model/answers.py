"""From a completion to an answer, and from an answer to a choice.

The original reads `re.search(r"<answer>(.*?)</answer>")` and falls back to the whole completion
(src/test_mmau.py of xiaomi-research/r1-aqa). Here the tag may span lines, and the fall-back is left
to the scorer: an answer that was not given stays visible as None.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from model.config import PromptName

ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
LETTER = r"(?:\(([A-Za-z])\)|([A-Za-z])(?=[.):]|\s*$)[.):]?)"
LETTERED = re.compile(rf"\s*{LETTER}\s*(.*)", re.DOTALL)
QUOTES = "\"'`*\u201c\u201d\u2018\u2019"  # also the curly ones and the stars of Markdown


class Resolved(NamedTuple):
    """The choice that an answer names, or why it names none."""

    choice_index: int | None
    """Position of the choice (of the first one, where two are alike); None: not one choice."""
    reason: str
    """How it was found, or why not; a few words."""


def extract_answer(completion: str, prompt: PromptName) -> str | None:
    """The answer in a completion: the first `<answer>` tag's text, or for `plain` all of it.

    Returns:
        Text without surrounding white space, empty for an empty tag; None if there is no tag.
    """
    if prompt == "plain":
        return completion.strip()
    match = ANSWER_TAG.search(completion)
    return match.group(1).strip() if match else None


def resolve_choice(answer: str, choices: Sequence[str]) -> Resolved:
    """Find the one choice that an answer is.

    Tried in this order: the text as it is; the text without regard to case, spacing, quotes and a
    final period; a letter alone (`B`, `(b)`, `B.`); a letter with its text (`(B) dog`, `B. dog`).
    A choice that is itself a letter ("A" of four notes) is therefore taken as text.
    """
    if not answer.strip():
        return Resolved(None, "empty answer")
    exact = _distinct([i for i, choice in enumerate(choices) if choice == answer], choices)
    alike = _distinct([i for i, c in enumerate(choices) if _plain(c) == _plain(answer)], choices)
    for found, reason in ((exact, "text"), (alike, "text, other case or spacing")):
        if len(found) == 1:
            return Resolved(found[0], reason)
    if len(alike) > 1:
        return Resolved(None, "fits several choices")
    return _resolve_letter(answer, choices)


def _resolve_letter(answer: str, choices: Sequence[str]) -> Resolved:
    match = LETTERED.fullmatch(answer.strip().strip(QUOTES))
    if match is None:
        return Resolved(None, "not a choice")
    letter = match.group(1) or match.group(2)
    index = ord(letter.upper()) - ord("A")
    text = _plain(match.group(3))
    if index >= len(choices):
        return Resolved(None, f"no choice {letter.upper()}" if not text else "not a choice")
    if not text:
        return Resolved(index, "letter")
    if text == _plain(choices[index]):
        return Resolved(index, "letter and text")
    if any(text == _plain(choice) for choice in choices):
        return Resolved(None, "letter and text disagree")
    return Resolved(None, "not a choice")


def _distinct(indices: Sequence[int], choices: Sequence[str]) -> list[int]:
    """The first position of each different text."""
    first = {choices[index]: index for index in reversed(indices)}
    return sorted(first.values())


def _plain(text: str) -> str:
    """A text as compared: lower case, single spaces, no quotes around it, no final period."""
    joined = " ".join(text.casefold().split()).strip(QUOTES).strip()
    return joined.removesuffix(".").rstrip().strip(QUOTES)
