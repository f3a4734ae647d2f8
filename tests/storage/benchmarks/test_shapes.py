"""Each shipped benchmark's schema, and shapes of one's own, through its YAML to questions."""

import csv
import json
from pathlib import Path

import pytest

from reports.numbers.statistics import mmsu_rule
from storage.benchmarks.difference import compare, subsets
from storage.benchmarks.parse import parse_questions, read_questions
from storage.benchmarks.prepare import prepare
from storage.benchmarks.published import find_published, prepare_questions
from storage.config import BenchmarkConfig
from storage.errors import PipelineError
from storage.mapping import Constant, RowMapping
from storage.records.question import Question
from tests.storage import wire
from tests.storage.benchmarks import made

ROW = {"audio": "a.wav", "question": "What?", "choices": ["rain", "wind"], "answer": "wind"}
BARE = RowMapping(
    id=None, audio_id="audio", task=None, category=None, sub_category=None, dataset=None
)


def ask(fields: RowMapping, **changes: object) -> Question:
    (question,) = parse_questions([{**ROW, **changes}], source="rows", fields=fields)
    return question


def test_both_files_of_mmar_hold_the_same_questions_in_another_order(tmp_path: Path) -> None:
    old = prepare(made.mmar(tmp_path, "mmar-2025-05", suffix=".json"), tmp_path / "out")
    new = prepare(made.mmar(tmp_path, "mmar-2026-02", suffix=".jsonl"), tmp_path / "out")
    assert old.questions[3].task == "mix-sound-music"
    assert old.questions[3].dataset == "bilibili"
    difference = compare(old.questions, new.questions)
    assert [(change.id[:5], change.what) for change in difference.changed] == [
        ("BV1_6", ("answer",))
    ]
    found = subsets(old.questions, (), {"mmar-2026-02": new.questions})
    assert found == {"shared with mmar-2026-02": (0, 1, 2, 3, 4, 5)}


def test_errata_give_a_second_set_of_questions() -> None:
    questions = [ask(BARE, question=f"{number}?") for number in range(3)]
    assert subsets(questions, [questions[1].id, "gone"], {}) == {"without listed errata": (0, 2)}
    assert subsets(questions, ["gone"], {}) == {}


def test_errata_of_published_benchmarks_are_read_and_allow_golds_that_are_no_choice() -> None:
    """MMAR's file of May 2025 was refused for six golds; the published script counts them."""
    known = find_published("mmar-2025-05")
    assert known
    assert len(known.errata) == 6
    name = next(iter(known.errata))
    row = {"id": name, "audio_path": "a.wav", "modality": "sound"}
    row |= {"question": "What?", "choices": ["rain", "wind"], "answer": "Rain"}
    rows = [row]
    (question,) = parse_questions(rows, source="x", fields=known.fields, errata=known.errata)
    assert question.answer == "Rain"
    with pytest.raises(PipelineError, match="not among the choices"):
        parse_questions([{**row, "id": "b"}], source="x", fields=known.fields, errata=known.errata)
    original = find_published("mmau-test-mini-original")
    assert original
    assert len(original.errata) == 20


def test_mmsu_comes_out_of_its_data_set_with_its_clips(tmp_path: Path) -> None:
    benchmark = prepare(made.mmsu(tmp_path), tmp_path / "out")
    first, second, *_ = benchmark.questions
    assert (first.choices, second.choices[2:]) == (("never", "went"), ("there", "again"))
    assert (first.task, first.category, first.sub_category) == (
        "Reasoning",
        "Linguistics",
        "stress_x",
    )
    assert first.clips == ("row-000000.wav",)  # all rows name their clip alike
    assert benchmark.audio
    again = prepare(made.mmsu(tmp_path / "again", num_questions=2), tmp_path / "out")
    assert len(again.questions) == 2
    assert len({path.read_bytes() for path in benchmark.audio.glob("*.wav")}) == 6


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("B", True),
        ("A man speaks", False),  # read as A
        ("The answer is B.", True),
        ("went", None),
        ("x", None),
        ("", False),
        ("None", False),
        ("D", False),
    ],
)
def test_mmsus_own_rule_reads_as_its_script(completion: str, verdict: bool | None) -> None:  # noqa: FBT001  a table
    question = ask(BARE, choices=["never", "went"], answer="went")
    assert mmsu_rule(completion, question) is verdict


def test_adqa_has_r1_aqas_keys_and_its_answer_is_a_text(tmp_path: Path) -> None:
    benchmark = prepare(made.adqa(tmp_path), tmp_path / "out")
    assert [question.answer for question in benchmark.questions[:2]] == ["wind", "bells"]
    assert {(question.task, question.split) for question in benchmark.questions} == {("", "dev")}
    assert read_questions(benchmark.questions_path) == list(benchmark.questions)


