"""When the site is due again: what the profile asks for decides, what only sets a pace does not."""

from pathlib import Path

import pytest

from benchmarks.synthetic_experiment import make_questions
from flows.pipeline_config import PipelineConfig
from storage.jsonl import read_json, write_json, write_text
from tasks.asked import profile_facts
from tasks.report import report_unit
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
