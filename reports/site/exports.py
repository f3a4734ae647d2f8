"""The leaderboard as text: Markdown, LaTeX (booktabs), CSV, JSON, and a table in the terminal.

Names come from models, files and users: each format gets its own escaping. CSV cells of text that a
spreadsheet would take for a formula get an apostrophe in front.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.numbers.achievements import PAPER_SOURCE
from reports.numbers.leaderboard import LeaderboardRow, Score, task_names
from reports.numbers.tally import FIRST_TASKS
from storage.text import printable

DASH = "\u2013"
LONGEST_SCORE = len("100.0 [94-100]")
MOST_TASKS = 4  # columns of 14 that fit into a terminal beside the model's name
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
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
CONTROL_CHARACTERS = dict.fromkeys((*range(32), *range(127, 160), 8232, 8233), " ")


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


def _csv_row(row: LeaderboardRow, further: Sequence[str]) -> dict[str, str]:
    scores = {task: row.tasks.get(task) for task in (*FIRST_TASKS, *further)}
    texts = {"benchmark": row.benchmark, "model": row.model, "method": row.method}
    texts |= {"step": "" if row.step is None else str(row.step)}
    texts |= {"prompt": row.prompt, "scorer": row.scorer}
    texts |= {task: _percent(scores[task], missing="") for task in FIRST_TASKS}
    texts |= {"average": _percent(row.average, missing="")}
    texts |= {"num_questions": "" if row.num_questions is None else str(row.num_questions)}
    texts |= {"source": row.source, "prompt_sha256": row.asked.sha256 if row.asked else ""}
    texts |= {task: _percent(scores[task], missing="") for task in further}
    for name, score in {**scores, "average": row.average}.items():
        ends = (score.low, score.high) if score else (None, None)
        for end, value in zip(("low", "high"), ends, strict=True):
            texts[f"{name}_{end}"] = "" if value is None else f"{value:.2f}"
    texts |= {"mark": mark_text(row), "date": row.date, "note": row.note}
    texts |= {"decoding": row.decoding, "questions_sha256": row.questions_sha256}
    return {name: _plain_cell(text) for name, text in texts.items()}


def _plain_cell(text: str) -> str:
    """Text that no spreadsheet runs as a formula."""
    text = one_line(text)
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def one_line(text: str) -> str:
    """Text without line breaks and control characters."""
    return text.translate(CONTROL_CHARACTERS)


def _percent(score: Score | None, *, missing: str = DASH) -> str:
    return missing if score is None else f"{score.percent:.2f}"


def to_json(rows: Iterable[LeaderboardRow]) -> str:
    """JSON with the CSV's keys, and for each accuracy its counts and interval (percent)."""
    return (
        json.dumps([_json_row(row) for row in rows], ensure_ascii=False, indent=1, allow_nan=False)
        + "\n"
    )


def _json_row(row: LeaderboardRow) -> dict[str, object]:
    return {
        "benchmark": row.benchmark,
        "model": row.model,
        "method": row.method,
        "step": row.step,
        "prompt": row.prompt,
        "scorer": row.scorer,
        **{task: _json_score(row.tasks.get(task)) for task in task_names([row]) or FIRST_TASKS},
        "average": _json_score(row.average),
        "num_questions": row.num_questions,
        "source": row.source,
        "date": row.date,
        "training": row.training,
        "mark": mark_text(row),
        "note": "; ".join(text for text in (row.disagreement, row.note) if text),
        "prompt_sha256": row.asked and row.asked.sha256,
        "prompt_text": row.asked and row.asked.text,
        **(
            {"further": {name: _json_score(score) for name, score in row.further.items()}}
            if row.further
            else {}
        ),
    }


def mark_text(row: LeaderboardRow) -> str:
    """What is said of a checkpoint, in one line; empty: nothing."""
    return "; ".join(mark.text for mark in row.marks)


def _json_score(score: Score | None) -> dict[str, float] | None:
    if score is None:
        return None
    counted: dict[str, float] = {"percent": round(score.percent, 2)}
    if score.tally:
        counted |= {
            "num_correct": score.tally.num_correct,
            "num_questions": score.tally.num_questions,
        }
        counted |= {"low": round(score.low or 0.0, 2), "high": round(score.high or 0.0, 2)}
    return counted


def to_markdown(rows: Iterable[LeaderboardRow]) -> str:
    """One Markdown table a benchmark and scorer, intervals after our numbers."""
    parts: list[str] = []
    for title, table in tables(rows):
        tasks = task_names(table)
        heads = _heads(tasks)
        parts += [f"### {_markdown(title)}", ""]
        parts += [
            _markdown_line(heads),
            _markdown_line(["---"] * 3 + ["---:"] * (len(tasks) + 2) + ["---"]),
        ]
        parts += [_markdown_line(_cells(row, tasks, escape=_markdown)) for row in table]
        parts.append("")
    return "\n".join(parts)


def _heads(tasks: Sequence[str]) -> list[str]:
    named = [task.capitalize() for task in tasks]
    return ["Model", "Method", "Prompt", *named, "Average", "n", "Source"]


def tables(rows: Iterable[LeaderboardRow]) -> list[tuple[str, list[LeaderboardRow]]]:
    """Rows by benchmark and scorer; published ones stand under the first scorer."""
    found: list[tuple[str, list[LeaderboardRow]]] = []
    for benchmark, group in groupby(rows, key=lambda row: row.benchmark):
        members = list(group)
        scorers = list(dict.fromkeys(row.scorer for row in members if row.is_ours))
        for index, scorer in enumerate(scorers or [""]):
            table = [row for row in members if row.is_ours and row.scorer == scorer]
            table += [] if index else [row for row in members if not row.is_ours]
            found.append((f"{benchmark}, {scorer} scorer" if scorer else benchmark, table))
    return found


