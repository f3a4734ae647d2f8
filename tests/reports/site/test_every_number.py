"""Every number of every page, made again from answers.jsonl by a rule of a few lines.

Nothing of `reports` is used here but to make the site: the counting, Wilson's and Agresti and Min's
intervals, the exact sign test and Holm's correction stand below. A table that no check knows fails.
"""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import read_report
from reports.site.render import render

Z = 1.959963984540054
BENCHMARK, STEPS = "mmau-test-mini-original", (10, 20, 30)
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def wilson(right: list[bool]) -> tuple[float, float]:
    n, p = len(right), sum(right) / len(right)
    middle, half = p + Z * Z / 2 / n, Z * math.sqrt(p * (1 - p) / n + Z * Z / 4 / n / n)
    return 100 * (middle - half) / (1 + Z * Z / n), 100 * (middle + half) / (1 + Z * Z / n)


def change(before: list[bool], after: list[bool]) -> tuple[float, float, float, float, int, int]:
    """Points, ends of their interval, p, gained, lost."""
    n = len(before)
    gained = sum(b > a for a, b in zip(before, after, strict=True))
    lost = sum(a > b for a, b in zip(before, after, strict=True))
    more, less, m = gained + 0.5, lost + 0.5, n + 2
    half = Z * math.sqrt(more + less - (more - less) ** 2 / m) / m
    flips, few = gained + lost, min(gained, lost)
    p = min(1.0, 2 * sum(math.comb(flips, k) for k in range(few + 1)) / 2**flips)
    points = 100 * (gained - lost) / n
    return (
        points,
        100 * ((more - less) / m - half),
        100 * ((more - less) / m + half),
        p,
        gained,
        lost,
    )


def holm(p_values: list[float]) -> list[float]:
    found, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[at] * (len(p_values) - rank)))
        found[at] = largest
    return found


