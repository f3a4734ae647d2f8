import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.score.foreign import read_predictions
from model.score.scorers import Prediction, judge_all, submission_rows
from storage.benchmarks.parse import to_row
from storage.errors import PipelineError
from storage.records.question import Question

R1_AQA_PROMPT = (
    "{question} Please choose the answer from the following options: {choices}. "
    "Output the final answer in <answer> </answer>."
)


def make(name: str, question: str, *choices: str) -> Question:
    return Question(
        id=name,
        clips=(f"./test-mini-audios/{name}.wav",),
        question=question,
        choices=choices,
        answer=choices[0],
        task="sound",
        category="Reasoning",
        sub_category="Counting",
        difficulty="easy",
        dataset="AudioSet",
        split="test-mini",
    )


QUESTIONS = [
    make("q1", "Who is there?", "a dog", "a cat"),
    make("q2", "Who is there?", "it's a bird", "a cat"),
    make("q3", "Who is there? And how often?", "one", "two"),
]


def written(folder: Path, content: object, name: str = "predictions.json") -> Path:
    path = folder / name
    if name.endswith(".jsonl") and isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def texts(path: Path) -> dict[str, str]:
    return {
        name: prediction.text
        for name, prediction in read_predictions(path, QUESTIONS).predictions.items()
    }


EXPECTED = {"q1": "a dog", "q2": "a cat", "q3": "two"}


@pytest.mark.parametrize(
    "key", ["model_output", "model_prediction", "answer_prediction", "prediction"]
)
@pytest.mark.parametrize("name", ["predictions.json", "predictions.jsonl"])
def test_rows_with_an_id_are_matched_by_it(tmp_path, key, name) -> None:
    rows = [{**to_row(question), key: EXPECTED[question.id]} for question in reversed(QUESTIONS)]
    path = written(tmp_path, rows, name)
    assert texts(path) == EXPECTED
    assert read_predictions(path, QUESTIONS).key == key


def test_a_single_line_is_a_row(tmp_path) -> None:
    row = {"id": "q1", "prediction": "a dog"}
    assert texts(written(tmp_path, [row], "one.jsonl")) == {"q1": "a dog"}


def test_rows_are_the_only_list_of_objects_whatever_its_name(tmp_path) -> None:
    rows = [{"id": name, "prediction": text} for name, text in EXPECTED.items()]
    assert texts(written(tmp_path, {"model": "mine", "results": rows})) == EXPECTED


def test_an_object_of_texts_by_id_is_read(tmp_path) -> None:
    assert texts(written(tmp_path, EXPECTED)) == EXPECTED


def test_our_own_answers_are_read(tmp_path) -> None:
    rows = [
        {"id": name, "completion": f"<answer>{text}</answer>", "answer": text, "num_tokens": 5}
        for name, text in EXPECTED.items()
    ]
    found = read_predictions(written(tmp_path, rows, "answers.jsonl"), QUESTIONS).predictions
    assert found["q1"] == Prediction("<answer>a dog</answer>", "a dog")
    assert found["q1"].scored == "a dog"


def nemo_rows() -> list[dict[str, object]]:
    """As nemo_rl/evals/eval.py writes them: no id, objects turned into text."""
    return [
        {
            "prompt": "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>"
            + R1_AQA_PROMPT.format(question=q.question, choices=list(q.choices))
            + "<|im_end|>\n<|im_start|>assistant\n",
            "response": f"<answer>{EXPECTED[q.id]}</answer>",
            "reward": 1.0,
            "message_log": "[{'role': 'user'}]",
            "extra_env_info": f"{{'ground_truth': '{q.answer}'}}",
            "sample_index": index,
        }
        for index, q in enumerate(QUESTIONS)
    ]


def test_nemo_rls_evaluation_data_is_matched_by_its_prompts(tmp_path) -> None:
    path = written(tmp_path, {"evaluation_data": nemo_rows()})
    assert {name: text[8:-9] for name, text in texts(path).items()} == EXPECTED
    assert read_predictions(path, QUESTIONS).predictions["q1"].scored == "a dog"


