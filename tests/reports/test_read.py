import json
import math
from collections import Counter
from dataclasses import asdict, replace

import pytest

from benchmarks.synthetic_experiment import (
    withhold_answers,
    write_experiment,
    write_published_rows,
)
from reports.config import ReportConfig
from reports.read import read_report
from reports.report import Report
from reports.site.render import render
from reports.stages import curve
from storage.errors import PipelineError
from storage.jsonl import read_json, read_jsonl, write_json, write_jsonl, write_text
from storage.layout import Layout
from storage.manifest import file_digest
from storage.records.evaluation import (
    EvaluationRun,
    RunKey,
    read_answers,
    read_verdicts,
    write_verdicts,
)
from storage.records.model import TrainingRef
from storage.records.training import read_metrics


def read(layout, profile):
    return read_report(layout, ReportConfig(), settings=profile)


def folder_of(layout, model, benchmark="demo-mmau", prompt="answer"):
    key = RunKey(model=model, benchmark=benchmark, prompt=prompt)
    return layout.evaluations / key.folder


def sheet_of(report, model):
    return next(each for each in report.evaluations if each.model == model)


def test_a_report_is_json_that_reads_back_as_itself(report):
    text = json.dumps(report.model_dump(mode="json"), allow_nan=False)
    assert Report.model_validate(json.loads(text)).model_dump() == report.model_dump()


def test_a_report_of_an_older_version_is_refused_in_one_line(tmp_path):
    write_json(tmp_path / "report.json", {"schema": 1})
    with pytest.raises(PipelineError, match="is of format 1, this version reads 2"):
        Report.read(tmp_path / "report.json")


