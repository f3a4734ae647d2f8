"""Marks and bars of the pages: each stands where the answers' own numbers are on its scale.

Nothing of `reports` is used but to make the site.
"""

import re
from itertools import combinations
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from benchmarks.synthetic_experiment import write_experiment
from tests.reports.conftest import render_site, write_two_methods
from tests.reports.site.test_every_curve import PIXEL, axis, marks_of, number
from tests.reports.site.test_every_number import change, holm, p_text, share, text_of, wilson

BENCHMARK = "demo-mmau"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("marks")
    layout, profile = write_two_methods(folder, num_questions=120, with_controls=True)
    render_site(layout, profile)
    return layout


class Row(NamedTuple):
    """Of a strip."""

    told: str
    """At its end."""
    places: list[float]
    """Where its lines and then its marks stand."""
    pixel: float
    """The value of one."""


def strips_of(page, name: str) -> list[dict[str, Row]]:
    """Each drawing of a name, its rows by their labels."""
    found = []
    for text in re.findall(rf'<svg[^>]*aria-label="{name}".*?</svg>', page.read_text(), re.DOTALL):
        svg = ET.fromstring(text.replace("&nbsp;", " "))  # noqa: S314  our own drawing
        ticks = [node for node in svg if node.get("text-anchor") == "middle"]
        zero, scale = axis([(float(node.get("x")), number(node.text)) for node in ticks])
        ends = [node.text for node in svg if node.get("text-anchor") == "end"]
        rows = {}
        for group, told in zip(svg.findall("g"), ends, strict=True):
            lines = [node for node in group if node.get("class") in {"whisk", "paper"}]
            dots = [node for node in group.iter() if node.get("class") == "dot"]
            places = [
                float(place)
                for node in lines
                for place in re.findall(r"[MH]([\d.]+)", node.get("d"))
            ]
            places += [middle(node.get("d")) for node in dots]
            values = [zero + scale * place for place in places]
            rows[group.find("text").text] = Row(told, values, abs(scale))
        found.append(rows)
    return found


def middle(path: str) -> float:
    corners = [float(x) for x in re.findall(r"[ML](-?[\d.]+) ", path)]
    return sum(corners) / len(corners)


def check_row(row: Row, told: str, values: list[float]) -> None:
    assert row.told.replace("\xa0", " ") == told
    assert row.places == pytest.approx(values, abs=2 * PIXEL * row.pixel)


def test_every_number_of_the_first_screens_strips(experiment):
    """Is it noise, does it hear, what did it cost."""
    page = experiment.site / "index.html"
    asked = {
        "grpo": ("grpo-step-30", "answer"),
        "over SFT, LoRA": ("sft-step-30", "plain"),
        "over its start": ("tiny", "answer"),
        "other start": ("tiny", "plain"),
    }
    marks = {name: marks_of(experiment, *each, BENCHMARK) for name, each in asked.items()}
    pairs = list(combinations(marks, 2))
    corrected = dict(
        zip(pairs, holm([change(marks[a], marks[b])[3] for a, b in pairs]), strict=True)
    )
    (noise,) = strips_of(page, "Differences in points")
    assert list(noise) == ["over SFT, LoRA", "over its start"]
    for name, row in noise.items():
        points, low, high, *_ = change(marks[name], marks["grpo"])
        p = p_text(corrected["grpo", name])
        told = f"{points:+.1f}  p {p if p.startswith('<') else f'= {p}'}"
        check_row(row, told, [low, high, points])
    silent = share(marks_of(experiment, "grpo-step-30", "answer+silence", BENCHMARK))
    heard = share(marks["grpo"])
    (hearing,) = strips_of(page, "Accuracy with silence and with the audio")
    check_row(hearing.pop("GRPO"), f"{silent - heard:+.1f}", [silent, heard, silent, heard])
    assert not hearing
    text = text_of(page)
    assert "What did it cost? 1.5 minutes" in text  # twice 30 steps of 1.5 s
    assert "GRPO 0.8 minutes SFT, LoRA 0.8 minutes" in text


def test_every_place_of_the_drawn_models(tmp_path):
    """Without trainings the models stand in one figure."""
    models = ("one", "two", "three")
    layout, profile = write_experiment(tmp_path, trainings=(), start_models=models)
    profile["evaluate"]["models"] = [{"name": name} for name in models]
    render_site(layout, profile)
    drawn = strips_of(layout.site / "index.html", "Models with their intervals")
    assert len(drawn) == 2  # wide and narrow
    for rows in drawn:
        assert set(rows) == set(models)
        for name, row in rows.items():
            marks = marks_of(layout, name, "answer", BENCHMARK)
            check_row(row, f"{share(marks):.1f}", [*wilson(marks), share(marks)])


def test_every_bar_stands_where_its_numbers_say(experiment):
    """Beside each group of a model's page: its accuracy and interval from 0 to 100."""
    checked = 0
    for page in (*experiment.site.glob("training-*.html"), *experiment.site.glob("model-*.html")):
        for row in re.findall(r"<tr(?:(?!</tr>).)*", page.read_text(), re.DOTALL):
            if bar := re.search(r'class="range" x1="([\d.]+)" x2="([\d.]+)"', row):
                cells = re.findall(r"<td[^>]*>([^<]*)", row)
                interval = next(index for index, text in enumerate(cells) if "\u2013" in text)
                ends = [float(end) for end in cells[interval].split("\u2013")]
                assert [float(end) for end in bar.groups()] == pytest.approx(ends, abs=0.056)
                dot = float(re.search(r'class="dot" x="(-?[\d.]+)"', row)[1]) + 0.6
                assert dot == pytest.approx(float(cells[interval - 1].strip(" %")), abs=0.056)
                checked += 1
    assert checked == 4 * (3 + 9)  # two trainings, a start model under two prompts