def test_ms_swifts_infer_lines_are_matched_by_their_clip(tmp_path) -> None:
    rows = [
        {
            "response": EXPECTED[q.id],
            "labels": q.answer,
            "logprobs": None,
            "messages": [
                {"role": "user", "content": "<audio>What?"},
                {"role": "assistant", "content": EXPECTED[q.id]},
            ],
            "audios": [f"/data/audio/{q.id}.wav"],
        }
        for q in QUESTIONS
    ]
    assert texts(written(tmp_path, rows, "infer.jsonl")) == EXPECTED


def test_ms_swifts_clips_may_be_files_of_a_data_set(tmp_path) -> None:
    rows = [
        {"response": EXPECTED[q.id], "audios": [{"bytes": None, "path": f"/data/{q.id}.wav"}]}
        for q in QUESTIONS
    ]
    assert texts(written(tmp_path, rows, "infer.jsonl")) == EXPECTED


def lmms_eval_rows() -> list[dict[str, object]]:
    """As lmms-eval writes mmau_submission.json: no answer, the choices as JSON text."""
    rows = [to_row(question) for question in QUESTIONS]
    for row in rows:
        del row["answer"]
        row |= {"choices": json.dumps(row["choices"]), "model_prediction": EXPECTED[row["id"]]}
    return rows


def test_an_lmms_eval_submission_is_read_and_its_choices_are_compared(tmp_path) -> None:
    """Ids are the same in both versions of MMAU; only the choices tell which was answered."""
    rows = lmms_eval_rows()
    assert texts(written(tmp_path, rows)) == EXPECTED
    rows[0]["choices"] = json.dumps(["a dog", "a fish"])
    with pytest.raises(PipelineError, match=r"carry other choices than.* \(1 of 3\): q1"):
        texts(written(tmp_path, rows))


def test_ms_swifts_infer_lines_are_else_matched_by_their_messages(tmp_path) -> None:
    rows = [
        {
            "response": EXPECTED[q.id],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "text",
                            "text": R1_AQA_PROMPT.format(
                                question=q.question, choices=list(q.choices)
                            ),
                        }
                    ],
                },
                {"role": "assistant", "content": "Who is there? one two"},
            ],
        }
        for q in QUESTIONS
    ]
    assert texts(written(tmp_path, rows, "infer.jsonl")) == EXPECTED


def test_questions_of_one_text_are_taken_in_order(tmp_path) -> None:
    """Three questions of MMAU's original ask for the beat count with the same four choices."""
    alike = [make(f"q{i}", "What is the beat count?", "2", "3") for i in range(3)]
    rows = [
        {"prompt": "What is the beat count? ['2', '3']", "response": text}
        for text in ("2", "3", "2")
    ]
    found = read_predictions(written(tmp_path, rows), alike).predictions
    assert [found[f"q{i}"].text for i in range(3)] == ["2", "3", "2"]
    shared = r"what 3 questions ask.*\(2 of 2\): row 0, row 1; the first: q0, q1, q2"
    with pytest.raises(PipelineError, match=shared):
        read_predictions(written(tmp_path, rows[:2]), alike)


@pytest.mark.parametrize(
    "asked",
    [
        [("dog", "cat"), ("cat", "dog")],
        # MMAU's, where "four" is found in "fourteen" and a choice comes twice
        [("eighteen", "fourteen", "one", "nine"), ("four", "nine", "fourteen", "fourteen")],
        [("six", "nine", "eight", "ten"), ("eight", "nine", "eight", "six")],
    ],
)
def test_questions_of_one_text_are_told_apart_by_their_choices_in_order(tmp_path, asked) -> None:
    """NeMo-RL's results on MMAU's original were refused: two questions seemed to come twice."""
    questions = [make(f"q{i}", "How many?", *choices) for i, choices in enumerate(asked)]
    rows = [
        {
            "prompt": R1_AQA_PROMPT.format(question="How many?", choices=list(question.choices)),
            "response": f"<answer>{question.id}</answer>",
        }
        for question in reversed(questions)
    ]
    found = read_predictions(written(tmp_path, rows), questions).predictions
    assert {name: prediction.scored for name, prediction in found.items()} == {
        "q0": "q0",
        "q1": "q1",
    }


