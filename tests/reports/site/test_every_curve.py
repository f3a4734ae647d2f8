"""Every curve of the pages, read as a reader does, by its axes, and held to what was logged.

Metrics come from metrics.jsonl by a rule of a few lines, accuracies from answers.jsonl; nothing of
`reports` is used but to make the site. A chart that no check knows fails.
"""

import json
import math
import random
import re
from itertools import pairwise
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from tests.reports.conftest import render_site, write_two_methods
from tests.reports.site.test_every_number import (
    at,
    groups_of,
    share,
    tables_of,
    text_of,
    wilson,
)

BENCHMARK, STEPS = "mmau-test-mini-original", (200, 400, 610)
LABELS = {"grpo": "GRPO", "sft": "SFT, LoRA"}
PROMPTS = {"grpo": "answer", "sft": "plain"}
# Of all tasks, sound, music and speech, from the paper's table.
PRINTED = {"grpo": (64.5, 69.37, 66.77, 57.36), "sft": (56.4, 58.26, 58.08, 52.58)}
METRICS = {
    "Validation accuracy": "validation_accuracy",
    "Accuracy reward": "accuracy_reward",
    "Reward": "reward",
    "Format reward": "format_reward",
    "Groups without a lesson": "zero_variance_share",
    "Groups all right": "all_right_share",
    "Groups all wrong": "all_wrong_share",
    "KL to the start model": "kl",
    "Completion length": "completion_length",
    "Cut-off completions": "cut_off_share",
    "Entropy": "entropy",
    "Loss": "loss",
    "Gradient norm": "grad_norm",
    "Learning rate": "learning_rate",
    "Speed": "tokens_per_second",
    "Time": "seconds_total",
    "Memory": "peak_memory_bytes",
}
MOST_WINDOWS = 120
PIXEL = 0.11  # places are printed to a tenth, of the curve and of the ticks


