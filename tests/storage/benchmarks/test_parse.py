import json
from dataclasses import replace
from pathlib import Path

import pytest

from storage.benchmarks.parse import (
    from_validation,
    parse_questions,
    read_questions,
    to_row,
    write_questions,
)
from storage.errors import PipelineError
from storage.mapping import RowMapping
from storage.records.question import Question, list_ids

# The first row of the published file.
ROW = {
    "id": "3fe64f3d-282c-4bc8-a753-68f8f6c35652",
    "audio_id": "./test-mini-audios/3fe64f3d-282c-4bc8-a753-68f8f6c35652.wav",
    "question": "Based on the given audio, identify the source of the speaking voice.",
    "choices": ["Man", "Woman", "Child", "Robot"],
    "answer": "Man",
    "dataset": "AudioSet",
    "task": "sound",
    "split": "test-mini",
    "category": "Reasoning",
    "sub-category": "Acoustic Source Inference",
    "difficulty": "medium",
}


def parse(*rows: dict[str, object]) -> list[Question]:
    return parse_questions(rows, source="questions.json")


def row(**changes: object) -> dict[str, object]:
    return {
        **ROW,
        **{key.replace("_category", "-category"): value for key, value in changes.items()},
    }


def test_a_published_row_becomes_a_question() -> None:
    (question,) = parse(ROW)
    assert question.choices == ("Man", "Woman", "Child", "Robot")
    assert (question.answer, question.task) == ("Man", "sound")
    assert question.sub_category == "Acoustic Source Inference"


def test_the_order_of_keys_does_not_matter() -> None:
    assert parse(dict(reversed(ROW.items()))) == parse(ROW)


@pytest.mark.parametrize("category", [["Reasoning"], "['Reasoning']", "Reasoning"])
def test_a_category_is_text_however_it_was_written(category: object) -> None:
    assert parse(row(category=category))[0].category == "Reasoning"


def test_questions_survive_being_written_and_read(tmp_path: Path) -> None:
    questions = parse(ROW, row(id="2", choices=['é, "x"', "b\nc"], answer="b\nc"))
    write_questions(tmp_path / "questions.json", questions)
    assert read_questions(tmp_path / "questions.json") == questions


def test_a_withheld_answer_stays_withheld() -> None:
    withheld = {key: value for key, value in ROW.items() if key != "answer"}
    (question,) = parse(withheld)
    assert question.answer is None
    assert "answer" not in to_row(question)
    assert parse({**withheld, "answer": ""})[0].answer is None


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "meta.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(row(id="2")) + "\n")
    assert [question.id for question in read_questions(path)] == [ROW["id"], "2"]
    path.write_text(json.dumps(ROW) + "\n")
    assert len(read_questions(path)) == 1


def test_other_field_names_are_read_by_a_benchmarks_own_list() -> None:
    mmar = {**ROW, "audio_path": "./audio/a.wav", "modality": "mix-sound-music"}
    del mmar["audio_id"], mmar["task"], mmar["difficulty"]
    fields = RowMapping(audio_id="audio_path", task="modality")
    (question,) = parse_questions([mmar], source="mmar.json", fields=fields)
    assert (question.clips, question.task) == (("./audio/a.wav",), "mix-sound-music")
    assert question.difficulty == ""


def test_prefixes_of_every_choice_and_the_answer_are_taken_off() -> None:
    """The hub's copy writes "(A) Man" in choices and answer; the published file writes "Man"."""
    (question,) = parse(row(choices=["(A) Man", "(B) Woman"], answer="(B) Woman"))
    assert (question.choices, question.answer) == (("Man", "Woman"), "Woman")


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        (["(A) Man", "Woman"], "(A) Man"),
        (["(A) Man", "(B) Woman"], "Woman"),
    ],
)
def test_prefixes_on_some_texts_only_are_refused_with_the_id(
    choices: list[str], answer: str
) -> None:
    with pytest.raises(PipelineError, match=r"begin with '\(A\) '.*some-id"):
        parse(ROW, row(id="some-id", choices=choices, answer=answer))


def test_two_questions_with_one_id_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"ids are not unique: 1 question.*3fe64f3d"):
        parse(ROW, ROW)


def test_an_answer_that_is_no_choice_is_refused_with_the_id() -> None:
    """143 golds of MMAU's commits of 15 and 16 May 2025 were not among their choices."""
    with pytest.raises(PipelineError, match=r"not among the choices: 1 question\(s\): bad-one"):
        parse(ROW, row(id="bad-one", answer="man"))


def test_answers_for_some_questions_only_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"the answer is missing: 1 question.*no-gold"):
        parse(ROW, row(id="no-gold", answer=None))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("question", None),
        ("choices", "Man"),
        ("choices", ["Man"]),
        ("choices", [1, 2]),
    ],
)
def test_a_malformed_row_is_named_by_id_and_key(key: str, value: object) -> None:
    with pytest.raises(PipelineError, match=rf"3fe64f3d.*row 0.*'{key}' is"):
        parse({**ROW, key: value})


def test_a_row_that_is_no_object_is_named_by_its_place() -> None:
    with pytest.raises(PipelineError, match="row 1 is int"):
        parse_questions([ROW, 3], source="questions.json")


def test_no_questions_at_all_are_refused() -> None:
    with pytest.raises(PipelineError, match="holds no questions"):
        parse()


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    with pytest.raises(PipelineError, match="is missing"):
        read_questions(path)
    path.write_text("hello")
    with pytest.raises(PipelineError, match="is not JSON"):
        read_questions(path)
    path.write_text('[{"id": "a",\n "question": ')
    with pytest.raises(PipelineError, match="neither a line nor part of one document"):
        read_questions(path)


def test_duplicate_choices_are_allowed() -> None:
    """20 questions of the original offer one text twice, e.g. four, nine, fourteen, fourteen."""
    _, twice = parse(ROW, row(id="twice", choices=["four", "nine", "six", "six"], answer="six"))
    assert twice.choices == ("four", "nine", "six", "six")


def test_long_lists_of_ids_are_cut_short() -> None:
    assert list_ids([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"


def test_validation_examples_become_questions() -> None:
    example = {
        "id": 183,
        "video_name": "-HG3Omg_89c_000030",
        "video_id": 341,
        "question_text": "What happened in the video?",
        "multi_choice": ["motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"],
        "answer": 1,
        "question_relation": "View",
        "question_type": "Happening",
        "dataset_name": "AVQA",
        "audio_path": "-HG3Omg_89c_30.wav",
    }
    (question,) = from_validation([example])
    assert question == Question(
        id="183",
        clips=("-HG3Omg_89c_30.wav",),
        question="What happened in the audio?",
        choices=("motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car"),
        answer="Yacht consignment",
        task="sound",
        category="View",
        sub_category="Happening",
        difficulty="",
        dataset="AVQA",
        split="validation",
    )
    assert [q.id for q in from_validation([example, example, example])] == ["183", "183-2", "183-3"]
    with pytest.raises(PipelineError, match="id 183: 'answer' is 7, expected an index from 0 to 3"):
        from_validation([{**example, "answer": 7}])


def test_a_question_is_frozen() -> None:
    (question,) = parse(ROW)
    assert replace(question, id="2").id == "2"
    with pytest.raises(AttributeError):
        question.id = "2"  # pyright: ignore[reportAttributeAccessIssue]  that it fails is the test