def test_the_official_rule_judges_published_files_as_they_stand(tmp_path) -> None:
    """MMAU's script does not look for tags, so the word "answer" counts there."""
    rows = [{"id": "q1", "model_output": "<answer>a dog</answer>"}]
    (prediction,) = read_predictions(written(tmp_path, rows), QUESTIONS).predictions.values()
    assert prediction.scored == "<answer>a dog</answer>"
    assert prediction.answer == "a dog"


def test_a_null_is_no_prediction_and_an_empty_text_is_one(tmp_path) -> None:
    rows = [{"id": "q1", "model_output": None}, {"id": "q2", "model_output": ""}]
    assert texts(written(tmp_path, rows)) == {"q2": ""}


REFUSALS: list[tuple[object, str]] = [
    ([], "holds no predictions"),
    ([3], r"rows are not objects \(1 of 1\): row 0; the first: int"),
    ([{"id": "q1", "text": "a dog"}], r"has keys id, text: expected the prediction under one of"),
    ([{"id": "q9", "model_output": "x"}], r"not in the benchmark \(1 of 1\): q9\. .*version"),
    ([{"id": "q1", "model_output": "x"}] * 2, r"one prediction \(1 of 2\): q1\. Keep one"),
    ([{"id": "q1", "model_output": 3}], r"\(1 of 1\): q1; .*'model_output' is int"),
    (
        [{"id": "q1", "model_output": "x", "model_prediction": "y"}],
        r"different texts under two keys \(1 of 1\): q1; .*Say which key counts \(--key\)",
    ),
    (
        [{"id": "q1", "model_output": "x", "choices": ["a dog", "a fish"]}],
        "carry other choices.*q1",
    ),
    (
        [{"response": "x", "prompt": "What now?"}],
        r"no question of this benchmark \(1 of 1\): row 0",
    ),
    (nemo_rows() + nemo_rows()[2:], r"more than one prediction \(1 of 4\): q3"),
]


@pytest.mark.parametrize(("content", "message"), REFUSALS)
def test_each_refusal_names_what_is_wrong(tmp_path, content, message) -> None:
    with pytest.raises(PipelineError, match=message):
        read_predictions(written(tmp_path, content), QUESTIONS)


def test_choices_with_letters_are_the_same_choices(tmp_path) -> None:
    rows = [{"id": "q1", "model_output": "(A) a dog", "choices": ["(A) a dog", "(B) a cat"]}]
    assert texts(written(tmp_path, rows)) == {"q1": "(A) a dog"}


def test_a_submission_has_both_of_mmaus_keys(tmp_path) -> None:
    predictions = {name: Prediction(text, text) for name, text in EXPECTED.items()}
    rows = submission_rows(QUESTIONS, predictions)
    assert [row["model_output"] for row in rows] == ["a dog", "a cat", "two"]
    assert [row["model_prediction"] for row in rows] == ["a dog", "a cat", "two"]
    assert rows[0]["choices"] == ["a dog", "a cat"]
    assert texts(written(tmp_path, rows)) == EXPECTED
    del predictions["q2"]
    with pytest.raises(PipelineError, match="a submission needs every question: 1 missing, q2"):
        submission_rows(QUESTIONS, predictions)


SAID = {"q1": "a dog", "q2": "B", "q3": "It is three"}  # right, another choice, no choice


def counts(path: Path) -> tuple[int, int, int]:
    """Right officially, right strictly, no choice found."""
    verdicts = judge_all(QUESTIONS, read_predictions(path, QUESTIONS).predictions)
    return (
        sum(v.official is True for v in verdicts),
        sum(v.strict is True for v in verdicts),
        sum(not v.parsed for v in verdicts),
    )


def lettered(choices: Sequence[str], form: str) -> list[str]:
    return [form.format("ABCD"[index], choice) for index, choice in enumerate(choices)]