def p_text(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


class Tables(HTMLParser):
    """Every table's cells as text, by the label of its region."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self._label, self._cell = "", False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        if names.get("role") == "region":
            self._label = names.get("aria-label", "")
        elif tag == "table":
            self.tables.append((self._label or str(names.get("aria-label")), []))
            self._label = ""
        elif tag == "tr" and self.tables:
            self.tables[-1][1].append([])
        elif tag in {"td", "th"} and self.tables[-1][1]:
            self.tables[-1][1][-1].append("")
            self._cell = True
        elif tag == "span" and self._cell:
            self.tables[-1][1][-1][-1] += " "

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self._cell = False

    def handle_data(self, text):
        if self._cell:
            self.tables[-1][1][-1][-1] += text


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    layout, profile = write_experiment(
        tmp_path_factory.mktemp("numbers"),
        num_questions=200,
        steps=STEPS,
        benchmarks=(BENCHMARK,),
        trainings=("grpo", "sft"),
        settings={"sft": {"prompt": "plain", "lora": {"rank": 4}}},
        with_controls=True,
        with_fetch=False,
    )
    render(read_report(layout, ReportConfig(), settings=profile), layout.site, audio_roots={})
    return layout


@pytest.fixture(scope="module")
def questions(experiment) -> list[dict]:
    return json.loads((experiment.benchmark(BENCHMARK) / "questions.json").read_text())


@pytest.fixture(scope="module")
def right(experiment, questions) -> dict[str, list[bool]]:
    """By `model`, or `model · prompt` of a start model, with `· silence` for the control."""
    found = {}
    for path in experiment.evaluations.glob("*/*/*/answers.jsonl"):
        model, asked = path.parts[-4], path.parts[-2]
        prompt, _, control = asked.partition("+")
        name = f"{model} · {prompt}" if model == "tiny" else model
        said = {line["id"]: line["answer"] for line in map(json.loads, path.open())}
        marks = [said[question["id"]] == question["answer"] for question in questions]
        found[f"{name} · {control}" if control else name] = marks
    return found


def groups_of(questions: list[dict], key: str) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(question[key], []).append(index)
    return groups


def at(marks: list[bool], indices: list[int]) -> list[bool]:
    return [marks[index] for index in indices]


def share(marks: list[bool]) -> float:
    return 100 * sum(marks) / len(marks)


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text.replace("\u2212", "-").replace("\u2013", " "))


def cell(marks: list[bool]) -> list[str]:
    """A score of the leaderboard: percent, and the ends of its interval."""
    return [f"{share(marks):.2f}", *(f"{end:.1f}" for end in wilson(marks))]


def tables_of(page: Path) -> list[tuple[str, list[list[str]]]]:
    return Tables(page.read_text(encoding="utf-8")).tables


def text_of(page: Path) -> str:
    html = page.read_text(encoding="utf-8")
    body = re.sub(r"<(script|style|svg|textarea|table).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(
        re.sub(r"<[^>]+>", " ", body).replace("&nbsp;", " ").replace("&lt;", "<").split()
    )


def key_of(name: str, prompt: str = "") -> str:
    """The name of the checker for a name of the page."""
    return f"tiny · {prompt}" if name == "tiny" else name


def check_leaderboard(rows, right, questions):
    tasks = groups_of(questions, "task")
    training, checked = "", 0
    for row in rows[1:]:
        name = row[0].split()[0] if row[0] else ""
        if row[-1].startswith("n ="):
            prompt = re.search(r"prompt (\w+)", row[0])[1]
            training = name if name in {"grpo", "sft"} else ""
            key = f"{training}-step-30" if training else key_of(name, prompt)
        elif name == "step":
            key = f"{training}-step-{row[0].split()[1]}"
        else:
            continue  # published: as printed
        expected = [
            right[key],
            *(at(right[key], tasks[task]) for task in ("sound", "music", "speech")),
        ]
        assert [numbers(text) for text in row[1:5]] == [cell(marks) for marks in expected], row[0]
        checked += 1
    assert checked == 2 + 6 + 2  # trainings, their steps, a start of each prompt


def check_matrix(rows, right, _questions):
    names = [name.strip() for name in rows[0][1:]]
    places = [(r, c) for r in range(len(names)) for c in range(r + 1, len(names))]
    tests = {place: change(right[names[place[1]]], right[names[place[0]]]) for place in places}
    corrected = dict(zip(places, holm([test[3] for test in tests.values()]), strict=True))
    assert len(names) == 4
    for r, row in enumerate(rows[1:]):
        for c, text in enumerate(row[1:]):
            if r == c:
                assert numbers(text) == [f"{share(right[names[r]]):.1f}"]
            elif c > r:
                points, low, high, _, _, _ = tests[r, c]
                p = p_text(corrected[r, c])
                assert numbers(text)[:3] == [f"{value:+.1f}" for value in (points, low, high)]
                assert text.replace("\xa0", " ").endswith(p if p.startswith("<") else f"= {p}")
            else:
                *_, gained, lost = tests[c, r]
                assert text.split(" : ") == [str(lost), str(gained)]


def check_pairs(rows, right, _questions):
    for row in rows[1:]:
        second, first = row[0].split(" against ")
        points, low, high, p, _, _ = change(right[first], right[second])
        assert numbers(row[1] + " " + row[2]) == [f"{value:+.1f}" for value in (points, low, high)]
        assert row[3] == p_text(p)


def check_by_step(rows, right, questions):
    tasks = groups_of(questions, "task")
    trainings = {"GRPO": ("grpo", "answer"), "SFT, LoRA": ("sft", "plain")}
    for row in rows[1:]:
        name, prompt = trainings[row[0]]
        key = f"{name}-step-{row[1]}" if row[1] != "0" else f"tiny · {prompt}"
        marks = [
            right[key],
            *(at(right[key], tasks[task]) for task in ("sound", "music", "speech")),
        ]
        assert [numbers(text) for text in row[2:]] == [cell(each) for each in marks]
    assert len(rows) == 1 + 2 * 4


def check_changes(rows, first, second, groups):
    """A table of the pair's page: groups in any order."""
    names = [row[0] if row[0] in groups else row[0].lower() for row in rows[1:]]
    assert set(names) == set(groups)
    tests = [change(at(first, groups[name]), at(second, groups[name])) for name in names]
    for row, name, test, p in zip(rows[1:], names, tests, holm([t[3] for t in tests]), strict=True):
        expected = [
            str(len(groups[name])),
            *(f"{share(at(m, groups[name])):.1f}" for m in (first, second)),
        ]
        assert [numbers(text)[0] for text in row[1:4]] == expected
        assert row[4:7] == [str(test[4]), str(test[5]), f"{test[0]:+.1f}"]
        assert row[7] == p_text(p)
    return [test[0] for test in tests]


def check_groups(rows, marks, start, groups):
    """A table by difficulty or sub-category of a model's page."""
    assert {row[0] for row in rows[1:]} == set(groups)
    tests = (
        [change(at(start, groups[r[0]]), at(marks, groups[r[0]])) for r in rows[1:]]
        if start
        else []
    )
    corrected = holm([test[3] for test in tests])
    for place, row in enumerate(rows[1:]):
        group = groups[row[0]]
        found = [row[1], *(text for cell_ in row[2:5] for text in numbers(cell_))]
        own = at(marks, group)
        expected = [str(len(group)), *([f"{share(at(start, group)):.1f}"] if start else [])]
        expected += [f"{share(own):.1f}", *(f"{end:.1f}" for end in wilson(own))]
        assert found[: len(expected)] == expected
        if start:
            assert row[-2:] == [f"{tests[place][0]:+.1f}", p_text(corrected[place])]


def check_heat(rows, right, questions, training, prompt):
    groups = groups_of(questions, "sub-category")
    for row in rows[1:]:
        keys = [f"tiny · {prompt}", *(f"{training}-step-{step}" for step in STEPS)]
        shares = [f"{share(at(right[key], groups[row[0]])):.0f}" for key in keys]
        assert row[1:] == [str(len(groups[row[0]])), *shares]


def check_controls(rows, proper, silent, questions):
    tasks = groups_of(questions, "task")
    lost = [
        share(at(proper, tasks[t])) - share(at(silent, tasks[t]))
        for t in ("sound", "music", "speech")
    ]
    expected = [f"{share(silent):.1f}", *(f"{end:.1f}" for end in wilson(silent))]
    expected += [f"{share(proper) - share(silent):+.1f}", *(f"{points:+.1f}" for points in lost)]
    assert [number for text in rows[1][1:7] for number in numbers(text)] == expected


def test_every_table_of_the_overview(experiment, right, questions):
    checks = {
        f"Leaderboard {BENCHMARK}, official scorer": check_leaderboard,
        f"Every pair on {BENCHMARK}": check_matrix,
        "Pairs as a list": check_pairs,
        "Accuracy by step": check_by_step,
    }
    found = tables_of(experiment.site / "index.html")
    for label, rows in found:
        if "strict" not in label:
            checks[label](rows, right, questions)
    assert {label for label, _ in found} > set(checks)


def test_every_number_of_the_first_screen(experiment, right, questions):
    text = text_of(experiment.site / "index.html")
    grpo, start, sft = right["grpo-step-30"], right["tiny · answer"], right["sft-step-30"]
    leading = {"tiny · answer", "tiny · plain", "grpo-step-30", "sft-step-30"}
    pairs = [(a, b) for a in sorted(leading) for b in sorted(leading) if a < b]
    corrected = dict(
        zip(pairs, holm([change(right[a], right[b])[3] for a, b in pairs]), strict=True)
    )
    claim = re.search(r"GRPO lifts tiny from ([\d.]+) to ([\d.]+) .*? by ([\d.]+) points", text)
    over = change(sft, grpo)
    assert claim.groups() == (f"{share(start):.1f}", f"{share(grpo):.1f}", f"{over[0]:.1f}")
    gain = change(start, grpo)
    said = re.search(r"The gain is (.*?); over SFT, LoRA it is (.*?): beyond", text)
    for words, test, pair in (
        (said[1], gain, ("grpo-step-30", "tiny · answer")),
        (said[2], over, ("grpo-step-30", "sft-step-30")),
    ):
        assert numbers(words)[:3] == [f"{test[0]:+.1f}", f"{test[1]:.1f}", f"{test[2]:.1f}"]
        p = p_text(corrected[pair])
        assert words.endswith(f"(p {p})" if p.startswith("<") else f"(p = {p})")
    tasks = groups_of(questions, "task")
    gains = {task: change(at(start, group), at(grpo, group))[0] for task, group in tasks.items()}
    listed = re.search(r"(?:gain alike|gains most): (.*?)\. With", text)[1].split(", ")
    assert listed == [f"{t} {g:+.1f}" for t, g in sorted(gains.items(), key=lambda each: -each[1])]
    silent = right["grpo-step-30 · silence"]
    heard = re.search(r"it keeps ([\d.]+) %, so ([\d.]+) points", text)
    assert heard.groups() == (f"{share(silent):.1f}", f"{share(grpo) - share(silent):.1f}")
    ends = re.search(r"The published 64.5 lies (\w+) our interval \[ ?([\d.]+), ([\d.]+)", text)
    low, high = wilson(grpo)
    assert ends.groups()[1:] == (f"{low:.1f}", f"{high:.1f}")
    assert ends[1] == ("below" if low > 64.5 else "above" if high < 64.5 else "within")
    first = sum(question["choices"][0] == question["answer"] for question in questions)
    assert f"Always the first choice is right on {first / 2:.1f} %" in text


def test_every_number_of_the_pairs_pages(experiment, right, questions):
    pages = sorted(experiment.site.glob("compare-*.html"))
    assert len(pages) >= 6  # every two of four, and a training's best step
    for page in pages:
        second, first = re.search(r"<h1>(.*?) against (.*?)</h1>", page.read_text()).groups()
        before, after = right[first], right[second]
        points, low, high, p, gained, lost = change(before, after)
        text = text_of(page).partition("strict scorer")[0]
        lede = re.search(r"is right on (.*?) by the exact McNemar", text)[1]
        own = [
            number
            for marks in (after, before)
            for number in (f"{share(marks):.1f}", *(f"{e:.1f}" for e in wilson(marks)))
        ]
        plain = lede.replace(second, "").replace(first, "").replace("95 % interval", "")
        found = numbers(plain)
        assert found[:1] + found[2:4] + found[4:7] == own
        assert found[7:10] == [f"{value:+.1f}" for value in (points, low, high)]
        assert p_text(p) in lede
        assert f"disagree on {100 * (gained + lost) / 200:.1f} %" in text
        assert f"{gained} questions gained" in text
        assert f"{lost} questions lost" in text
        tables = dict(reversed(tables_of(page)))
        both = sum(a and b for a, b in zip(before, after, strict=True))
        agreement = tables[f"Agreement on {BENCHMARK}, official"]
        assert [row[1:] for row in agreement[1:]] == [
            [str(both), str(lost)],
            [str(gained), str(200 - both - gained - lost)],
        ]
        check_changes(
            tables[f"Changes by task on {BENCHMARK}"], before, after, groups_of(questions, "task")
        )
        by_gain = check_changes(
            tables[f"Changes by sub-category on {BENCHMARK}"],
            before,
            after,
            groups_of(questions, "sub-category"),
        )
        assert by_gain == sorted(by_gain, reverse=True)


@pytest.mark.parametrize(("training", "prompt"), [("grpo", "answer"), ("sft", "plain")])
def test_every_number_of_a_trainings_page(experiment, right, questions, training, prompt):
    page = experiment.site / f"training-{training}.html"
    marks, start = right[f"{training}-step-30"], right[f"tiny · {prompt}"]
    for label, rows in tables_of(page):
        if label.startswith(("Difficulty", "Sub-category ")):
            key = "difficulty" if label.startswith("Difficulty") else "sub-category"
            check_groups(rows, marks, start, groups_of(questions, key))
        elif label.startswith("Sub-categories by step"):
            check_heat(rows, right, questions, training, prompt)
        elif label.startswith("Controls"):
            check_controls(rows, marks, right[f"{training}-step-30 · silence"], questions)
        else:
            {"Accuracy by step": check_by_step}[label](rows, right, questions)
    text = text_of(page)
    low, high = wilson(marks)
    assert (
        f"{share(marks):.1f} % 95 % interval {low:.1f}\u2013{high:.1f} {sum(marks)} of 200 right"
        in text
    )
    points, low, high, p, gained, lost = change(start, marks)
    tile = f"{points:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}, p {p_text(p)}"
    assert tile in text
    assert f"{gained} gained, {lost} lost" in text
    best = max(STEPS, key=lambda step: (sum(right[f"{training}-step-{step}"]), -step))
    assert f"{share(right[f'{training}-step-{best}']):.1f} % at step {best}: optimistic" in text


def test_every_number_of_a_start_models_page(experiment, right, questions):
    page = experiment.site / "model-tiny.html"
    labels = [label for label, _ in tables_of(page)]
    assert labels.count(f"Difficulty on {BENCHMARK}") == 2  # a part a prompt
    prompts = iter(["answer", "plain"])
    prompt = ""
    for label, rows in tables_of(page):
        if label.startswith("Controls"):  # the first table of a prompt's part
            prompt = next(prompts)
            silent = right[f"tiny · {prompt} · silence"]
            check_controls(rows, right[f"tiny · {prompt}"], silent, questions)
            continue
        key = "difficulty" if label.startswith("Difficulty") else "sub-category"
        check_groups(rows, right[f"tiny · {prompt}"], None, groups_of(questions, key))
