"""The leaderboard as text: Markdown, LaTeX (booktabs), CSV and JSON.

Names come from models, files and users: each format gets its own escaping. CSV cells of text that a
spreadsheet would take for a formula get an apostrophe in front.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from reports.numbers.achievements import PAPER_SOURCE
from reports.numbers.leaderboard import LeaderboardRow, Score, Table, tables, task_names
from reports.numbers.statistics import FIRST_TASKS
from reports.site.charts import one_line
from reports.site.html import make_environment
from storage.jsonl import to_document

DASH = "\u2013"
LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    # After a row's end a bracket or star is an argument; two of these quotes are another sign.
    **{character: f"{{{character}}}" for character in "[]*'`"},
    DASH: r"\textendash{}",
    "\u2014": r"\textemdash{}",
    **dict(zip("\u00df\u00e6\u00f8\u0142", (r"\ss{}", r"\ae{}", r"\o{}", r"\l{}"), strict=True)),
}
MARKDOWN_ESCAPES = str.maketrans({character: f"\\{character}" for character in "\\|<>`*_[]"})
IDENTITY = ("benchmark", "model", "method", "step", "prompt", "scorer")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def leaderboard_files(rows: Sequence[LeaderboardRow]) -> dict[str, str]:
    """The exports beside the pages, by file name."""
    return {
        "leaderboard.md": to_markdown(rows),
        "leaderboard.tex": to_latex(rows),
        "leaderboard.csv": to_csv(rows),
        "leaderboard.json": to_json(rows),
    }


def to_csv(rows: Sequence[LeaderboardRow]) -> str:
    """CSV by RFC 4180: percent with two decimals, step empty for a start model.

    Every task of every benchmark has its column, and each accuracy its interval's ends.
    """
    further = [task for task in task_names(rows) if task not in FIRST_TASKS]
    lines = [_csv_row(row, further) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["benchmark"])
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_row(row: LeaderboardRow, further: Sequence[str]) -> dict[str, object]:
    names = (*FIRST_TASKS, *further, "average")
    scores = {name: row.tasks.get(name) for name in names} | {"average": row.average}
    percents = {name: f"{score.percent:.2f}" if score else "" for name, score in scores.items()}
    cells: dict[str, object] = {
        **{name: getattr(row, name) for name in IDENTITY},
        **{name: percents[name] for name in (*FIRST_TASKS, "average")},
        "num_questions": row.num_questions,
        "source": row.source,
        "prompt_sha256": row.asked and row.asked.sha256,
        **{task: percents[task] for task in further},
    }
    for name, score in scores.items():
        low, high = (score and score.ends) or (None, None)
        cells[f"{name}_low"] = "" if low is None else f"{low:.2f}"
        cells[f"{name}_high"] = "" if high is None else f"{high:.2f}"
    cells |= {"mark": row.mark_text, "date": row.date, "note": row.note}
    cells |= {"decoding": row.decoding, "questions_sha256": row.questions_sha256}
    return {name: _plain(cell) if isinstance(cell, str) else cell for name, cell in cells.items()}


def _plain(text: str) -> str:
    """Text that no spreadsheet runs as a formula."""
    text = one_line(text)
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def to_json(rows: Iterable[LeaderboardRow]) -> str:
    """JSON with the CSV's keys, and for each accuracy its counts and interval (percent)."""
    return to_document([_json_row(row) for row in rows])


def _json_row(row: LeaderboardRow) -> dict[str, object]:
    further = {name: _json_score(score) for name, score in row.further.items()}
    return {
        **{name: getattr(row, name) for name in IDENTITY},
        **{task: _json_score(row.tasks.get(task)) for task in task_names([row]) or FIRST_TASKS},
        "average": _json_score(row.average),
        "num_questions": row.num_questions,
        "source": row.source,
        "date": row.date,
        "training": row.training,
        "mark": row.mark_text,
        "note": "; ".join(text for text in (row.disagreement, row.note) if text),
        "prompt_sha256": row.asked and row.asked.sha256,
        "prompt_text": row.asked and row.asked.text,
        **({"further": further} if further else {}),
    }


def _json_score(score: Score | None) -> dict[str, float] | None:
    if score is None:
        return None
    counted: dict[str, float] = {"percent": round(score.percent, 2)}
    if score.tally and score.ends:
        right, asked = score.tally.num_correct, score.tally.num_questions
        counted |= {"num_correct": right, "num_questions": asked}
        counted |= {end: round(value, 2) for end, value in score.ends._asdict().items()}
    return counted


def to_markdown(rows: Iterable[LeaderboardRow]) -> str:
    """One Markdown table a benchmark and scorer, intervals after our numbers."""
    return _render("leaderboard.md", tables(rows))


def to_latex(rows: Iterable[LeaderboardRow]) -> str:
    """One booktabs table a benchmark and scorer, for a paper's text width.

    Our rows to quote, other models and the paper's own; the best of each column in bold, intervals
    small beside them. Letters beyond Latin become their nearest, or their number in Unicode.
    """
    quoted = [row for row in rows if row.is_quoted or row.source == PAPER_SOURCE]
    shown = [table for table in tables(quoted) if table.rows]
    return _render("leaderboard.tex", shown)


def _render(template: str, shown: Sequence[Table]) -> str:
    environment = make_environment().overlay(
        variable_start_string="<<",  # LaTeX is full of braces
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    filters = {"markdown": _markdown, "latex": _latex, "label": _label, "shown": score_text}
    environment.filters.update(filters)  # pyright: ignore[reportUnknownMemberType]  jinja2's
    return environment.get_template(template).render(tables=shown)


def _markdown(text: str) -> str:
    return one_line(text).translate(MARKDOWN_ESCAPES)


def _latex(text: str) -> str:
    """Text in ASCII that LaTeX prints as it is."""
    plain = unicodedata.normalize("NFKD", one_line(text))
    letters = (letter for letter in plain if not unicodedata.combining(letter))
    shown = (
        LATEX_ESCAPES.get(letter)
        or (letter if letter.isascii() else rf"\texttt{{U+{ord(letter):04X}}}")
        for letter in letters
    )
    return "".join(shown).replace("--", "-{}-")


def _label(title: str) -> str:
    return re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")


def score_text(score: Score | None) -> str:
    """`64.50 (61.5-67.4)` with an en dash, without an interval for a published row."""
    if score is None:
        return DASH
    ends = f" ({score.ends.low:.1f}{DASH}{score.ends.high:.1f})" if score.ends else ""
    return f"{score.percent:.2f}{ends}"