def lmms_eval_sample(question: Question, index: int, **more: object) -> dict[str, object]:
    choices = "\n".join(lettered(question.choices, "{}. {}"))
    return {
        "doc_id": index,
        "target": question.answer,
        "filtered_resps": SAID[question.id],
        "token_counts": [None],
        "doc_hash": "0",
        "input": f"{question.question}\n{choices}\nAnswer with the option's letter.",
        "accuracy": {"overall": 1.0, "task": "sound"},
        **more,
    }


def lmms_eval_submission(question: Question) -> dict[str, object]:
    return {
        "submission": {
            "id": question.id,
            "question": question.question,
            "choices": json.dumps(list(question.choices)),
            "answer": question.answer,
            "model_prediction": question.choices[0],  # what its parser drew
        }
    }


def csv_text(delimiter: str) -> str:
    lines = [["id", "question", "choices", "response"]]
    lines += [[q.id, q.question, str(list(q.choices)), SAID[q.id]] for q in QUESTIONS]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(lines)
    return text.getvalue()


FORMS: dict[str, tuple[str, object]] = {
    "MMAU": ("a.json", [{**to_row(q), "model_output": SAID[q.id]} for q in QUESTIONS]),
    "under data, by id": ("a.json", {"data": {k: {"prediction": v} for k, v in SAID.items()}}),
    "texts by id": ("a.json", SAID),
    "rows by id": ("a.json", {k: {"pred": v} for k, v in SAID.items()}),
    "lines": ("a.jsonl", [{"id": k, "model_answer": v} for k, v in SAID.items()]),
    "comma": ("a.csv", csv_text(",")),
    "semicolon": ("a.csv", csv_text(";")),
    "tab": ("a.tsv", csv_text("\t")),
    "lmms-eval, id": (
        "a.jsonl",
        [lmms_eval_sample(q, i, **lmms_eval_submission(q)) for i, q in enumerate(QUESTIONS)],
    ),
    "lmms-eval, prompt": ("a.jsonl", [lmms_eval_sample(q, i) for i, q in enumerate(QUESTIONS)]),
    "NeMo-RL": (
        "a.json",
        {
            "evaluation_data": [
                {
                    **row,
                    "response": SAID[q.id],
                    "extra_env_info": f"{{'ground_truth': {q.answer!r}}}",
                }
                for q, row in zip(QUESTIONS, nemo_rows(), strict=True)
            ]
        },
    ),
    "ms-swift": (
        "a.jsonl",
        [
            {
                "response": SAID[q.id],
                "labels": f"<answer>{q.answer}</answer>",
                "messages": [
                    {"role": "user", "content": q.question + str(list(q.choices))},
                    {"role": "assistant", "content": SAID[q.id]},
                ],
            }
            for q in QUESTIONS
        ],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_tools_file_has_the_counts_of_its_mmau_form(tmp_path, form) -> None:
    name, content = FORMS[form]
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        written(tmp_path, content, name)
    assert counts(path) == (1, 1, 1)


def test_lmms_evals_lines_of_another_gold_are_refused(tmp_path) -> None:
    rows = [lmms_eval_sample(q, i) for i, q in enumerate(QUESTIONS)]
    rows[1]["target"] = "A"  # the letter of the right choice
    assert counts(written(tmp_path, rows, "a.jsonl")) == (1, 1, 1)
    rows[1]["target"] = "B"
    with pytest.raises(PipelineError, match=r"another answer .*q2; the first: 'B', expected \"it"):
        counts(written(tmp_path, rows, "a.jsonl"))


@pytest.mark.parametrize(
    "choices",
    [
        ["(A) a dog", "(B) a cat"],
        [" (A) a dog", " (B) a cat"],
        ["A. a dog", "B. a cat"],
        [" A. a dog", " B. a cat"],
        ["A: a dog", "B: a cat"],
        ["a)a dog", "b)a cat"],
        "['a dog', 'a cat']",
        {"A": "a dog", "B": "a cat"},
        "A. a dog\nB. a cat",
    ],
)
def test_choices_are_compared_in_whatever_form_they_come(tmp_path, choices) -> None:
    rows = [{"id": "q1", "model_output": "a dog", "choices": choices, "answer": "A. a dog"}]
    assert texts(written(tmp_path, rows)) == {"q1": "a dog"}
    rows[0]["choices"] = json.loads(json.dumps(choices).replace("dog", "fish"))
    with pytest.raises(PipelineError, match=r"other choices than the benchmark.*q1"):
        texts(written(tmp_path, rows))


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("question", "Who is not there?", "another question"),
        ("question", "Who is there? And when?", "another question"),
        ("answer", "a cat", "another answer"),
        ("answer", "(B) a cat", "another answer"),
        ("answer", 1, "another answer"),
    ],
)
def test_a_row_that_says_otherwise_than_the_benchmark_is_named(
    tmp_path, field, value, kind
) -> None:
    """1,000 other questions with the same ids and choices were scored without a word."""
    rows = [{**to_row(q), "model_output": "x"} for q in QUESTIONS]
    rows[0][field] = value
    with pytest.raises(PipelineError, match=rf"rows carry {kind} .*\(1 of 3\): q1; the first: "):
        texts(written(tmp_path, rows))


