"""Text of others (ids, titles, model outputs) as it may be shown in a terminal."""

import re

# Control characters but newline and tab, and what turns the direction of writing.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Text whose control characters are spelled out (`\x1b`): none reaches the terminal."""
    return CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def one_line(error: object) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split())
