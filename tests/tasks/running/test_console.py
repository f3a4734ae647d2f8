"""How far a child is, told from the records that it writes."""

from pathlib import Path

from storage.jsonl import append_line, write_jsonl
from tasks.running.console import RecordFile


def test_a_growing_file_of_records_is_counted_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    records = RecordFile(path)
    assert not records.look()
    append_line(path, {"step": 1})
    append_line(path, {"step": 2})
    assert records.look()
    assert (records.num_lines, records.last) == (2, {"step": 2})
    assert not records.look()
    with path.open("a") as file:
        file.write('{"step":')
    assert not records.look()
    with path.open("a") as file:
        file.write(" 3}\n")
    assert records.look()
    assert (records.num_lines, records.last) == (3, {"step": 3})


def test_a_file_that_is_written_anew_is_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_jsonl(path, [{"id": "a"}, {"id": "b"}])
    answers = RecordFile(path)
    answers.look()
    write_jsonl(path, [{"id": "c"}])
    assert answers.look()
    assert (answers.num_lines, answers.last) == (1, {"id": "c"})
