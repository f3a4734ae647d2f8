"""Contrast of the colours, by the formula of WCAG 2.2: text 4.5, graphics 3."""

import re

import pytest

from reports.site.html import ASSETS


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
@pytest.mark.parametrize(
    "text", ["text", "muted", "accent", "good", "bad", "rule", "grpo", "lora", "full"]
)
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
@pytest.mark.parametrize("line", ["series", "rule", "grpo", "lora", "full", "other", "strong"])
def test_lines_of_charts_stand_out(theme, line):
    colours = themes()[theme]
    assert contrast(colours[line], colours["page"]) >= 3


def test_both_themes_set_the_same_colours():
    light, dark = themes().values()
    assert light.keys() == dark.keys()


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
DEFICIENCIES = {
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(colour: str, deficiency: str | None = None) -> tuple[float, float, float]:
    """CIELAB of a colour as somebody with a deficiency sees it."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    if deficiency:
        linear = [
            min(
                1.0,
                max(0.0, sum(weight * value for weight, value in zip(row, linear, strict=True))),
            )
            for row in DEFICIENCIES[deficiency]
        ]
    red, green, blue = linear
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    f = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z)]
    return (116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2]))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("deficiency", [None, *DEFICIENCIES])
def test_trainings_are_told_apart_without_some_colours(theme, deficiency):
    colours = [lab(themes()[theme][name], deficiency) for name in ("grpo", "lora", "full")]
    for index, one in enumerate(colours):
        for other in colours[index + 1 :]:
            distance = sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5
            assert distance > 18
