"""When the site is made again: for what the profile asks, not for a pace; while trainings log."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.synthetic_experiment import make_questions, write_experiment
from flows.pipeline_config import PipelineConfig
from reports.config import ReportConfig
from storage.errors import PipelineError
from storage.jsonl import append_line, read_json, read_jsonl, write_json, write_jsonl, write_text
from storage.locks import locked
from storage.records.leading import ProfileFacts
from tasks.asked import profile_facts
from tasks.report import remade_meanwhile, report_unit
from tasks.stage import Unit


def unit(workspace: Path, **settings) -> Unit:
    config = PipelineConfig.model_validate(
        {
            "experiment": "demo",
            "train": [],
            "evaluate": {
                "benchmarks": [{"name": "mine", "questions": str(workspace / "questions.json")}]
            },
        }
        | settings
    )
    layout = config.layout(workspace)
    facts = profile_facts(config.train, config.evaluate, layout)
    return report_unit(config, config.report, facts, layout)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    write_json(tmp_path / "questions.json", make_questions(6))
    due = unit(tmp_path)
    write_text(due.layout.site / "index.html", "made")
    due.commit()
    assert unit(tmp_path).verdict().is_done
    return tmp_path


def test_a_changed_question_alone_makes_the_report_due(workspace: Path) -> None:
    """`--only report` was skipped: its unit knew the settings, not the file that they name."""
    questions = read_json(workspace / "questions.json")
    write_json(
        workspace / "questions.json", [questions[0] | {"question": "Another?"}, *questions[1:]]
    )
    verdict = unit(workspace).verdict()
    assert not verdict.is_done
    assert "benchmarks" in verdict.reason


@pytest.mark.parametrize(
    "settings",
    [
        {"report": {"url": "http://elsewhere.example/"}},
        {"fetch": {"workers": 7}},
        {"when_busy": "refuse"},
    ],
)
def test_a_setting_that_decides_nothing_does_not_render_the_pages_again(
    workspace: Path, settings: dict[str, object]
) -> None:
    assert unit(workspace, **settings).verdict().is_done


def test_another_scorer_or_published_rows_left_out_render_them_again(workspace: Path) -> None:
    assert not unit(workspace, report={"published": False}).verdict().is_done


def test_an_idle_setting_of_a_training_does_not_and_a_deciding_one_does(workspace: Path) -> None:
    training = {"name": "grpo", "model": "random:tiny"}
    unit(workspace, train=[training]).commit()
    assert unit(workspace, train=[training | {"progress_every_s": 9}]).verdict().is_done
    assert not unit(workspace, train=[training | {"seed": 9}]).verdict().is_done


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def no_facts() -> ProfileFacts:
    raise AssertionError("nothing was evaluated")


def test_pages_are_made_again_as_a_training_logs_and_say_as_of_which_step(tmp_path: Path) -> None:
    entry = {"max_steps": 30, "save_steps": 10}
    layout, profile = write_experiment(tmp_path, steps=(30,), settings={"grpo": entry})
    layout.evaluations.rename(tmp_path / "later")
    log = layout.training("grpo") / "metrics.jsonl"
    lines = read_jsonl(log)
    write_jsonl(log, lines[:12])
    index, page = layout.site / "index.html", layout.site / "training-grpo.html"
    with remade_meanwhile(profile, ReportConfig(remake_s=0.05), no_facts, layout):
        wait_for(index.exists)
        assert "grpo: as of step 12 of 30." in index.read_text()
        assert "As of step 12 of 30." in page.read_text()
        with locked(layout.lock("report")):  # as the report stage of another run does
            append_line(log, lines[12])
            time.sleep(0.3)
            assert "As of step 12 of 30." in page.read_text()
        wait_for(lambda: page.exists() and "As of step 13 of 30." in page.read_text())
        made_ns = (layout.site / "report.json").stat().st_mtime_ns
        time.sleep(0.3)  # nothing new is logged
        assert (layout.site / "report.json").stat().st_mtime_ns == made_ns
    assert not (layout.site.parent / "site.part").exists()


@pytest.mark.parametrize(("pace_s", "logged_after_s"), [(0.0, 3600), (0.05, -1)])
def test_pages_stay_where_none_is_asked_for_or_nothing_was_logged_since(
    tmp_path: Path, pace_s: float, logged_after_s: float
) -> None:
    layout, profile = write_experiment(tmp_path, steps=(10,))
    write_text(layout.site / "report.json", "made")
    logged_s = (layout.site / "report.json").stat().st_mtime + logged_after_s
    os.utime(layout.training("grpo") / "metrics.jsonl", (logged_s, logged_s))
    with remade_meanwhile(profile, ReportConfig(remake_s=pace_s), no_facts, layout):
        time.sleep(0.3)
    assert (layout.site / "report.json").read_text() == "made"


def test_what_cannot_be_reported_ends_no_training_and_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, profile = write_experiment(tmp_path, steps=(10,))
    asked = []

    def find_facts() -> ProfileFacts:
        asked.append(1)
        msg = "questions.json is missing"
        raise PipelineError(msg)

    with remade_meanwhile(profile, ReportConfig(remake_s=0.02), find_facts, layout):
        wait_for(lambda: len(asked) > 2)
    told = "report: the pages were not made again: questions.json is missing"
    assert capsys.readouterr().out.count(told) == 1