def test_a_benchmark_of_another_shape_is_one_yaml(tmp_path: Path) -> None:
    benchmark = prepare(made.air_bench(tmp_path), tmp_path / "out")
    question = benchmark.questions[1]
    assert (question.id, question.choices, question.answer) == ("1", ("dog", "bell"), "bell")
    assert (question.task, question.category, question.dataset) == (
        "Sound_AQA",
        "Perception",
        "avqa",
    )


@pytest.mark.parametrize(
    ("fields", "changes", "choices"),
    [
        ({"answer_is": "index"}, {"answer": 1}, ("rain", "wind")),
        ({"answer_is": "index"}, {"answer": "1"}, ("rain", "wind")),
        ({"answer_is": "letter"}, {"answer": "(B)"}, ("rain", "wind")),
        ({"answer_is": "letter"}, {"choices": {"A": "rain", "B": "wind"}, "answer": "B"}, None),
        ({"separator": "|"}, {"choices": "rain | wind"}, ("rain", "wind")),
        ({}, {"choices": '["rain", "wind"]'}, ("rain", "wind")),
        ({"separator": "\n"}, {"choices": "A. rain\nB. wind", "answer": "B. wind"}, None),
        # What a text means is said, not guessed: "1" is the second choice here.
        ({"answer_is": "text"}, {"choices": ["2", "1"], "answer": "1"}, ("2", "1")),
    ],
)
def test_choices_and_answers_come_in_many_forms(
    fields: dict[str, object], changes: dict[str, object], choices: tuple[str, ...] | None
) -> None:
    question = ask(BARE.model_copy(update=fields), **changes)
    assert question.question == "What?"
    assert question.choices == (choices or ("rain", "wind"))
    assert question.answer == question.choices[1]


def test_ids_are_made_of_what_is_asked_or_joined_of_several_keys() -> None:
    rows = [ROW, {**ROW, "question": "Which?"}, ROW]
    first, other, again = parse_questions(rows, source="rows", fields=BARE)
    assert len(first.id) == 12
    assert other.id != first.id
    assert again.id == f"{first.id}-2"
    fields = BARE.model_copy(update={"id": ("source", "id"), "task": Constant(constant="speech")})
    question = ask(fields, source="Clotho", id=7)
    assert (question.id, question.task) == ("Clotho-7", "speech")


def test_every_malformed_row_is_named_with_its_key() -> None:
    rows = [{**ROW, "choices": "rain"}, ROW, {**ROW, "answer": "C", "question": ""}]
    fields = BARE.model_copy(update={"answer_is": "letter"})
    with pytest.raises(PipelineError) as refused:
        parse_questions(rows, source="mine.json", fields=fields)
    assert str(refused.value).splitlines() == [
        "mine.json: row 0: 'choices' is 'rain', expected a list of two or more texts",
        "mine.json: row 1: 'answer' is 'wind', expected a letter of A, B",
        "mine.json: row 2: 'question' is '', expected text",
    ]


def test_a_csv_with_a_column_a_choice_is_read(tmp_path: Path) -> None:
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "q", "a", "b", "c", "right"])
        writer.writerow(["a.wav", "What, then?", "rain", "wind", "", "B"])
    (tmp_path / "mine.yaml").write_text(
        "fields: {id: null, audio_id: clip, question: q, choices: [a, b, c], answer: right, "
        "answer_is: letter, task: null}"
    )
    config = BenchmarkConfig(
        name="mine", file=str(tmp_path / "mine.yaml"), questions=str(tmp_path / "mine.csv")
    )
    (question,) = read_questions(prepare_questions(config, tmp_path / "out"))
    assert (question.question, question.choices, question.answer) == (
        "What, then?",
        ("rain", "wind"),
        "wind",
    )


def test_a_wrong_description_is_refused_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    config = BenchmarkConfig(name="mine", file=str(file))
    for text, fault in [("", "mine.yaml"), ("fields: {answer_is: guess}", "fields.answer_is")]:
        file.write_text(text)
        with pytest.raises(PipelineError, match=fault):
            prepare_questions(config, tmp_path / "out")


def test_the_first_download_is_kept_to_where_no_digest_is_known(tmp_path: Path) -> None:
    row = {"id": "a", "audio_id": "a.wav", "task": "", **ROW}
    source = tmp_path / "served" / "mine.json"
    source.parent.mkdir()
    source.write_text(json.dumps([row]))
    with wire.serve(source.parent) as server:
        (tmp_path / "mine.yaml").write_text(f"questions: {server.base}/plain/mine.json")
        config = BenchmarkConfig(name="mine", file=str(tmp_path / "mine.yaml"))
        path = prepare_questions(config, tmp_path / "out")
        path.unlink()
        assert prepare_questions(config, tmp_path / "out") == path
        path.unlink()
        source.write_text(json.dumps([{**row, "question": "Which?"}]))
        with pytest.raises(PipelineError, match=r"gives other questions than at the first"):
            prepare_questions(config, tmp_path / "out")
