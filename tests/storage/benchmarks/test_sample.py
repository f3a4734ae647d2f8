"""Samples of a benchmark."""

from collections import Counter
from pathlib import Path

from storage.benchmarks.parse import as_file, keep_questions, take_sample, write_sample
from storage.records.question import Question

QUESTIONS = [
    Question(f"q{n}", (f"{n}.wav",), "What?", ("a", "b"), "a", ("sound", "music")[n % 10 < 3])
    for n in range(200)
]


def test_each_task_has_its_share_in_the_files_order() -> None:
    sample = take_sample(QUESTIONS, 50)
    assert Counter(question.task for question in sample) == {"sound": 35, "music": 15}
    assert sample == [question for question in QUESTIONS if question in sample]


def test_a_sample_depends_on_the_ids_alone_and_a_larger_one_holds_it() -> None:
    small = {question.id for question in take_sample(QUESTIONS, 20)}
    assert small == {question.id for question in take_sample(QUESTIONS[::-1], 20)}
    assert small < {question.id for question in take_sample(QUESTIONS, 60)}
    assert take_sample(QUESTIONS, 500) == QUESTIONS


def test_a_sample_has_its_clips_also_where_its_making_was_killed(tmp_path: Path) -> None:
    whole = keep_questions("made", as_file(QUESTIONS), tmp_path)
    sample = write_sample("made", whole, 20)
    (sample.parent / "audio").unlink()
    assert write_sample("made", whole, 20) == sample
    assert (sample.parent / "audio").resolve() == (whole.parent / "audio").resolve()
