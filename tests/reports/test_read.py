import json
import math

import pytest

from benchmarks.synthetic_experiment import (
    withhold_answers,
    write_experiment,
    write_published_rows,
)
from reports.config import ReportConfig
from reports.read import gather
from reports.trainings import curve
from storage.errors import PipelineError
from storage.jsonl import read_json, read_jsonl, write_json, write_jsonl
from storage.layout import Layout
from storage.records.evaluation import EvaluationRun
from storage.records.model import TrainingRef


def gathered(layout, profile):
    return gather(layout, ReportConfig(), experiment_config=profile, provenance={})


def test_a_report_is_json_that_reads_back_as_itself(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_marks_follow_the_benchmarks_order_whatever_the_order_of_the_verdicts(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = layout.evaluation("grpo-step-10", "demo-mmau", "answer") / "verdicts.jsonl"
    before = gathered(layout, profile)["evaluations"]
    write_jsonl(path, list(reversed(read_jsonl(path))))
    assert gathered(layout, profile)["evaluations"] == before


def test_a_missing_answer_line_leaves_a_wrong_answer_without_output(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = layout.evaluation("tiny", "demo-mmau", "answer") / "answers.jsonl"
    write_jsonl(path, read_jsonl(path)[1:])
    start = next(one for one in gathered(layout, profile)["evaluations"] if one["model"] == "tiny")
    assert start["completions"][0] is None
    assert len(start["completions"]) == 12


def test_a_missing_verdict_is_refused_with_what_to_do(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = layout.evaluation("tiny", "demo-mmau", "answer") / "verdicts.jsonl"
    write_jsonl(path, read_jsonl(path)[1:])
    with pytest.raises(PipelineError, match=r"judges 11 questions, demo-mmau has 12.*run evaluate"):
        gathered(layout, profile)


def test_a_score_that_its_verdicts_contradict_is_refused(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = layout.evaluation("tiny", "demo-mmau", "answer") / "score.json"
    score = read_json(path)
    score["scorers"]["official"]["overall"]["num_correct"] += 1
    write_json(path, score)
    with pytest.raises(PipelineError, match=r"says \d+ of 12 right under official"):
        gathered(layout, profile)


def test_an_experiment_without_evaluation_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(PipelineError, match="run the evaluate stage first"):
        gathered(Layout(tmp_path, "empty"), {})


def test_an_evaluation_still_running_is_passed_over(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10, 20))
    (layout.evaluation("grpo-step-20", "demo-mmau", "answer") / "score.json").unlink()
    models = {one["model"] for one in gathered(layout, profile)["evaluations"]}
    assert models == {"tiny", "grpo-step-10"}


def test_a_first_state_without_fetch_curves_or_audio_is_enough(tmp_path):
    layout, profile = write_experiment(
        tmp_path, num_questions=12, steps=(10,), with_fetch=False, with_curves=False
    )
    report = gathered(layout, profile)
    assert report["fetch"] is None
    assert report["convert"] is None
    assert report["trainings"][0]["curve"] == {"step": []}


def test_withheld_answers_are_no_score(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    withhold_answers(layout, "demo-mmau")
    evaluation = gathered(layout, profile)["evaluations"][0]
    assert evaluation["marks"] == {}
    assert len(evaluation["completions"]) == 12


def test_a_category_in_a_list_becomes_text(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = layout.benchmark("demo-mmau") / "questions.json"
    rows = read_json(path)
    rows[0]["category"] = ["Reasoning"]
    write_json(path, rows)
    assert gathered(layout, profile)["benchmarks"][0]["questions"][0]["category"] == "Reasoning"


def test_the_held_out_examples_are_no_test(tmp_path):
    layout, profile = write_experiment(
        tmp_path, num_questions=12, steps=(10, 20), benchmarks=("demo-mmau", "validation")
    )
    profile["evaluate"]["benchmarks"] = [{"name": "demo-mmau"}]
    benchmarks = gathered(layout, profile)["benchmarks"]
    assert [(one["name"], one["is_test"]) for one in benchmarks] == [
        ("demo-mmau", True),
        ("validation", False),
    ]


def test_a_warm_starts_checkpoint_is_the_start_of_what_follows(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    folder = layout.evaluation("tiny", "demo-mmau", "answer")
    run = EvaluationRun.read(folder / "run.json")
    warm_end = TrainingRef(name="warm", seed=42, step=60)
    model = run.model.model_copy(update={"training": warm_end})
    run.model_copy(update={"model": model}).write(folder / "run.json")
    warm = {"name": "warm", "method": "sft", "model": "random:tiny", "evaluate": False}
    profile["train"] = [warm, {**profile["train"][0], "model": "training:warm"}]
    start = next(one for one in gathered(layout, profile)["evaluations"] if one["model"] == "tiny")
    assert (start["training"], start["step"]) == (None, None)


def test_kept_and_dropped_rows_are_counted_by_type_where_the_annotations_are_at_hand(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    kinds = {row["name"] for row in gathered(layout, profile)["convert"]["question_types"]}
    assert kinds == {"Happening", "Come From", "Where", "Which"}
    rows = [
        {
            "id": row["id"],
            "video_name": f"{row['id']:011d}_000030",
            "video_id": row["id"],
            "question_text": "What is heard?",
            "multi_choice": ["a", "b", "c", "d"],
            "answer": 0,
            "question_relation": "Sound",
            "question_type": "Where",
        }
        for row in read_jsonl(layout.dropped_jsonl)
    ]
    write_json(tmp_path / "train_qa.json", rows)
    profile["annotations"] = {"train": str(tmp_path / "train_qa.json")}
    convert = gathered(layout, profile)["convert"]
    where = next(row for row in convert["question_types"] if row["name"] == "Where")
    assert where["dropped"] == 15
    assert convert["kept"] + convert["dropped"] == 200


def test_a_step_logged_twice_after_a_resume_counts_once_and_nan_is_a_gap():
    lines = [
        {"step": 1, "reward": 0.5, "seconds": {"rollout": 1.0}},
        {"step": 2, "reward": 0.6},
        {"step": 2, "reward": 0.7, "kl": math.nan},
    ]
    assert curve(lines) == {"step": [1, 2], "reward": [0.5, 0.7], "kl": [None, None]}


def test_the_users_rows_are_gathered(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    write_published_rows(tmp_path / "rows.csv", "demo-mmau")
    config = ReportConfig(rows=tmp_path / "rows.csv")
    report = gather(layout, config, experiment_config=profile, provenance={})
    assert report["published"][-1]["model"] == "A model of theirs"
