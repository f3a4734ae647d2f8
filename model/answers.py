r"""From a completion to an answer, and from a text to the one choice that it affirms.

`extract_answer` goes by the rules that the prompt names, in their order: training pays by what it
gives and the official rule judges it. The paper's prompts name `first-answer`, the original's
(`<answer>(.*?)</answer>`, src/test_mmau.py of xiaomi-research/r1-aqa); here the tag may span lines,
and the caller falls back to the whole completion: an answer that was not given stays visible.

`read_choice` reads as a careful person would, for the strict rule. Where a completion says where
its answer stands, that place alone counts, in this order: after `</think>`; `<answer>` or
`<RESPONSE>` tags in any case, closed or not; `\boxed{}`; a JSON key; then "the answer is". A text
affirms a choice by its words (case, spacing, quotes, final punctuation and full-width forms do not
matter), by its letter ("B", "(b)", "[B]", "Option B", "B - dog"), or by naming it and no other. A
choice named only to be rejected ("not the cat") is not affirmed; two that are affirmed are no
answer; a letter is never read where a choice's own text is that letter.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

from storage.records.prompt import Prompt, RuleName

ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

THINK_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
THINK_START = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]*)\}")
JSON_OBJECT = re.compile(r"\{[^{}]*\}")
JSON_KEYS = frozenset({"answer", "final_answer", "final answer", "response", "prediction"})
SAID = re.compile(
    r"\b(?:answer|correct (?:choice|option)|best (?:choice|option))(?: choice| option)?"
    r"(?: (?:is|was|would be|should be|must be)\b|\s*[:=])\s*(?:most likely |probably )?:?"
    r"|\bi (?:would |will |'ll )?(?:choose|select|pick|go with)\b",
    re.IGNORECASE,
)

LETTER = re.compile(
    r"(?:(?:option|choice|answer)\s*)?"
    r"(?:\(([a-z])\)|\[([a-z])\]|([a-z])(?=[.):\-]|\s+-|\s*$))\s*[.):\-]*\s*(.*)",
    re.DOTALL,
)
LOOSE_LETTER = re.compile(r"([b-hj-z])\s+(.*)", re.DOTALL)  # "A dog" and "I hear" are words
EXPLAINS = re.compile(r"because|since|as |due to|this|these|explanation|reason|the (?:audio|sound)")
SENTENCE_END = re.compile(r"[.!?;](?=\s)|\n|,? (?=(?:because|since|as|due to)\b)|,(?=\s)")
CLAUSE_END = re.compile(r"[.!?;,:\n]|\bbut\b|\bhowever\b|\balthough\b")
REJECTS = re.compile(
    r"\b(?:not|no|never|neither|nor|without|cannot|unlike|rather than|instead of|excludes?"
    r"|rules? out|ruled out|rejects?|eliminates?)\b|n't\b"
)
REJECTED = re.compile(
    r"\s*(?:(?:is|are|was|were|can be|seems?)\s+)?"
    r"(?:not\b|incorrect|wrong|unlikely|ruled out|excluded|eliminated)"
)
OUTSIDE = "\"'`*_ \t\n"  # quotes and the stars of Markdown
FINAL = ".!?,;:"  # an ellipsis has become three periods
STRAIGHT = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014", "''\"\"--")


class Resolved(NamedTuple):
    """The choice that a text affirms, or why it affirms none."""

    choice_index: int | None
    """Position of the choice (of the first one, where two are alike); None: not one choice."""
    reason: str
    """How it was found, or why not; a few words."""
    rule: str = ""
    """The rule that found the place where the completion says that its answer stands, e.g.
    `boxed`; empty: the whole text was read."""


class Extracted(NamedTuple):
    """The answer in a completion, and the rule that found it."""

    answer: str | None
    """Text without surrounding white space, empty for an empty tag; None: no rule found one."""
    rule: str = ""


def extract_answer(completion: str, prompt: Prompt, choices: Sequence[str] = ()) -> Extracted:
    """The answer in a completion, by the first of the prompt's rules that finds one.

    Args:
        completion: What the model said.
        prompt: How it was asked.
        choices: As they were shown; where they have letters, a letter stands for its choice.
    """
    for rule in prompt.extract:
        if texts := RULES[rule](completion):
            answer = texts[-1].strip()
            named = _by_letter(answer, choices) if prompt.has_letters and answer else None
            if named is not None and named.choice_index is not None:
                return Extracted(choices[named.choice_index], f"{rule}, letter")
            return Extracted(answer, rule)
    return Extracted(None)


def first_answer(text: str) -> str | None:
    """The text of the first whole `<answer>` tag, as R1-AQA's script takes it; None: no tag."""
    found = ANSWER_TAG.search(text)
    return found[1].strip() if found else None


