"""The leaderboard as the pages show it: one table a benchmark version and scorer.

The larger Test split stands beside Test-mini where results for it are published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.headlines import resolution
from reports.leaderboard import LeaderboardRow, Score, task_names
from reports.published import larger_split

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cells:
    """One split's accuracies of a row; None where there is none."""

    tasks: Mapping[str, Score | None]
    average: Score | None


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table."""

    row: LeaderboardRow
    splits: Sequence[Cells]
    """Test-mini, and Test where the table has it."""
    link: str | None
    """Page of one of our models."""

    @property
    def marks(self) -> list[str]:
        """What is said of a checkpoint, one tag each."""
        return [mark for mark in self.row.mark.split("; ") if mark]

    @property
    def notes(self) -> list[str]:
        """What to know of a published row."""
        return [note for note in self.row.note.split("; ") if note]


@dataclass(frozen=True, slots=True)
class Board:
    """One table."""

    title: str
    caption: str
    tasks: Sequence[str]
    splits: Sequence[str]
    lines: Sequence[Line]

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
    test = {
        (row.model, row.method, row.source): row
        for row in rows
        if row.benchmark == larger_split(benchmark)
    }
    tasks = task_names([*ours, *published])
    splits = ["test-mini", "test"] if test else ["test-mini"]
    by_average = sorted(published, key=lambda row: -(row.average.percent if row.average else 0))
    lines = [
        Line(
            row=row,
            splits=[
                _cells(row, tasks),
                *([_cells(test.get((row.model, row.method, row.source)), tasks)] if test else []),
            ],
            link=links.get(row.model) if row.is_ours else None,
        )
        for row in [*ours, *by_average]
    ]
    return Board(
        f"{benchmark}, {scorer} scorer", f"{scorer.capitalize()} scorer", tasks, splits, lines
    )


def _cells(row: LeaderboardRow | None, tasks: Sequence[str]) -> Cells:
    if row is None:
        return Cells(dict.fromkeys(tasks), None)
    return Cells({task: row.tasks.get(task) for task in tasks}, row.average)


def _notes(report: Json, benchmark: str, scorer: str) -> str:
    gap, flip_share = resolution(report, benchmark, scorer=scorer)
    questions = next(one["questions"] for one in report["benchmarks"] if one["name"] == benchmark)
    text = "Accuracy in percent; under our numbers the 95 % interval. "
    if gap is None:
        text += f"{len(questions)} questions tell no difference between our models from noise. "
    else:
        text += (
            f"Differences under {100 * gap:.1f} points between our models are noise at this size "
            f"({len(questions)} questions, {100 * flip_share:.0f} % of them answered otherwise "
            "by the next checkpoint, 80 % power). "
        )
    text += (
        "The intervals hold the questions' chance, not that of training again with another seed."
    )
    if any(row["benchmark"] == benchmark for row in report["published"]):
        text += (
            " Published rows are as printed; they have no answers by question, "
            "so nothing is tested against them in pairs."
        )
    return text
