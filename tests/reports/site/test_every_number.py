"""Every number of every page, made again from answers.jsonl by a rule of a few lines.

Nothing of `reports` is used here but to make the site: the counting, Wilson's, Newcombe's and
Agresti and Min's intervals, the exact sign test, its power and Holm's correction stand below. A
table that no check knows fails. What is printed of records is held to them in test_every_record.py.
"""

import csv
import json
import math
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.synthetic_experiment import withhold_answers, write_experiment
from tests.reports.conftest import render_site, write_two_methods

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


def detectable(n: int, flip_share: float) -> float:
    """Points that McNemar's test finds with 80 % power (Connor 1987), by bisection."""
    low, high = 0.0, flip_share
    for _ in range(60):
        d = (low + high) / 2
        need = Z * math.sqrt(flip_share) + 0.8416212335729143 * math.sqrt(flip_share - d * d)
        low, high = (d, high) if math.sqrt(n) * d < need else (low, d)
    return 100 * high


def newcombe(theirs: int, ours: list[bool]) -> tuple[float, float]:
    """Ends of ours minus theirs, of as many questions, unpaired."""
    before = [index < theirs for index in range(len(ours))]
    (a, b), (c, d) = wilson(before), wilson(ours)
    points = share(ours) - share(before)
    return (
        points - math.hypot(share(ours) - c, b - share(before)),
        points + math.hypot(d - share(ours), share(before) - a),
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
    folder = tmp_path_factory.mktemp("numbers")
    layout, profile = write_two_methods(
        folder, num_questions=200, steps=STEPS, benchmarks=(BENCHMARK,), with_controls=True
    )
    render_site(layout, profile)
    return layout


@pytest.fixture(scope="module")
def questions(experiment) -> list[dict]:
    return json.loads((experiment.benchmark(BENCHMARK) / "questions.json").read_text())


@pytest.fixture(scope="module")
def right(experiment, questions) -> dict[str, list[bool]]:
    """By `model`, or `model · prompt` of a start model, with `· silence` for the control."""
    return judged(experiment, questions, lambda line, answer: line["answer"] == answer)


@pytest.fixture(scope="module")
def strict(experiment, questions) -> dict[str, list[bool]]:
    """The same, where only what stands between the tags counts."""
    return judged(experiment, questions, lambda line, answer: tagged(line) == answer)


@pytest.fixture(scope="module")
def readable(experiment, questions) -> dict[str, list[bool]]:
    """The same: whether there is something between the tags."""
    return judged(experiment, questions, lambda line, _: tagged(line) is not None)


@pytest.fixture(scope="module")
def answers(experiment, questions) -> dict[str, list[str]]:
    """The same: what was answered."""
    return judged(experiment, questions, lambda line, _: line["answer"])


def tagged(line: dict) -> str | None:
    found = re.fullmatch(r"<answer>(.*)</answer>", line["completion"])
    return found and found[1]


def judged(experiment, questions, rule) -> dict[str, list[bool]]:
    found = {}
    for path in experiment.evaluations.glob("*/*/*/answers.jsonl"):
        model, asked = path.parts[-4], path.parts[-2]
        prompt, _, control = asked.partition("+")
        name = f"{model} · {prompt}" if model == "tiny" else model
        said = {line["id"]: line for line in map(json.loads, path.open())}
        marks = [rule(said[question["id"]], question["answer"]) for question in questions]
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


def check_controls(rows, proper, silent, questions, answers):
    tasks = groups_of(questions, "task")
    lost = [
        share(at(proper, tasks[t])) - share(at(silent, tasks[t]))
        for t in ("sound", "music", "speech")
    ]
    expected = [f"{share(silent):.1f}", *(f"{end:.1f}" for end in wilson(silent))]
    expected += [f"{share(proper) - share(silent):+.1f}", *(f"{points:+.1f}" for points in lost)]
    same = sum(one == other for one, other in zip(*answers, strict=True))
    expected.append(f"{100 * same / len(questions):.1f}")
    assert [number for text in rows[1][1:] for number in numbers(text)] == expected


def test_every_table_of_the_overview(experiment, right, strict, questions):
    checks = {
        f"Leaderboard {BENCHMARK}, official scorer": check_leaderboard,
        f"Every pair on {BENCHMARK}": check_matrix,
        "Pairs as a list": check_pairs,
        "Accuracy by step": check_by_step,
    }
    found = tables_of(experiment.site / "index.html")
    for label, rows in found:
        marks = strict if "strict" in label else right
        checks[label.replace("strict", "official")](rows, marks, questions)
    assert len(found) == len(checks) + 1  # the leaderboard under two scorers


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
    longest = sum(max(q["choices"], key=len) == q["answer"] for q in questions)
    chance = sum(1 / len(question["choices"]) for question in questions)
    assert f"always the longest on {longest / 2:.1f} %, a random one on {chance / 2:.1f} %" in text
    shares = sorted(
        flip_share(right[f"{name}-step-{one}"], right[f"{name}-step-{two}"])
        for name in ("grpo", "sft")
        for one, two in pairwise(STEPS)
    )
    flips = (shares[1] + shares[2]) / 2
    assert f"{detectable(200, flips):.1f} points between our models are found" in text
    assert f"(200 questions, {100 * flips:.0f} % of them answered otherwise" in text
    gaps = [detectable(200, flip_share(right[a], right[b])) for a, b in pairs]
    gaps = [
        gap
        for gap, (a, b) in zip(gaps, pairs, strict=True)
        if gap < 100 * flip_share(right[a], right[b])
    ]
    assert f"Differences of {min(gaps):.1f} to {max(gaps):.1f} points are found" in text
    assert "Training took 1.5 minutes of devices." in text  # twice 30 steps of 1.5 s
    assert "6 of 6 steps evaluated" in text


def flip_share(one: list[bool], other: list[bool]) -> float:
    return sum(a != b for a, b in zip(one, other, strict=True)) / len(one)


def test_every_number_of_the_drawn_accuracy(experiment, right):
    """What can be read out at each step, and the labels at the margin."""
    svg = re.search(r'<svg class="wide".*?</svg>', (experiment.site / "index.html").read_text())[0]
    read = re.findall(r'class="label halo">([\d.]+)<', svg)
    trainings = {"grpo": "answer", "sft": "plain"}
    marks = [right[f"tiny · {prompt}"] for prompt in trainings.values()]
    marks += [right[f"{name}-step-{step}"] for step in STEPS for name in trainings]
    assert read == [f"{share(each):.1f}" for each in marks]
    labels = re.findall(r'class="label">([^<]+)<', svg)
    last = {name: f"{share(right[f'{name}-step-30']):.1f}" for name in trainings}
    assert set(labels) == {
        f"GRPO {last['grpo']}",
        f"SFT, LoRA {last['sft']}",
        "paper 64.5",
        "paper 56.4",
    }


def test_every_number_of_the_pairs_pages(experiment, right, strict, readable, questions):
    pages = sorted(experiment.site.glob("compare-*.html"))
    assert len(pages) >= 6  # every two of four, and a training's best step
    for page in pages:
        second, first = re.search(r"<h1>(.*?) against (.*?)</h1>", page.read_text()).groups()
        tables = dict(reversed(tables_of(page)))
        text, _, strict_text = text_of(page).partition("strict scorer")
        check_section(text, tables, "official", (first, second), right)
        check_section(strict_text, tables, "strict", (first, second), strict)
        before, after = right[first], right[second]
        *_, gained, lost = change(before, after)
        assert f"{gained} questions gained" in text
        assert f"{lost} questions lost" in text
        net = sum(strict[second]) - sum(strict[first])
        by_form = sum(
            b - a
            for a, b, *read in zip(
                *(strict[first], strict[second], readable[first], readable[second]), strict=True
            )
            if not all(read)
        )
        if by_form:
            assert f"Of {net:+d} right answers, {by_form:+d} are on questions" in strict_text
            assert f"readably it is {net - by_form:+d}." in strict_text
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


def check_section(text, tables, scorer, names, marks):
    """A pair under one scorer: its first paragraphs and its table of agreement."""
    before, after = (marks[name] for name in names)
    points, low, high, p, gained, lost = change(before, after)
    lede = re.search(r"is right on (.*?) by the exact McNemar", text)[1]
    own = [
        number
        for each in (after, before)
        for number in (f"{share(each):.1f}", *(f"{end:.1f}" for end in wilson(each)))
    ]
    found = numbers(lede.replace(names[1], "").replace(names[0], "").replace("95 % interval", ""))
    assert found[:1] + found[2:4] + found[4:7] == own
    assert found[7:10] == [f"{value:+.1f}" for value in (points, low, high)]
    assert p_text(p) in lede
    assert f"disagree on {100 * (gained + lost) / 200:.1f} %" in text
    assert ("for each one lost" in text) == bool(lost)
    assert not lost or f"; {gained / lost:.2f} gained for each one lost" in text
    gap = detectable(200, (gained + lost) / 200)
    is_found = gap < 100 * (gained + lost) / 200 - 1e-6
    told = f"Differences of {gap:.1f} points are" if is_found else "no difference is"
    assert f"{told} found with 80 % power" in text
    both = sum(a and b for a, b in zip(before, after, strict=True))
    agreement = tables[f"Agreement on {BENCHMARK}, {scorer}"]
    assert [row[1:] for row in agreement[1:]] == [
        [str(both), str(lost)],
        [str(gained), str(200 - both - gained - lost)],
    ]


def test_every_question_that_a_pairs_page_lists(experiment, right, answers, questions):
    for page in experiment.site.glob("compare-*.html"):
        html = page.read_text()
        second, first = re.search(r"<h1>(.*?) against (.*?)</h1>", html).groups()
        details = re.findall(r"<details[^>]*>(?:(?!</details>).)*", html, re.DOTALL)
        lists = [text for text in details if re.search(r"\d+ questions (gained|lost)<", text)]
        for text, (worse, better) in zip(lists, ((first, second), (second, first)), strict=True):
            flips = [n for n in range(200) if right[better][n] and not right[worse][n]]
            found = re.findall(r"<code[^>]*>(.*?)</code>", text)
            assert found == [questions[index]["id"] for index in flips[:40]]
            told = re.findall(r"<dd[^>]*>(.*?)</dd>", text)
            assert told == [
                said
                for n in flips[:40]
                for said in (questions[n]["answer"], answers[first][n], answers[second][n])
            ]
            assert (f"The first 40 of {len(flips)}" in text) == (len(flips) > 40)


def test_every_number_of_the_exports(experiment, right, strict, questions):
    """CSV and JSON, of every row of ours; Markdown and LaTeX, whose cells are of fewer digits."""
    tasks = groups_of(questions, "task")
    names = ("sound", "music", "speech", "average")
    exported = json.loads((experiment.site / "leaderboard.json").read_text())
    markdown = (experiment.site / "leaderboard.md").read_text().splitlines()
    lines = (experiment.site / "leaderboard.tex").read_text().splitlines()
    latex = [numbers(line.partition("&")[2].replace("--", " ")) for line in lines]
    assert sum(len(found) == 12 for found in latex) == 2 * 4  # what is quoted, under two scorers
    checked = []
    with (experiment.site / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, same in zip(rows, exported, strict=True):
        if not row["scorer"]:
            continue  # published: as printed
        marks = {"official": right, "strict": strict}[row["scorer"]][
            key_of(row["model"], row["prompt"])
        ]
        cells, quoted = [], []
        for name in names:
            own = at(marks, tasks[name]) if name in tasks else marks
            low, high = wilson(own)
            assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == [
                f"{percent:.2f}" for percent in (share(own), low, high)
            ]
            assert same[name] == {
                "percent": round(share(own), 2),
                "num_correct": sum(own),
                "num_questions": len(own),
                "low": round(low, 2),
                "high": round(high, 2),
            }
            cells.append(f"{share(own):.2f} ({low:.1f}\u2013{high:.1f})")
            quoted.append(cell(own))
        assert row["num_questions"] == str(same["num_questions"]) == "200"
        assert any(" | ".join(["", *cells, "200", ""]) in line for line in markdown)
        if row["step"] in {"", "30"}:
            assert [number for own in quoted for number in own] in latex
        checked.append((row["model"], row["prompt"], row["scorer"]))
    assert len(checked) == len(set(checked)) == 2 * 8


@pytest.mark.parametrize(("training", "prompt"), [("grpo", "answer"), ("sft", "plain")])
def test_every_number_of_a_trainings_page(
    experiment, right, readable, answers, questions, training, prompt
):
    page = experiment.site / f"training-{training}.html"
    marks, start = right[f"{training}-step-30"], right[f"tiny · {prompt}"]
    for label, rows in tables_of(page):
        if label.startswith(("Difficulty", "Sub-category ")):
            key = "difficulty" if label.startswith("Difficulty") else "sub-category"
            check_groups(rows, marks, start, groups_of(questions, key))
        elif label.startswith("Sub-categories by step"):
            check_heat(rows, right, questions, training, prompt)
        elif label.startswith("Controls"):
            names = (f"{training}-step-30", f"{training}-step-30 · silence")
            asked = [answers[name] for name in names]
            check_controls(rows, marks, right[names[1]], questions, asked)
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
    corrected = re.search(r"Corrected for the choice: ([\d.]+) %", text)[1]
    candidates = [right[f"{training}-step-{step}"] for step in STEPS]
    assert abs(float(corrected) - left_out_score(candidates)) < 0.8  # other resamples
    printed = {"grpo": 64.5, "sft": 56.4}[training]
    ends = newcombe(round(printed * 2), marks)
    assert f"{printed} % ours minus theirs {ends[0]:+.1f} to {ends[1]:+.1f} points" in text
    assert f"{readable[f'{training}-step-30'].count(False)} not parsed" in text
    assert "0.8 minutes of devices so far logged" in text  # 30 steps of 1.5 s
    counts = {name: len(group) for name, group in groups_of(questions, "task").items()}
    assert all(f"{name.capitalize()} n = {count}" in text for name, count in counts.items())


def left_out_score(candidates: list[list[bool]]) -> float:
    """Percent that the best of a resample scores on what the resample left out, on average."""
    draw, size, scores = random.Random(7), len(candidates[0]), []
    for _ in range(2000):
        drawn = draw.choices(range(size), k=size)
        best = max(candidates, key=lambda marks: sum(map(marks.__getitem__, drawn)))
        scores.append(share(at(best, sorted(set(range(size)) - set(drawn)))))
    return min(sum(scores) / len(scores), share(max(candidates, key=sum)))


def test_every_number_of_a_start_models_page(experiment, right, answers, questions):
    page = experiment.site / "model-tiny.html"
    labels = [label for label, _ in tables_of(page)]
    assert labels.count(f"Difficulty on {BENCHMARK}") == 2  # a part a prompt
    prompts = iter(["answer", "plain"])
    prompt = ""
    for label, rows in tables_of(page):
        if label.startswith("Controls"):  # the first table of a prompt's part
            prompt = next(prompts)
            names = (f"tiny · {prompt}", f"tiny · {prompt} · silence")
            asked = [answers[name] for name in names]
            check_controls(rows, right[names[0]], right[names[1]], questions, asked)
            continue
        key = "difficulty" if label.startswith("Difficulty") else "sub-category"
        check_groups(rows, right[f"tiny · {prompt}"], None, groups_of(questions, key))


def test_every_number_beside_the_tests_own(tmp_path):
    """The larger split's columns, the held-out examples' curve and the predictions to submit."""
    larger, kept = "mmau-test-original", "mmau-test-v05.15.25"
    layout, profile = write_experiment(
        tmp_path, num_questions=60, benchmarks=(BENCHMARK, larger, kept, "validation")
    )
    withhold_answers(layout, kept)
    render_site(layout, profile)
    asked = json.loads((layout.benchmark(BENCHMARK) / "questions.json").read_text())
    tasks = groups_of(asked, "task")

    def cells_of(benchmark: str, model: str) -> list[list[str]]:
        path = layout.evaluations / model / benchmark / "answer" / "answers.jsonl"
        said = {line["id"]: line["answer"] for line in map(json.loads, path.open())}
        marks = [said[question["id"]] == question["answer"] for question in asked]
        return [
            cell(marks),
            *(cell(at(marks, tasks[task])) for task in ("sound", "music", "speech")),
        ]

    tables = dict(tables_of(layout.site / "index.html"))
    checked = 0
    for row in tables[f"Leaderboard {BENCHMARK}, official scorer"][2:]:
        name, step, *_ = [*row[0].split(), "", ""]
        names = {"grpo": "grpo-step-30", "tiny": "tiny", "step": f"grpo-step-{step}"}
        if model := names.get(name):
            own = cells_of(BENCHMARK, model) + cells_of(larger, model)
            assert [numbers(text) for text in row[1:9]] == own
            checked += 1
    assert checked == 5
    for row in tables["Predictions to submit"][1:]:
        path = layout.root / row[5]
        assert row[0] == kept
        lines = [json.loads(line) for line in path.with_name("answers.jsonl").open()]
        assert row[3:5] == [str(len(lines)), str(sum(tagged(line) is not None for line in lines))]
    held_out = [
        table
        for label, table in tables_of(layout.site / "training-grpo.html")
        if label == "Accuracy by step"
    ][-1]
    for row in held_out[1:]:
        model = f"grpo-step-{row[1]}" if row[1] != "0" else "tiny"
        assert [numbers(text) for text in row[2:]] == cells_of("validation", model)
    assert len(held_out) == 5
