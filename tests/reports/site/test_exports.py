import csv
import io

import pytest
from rich.console import Console

from reports.numbers.leaderboard import OURS, LeaderboardRow, Score
from reports.site import exports
from reports.site.terminal import print_table
from storage.records.evaluation import Tally

SCORE = Score(50.0, Tally(5, 10))


def row(model: str, **changes) -> LeaderboardRow:
    fields = {
        "benchmark": "demo",
        "model": model,
        "method": "GRPO",
        "step": 10,
        "prompt": "answer",
        "scorer": "official",
        "tasks": {"sound": SCORE},
        "average": SCORE,
        "num_questions": 10,
        "source": OURS,
    }
    return LeaderboardRow(**{**fields, **changes})


def test_latex_escapes_every_special_character():
    text = exports.to_latex([row(r"a&b%c$d#e_f{g}h~i^j\k<l>")])
    assert (
        r"a\&b\%c\$d\#e\_f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
        r"\textless{}l\textgreater{}" in text
    )
    assert r"\toprule" in text
    assert r"\textbf{50.00} & {\scriptsize 23.7--76.3}" in text


def test_latex_is_ascii_whatever_the_names_hold():
    """A letter that pdflatex does not know stops a paper's build."""
    text = exports.to_latex([row("Qwen\u2013\u00e9\u732b\U0001f600 \u202e")])
    assert text.isascii()
    assert r"Qwen\textendash{}e\texttt{U+732B}\texttt{U+1F600} \texttt{U+202E}" in text


def test_a_latex_name_is_no_argument_of_the_row_before_it_nor_a_ligature():
    """`[x]` behind a row's end stopped pdflatex, xelatex and lualatex: "Missing number"."""
    text = exports.to_latex([row("[x]"), row("*"), row("a--b ''c''", prompt="")])
    assert text.startswith("% \\usepackage{booktabs, graphicx}\n")
    rows = [line for line in text.splitlines() if "GRPO" in line]
    assert [line.partition(",")[0] for line in rows] == ["{[}x{]}", "{*}", "a-{}-b {'}{'}c{'}{'}"]
    assert r"& \textendash{} &" in rows[2]


def test_latex_has_caption_label_and_each_columns_best_in_bold():
    low, high = Score(40.0, Tally(4, 10)), Score(60.0, Tally(6, 10))
    rows = [
        row("base", step=None, tasks={"sound": high}, average=low),
        row("grpo-step-10", training="grpo", leads=True, tasks={"sound": low}, average=high),
        row("grpo-step-5", training="grpo", step=5),
        row("theirs", source="Their page", scorer="", average=Score(99.0)),
    ]
    text = exports.to_latex(rows)
    assert text.count(r"\textbf{60.00}") == 2
    assert r"\label{tab:demo-official-scorer}" in text
    assert r"\caption{Accuracy in percent on demo, official scorer" in text
    assert "grpo-step-5" not in text  # only what is quoted
    assert "theirs" not in text
    assert text.count(r"\begin") == text.count(r"\end") == 2
    assert text.count("{") == text.count("}")
    assert exports.to_latex(rows[-1:]).count("\n") == 0  # only published: no table without rows


def test_csv_has_every_benchmarks_tasks_intervals_and_what_decided_the_row():
    rows = [row("a"), row("b", tasks={"mix": SCORE}, decoding="greedy", questions_sha256="ab12")]
    text = exports.to_csv(rows)
    assert text.count("\r\n") == 3
    one, other = csv.DictReader(io.StringIO(text))
    assert (one["mix"], other["mix"]) == ("", "50.00")
    assert (one["sound_low"], one["average_high"]) == ("23.66", "76.34")
    assert (other["decoding"], other["questions_sha256"]) == ("greedy", "ab12")


def test_markdown_cells_cannot_break_their_row():
    text = exports.to_markdown([row("a|b\nc<i>`d`")])
    line = next(line for line in text.splitlines() if "a\\|b" in line)
    assert line.count(" | ") == 6
    assert "\\<i\\>\\`d\\`" in line


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_text_is_no_formula(start):
    text = exports.to_csv([row(f'{start}HYPERLINK("http://x","y")')])
    cells = next(csv.DictReader(io.StringIO(text)))
    assert cells["model"] == f'\'{start}HYPERLINK("http://x","y")'


def test_csv_quotes_commas_quotes_and_line_breaks():
    text = exports.to_csv([row('a,"b"\nc')])
    assert len(text.splitlines()) == 2
    assert next(csv.DictReader(io.StringIO(text)))["model"] == 'a,"b" c'


def test_the_terminal_shows_start_models_and_steps_in_order_with_intervals():
    console = Console(record=True, width=80, file=io.StringIO())
    steps = [row("grpo-step-20", step=20, training="grpo"), row("grpo-step-10", training="grpo")]
    print_table([*steps, row("base [bold]", step=None)], console=console)
    text = console.export_text()
    assert text.index("base [bold]") < text.index("grpo-step-10") < text.index("grpo-step-20")
    assert "50.0 [24\u201376]" in text
    assert "demo, official scorer, n = 10" in text


def test_published_rows_are_not_printed_in_the_terminal():
    console = Console(record=True, width=80, file=io.StringIO())
    print_table([row("ours"), row("theirs", source="a paper", scorer="")], console=console)
    assert "theirs" not in console.export_text()


def test_a_benchmark_with_many_tasks_fits_into_the_terminal():
    """MMAR's seven modalities ran over the edge, the average with them."""
    console = Console(record=True, width=80, file=io.StringIO())
    tasks = dict.fromkeys(["sound", "music", "speech", "mix-music-speech", "mix-all"], SCORE)
    print_table([row("grpo", tasks=tasks)], console=console)
    text = console.export_text()
    assert "average" in text
    assert text.count("50.0 [24") == 1
    assert "by task (sound, music, speech, mix-all, mix-music-speech): leaderboard.md" in text
