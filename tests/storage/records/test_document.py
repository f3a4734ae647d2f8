"""A record's file: of this format, of an older one, damaged."""

from pathlib import Path

import pytest

from storage.errors import PipelineError
from storage.jsonl import AppendLog, read_json, write_json
from storage.records.evaluation import Counts, Hashes, Score, Tally

SCORE = Score(
    benchmark="demo",
    scorers={"official": Counts(overall=Tally(3, 4), groups={"task": {"sound": Tally(3, 4)}})},
    num_questions=4,
    num_unparsed=1,
    hashes=Hashes(questions="a", answers="b"),
)


def test_what_is_written_is_read(tmp_path: Path):
    SCORE.write(tmp_path / "score.json")
    assert Score.read(tmp_path / "score.json") == SCORE


def test_a_score_has_the_keys_that_others_read(tmp_path: Path):
    SCORE.write(tmp_path / "score.json")
    written = read_json(tmp_path / "score.json")
    counted = {"num_correct": 3, "num_questions": 4}
    assert written["scorers"] == {"official": {"overall": counted, "task": {"sound": counted}}}
    assert (written["benchmark"], written["num_unparsed"]) == ("demo", 1)
    assert written["hashes"] == {"questions": "a", "answers": "b"}


def test_a_file_of_an_older_version_is_refused_in_one_line_and_left(tmp_path: Path):
    file = tmp_path / "score.json"
    write_json(file, {"scorers": {}})
    before = file.read_bytes()
    with pytest.raises(PipelineError, match=r"is of format 1, this version reads 2; nothing was"):
        Score.read(file)
    assert file.read_bytes() == before


def test_a_damaged_record_is_refused_with_the_key(tmp_path: Path):
    file = tmp_path / "score.json"
    write_json(file, {**SCORE.model_dump(mode="json"), "num_questions": "many"})
    with pytest.raises(PipelineError, match="is not a score: num_questions"):
        Score.read(file)


def test_a_log_mends_a_torn_tail_before_it_grows(tmp_path: Path):
    """A line was glued to the torn one before it, and every later clip had the row before it."""
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b'{"id": 1}\n{"id": 2, "text": "to')
    log = AppendLog(file)
    log.append({"id": 3})
    assert log.read() == [{"id": 1}, {"id": 3}]


def test_a_log_with_a_bad_line_inside_is_refused_by_line(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1}\n{"id\n{"id": 3}\n')
    with pytest.raises(PipelineError, match=r"rows\.jsonl:2 is not JSON"):
        AppendLog(file).read()
