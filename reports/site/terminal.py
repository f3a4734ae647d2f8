"""The leaderboard in a terminal."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.numbers.leaderboard import LeaderboardRow, Score, tables
from storage.text import one_line, printable

LONGEST_SCORE = len("100.0 [94-100]")
MOST_TASKS = 4  # columns of 14 that fit into a terminal beside the model's name


def print_table(rows: Iterable[LeaderboardRow], *, console: Console | None = None) -> None:
    """Print our rows by step, start models first; percent with 95 % intervals.

    Of a benchmark with many tasks (MMAR's seven modalities) the averages alone; the files have all.
    """
    console = console or Console()
    for table in tables(row for row in rows if row.is_ours):
        tasks = table.tasks if len(table.tasks) <= MOST_TASKS else ()
        counts = ", ".join(str(count) for count in {row.num_questions for row in table.rows})
        console.print(_text(f"{table.title}, n = {counts}", style="italic"))
        shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
        shown.add_column("model", overflow="fold")
        for name in (*tasks, "average"):
            shown.add_column(_text(name), justify="right", min_width=LONGEST_SCORE)
        for row in sorted(table.rows, key=lambda row: (row.training, row.step or -1)):
            scores = table._replace(tasks=tasks).scores(row)
            name = _text(row.model, style="bold" if row.leads else "")
            shown.add_row(name, *(_text(short_score(score)) for score in scores))
        console.print(shown)
        if not tasks:
            told = ", ".join(table.tasks)
            console.print(_text(f"by task ({told}): leaderboard.md, or the report"))
        for row in table.rows:
            if row.marks:
                console.print(_text(f"{row.model}: {row.mark_text}"))
        console.print()


def _text(text: str, *, style: str = "") -> Text:
    return Text(printable(one_line(text)), style=style)


def short_score(score: Score | None) -> str:
    """`64.5 [61-67]`, to fit five columns into 80 characters."""
    if score is None:
        return "\u2013"
    ends = f" [{score.ends.low:.0f}\u2013{score.ends.high:.0f}]" if score.ends else ""
    return f"{score.percent:.1f}{ends}"
