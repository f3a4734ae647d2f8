import json
from pathlib import Path

import pytest

from model.score.foreign import read_predictions
from model.score.scorers import Prediction, submission_rows
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
    with pytest.raises(PipelineError, match=r"1 rows carry other choices than the benchmark.*q1"):
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
    with pytest.raises(PipelineError, match=r"3 questions have the same text .*2 rows hold it"):
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
    ([3], "row 0 is int"),
    ([{"id": "q1", "text": "a dog"}], r"has keys id, text: expected the prediction under one of"),
    ([{"id": "q9", "model_output": "x"}], r"1 of 1 ids are not in the benchmark \(q9\).*version"),
    ([{"id": "q1", "model_output": "x"}] * 2, r"more than one prediction: q1\. Keep one"),
    ([{"id": "q1", "model_output": 3}], r"'model_output' of q1 is int, expected text"),
    ([{"id": "q1", "model_output": "x", "model_prediction": "y"}], "of q1 differ: keep one"),
    (
        [{"id": "q1", "model_output": "x", "choices": ["a dog", "a fish"]}],
        "carry other choices.*q1",
    ),
    ([{"response": "x", "prompt": "What now?"}], "holds no question of this benchmark: rows 0"),
    (nemo_rows() + nemo_rows()[2:], r"more than one prediction: q3"),
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
