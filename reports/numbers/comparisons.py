"""Two models side by side on the same questions: which pairs get a page, and what stands there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.numbers.achievements import headlines
from reports.numbers.groups import GroupRow, group_rows, question_link
from reports.numbers.leaderboard import evaluations_of, tests_of
from reports.numbers.statistics import PairedTest, paired
from reports.numbers.tally import Tally, as_booleans, tally
from reports.site.links import compare_file
from reports.site.questions import labels

MOST_LISTED = 40  # gained or lost questions on the page; the question page has them all

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models by key; the second is measured against the first."""

    first: str
    second: str
    reason: str


@dataclass(frozen=True, slots=True)
class Flip:
    """A question that one of two models got right."""

    question: str
    task: str
    link: str


@dataclass(frozen=True, slots=True)
class Section:
    """Two models on one benchmark under one scorer."""

    benchmark: str
    scorer: str
    prompts: tuple[str, str]
    first: Tally
    second: Tally
    test: PairedTest
    tasks: Sequence[GroupRow]
    gained: Sequence[Flip]
    lost: Sequence[Flip]
    browse_link: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A pair with everything that its page shows."""

    pair: Pair
    file: str
    sections: Sequence[Section]
    """By benchmark and scorer; never empty."""


def compare(report: Json) -> list[Comparison]:
    """Every comparison that answers a question, with its page's name."""
    found = [(pair, sections(report, pair)) for pair in pairs(report)]
    return [
        Comparison(pair, compare_file(report, pair.first, pair.second), shown)
        for pair, shown in found
        if shown
    ]


def pairs(report: Json) -> list[Pair]:
    """The comparisons that answer a question.

    A training's leading step against its start model and against the best step on the test, two
    trainings' leading steps, every other model against them; each pair once.
    """
    found: dict[tuple[str, str], Pair] = {}
    lines = headlines(report)
    leading = {line.training: line.evaluation["model"] for line in lines}
    for line in lines:
        model = line.evaluation["model"]
        if line.start:
            _add(found, line.start["model"], model, "start model and leading step")
        if line.best_step is not None:
            best = f"{line.training}-step-{line.best_step}"
            _add(found, model, best, "leading step and best step on the test")
    names = list(leading)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            _add(found, leading[other], leading[name], "leading steps of two trainings")
    starts = {line.start["model"] for line in lines if line.start}
    for one in report["evaluations"]:
        if one["step"] is None and one["model"] not in starts and one["control"] is None:
            for model in leading.values():
                _add(found, one["model"], model, "another model and leading step")
    known = {one["model"] for one in report["evaluations"]}
    return [pair for pair in found.values() if {pair.first, pair.second} <= known]


def _add(found: dict[tuple[str, str], Pair], first: str, second: str, reason: str) -> None:
    if first != second and (second, first) not in found:
        found.setdefault((first, second), Pair(first, second, reason))


def sections(report: Json, pair: Pair) -> list[Section]:
    """Every benchmark and scorer under which both were judged, the leading scorer first."""
    found: list[Section] = []
    for benchmark in tests_of(report):
        for scorer in report["scorers"]:
            first = _evaluation(report, benchmark["name"], scorer, pair.first)
            second = _evaluation(report, benchmark["name"], scorer, pair.second)
            if first and second:
                found.append(_section(report, benchmark, scorer, first, second))
    return found


def _evaluation(report: Json, benchmark: str, scorer: str, model: str) -> Json | None:
    judged = evaluations_of(report, benchmark, scorer=scorer)
    return next((one for one in judged if one["model"] == model), None)


def _section(report: Json, benchmark: Json, scorer: str, first: Json, second: Json) -> Section:
    marks, other = first["marks"][scorer], second["marks"][scorer]
    names = labels(report, benchmark["name"])
    state = {
        "scorer": scorer,
        "a": names[first["model"], first["folder"]],
        "b": names[second["model"], second["folder"]],
    }
    return Section(
        benchmark=benchmark["name"],
        scorer=scorer,
        prompts=(first["prompt"], second["prompt"]),
        first=tally(marks),
        second=tally(other),
        test=paired(as_booleans(marks), as_booleans(other)),
        tasks=group_rows(benchmark, "task", marks=other, start_marks=marks),
        gained=_flips(benchmark, marks, other, "01", state),
        lost=_flips(benchmark, marks, other, "10", state),
        browse_link=question_link(benchmark["name"], **state, show="flipped"),
    )


def _flips(
    benchmark: Json, marks: str, other: str, wanted: str, state: dict[str, str]
) -> list[Flip]:
    """Questions whose two marks are the wanted ones."""
    return [
        Flip(
            question=question["question"],
            task=question["task"],
            link=question_link(benchmark["name"], **state, id=str(question["id"])),
        )
        for question, one, two in zip(benchmark["questions"], marks, other, strict=True)
        if one + two == wanted
    ]
