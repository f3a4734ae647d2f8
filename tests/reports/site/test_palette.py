"""Contrast of the colours, by the formula of WCAG 2.2: text 4.5, graphics 3."""

import re

import pytest

from reports.site.render import ASSETS


def themes() -> dict[str, dict[str, str]]:
    """Colours by theme, read from the style sheet."""
    text = (ASSETS / "report.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root\s*{([^}]*)}", text)[:2]
    return {
        name: dict(re.findall(r"--(\w+):\s*(#[0-9a-f]{6})", block))
        for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_black_on_white_has_the_contrast_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("text", ["text", "muted", "accent", "good", "bad", "rule"])
@pytest.mark.parametrize("ground", ["page", "raised", "ours"])
def test_text_can_be_read_on_every_ground(theme, text, ground):
    colours = themes()[theme]
    assert contrast(colours[text], colours[ground]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("level", range(6))
def test_numbers_can_be_read_in_every_cell_of_the_heat_table(theme, level):
    colours = themes()[theme]
    assert contrast(colours["text"], colours[f"heat{level}"]) >= 4.5
    assert contrast(colours["muted"], colours[f"heat{level}"]) >= 3 or level > 3


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("line", ["series", "rule"])
def test_lines_of_charts_stand_out(theme, line):
    colours = themes()[theme]
    assert contrast(colours[line], colours["page"]) >= 3


def test_both_themes_set_the_same_colours():
    light, dark = themes().values()
    assert light.keys() == dark.keys()
