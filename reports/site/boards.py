"""The leaderboard as the pages show it: one table a benchmark version and scorer.

One row a training, the step that leads, with its steps folded under it; start models, further
models and published rows stand where their average puts them. The larger Test split stands beside
Test-mini where results for it are there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reports.numbers.achievements import PAPER_SOURCE, resolution
from reports.numbers.leaderboard import LeaderboardRow, larger_split, task_names
from reports.report import Judged
from reports.site.links import source_link
from storage.records.question import Question

MOST_NEAR = 10  # published rows beside our best that are not folded


class Line(NamedTuple):
    """One row of a table."""

    row: LeaderboardRow
    name: str
    """A training's name, `step 100` under it, or a model."""
    splits: Sequence[LeaderboardRow | None]
    """Its results on Test-mini, and on Test where the table has it."""
    detail: str = ""
    link: str | None = None
    """Page of a training or of one of our models, or where a published row is printed."""
    note_letter: str = ""
    """In the board's list of notes; empty without a note."""
    is_far: bool = False
    """A published row that is folded: not the paper's, nor near our best."""
    steps: Sequence["Line"] = ()
    """A training's, in order, the leading one too."""


def boards(
    judged: Judged, rows: Sequence[LeaderboardRow], links: Mapping[str, str]
) -> dict[str, object]:
    """What the page is given of a benchmark that was scored: tables, and how to read them."""
    benchmark = judged.benchmark
    ours = [row for row in rows if row.benchmark == benchmark.name and row.is_ours]
    scorers = dict.fromkeys(row.scorer for row in ours)
    gap, flip_share = resolution(judged)
    further = [row for row in ours if row.scorer == judged.scorer and row.further]
    return {
        "benchmark": benchmark,
        "gap": gap,
        "flip_share": flip_share,
        "baselines": _baselines(benchmark.questions),
        "tables": [_board(benchmark.name, scorer, rows, links) for scorer in scorers],
        "further": further,
        "further_heads": list(dict.fromkeys(name for row in further for name in row.further)),
    }


def _board(
    benchmark: str, scorer: str, rows: Sequence[LeaderboardRow], links: Mapping[str, str]
) -> dict[str, object]:
    found = [row for row in rows if row.benchmark == benchmark]
    ours = [row for row in found if row.is_ours and row.scorer == scorer]
    published = sorted((row for row in found if not row.is_ours), key=_rank)
    test = {_key(row): row for row in rows if row.benchmark == larger_split(benchmark)}
    notes = list(dict.fromkeys(row.note for row in published if row.note))
    letters = {note: _letter(index) for index, note in enumerate(notes)}

    def line(row: LeaderboardRow, name: str) -> Line:
        return Line(row, name, [row, test.get(_key(row))] if test else [row])

    # A line a training and prompt, and one for each other model; the leading step stands first.
    groups: dict[tuple[str, str], list[LeaderboardRow]] = {}
    for row in ours:
        groups.setdefault((row.training or row.model, row.prompt), []).append(row)
    lines: list[Line] = []
    for (name, _), (lead, *more) in groups.items():
        steps = sorted([lead, *more], key=lambda row: row.step or 0) if lead.training else []
        shown = line(lead, name)._replace(
            detail=_detail(lead),
            link=links.get(lead.model),
            steps=[line(row, f"step {row.step}") for row in steps],
        )
        lines.append(shown)
    best = max((row.average.percent for row in ours if row.average), default=0.0)
    near = sorted(published, key=lambda row: abs(_rank(row) + best))[:MOST_NEAR]
    lines += [
        line(row, row.model)._replace(
            detail=row.method,
            link=source_link(row.source),
            note_letter=letters.get(row.note, ""),
            is_far=row.source != PAPER_SOURCE and row not in near,
        )
        for row in published
    ]
    return {
        "scorer": scorer,
        "title": f"{benchmark}, {scorer} scorer",
        "tasks": task_names([*ours, *published]),
        "has_test": bool(test),
        "lines": sorted(lines, key=lambda line: _rank(line.row)),
        "sources": list(dict.fromkeys(_source(row) for row in published)),
        "notes": {letter: note for note, letter in letters.items()},
    }


def _detail(row: LeaderboardRow) -> str:
    """E.g. `SFT, LoRA, prompt plain, step 600 (chosen on validation)`."""
    step = "" if row.step is None else f", step {row.step}"
    why = "; ".join(mark.text for mark in row.marks if mark.kind != "best")
    return f"{row.method}, prompt {row.prompt}{step}" + (f" ({why})" if why else "")


def _rank(row: LeaderboardRow) -> float:
    return -row.average.percent if row.average else 0.0


def _key(row: LeaderboardRow) -> tuple[str, str, str, str, str]:
    """What is the same on both splits of a benchmark."""
    return (row.model, row.method, row.prompt, row.scorer, row.source)


def _source(row: LeaderboardRow) -> str:
    return f"{row.source}, {row.date}" if row.date else row.source


def _letter(index: int) -> str:
    """The letters a to z, then aa, ab and so on."""
    return chr(ord("a") + index) if index < 26 else _letter(index // 26 - 1) + _letter(index % 26)


def _baselines(questions: Sequence[Question]) -> tuple[float, ...]:
    """What rules without ears score where answers are known; right is what equals the answer."""
    known = [question for question in questions if question.answer is not None]
    right = (
        sum(question.choices[0] == question.answer for question in known),
        sum(max(question.choices, key=len) == question.answer for question in known),
        sum(1 / len(question.choices) for question in known),
    )
    return tuple(100 * number / len(known) for number in right) if known else ()