def test_marks_follow_the_benchmarks_order_whatever_the_order_of_the_verdicts(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = folder_of(layout, "grpo-step-10") / "verdicts.jsonl"
    before = read(layout, profile).evaluations
    write_verdicts(path, list(reversed(read_verdicts(path))))
    assert read(layout, profile).evaluations == before


def test_a_missing_answer_line_leaves_a_wrong_answer_without_output(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = folder_of(layout, "tiny") / "answers.jsonl"
    write_jsonl(path, map(asdict, read_answers(path)[1:]))
    start = sheet_of(read(layout, profile), "tiny")
    assert start.completions[0] is None
    assert len(start.completions) == 12


def test_a_missing_verdict_is_refused_with_what_to_do(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = folder_of(layout, "tiny") / "verdicts.jsonl"
    write_verdicts(path, read_verdicts(path)[1:])
    with pytest.raises(PipelineError, match=r"judges 11 questions, demo-mmau has 12.*run evaluate"):
        read(layout, profile)


def test_a_score_that_its_verdicts_contradict_is_refused(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = folder_of(layout, "tiny") / "score.json"
    score = read_json(path)
    score["scorers"]["official"]["overall"]["num_correct"] += 1
    write_json(path, score)
    with pytest.raises(PipelineError, match=r"says \d+ of 12 right under official"):
        read(layout, profile)


def test_an_experiment_without_evaluation_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(PipelineError, match="run the evaluate stage first"):
        read(Layout(tmp_path, "empty"), {})


def test_an_evaluation_still_running_counts_as_unfinished(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10, 20))
    folder = folder_of(layout, "grpo-step-20")
    (folder / "score.json").unlink()
    answers = folder / "answers.jsonl"
    write_jsonl(answers, map(asdict, read_answers(answers)[:5]))
    report = read(layout, profile)
    assert {each.model for each in report.evaluations} == {"tiny", "grpo-step-10"}
    leading = report.leading["grpo"]
    assert leading.step == 10
    assert leading.coverage == "1 of 2 steps evaluated; step 20: 5 of 12"


def test_a_first_state_without_fetch_curves_or_audio_is_enough(tmp_path):
    layout, profile = write_experiment(
        tmp_path, num_questions=12, steps=(10,), with_fetch=False, with_curves=False
    )
    report = read(layout, profile)
    assert report.fetch is None
    assert report.rows is None
    assert report.trainings[0].curve.step == ()


def test_withheld_answers_are_no_score(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    withhold_answers(layout, "demo-mmau")
    evaluation = read(layout, profile).evaluations[0]
    assert evaluation.marks == {}
    assert len(evaluation.completions) == 12


def test_the_held_out_examples_are_no_test(tmp_path):
    layout, profile = write_experiment(
        tmp_path, num_questions=12, steps=(10, 20), benchmarks=("demo-mmau", "validation")
    )
    profile["evaluate"]["benchmarks"] = [{"name": "demo-mmau"}]
    benchmarks = read(layout, profile).benchmarks
    assert [(each.name, each.is_test) for each in benchmarks] == [
        ("demo-mmau", True),
        ("validation", False),
    ]


def warm_started(tmp_path, *, evaluated: bool):
    """A training that starts from another one's checkpoint, which was asked as a start model."""
    layout, profile = write_experiment(
        tmp_path,
        num_questions=12,
        steps=(10,),
        trainings=("sft", "grpo"),
        settings={"sft": {"evaluate": evaluated}, "grpo": {"model": "training:sft"}},
    )
    return read(layout, profile)


def test_a_warm_starts_checkpoint_is_the_start_of_what_follows(tmp_path):
    report = warm_started(tmp_path, evaluated=False)
    start = sheet_of(report, "sft-step-10")
    assert (start.training, start.step, start.run.method) == (None, None, None)
    grpo = report.training("grpo")
    assert report.scored[0].start(grpo) is start


def test_a_start_that_is_also_an_evaluated_trainings_checkpoint_keeps_its_step(tmp_path):
    row = sheet_of(warm_started(tmp_path, evaluated=True), "sft-step-10")
    assert (row.training, row.step, row.run.method) == ("sft", 10, "sft")


def test_a_start_model_asked_with_another_prompt_is_no_start(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = folder_of(layout, "grpo-step-10")
    run = EvaluationRun.read(path / "run.json")
    key = run.key.model_copy(update={"prompt": "think"})
    run.model_copy(update={"key": key}).write(path / "run.json")
    path.rename(path.with_name("think"))
    profile["train"][0]["prompt"] = "think"
    report = read(layout, profile)
    assert report.scored[0].start(report.training("grpo")) is None
    assert [(each.key.model, each.key.prompt) for each in report.apart] == [("tiny", "answer")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 7}, "grpo had seed 42; it has 7 now"),
        ({"max_steps": 15, "save_steps": 15}, "grpo saves no step 10 now"),
        ({"evaluate": False}, "grpo is not evaluated by the profile"),
        ({"prompt": "think"}, "grpo has prompt think"),
        ({"name": "renamed"}, "grpo is no training of the profile"),
    ],
)
def test_evaluations_of_a_replaced_training_stand_apart_with_the_reason(tmp_path, change, reason):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    profile["train"][0] |= change
    report = read(layout, profile)
    assert {each.key.model: each.reason for each in report.apart}["grpo-step-10"] == reason
    assert "grpo" not in report.leading


def test_answers_to_other_questions_stand_apart(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    path = layout.benchmark("demo-mmau") / "questions.json"
    stored = folder_of(layout, "tiny") / "run.json"
    write_json(path, read_json(path)[:6])
    run = EvaluationRun.read(folder_of(layout, "grpo-step-10") / "run.json")
    now = run.model_copy(update={"questions_sha256": file_digest(path), "num_questions": 6})
    now.write(folder_of(layout, "grpo-step-10") / "run.json")
    verdicts = folder_of(layout, "grpo-step-10") / "verdicts.jsonl"
    write_verdicts(verdicts, read_verdicts(verdicts)[:6])
    score = read_json(verdicts.with_name("score.json"))
    right = sum(bool(each.official) for each in read_verdicts(verdicts))
    strict = sum(bool(each.strict) for each in read_verdicts(verdicts))
    score["scorers"]["official"]["overall"] = {"num_correct": right, "num_questions": 6}
    score["scorers"]["strict"]["overall"] = {"num_correct": strict, "num_questions": 6}
    write_json(verdicts.with_name("score.json"), score)
    report = read(layout, profile)
    assert stored.exists()
    assert [each.model for each in report.evaluations] == ["grpo-step-10"]
    assert [each.reason for each in report.apart] == ["demo-mmau has other questions now"]


def test_two_trainings_of_one_name_are_told_apart_by_their_seed(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10, 20))
    path = folder_of(layout, "grpo-step-20") / "run.json"
    run = EvaluationRun.read(path)
    other = run.model.model_copy(update={"training": TrainingRef(name="grpo", seed=7, step=20)})
    run.model_copy(update={"model": other}).write(path)
    assert read(layout, profile).leading["grpo"].step == 10


def test_a_shifted_controls_answer_is_shown_at_its_place_in_the_benchmark(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    plain, shifted = (
        layout.root
        / "evaluation"
        / RunKey(model="tiny", benchmark="demo-mmau", prompt="answer", control=name).folder
        for name in (None, "cyclic-shift-1")
    )
    run = EvaluationRun.read(plain / "run.json")
    shifted.mkdir()
    for name in ("answers.jsonl", "score.json"):
        (shifted / name).write_bytes((plain / name).read_bytes())
    key = run.key.model_copy(update={"control": "cyclic-shift-1"})
    run.model_copy(update={"key": key}).write(shifted / "run.json")
    verdicts = read_verdicts(plain / "verdicts.jsonl")
    questions = read_json(layout.benchmark("demo-mmau") / "questions.json")
    rotated = [
        replace(each, choice_index=(each.choice_index - 1) % len(question["choices"]))
        for each, question in zip(verdicts, questions, strict=True)
        if each.choice_index is not None
    ]
    assert len(rotated) == 12
    write_verdicts(shifted / "verdicts.jsonl", rotated)
    proper, control = (each for each in read(layout, profile).evaluations if each.model == "tiny")
    assert control.picks == proper.picks


def test_every_lost_clip_stands_with_its_message_and_the_counts_agree(tmp_path):
    """A page said "silent 0" beside "silent 4": usable silent ones, and those lost for it."""
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    write_text(layout.clips / "lost0000003_30.wav", "silent ones stay")
    fetch = read(layout, profile).fetch
    assert [clip.clip for clip in fetch.lost if clip.is_kept] == ["lost0000003_000030"]
    assert (len(fetch.lost), len(fetch.usable), fetch.num_requested) == (15, 185, 200)
    counted = Counter((clip.state, clip.reason) for clip in fetch.lost)
    assert counted == {(state, reason): count for state, reason, count in fetch.by_reason}
    assert counted["invalid", "private"] == 7
    assert all("the source says" in clip.message for clip in fetch.lost)
    render(read(layout, profile), tmp_path / "site", audio_roots={})
    page = (tmp_path / "site" / "data.html").read_text()
    assert "usable, but silent: the peak is under \u221260 dBFS</dt><dd>1 clip<" in page
    assert "<dt>silent</dt>" not in page
    assert page.count("the source says: private") == 7
    assert page.count('src="../../clips/lost0000003_30.wav"') == page.count("<audio") == 1


def test_kept_and_dropped_rows_are_counted_by_type_where_the_annotations_are_at_hand(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    kinds = {row.name for row in read(layout, profile).rows.question_types}
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
    account = read(layout, profile).rows
    where = next(row for row in account.question_types if row.name == "Where")
    assert where.dropped == 15
    assert account.kept + account.dropped == 200


def test_a_step_logged_twice_after_a_resume_counts_once_and_nan_is_a_gap(tmp_path):
    same = {"loss": None, "grad_norm": None, "learning_rate": 0.1, "seconds": {"rollout": 1.0}}
    lines = [
        {"step": 1, "reward": 0.5, **same},
        {"step": 2, "reward": 0.6, **same},
        {"step": 2, "reward": 0.7, "kl": math.nan, **same},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = curve(read_metrics(tmp_path))
    assert found.step == (1, 2)
    rewards = {"reward": (0.5, 0.7), "kl": (None, None), "learning_rate": (0.1, 0.1)}
    assert found.metrics == rewards


def test_the_users_rows_are_read(tmp_path):
    layout, profile = write_experiment(tmp_path, num_questions=12, steps=(10,))
    write_published_rows(tmp_path / "rows.csv", "demo-mmau")
    config = ReportConfig(rows=tmp_path / "rows.csv")
    report = read_report(layout, config, settings=profile)
    assert report.published[-1].model == "A model of theirs"
