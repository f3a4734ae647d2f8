"""How far a child is, told from the records that it writes."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from storage.jsonl import append_line, write_jsonl
from tasks.running.console import RecordFile, meter


def test_a_growing_file_of_records_is_counted_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    records = RecordFile(path)
    assert records.look() == []
    append_line(path, {"step": 1})
    append_line(path, {"step": 2})
    assert records.look() == [{"step": 1}, {"step": 2}]
    assert records.num_lines == 2
    assert records.look() == []
    with path.open("a") as file:
        file.write('{"step":')
    assert records.look() == []
    with path.open("a") as file:
        file.write(" 3}\n")
    assert records.look() == [{"step": 3}]
    assert records.num_lines == 3


def test_a_file_that_is_written_anew_is_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_jsonl(path, [{"id": "a"}, {"id": "b"}])
    answers = RecordFile(path)
    answers.look()
    write_jsonl(path, [{"id": "c"}])
    assert answers.look() == [{"id": "c"}]
    assert answers.num_lines == 1


def test_a_file_that_was_cut_and_has_outgrown_what_was_read_is_read_anew(tmp_path: Path) -> None:
    """A training that went on from a checkpoint ended by it: the rest of a line is no JSON."""
    path = tmp_path / "metrics.jsonl"
    steps = [{"step": step, "seconds": 0.25} for step in range(1, 7)]
    write_jsonl(path, steps)
    metrics = RecordFile(path)
    assert metrics.look() == steps
    again = steps[:4] + [{"step": step, "seconds": 0.123456789} for step in (5, 6)]
    write_jsonl(path, again)
    assert metrics.look() == again
    assert metrics.num_lines == 6


@pytest.mark.parametrize("width", [80, 110, 200])
def test_name_count_and_time_left_fit_every_width_and_the_note_is_what_is_cut(width: int) -> None:
    """At 80 columns the count and the time left were pushed out by the note, and stood twice."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width)
    note = "loss 0.0123 reward 1.42 " * 12
    with meter("grpo-without-answer", 1000, console=console) as progress:
        progress.show(100, note)
        progress.show(250, note, eta_s=5.5 * 3600)
        progress._bar.refresh()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()
    shown = [line for line in lines if "250/1000" in line][-1].rstrip()
    assert len(shown) <= width
    assert shown.count("left") == 1
    assert all(part in shown for part in ("grpo-without-answer", "5.5 h left", "loss 0.01"))
    assert shown.endswith("…")


def test_of_two_that_work_at_once_one_has_the_bar_and_the_other_says_lines() -> None:
    """Two bars, of a training and of the evaluation beside it, wrote over each other."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True)
    for _ in range(2):  # the bar is given back
        with meter("grpo", 9, console=console), meter("evaluate", 2, console=console) as other:
            other.show(2)
    assert screen.getvalue().count("  evaluate  2/2\n") == 2  # said above the bar
