"""The leaderboard as the pages show it: one table a benchmark version and scorer.

The larger Test split stands beside Test-mini where results for it are published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.numbers.achievements import resolution
from reports.numbers.leaderboard import LeaderboardRow, Score, task_names
from reports.published import larger_split

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cells:
    """One split's accuracies of a row; None where there is none."""

    tasks: Mapping[str, Score | None]
    average: Score | None
    categories_percent: float | None = None
    """What the categories of a published row give, where its printed average says otherwise."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table."""

    row: LeaderboardRow
    splits: Sequence[Cells]
    """Test-mini, and Test where the table has it."""
    link: str | None
    """Page of one of our models."""
    source_number: int | None
    """Of a published row, in the board's list of sources; from 1."""
    note_letter: str
    """In the board's list of notes; empty without a note."""

    @property
    def marks(self) -> list[str]:
        """What is said of a checkpoint, one tag each."""
        return [mark for mark in self.row.mark.split("; ") if mark]


@dataclass(frozen=True, slots=True)
class Board:
    """One table."""

    title: str
    caption: str
    tasks: Sequence[str]
    splits: Sequence[str]
    lines: Sequence[Line]
    sources: Sequence[str]
    """Of the published rows, each once, with their dates."""
    notes: Mapping[str, str]
    """By letter."""

    @property
    def has_test(self) -> bool:
        """Whether Test stands beside Test-mini."""
        return len(self.splits) > 1


def boards(report: Json, rows: Sequence[LeaderboardRow], links: Mapping[str, str]) -> list[Json]:
    """For each benchmark that was scored: its tables, and what to know when reading them.

    Args:
        report: The report.
        rows: Of `leaderboard.rows(report)`.
        links: Page of each of our models.
    """
    found: list[Json] = []
    for benchmark in report["benchmarks"]:
        name = benchmark["name"]
        ours = [row for row in rows if row.benchmark == name and row.is_ours]
        if not ours:
            continue
        scorers = list(dict.fromkeys(row.scorer for row in ours))
        found.append(
            {
                "benchmark": name,
                "notes": _notes(report, name, scorers[0]),
                "tables": [_board(name, scorer, rows, links) for scorer in scorers],
            }
        )
    return found


def _board(
    benchmark: str, scorer: str, rows: Sequence[LeaderboardRow], links: Mapping[str, str]
) -> Board:
    ours = [
        row for row in rows if row.is_ours and (row.benchmark, row.scorer) == (benchmark, scorer)
    ]
    published = [row for row in rows if not row.is_ours and row.benchmark == benchmark]
    test = {_key(row): row for row in rows if row.benchmark == larger_split(benchmark)}
    tasks = task_names([*ours, *published])
    splits = ["test-mini", "test"] if test else ["test-mini"]
    by_average = sorted(published, key=lambda row: -(row.average.percent if row.average else 0))
    sources = list(dict.fromkeys(_source(row) for row in by_average))
    texts = list(dict.fromkeys(row.note for row in by_average if row.note))
    letters = {text: _letter(index) for index, text in enumerate(texts)}
    lines = [
        Line(
            row=row,
            splits=[_cells(row, tasks)] + ([_cells(test.get(_key(row)), tasks)] if test else []),
            link=links.get(row.model) if row.is_ours else None,
            source_number=None if row.is_ours else sources.index(_source(row)) + 1,
            note_letter=letters.get(row.note, ""),
        )
        for row in [*ours, *by_average]
    ]
    return Board(
        title=f"{benchmark}, {scorer} scorer",
        caption=f"{scorer.capitalize()} scorer",
        tasks=tasks,
        splits=splits,
        lines=lines,
        sources=sources,
        notes={letter: text for text, letter in letters.items()},
    )


def _key(row: LeaderboardRow) -> tuple[str, str, str]:
    return (row.model, row.method, row.source)


def _source(row: LeaderboardRow) -> str:
    return f"{row.source}, {row.date}" if row.date else row.source


def _letter(index: int) -> str:
    """The letters a to z, then aa, ab and so on."""
    return chr(ord("a") + index) if index < 26 else _letter(index // 26 - 1) + _letter(index % 26)


def _cells(row: LeaderboardRow | None, tasks: Sequence[str]) -> Cells:
    if row is None:
        return Cells(dict.fromkeys(tasks), None)
    return Cells({task: row.tasks.get(task) for task in tasks}, row.average, row.categories_percent)


def _notes(report: Json, benchmark: str, scorer: str) -> str:
    gap, flip_share = resolution(report, benchmark, scorer=scorer)
    questions = next(one["questions"] for one in report["benchmarks"] if one["name"] == benchmark)
    text = "Accuracy in percent; under our numbers the 95 % interval. "
    if gap is None:
        text += (
            f"Neighbouring checkpoints answer {100 * flip_share:.0f} % of the {len(questions)} "
            "questions otherwise: too few to tell them from each other. "
        )
    else:
        text += (
            f"Differences under {100 * gap:.1f} points between our models are noise at this size "
            f"({len(questions)} questions, {100 * flip_share:.0f} % of them answered otherwise "
            "by the next checkpoint, 80 % power). "
        )
    text += _baselines(questions)
    text += (
        "The intervals hold the questions' chance, not that of training again with another seed."
    )
    if any(row["benchmark"] == benchmark for row in report["published"]):
        text += (
            " Published rows are as printed; they have no answers by question, "
            "so nothing is tested against them in pairs."
        )
    return text


def _baselines(questions: Sequence[Json]) -> str:
    """What rules without ears score where answers are known; right is what equals the answer."""
    known = [one for one in questions if one["answer"] is not None and one["choices"]]
    if not known:
        return ""
    first = sum(one["choices"][0] == one["answer"] for one in known)
    longest = sum(max(one["choices"], key=len) == one["answer"] for one in known)
    chance = sum(1 / len(one["choices"]) for one in known)
    first, longest, chance = (100 * count / len(known) for count in (first, longest, chance))
    return (
        f"Always the first choice is right on {first:.1f} %, always the longest on "
        f"{longest:.1f} %, a random one on {chance:.1f} %. "
    )