def read_choice(completion: str, choices: Sequence[str]) -> Resolved:
    """Find the one choice that a completion affirms."""
    if _find(completion, choices) is None and (after := RULES["after-think"](completion)):
        completion = after[0]
    elif THINK_START.match(completion) and not _tagged(completion, "answer|response"):
        return Resolved(None, "cut off while thinking")
    for rule in MARKED:
        texts = RULES[rule](completion)
        found = [resolve_choice(text, choices) for text in texts]
        indices = {resolved.choice_index for resolved in found} - {None}
        if len(indices) > 1:
            return Resolved(None, f"several answers: {rule.replace('-', ' ')}", rule)
        # "the answer is clear: a dog": the text around it may tell
        if found and (rule != "the-answer-is" or found[-1].choice_index is not None):
            return found[-1]._replace(rule=rule)
    return resolve_choice(completion, choices)


def resolve_choice(answer: str, choices: Sequence[str]) -> Resolved:
    """Find the one choice that an answer affirms: as its words, its letter, or by naming it."""
    if not answer.strip():
        return Resolved(None, "empty answer")
    found = _find(answer, choices) or _by_letter(answer, choices)
    if found := found or _by_first_words(answer, choices):
        return found
    affirmed = _affirmed(_even(answer), choices)
    if len(affirmed) == 1:
        return Resolved(choices.index(affirmed.pop()), "named, and no other")
    return Resolved(None, "affirms several choices" if affirmed else "not a choice")


def _tagged(completion: str, names: str) -> list[str]:
    """The texts of whole tags, or of one that is not closed; empty ones only if all are."""
    flags = re.DOTALL | re.IGNORECASE
    tagged = [found[2] for found in re.finditer(rf"<({names})>(.*?)</\1>", completion, flags)]
    if not tagged and (opened := re.search(rf"<(?:{names})>(.*)", completion, flags)):
        tagged = [opened[1]]
    return [text for text in tagged if text.strip()] or tagged


def _said(completion: str) -> list[str]:
    """What follows "the answer is", up to the end of the sentence or of the line."""
    texts = [completion[match.end() :].strip() for match in SAID.finditer(completion)]
    return [re.split(r"[.!?](?=\s)|\n", text, maxsplit=1)[0] for text in texts]


def _json_answers(completion: str) -> list[str]:
    found: list[str] = []
    for text in JSON_OBJECT.findall(completion):
        try:
            fields = cast("dict[str, object]", json.loads(text))
        except ValueError:
            continue
        values = [value for key, value in fields.items() if key.lower() in JSON_KEYS]
        found += [value for value in values if isinstance(value, str)]
    return found


def _find(answer: str, choices: Sequence[str]) -> Resolved | None:
    """The choice whose words the whole answer is."""
    if answer in choices:
        return Resolved(choices.index(answer), "text")
    alike = {choice for choice in choices if _plain(choice) == _plain(answer)}
    if len(alike) == 1:
        return Resolved(choices.index(alike.pop()), "text, other case or spacing")
    return Resolved(None, "fits several choices") if alike else None


