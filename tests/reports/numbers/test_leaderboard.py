import csv
import io
import json

import pytest

from model.prompt import PROMPTS
from reports.config import ReportConfig
from reports.numbers.leaderboard import rows
from reports.report import Report
from reports.site import exports
from storage.records.evaluation import Tally


def test_the_leading_step_comes_first_then_the_other_steps_then_start_models(report):
    official = [row for row in rows(report) if row.scorer == "official"]
    assert [row.model for row in official] == [
        "grpo-step-30",
        "grpo-step-10",
        "grpo-step-20",
        "tiny",
    ]
    assert [row.step for row in official] == [30, 10, 20, None]
    assert official[0].leads
    assert official[0].marks[0] == ("leads", "last step")


def test_counts_are_right_answers_out_of_all_questions(report):
    evaluation = next(each for each in report.evaluations if each.model == "grpo-step-10")
    right = evaluation.marks["official"].count("1")
    row = next(row for row in rows(report) if row.model == "grpo-step-10")
    assert row.average
    assert row.average.tally == Tally(right, 60)
    assert row.average.percent == pytest.approx(100 * right / 60)
    assert sum(score.tally.num_questions for score in row.tasks.values()) == 60


def test_a_declared_step_leads_before_the_chosen_and_the_last(report):
    assert report.leading["grpo"][:2] == (30, "last step")
    declared = Report.model_validate(report.model_dump() | {"declared_step": 10})
    assert declared.leading["grpo"][:2] == (10, "declared step")


def test_the_held_out_examples_choose_the_step(make_report):
    made = make_report(num_questions=12, benchmarks=("demo-mmau", "validation"))
    held_out = next(each for each in made.benchmarks if not each.is_test)
    right = {
        each.step: each.marks["official"].count("1")
        for each in made.on(held_out)
        if each.step and not each.key.control
    }
    best = max(right, key=lambda step: (right[step], -step))
    assert made.leading["grpo"][:2] == (best, "chosen on validation")


def test_the_best_step_on_the_test_is_marked_as_chosen_there(report):
    ours = [row for row in rows(report) if row.training and row.scorer == "official"]
    best = max(ours, key=lambda row: (row.average.percent, -row.step))
    assert ("best", "best of 3, chosen on the same questions") in best.marks


def test_published_rows_stand_beside_ours_on_their_version_alone(make_report):
    made = make_report(
        benchmarks=("mmau-test-mini-original", "mmau-test-mini-v05.15.25"), num_questions=12
    )
    found = rows(made)
    original = [row for row in found if row.benchmark == "mmau-test-mini-original"]
    assert any(row.method == "GRPO 1" for row in original)
    assert not any(row.model == "Kimi-Audio" for row in original)
    benchmarks = [row.benchmark for row in found]
    assert "mmau-test-v05.15.25" in benchmarks
    llama = next(row for row in original if row.model.startswith("Llama-3-8B-Instruct + Strong"))
    assert llama.disagreement == "printed average 52.10; its categories give 51.64"


def test_published_rows_can_be_left_out(make_report):
    made = make_report(
        ReportConfig(published=False), benchmarks=("mmau-test-mini-original",), num_questions=12
    )
    assert all(row.is_ours for row in rows(made))


def test_csv_has_the_agreed_columns_and_an_empty_step_for_a_start_model(report):
    lines = list(csv.DictReader(io.StringIO(exports.to_csv(rows(report)))))
    assert list(lines[0]) == [
        "benchmark",
        "model",
        "method",
        "step",
        "prompt",
        "scorer",
        "sound",
        "music",
        "speech",
        "average",
        "num_questions",
        "source",
        "prompt_sha256",
        *(
            f"{name}_{end}"
            for name in ("sound", "music", "speech", "average")
            for end in ("low", "high")
        ),
        "mark",
        "date",
        "note",
        "decoding",
        "questions_sha256",
    ]
    assert {line["prompt_sha256"] for line in lines if line["source"] == "this report"} == {
        PROMPTS["answer"].sha256
    }
    start = next(line for line in lines if line["model"] == "tiny")
    assert start["step"] == ""
    assert start["method"] == "direct"
    assert start["num_questions"] == "60"
    assert all(len(line["average"].partition(".")[2]) == 2 for line in lines)


def test_json_carries_counts_and_intervals(report):
    row = json.loads(exports.to_json(rows(report)))[0]
    average = row["average"]
    assert average["num_questions"] == 60
    assert average["low"] < average["percent"] < average["high"]
    assert abs(average["percent"] - 100 * average["num_correct"] / 60) < 0.01