def write_lines(path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def logged_by_grpo() -> list[dict]:
    """610 steps with all metrics, a step logged twice, and gaps; 41 validations."""
    draw = random.Random(5)
    lines = [
        {
            "step": step,
            "loss": draw.gauss(0, 1e-4),
            "reward": draw.uniform(0, 2),
            "accuracy_reward": step / 700,
            "format_reward": None if 300 < step <= 310 else draw.random(),
            "zero_variance_share": draw.random(),
            "all_right_share": 0.0,
            "all_wrong_share": draw.random() / 9,
            "kl": math.nan if 50 <= step < 90 else draw.random(),
            "completion_length": draw.uniform(200, 260),
            "cut_off_share": 0.25,
            "entropy": 3 - step / 300,
            "grad_norm": draw.uniform(1, 1.02),
            "learning_rate": 1e-6,
            "tokens_per_second": draw.uniform(2000, 90000),
            "peak_memory_bytes": 62_000_000_000 + 7_000_000 * step,
            "rollout_step": step,
            "seconds": {"rollout": 1.0, "total": draw.uniform(20, 30)},
        }
        for step in range(1, 611)
    ]
    for line in lines[14::15] + lines[-1:]:
        line["validation_accuracy"] = draw.uniform(0.5, 0.7)
    return [lines[9] | {"reward": 99.0}, *lines]  # a resumed run logs step 10 again


def logged_by_sft() -> list[dict]:
    """90 steps, each a point."""
    draw = random.Random(6)
    return [
        {
            "step": step,
            "loss": 1.2 / step + draw.random() / 50,
            "grad_norm": draw.uniform(1, 1.02),
            "learning_rate": 1e-6,
            "seconds": {"total": 4.0},
        }
        for step in range(1, 91)
    ]


SAMPLED = [
    {
        "step": step,
        "id": name,
        "question": f"What is heard in {name}?",
        "choices": ["dog", "cat"],
        "answer": "dog",
        "completion": f"<answer>{name} at {step}</answer>",
        "reward": step / 64,
        "rewards": {"accuracy": 1.0},
        "finished": step != 100,
    }
    for name, steps in (("17", (50,)), ("23", (50, 100, 150)))
    for step in steps
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    layout, profile = write_two_methods(
        folder, num_questions=120, steps=STEPS, benchmarks=(BENCHMARK,)
    )
    write_lines(layout.training("grpo") / "metrics.jsonl", logged_by_grpo())
    write_lines(layout.training("sft") / "metrics.jsonl", logged_by_sft())
    write_lines(layout.training("grpo") / "completions.jsonl", SAMPLED)
    dropped = [{"id": name, "reason": reason} for name, reason in ((1, "long"), (2, "no clip"))]
    write_lines(layout.training("grpo") / "dropped.jsonl", [*dropped, {"id": 3, "reason": "long"}])
    render_site(layout, profile)
    return layout


class Chart(NamedTuple):
    """A drawing, its axes read off the ticks."""

    title: str
    svg: ET.Element
    x: tuple[float, float]
    """Value at 0 px, and of a pixel."""
    y: tuple[float, float]

    def values(self, path: str) -> list[tuple[float, float]]:
        """What stands at each place of a path."""
        places = re.findall(r"[ML]?(-?[\d.]+) (-?[\d.]+)", path)
        return [(self.x[0] + self.x[1] * float(x), self.height(float(y))) for x, y in places]

    def height(self, y: float) -> float:
        return self.y[0] + self.y[1] * y

    def curves(self) -> dict[str, ET.Element]:
        """Groups with a line, by the place of the training."""
        groups = [node for node in self.svg if node.find("path[@class='line']") is not None]
        return {re.search(r"t(\d+)", node.get("class"))[1]: node for node in groups}

    def labels(self) -> list[str]:
        return [node.text or "" for node in self.svg.iter() if node.get("class") == "label"]


def number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


def axis(ticks: list[tuple[float, float]]) -> tuple[float, float]:
    """Of places and numbers: the number at 0, and of a pixel; all must lie on one line."""
    (first, low), *_, (last, high) = ticks
    scale = (high - low) / (last - first)
    for place, value in ticks:
        assert abs(low + scale * (place - first) - value) <= PIXEL * abs(scale)
    return low - scale * first, scale


def charts_of(page) -> list[Chart]:
    """Drawings of a page that have a title."""
    found = []
    for figure in re.findall(r'<figure class="chart.*?</figure>', page.read_text(), re.DOTALL):
        title = re.search(r"<figcaption>(.*?) <span>", figure)[1]
        for text in re.findall(r"<svg.*?</svg>", figure, re.DOTALL):
            svg = ET.fromstring(text)  # noqa: S314  our own drawing
            found.append(Chart(title, svg, *axes(svg)))
    return found


def axes(svg: ET.Element) -> tuple[tuple[float, float], tuple[float, float]]:
    across, up = [], []
    for line, text in pairwise(svg):
        if line.get("class") == "grid":
            up.append((float(re.search(r" ([\d.]+)H", line.get("d"))[1]), number(text.text)))
        if line.get("class") == "grid base":
            across.append((float(re.match(r"M([\d.]+) ", line.get("d"))[1]), number(text.text)))
    # Ticks that are told alike would be two places of one number.
    assert len({value for _, value in up}) == len(up) >= 2
    return axis(across), axis(up)


def windows(path, metric: str) -> list[tuple[int, float | None]]:
    """Means of at most 120 windows of equally many logged steps, each at its last step."""
    by_step = {line["step"]: line for line in map(json.loads, path.open())}
    steps = sorted(by_step)
    size = math.ceil(len(steps) / MOST_WINDOWS)
    found: list[tuple[int, float | None]] = []
    while steps:
        window, steps = steps[:size], steps[size:]
        lines = [by_step[step] for step in window]
        values = [
            line["seconds"]["total"] if metric == "seconds_total" else line.get(metric)
            for line in lines
        ]
        kept = [value for value in values if value is not None and math.isfinite(value)]
        found.append((window[-1], sum(kept) / len(kept) if kept else None))
    return found


def agree(chart: Chart, found: list[tuple[float, float]], expected: list[tuple[float, float]]):
    assert len(found) == len(expected)
    for (x, y), (step, value) in zip(found, expected, strict=True):
        assert abs(x - step) <= PIXEL * abs(chart.x[1])
        assert abs(y - value) <= PIXEL * abs(chart.y[1])


@pytest.mark.parametrize("training", LABELS)
def test_every_curve_of_a_training_is_of_means_of_what_was_logged(experiment, training):
    charts = [
        chart
        for chart in charts_of(experiment.site / f"training-{training}.html")
        if chart.title in METRICS
    ]
    paths = {name: experiment.training(name) / "metrics.jsonl" for name in LABELS}
    logged = {
        (title, name): windows(path, metric)
        for title, metric in METRICS.items()
        for name, path in paths.items()
    }
    logged = {
        key: points
        for key, points in logged.items()
        if any(value is not None for _, value in points)
    }
    assert [chart.title for chart in charts] == [
        title for title in METRICS if (title, training) in logged
    ]
    for chart in charts:
        names = [name for name in LABELS if (chart.title, name) in logged]
        curves = chart.curves()
        assert list(curves) == [str(list(LABELS).index(name)) for name in names]
        assert sorted(chart.labels()) == sorted(LABELS[name] for name in names)
        for curve, name in zip(curves.values(), names, strict=True):
            points = logged[chart.title, name]
            seen = [point for point in points if point[1] is not None]
            line = curve.find("path[@class='line']").get("d")
            agree(chart, chart.values(line), seen)
            is_gap = [True, *(value is None for _, value in points)]
            assert line.count("M") == sum(gap and not then for gap, then in pairwise(is_gap))
            check_seen(line, curve)


def check_seen(line: str, curve: ET.Element) -> None:
    """Each point is on a line or has a mark."""
    alone = [part for part in line.split("M")[1:] if "L" not in part]
    marks = [node.get("d") for node in curve if node.get("class") == "dot"]
    if alone:
        (dots,) = marks
        assert dots.count("M") >= len(alone)


def marks_of(experiment, model: str, asked: str, benchmark: str = BENCHMARK) -> list[bool]:
    questions = json.loads((experiment.benchmark(benchmark) / "questions.json").read_text())
    path = experiment.evaluations / model / benchmark / asked / "answers.jsonl"
    said = {line["id"]: line["answer"] for line in map(json.loads, path.open())}
    return [said[question["id"]] == question["answer"] for question in questions]


def test_every_curve_of_accuracy_is_of_the_answers(experiment):
    questions = json.loads((experiment.benchmark(BENCHMARK) / "questions.json").read_text())
    groups = {"All tasks, 120 questions": list(range(120))} | {
        name.capitalize(): group for name, group in groups_of(questions, "task").items()
    }
    marks = {
        (name, step): marks_of(experiment, f"{name}-step-{step}" if step else "tiny", prompt)
        for name, prompt in PROMPTS.items()
        for step in (0, *STEPS)
    }
    charts = charts_of(experiment.site / "index.html")
    assert [chart.title for chart in charts] == [
        title for title in groups for _ in range(2 if title.startswith("All") else 1)
    ]
    for chart in charts:
        for name, curve in zip(LABELS, chart.curves().values(), strict=True):
            by_step = {step: at(marks[name, step], groups[chart.title]) for step in (0, *STEPS)}
            shares = [(step, share(own)) for step, own in by_step.items()]
            agree(chart, chart.values(curve.find("path[@class='line']").get("d")), shares)
            lower, upper = zip(*map(wilson, by_step.values()), strict=True)
            if chart.title.startswith("All"):
                band = chart.values(curve.find("path[@class='band']").get("d"))
                edge = [*zip(by_step, upper, strict=True), *zip(by_step, lower, strict=True)]
                agree(chart, band, edge[:4] + edge[:3:-1])
            margin = curve.find("path[@class='whisk']").get("d")
            ends = re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", margin).groups()
            paper = re.search(r" ([\d.]+)h", curve.find("path[@class='paper']").get("d"))[1]
            places = [chart.height(float(place)) for place in (*ends, paper)]
            printed = PRINTED[name][list(groups).index(chart.title)]
            agree(chart, [(0, y) for y in places], [(0, lower[-1]), (0, upper[-1]), (0, printed)])


def test_what_is_told_beside_the_curves(experiment):
    page = experiment.site / "training-grpo.html"
    text, tables = text_of(page), dict(tables_of(page))
    lines = [json.loads(line) for line in (experiment.training("grpo") / "metrics.jsonl").open()]
    seconds = {line["step"]: line["seconds"]["total"] for line in lines}
    hours = sum(seconds.values()) / 3600
    assert hours > 1
    assert f"{hours:.1f} hours of devices so far logged" in text
    assert f"{90 * 4 / 60:.1f} minutes of devices" in text_of(experiment.site / "training-sft.html")
    total = hours + 90 * 4 / 3600
    assert f"Training took {total:.1f} hours of devices." in text_of(experiment.site / "index.html")
    sampled = tables["Sampled completions by step"][1:]
    expected = [line for line in SAMPLED if line["id"] == "23"]  # sampled at most steps
    for row, line in zip(sampled, expected, strict=True):
        assert row[0] == str(line["step"])
        assert (
            row[1].split()
            == f"{line['completion']}{'' if line['finished'] else ' cut off'}".split()
        )
        assert row[2] == f"{line['reward']:.2f}"
    assert "2: long" in text
    assert "1: no clip" in text
