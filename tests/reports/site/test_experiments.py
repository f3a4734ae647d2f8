"""The page of a workspace: two experiments side by side."""

import re

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import read_report
from reports.site.experiments import experiments_page
from reports.site.render import render
from storage.jsonl import read_json
from tests.reports.site.test_every_number import Tables


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    for name, trainings in (("paper", ("grpo", "sft")), ("think", ("grpo",))):
        layout, profile = write_experiment(folder / name, num_questions=60, trainings=trainings)
        render(
            read_report(layout, ReportConfig(), settings=profile),
            folder / name / "site",
            audio_roots={},
        )
    return folder


def test_every_training_of_every_experiment_is_a_row_and_a_curve(workspace):
    page = experiments_page(workspace, ["paper", "think"])
    ((_, rows),) = Tables(page).tables
    assert {(row[0], row[1]) for row in rows[1:]} == {
        ("paper", "grpo"),
        ("paper", "sft"),
        ("paper", "tiny"),
        ("think", "grpo"),
        ("think", "tiny"),
    }
    averages = [float(row[2]) for row in rows[1:]]
    assert averages == sorted(averages, reverse=True)
    chart = re.search(r'<svg class="wide".*?</svg>', page, re.DOTALL)[0]
    assert chart.count('class="line"') == 3
    assert page.count('<input type="checkbox" id="show-t') == 3


def test_a_row_is_the_experiments_own_row_to_quote(workspace):
    rows = read_json(workspace / "think" / "site" / "leaderboard.json")
    lead = next(row for row in rows if row["mark"] and row["scorer"] == "official")
    ((_, table),) = Tables(experiments_page(workspace, ["think"])).tables
    row = next(row for row in table if row[1] == "grpo")
    assert (row[4], row[2]) == (str(lead["step"]), f"{lead['average']['percent']:.2f}")


def test_every_curve_has_a_switch_that_holds_for_all_benchmarks(tmp_path):
    """A switch's number meant another run in the second benchmark, and from 10 on nothing."""
    trainings = [f"grpo-{number}" for number in range(6)]
    for name in ("one", "two"):
        layout, profile = write_experiment(
            tmp_path / name,
            num_questions=6,
            steps=(10, 20),
            benchmarks=("demo-mmau", "other"),
            trainings=trainings,
            with_curves=False,
        )
        report = read_report(layout, ReportConfig(), settings=profile)
        render(report, tmp_path / name / "site", audio_roots={})
    page = experiments_page(tmp_path, ["one", "two"])
    for number in range(12):
        assert page.count(f'id="show-t{number}"') == 1
        assert f"#show-t{number}:not(:checked)) .charts .t{number}" in page
        label = f"{('one', 'two')[number // 6]}, grpo-{number % 6}"
        for chart in re.findall(r'<svg class="wide".*?</svg>', page, re.DOTALL):
            curve = re.search(rf'<g class="s grpo t{number}"><text[^>]*>([^<]+)<', chart)
            assert curve[1] == label


def test_names_are_text_and_the_page_runs_nothing_of_them(workspace):
    page = experiments_page(workspace, ["<script>x</script>"])
    assert "<script>x" not in page
    assert "Content-Security-Policy" in page