def test_an_answer_without_choices_is_what_was_predicted(tmp_path) -> None:
    rows = [{"id": "q1", "response": "It is B", "answer": "a cat"}]
    assert texts(written(tmp_path, rows)) == {"q1": "It is B"}


def test_two_keys_that_differ_ask_for_one(tmp_path) -> None:
    rows = [{"id": "q1", "model_output": "a dog", "model_prediction": "a cat", "mine": "B"}]
    path = written(tmp_path, rows)
    for key, text in (("model_output", "a dog"), ("model_prediction", "a cat"), ("mine", "B")):
        imported = read_predictions(path, QUESTIONS, key=key)
        assert (imported.key, imported.predictions["q1"].text) == (key, text)
    with pytest.raises(PipelineError, match="expected the prediction under yours"):
        read_predictions(path, QUESTIONS, key="yours")


def test_a_malformed_row_hides_no_other(tmp_path) -> None:
    lines = ['{"id": "q1", "pred": 3}', "{broken", "4", '{"id": "q9", "pred": "x"}', "{also"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(PipelineError) as caught:
        read_predictions(path, QUESTIONS)
    told = str(caught.value)
    for part in (
        "lines are not JSON (2 of 5): line 2, line 5",
        "rows are not objects (1 of 5): line 3",
        "predictions are not text (1 of 5): q1",
        "ids are not in the benchmark (1 of 5): q9",
    ):
        assert part in told
    assert "line 2" in told


def test_only_ten_of_many_faults_are_named(tmp_path) -> None:
    rows = [{"id": f"x{index}", "model_output": "x"} for index in range(12)]
    with pytest.raises(PipelineError, match=r"\(12 of 12\): x0, .*x9 and 2 more"):
        texts(written(tmp_path, rows))


def test_rows_of_another_version_are_recognised(tmp_path) -> None:
    other = [make("q1", "Who is there?", "a dog", "a fish"), *QUESTIONS[1:]]
    rows = [{**to_row(q), "model_output": "x"} for q in other]
    path = written(tmp_path, rows)
    with pytest.raises(PipelineError, match=r"1 of these rows are of v2 \(q1\): name the version"):
        read_predictions(path, QUESTIONS, others=lambda: {"v2": other, "v3": QUESTIONS})
    with pytest.raises(
        PipelineError, match=r"of another benchmark or version \(they fit none of v"
    ):
        read_predictions(path, QUESTIONS, others=lambda: {"v3": QUESTIONS})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,pred\nq1,a dog,more\nq2,x\n",
            r"number of cells \(1 of 2\): line 2; the first: 3, exp",
        ),
        ('id,pred\nq1,"a dog\n', "line 2 and what follows is not CSV"),
        ("[\n{},\n]", "is not JSON .*expected a JSON list of rows"),
        ("3", "holds int: expected a JSON list of rows"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path, text, message) -> None:
    path = tmp_path / ("a.csv" if text.startswith("id,") else "a.json")
    path.write_text(text)
    with pytest.raises(PipelineError, match=message):
        read_predictions(path, QUESTIONS)
