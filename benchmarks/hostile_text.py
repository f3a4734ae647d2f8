"""Text that tries to leave its place on a page; for the tests of the report."""

from typing import Any

PAYLOADS = (
    "<script>window.__xss=1</script>",
    "</script><script>window.__xss=2</script>",
    "<!--<script>",
    '"><img src=x onerror=window.__xss=3>',
    "' onmouseover='window.__xss=4' x='",
    "javascript:window.__xss=5",
    "<svg/onload=window.__xss=6>",
    "</textarea><img src=x onerror=window.__xss=7>",
    '</template></noscript><iframe srcdoc="<script>parent.__xss=8</script>">',
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "\u2028\u2029\x00\x1b[31m",
    "\ud800lone",
    "&lt;b&gt;&amp;",
    '=HYPERLINK("http://x","y")',
    "a|b\n\n| c |",
    "x" * 20000,
)
CODES = {
    *("marks", "picks", "parsed", "finished"),  # one character a question
    # one of a few words
    *("scorers", "role", "method", "variant", "precision", "extract", "form", "decode"),
}


def poisoned(value: Any, payload: str, key: str = "") -> Any:  # noqa: ANN401  any JSON value
    """The report with the payload before every text, names included, so that they still match."""
    if key in CODES:
        return value
    if isinstance(value, str):
        return payload + value
    if isinstance(value, dict):
        return {name: poisoned(item, payload, name) for name, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, payload, key) for item in value]
    return value