def _by_letter(answer: str, choices: Sequence[str]) -> Resolved | None:
    match = LETTER.fullmatch(_even(answer))
    if match is None:
        return _by_loose_letter(answer, choices)
    letter = next(group for group in match.groups()[:3] if group)
    text, index = match.group(4), ord(letter) - ord("a")
    if any(_plain(choice) == letter for choice in choices):
        return None  # the letter is a choice's own text: notes, chords
    if not text:
        is_choice = index < len(choices)
        return Resolved(index, "letter") if is_choice else Resolved(None, f"no choice {letter}")
    named = _find(text, choices) or _by_first_words(text, choices)
    if named is None:
        named = Resolved(index, "letter") if EXPLAINS.match(text) else Resolved(None, "")
    if named.choice_index is None or index >= len(choices):
        return Resolved(None, "not a choice")
    if choices[named.choice_index] != choices[index]:
        return Resolved(None, "letter and text disagree")
    return Resolved(index, "letter and text" if named.reason != "letter" else "letter")


def _by_loose_letter(answer: str, choices: Sequence[str]) -> Resolved | None:
    """Refuse "B dog" where dog is not the second choice; "B dog" where it is goes by its name."""
    match = LOOSE_LETTER.fullmatch(_even(answer))
    named = match and _find(match[2], choices)
    if not match or not named or named.choice_index is None:
        return None
    agrees = ord(match[1]) - ord("a") == named.choice_index
    return named if agrees else Resolved(None, "letter and text disagree")


def _by_first_words(answer: str, choices: Sequence[str]) -> Resolved | None:
    """The choice that an answer begins with, an explanation following that affirms no other."""
    text = _even(answer)
    for end in SENTENCE_END.finditer(text):
        head = text[: end.start()]
        first = _find(head, choices)
        if first is None and end.group() in {".", "\n", "; "}:
            first = _by_letter(head, choices)
        if first is None or first.choice_index is None:
            continue
        also = _affirmed(text[end.end() :], choices) - {choices[first.choice_index]}
        return Resolved(None, "affirms several choices") if also else first
    return None


def _affirmed(text: str, choices: Sequence[str]) -> set[str]:
    """The choices that a text names without rejecting them; within a longer one's name, none."""
    spans: dict[tuple[int, int], str] = {}
    for choice in dict.fromkeys(choices):
        name = _plain(choice)
        if len(name) < 3 and not name.isdecimal():
            continue  # "a" and "no" are words of any sentence
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            spans[match.span()] = choice
    return {
        choice
        for (start, end), choice in spans.items()
        if not any(a <= start and end <= b and (a, b) != (start, end) for a, b in spans)
        and not _is_rejected(text, start, end)
    }


def _is_rejected(text: str, start: int, end: int) -> bool:
    clause = CLAUSE_END.split(text[:start])[-1]
    return REJECTS.search(clause) is not None or REJECTED.match(text[end:]) is not None


def _even(text: str) -> str:
    """Lower case, straight quotes, plain forms of full-width letters, single blanks in lines."""
    lines = unicodedata.normalize("NFKC", text).translate(STRAIGHT).casefold().split("\n")
    return "\n".join(" ".join(line.split()) for line in lines if line.strip()).strip(OUTSIDE)


@lru_cache(maxsize=4096)  # the choices of a question, again and again
def _plain(text: str) -> str:
    """A text as compared: even, on one line, without final punctuation."""
    even = " ".join(_even(text).split())
    return even.rstrip(FINAL + OUTSIDE) or even


# From a completion to the texts at the places that it marks so; none: it has no such place.
RULES: Mapping[RuleName, Callable[[str], list[str]]] = {
    "first-answer": lambda text: ANSWER_TAG.findall(text)[:1],
    "answer": lambda text: _tagged(text, "answer"),
    "response": lambda text: _tagged(text, "response"),
    "tag": lambda text: _tagged(text, "answer|response"),
    "after-think": lambda text: THINK_END.split(text)[1:][-1:],
    "boxed": BOXED.findall,
    "json": _json_answers,
    "the-answer-is": _said,
    "whole": lambda text: [text],
}
# Those that `read_choice` tries, in its order.
MARKED: tuple[RuleName, ...] = ("tag", "boxed", "json", "the-answer-is")