def _cells(row: LeaderboardRow, tasks: Sequence[str], *, escape: Callable[[str], str]) -> list[str]:
    mark = mark_text(row)
    name = f"{row.model} ({mark})" if mark else row.model
    source = ", ".join(text for text in (row.source, row.date, row.disagreement, row.note) if text)
    return [
        escape(name),
        escape(row.method),
        escape(row.prompt or DASH),
        *(escape(score_text(row.tasks.get(task))) for task in tasks),
        escape(score_text(row.average)),
        DASH if row.num_questions is None else str(row.num_questions),
        escape(source),
    ]


def score_text(score: Score | None) -> str:
    """`64.50 (61.5-67.4)` with an en dash, without an interval for a published row."""
    if score is None or score.low is None or score.high is None:
        return _percent(score)
    return f"{score.percent:.2f} ({score.low:.1f}{DASH}{score.high:.1f})"


def _markdown(text: str) -> str:
    escaped = one_line(text).replace("\\", "\\\\").replace("|", "\\|")
    for character in "<>`*_[]":
        escaped = escaped.replace(character, "\\" + character)
    return escaped


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_latex(rows: Iterable[LeaderboardRow]) -> str:
    """One booktabs table a benchmark and scorer, for a paper's text width.

    Our rows to quote, other models and the paper's own; the best of each column in bold, intervals
    small beside them. Letters beyond Latin become their nearest, or their number in Unicode.
    """
    shown = (
        (title, [row for row in table if is_quoted(row) or row.source == PAPER_SOURCE])
        for title, table in tables(rows)
    )
    needs = "% \\usepackage{booktabs, graphicx}"
    return "\n".join([needs, *(_latex_table(title, table) for title, table in shown if table)])


def is_quoted(row: LeaderboardRow) -> bool:
    """Whether it is ours and to quote: a training's leading step, or another model."""
    return row.is_ours and (row.leads or not row.training)


def _latex_table(title: str, table: Sequence[LeaderboardRow]) -> str:
    tasks = task_names(table)
    shown = [[*(row.tasks.get(task) for task in tasks), row.average] for row in table]
    best = [
        max((score.percent for score in column if score), default=0)
        for column in zip(*shown, strict=True)
    ]
    names = (*map(str.capitalize, tasks), "Average")
    heads = [rf"\multicolumn{{2}}{{c}}{{{_latex(name)}}}" for name in names]
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{Accuracy in percent on {_latex(title)}; small: 95\,\% interval.}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}}}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        r"\begin{tabular}{ll" + r"r@{\,}l" * len(best) + "}",
        r"\toprule",
        " & ".join(["Model", "Prompt", *heads]) + r" \\",
        r"\midrule",
    ]
    for row, scores in zip(table, shown, strict=True):
        name = ", ".join(part for part in (row.training or row.model, row.method) if part)
        cells = [_latex_score(score, at) for score, at in zip(scores, best, strict=True)]
        lines.append(" & ".join([_latex(name), _latex(row.prompt or DASH), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def _latex_score(score: Score | None, best: float) -> str:
    """Two cells: the number and its interval."""
    if score is None:
        return "-- &"
    number = rf"\textbf{{{score.percent:.2f}}}" if score.percent == best else f"{score.percent:.2f}"
    if score.low is None or score.high is None:
        return f"{number} &"
    return rf"{number} & {{\scriptsize {score.low:.1f}--{score.high:.1f}}}"


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


def print_table(rows: Iterable[LeaderboardRow], *, console: Console | None = None) -> None:
    """Print our rows by step, start models first; percent with 95 % intervals.

    Of a benchmark with many tasks (MMAR's seven modalities) the averages alone; the files have all.
    """
    console = console or Console()
    for title, table in tables(row for row in rows if row.is_ours):
        all_tasks = task_names(table)
        tasks = all_tasks if len(all_tasks) <= MOST_TASKS else []
        counts = {row.num_questions for row in table}
        heading = f"{title}, n = {', '.join(str(count) for count in counts)}"
        console.print(_text(heading, style="italic"))
        shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
        shown.add_column("model", overflow="fold")
        for name in (*tasks, "average"):
            shown.add_column(_text(name), justify="right", min_width=LONGEST_SCORE)
        for row in sorted(
            table, key=lambda row: (row.training, -1 if row.step is None else row.step)
        ):
            cells = [_text(short_score(row.tasks.get(task))) for task in tasks]
            name = _text(one_line(row.model), style="bold" if row.leads else "")
            shown.add_row(name, *cells, _text(short_score(row.average)))
        console.print(shown)
        if not tasks:
            console.print(_text(f"by task ({', '.join(all_tasks)}): leaderboard.md, or the report"))
        for row in table:
            if row.marks:
                console.print(_text(f"{one_line(row.model)}: {mark_text(row)}"))
        console.print()


def _text(text: str, *, style: str = "") -> Text:
    return Text(printable(text), style=style)


def short_score(score: Score | None) -> str:
    """`64.5 [61-67]`, to fit five columns into 80 characters."""
    if score is None or score.low is None or score.high is None:
        return _percent(score)
    return f"{score.percent:.1f} [{score.low:.0f}{DASH}{score.high:.0f}]"
