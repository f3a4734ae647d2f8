"""Faults that users met and that still stand, each a strict xfail: what mends one removes its mark.

They look at files and pages that a user sees. A further one, of a data set's torn log, is in
tests/storage/fetch/test_avqa_hub.py.
"""

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_experiment import make_questions, write_experiment
from model.score.scorers import score_folder
from storage.benchmarks.parse import read_questions
from storage.jsonl import read_json, read_jsonl, write_json, write_jsonl
from storage.layout import Layout
from storage.manifest import file_digest
from storage.records.evaluation import list_runs
from tasks.models import resolve
from tests.golden.made_site import make_site

MINI = "mmau-test-mini-original"


def text_of(page: Path) -> str:
    """What a person reads on a page, white space made single."""
    html = page.read_text(encoding="utf-8")
    body = re.sub(r"<(script|style|svg|textarea).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def leaderboard(site: Path) -> list[dict[str, Any]]:
    """Our rows under the first scorer; `mark` says why a step leads, or that it is the best."""
    rows = read_json(site / "leaderboard.json")
    return [row for row in rows if row["scorer"] == "official"]


def test_a_gain_is_measured_from_the_checkpoint_that_the_training_started_from(
    tmp_path: Path,
) -> None:
    """The gain, the curves' step 0 and the comparison were those against warm-start-step-20."""
    warm = {"grpo": {"model": "training:sft"}}
    layout, profile = write_experiment(
        tmp_path, steps=(10, 30), trainings=("sft", "grpo"), settings=warm
    )
    site = make_site(layout, profile)
    percent = {row["model"]: row["average"]["percent"] for row in leaderboard(site)}
    assert percent["sft-step-10"] != percent["sft-step-30"]
    shown = re.search(r"Against the start model ([+-][\d.]+)", text_of(site / "training-grpo.html"))
    assert shown
    assert shown[1] == f"{percent['grpo-step-30'] - percent['sft-step-30']:+.1f}"


@pytest.mark.parametrize(
    ("training", "settings", "row", "percent"),
    [
        ("sft", {"lora": {"rank": 16}, "prompt": "plain"}, "LoRA SFT + prompt <1>", "56.4 %"),
        ("grpo", {"prompt": "think"}, "GRPO + prompt <3>", "61.1 %"),
    ],
)
def test_the_papers_row_is_that_of_the_same_method_variant_and_prompt(
    tmp_path: Path, training: str, settings: dict[str, Any], row: str, percent: str
) -> None:
    """LoRA SFT stood beside "Full SFT 51.80", prompt think beside prompt <2> with its 64.50."""
    layout, profile = write_experiment(
        tmp_path, benchmarks=(MINI,), trainings=(training,), settings={training: settings}
    )
    page = text_of(make_site(layout, profile) / f"training-{training}.html")
    assert f"The paper, {row} {percent}" in page


def test_a_training_that_the_paper_has_not_made_has_no_row_of_the_paper_beside_it(
    tmp_path: Path,
) -> None:
    """LoRA GRPO stood beside the paper's full GRPO."""
    layout, profile = write_experiment(
        tmp_path, benchmarks=(MINI,), settings={"grpo": {"lora": {"rank": 16}}}
    )
    assert "The paper, GRPO" not in text_of(make_site(layout, profile) / "training-grpo.html")


def test_the_question_page_shows_the_choice_that_the_strict_scorer_found(tmp_path: Path) -> None:
    """`B. dog` was judged right and shown as "another text", so a flip where nothing changed."""
    said = ("dog", "B. dog", "(B) dog", "B", '"dog"', "dog.")
    layout, profile = write_experiment(tmp_path, num_questions=len(said), steps=(10,))
    path = layout.benchmark("demo-mmau") / "questions.json"
    write_json(
        path, [row | {"choices": ["cat", "dog"], "answer": "dog"} for row in read_json(path)]
    )
    for folder, run in list_runs(layout.evaluations):
        run.model_copy(update={"questions_sha256": file_digest(path)}).write(folder / "run.json")
        answers = [
            row | {"completion": f"<answer>{text}</answer>", "answer": text}
            for row, text in zip(read_jsonl(folder / "answers.jsonl"), said, strict=True)
        ]
        write_jsonl(folder / "answers.jsonl", answers)
        score_folder(folder, read_questions(path), ("official", "strict"))
    site = make_site(layout, profile)
    script = (site / "data/demo-mmau/questions.js").read_text(encoding="utf-8")
    shown = json.loads(script[script.index("{") : script.rindex("}") + 1])
    strict = shown["scorers"].index("strict")
    for evaluation in shown["evaluations"]:
        assert evaluation["marks"][strict] == "111111"
        assert evaluation["picks"] == "111111"


def test_two_models_whose_paths_end_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    """Start models X/final and Y/final overwrote each other's answers."""
    for name in ("x", "y"):
        write_json(tmp_path / name / "final" / "config.json", {"name": name})
    layout = Layout(tmp_path / "workspace", "demo")
    keys = [resolve(str(tmp_path / name / "final"), layout).key for name in ("x", "y")]
    assert keys[0] != keys[1]


def test_a_training_that_left_the_profile_leads_nothing(tmp_path: Path) -> None:
    """A renamed training's checkpoints stood in the tables as leading ones."""
    layout, profile = write_experiment(tmp_path, steps=(10, 20), trainings=("grpo", "sft"))
    profile["train"] = [entry for entry in profile["train"] if entry["name"] == "grpo"]
    marked = [row["model"] for row in leaderboard(make_site(layout, profile)) if row["mark"]]
    assert "grpo-step-20" in marked
    assert not [model for model in marked if model.startswith("sft")]


def test_a_replaced_trainings_last_step_does_not_lead_its_successor(tmp_path: Path) -> None:
    """Trained again with 120 steps, the report was led by step 300 of the training before."""
    shorter = {"grpo": {"max_steps": 20, "save_steps": 10}}
    layout, profile = write_experiment(tmp_path, steps=(10, 20, 30), settings=shorter)
    site = make_site(layout, profile)
    assert "Step 20 (" in text_of(site / "training-grpo.html")
    marked = [row["model"] for row in leaderboard(site) if row["mark"]]
    assert "grpo-step-30" not in marked


def test_answers_to_other_held_out_questions_are_stale_and_no_error(tmp_path: Path) -> None:
    """annotations.validation_size=40 ended in advice to delete a folder that cost GPU hours."""
    layout, profile = write_experiment(tmp_path, benchmarks=("demo-mmau", "validation"))
    path = layout.benchmark("validation") / "questions.json"
    write_json(path, read_json(path)[:40])
    make_site(layout, profile)


def test_a_further_model_is_not_called_the_start_model(tmp_path: Path) -> None:
    """With evaluate.base false and one further model, that one was "the start model"."""
    layout, profile = write_experiment(
        tmp_path, start_models=("released",), settings={"grpo": {"model": "models/tiny"}}
    )
    profile["evaluate"] |= {
        "base": False,
        "models": [{"name": "released", "model": "models/released", "prompt": "answer"}],
    }
    site = make_site(layout, profile)
    assert "against the start model" not in text_of(site / "index.html").casefold()
    assert "against the start model" not in text_of(site / "training-grpo.html").casefold()


def test_a_step_that_leads_for_want_of_later_ones_says_so(tmp_path: Path) -> None:
    """Step 200 of 300 led as "last step" because step 300 had not been evaluated."""
    longer = {"grpo": {"max_steps": 30, "save_steps": 10}}
    layout, profile = write_experiment(tmp_path, steps=(10, 20), settings=longer)
    page = text_of(make_site(layout, profile) / "training-grpo.html")
    assert "2 of 3 steps evaluated" in page


def test_every_comparison_opens_its_own_page(tmp_path: Path) -> None:
    """`instruct-sft-step-10 against Qwen2-Audio-7B` opened another pair's page."""
    layout, profile = write_experiment(
        tmp_path,
        steps=(10,),
        trainings=("instruct-sft", "sft"),
        start_models=("Qwen2-Audio-7B", "Qwen2-Audio-7B-Instruct"),
        settings={
            "instruct-sft": {"model": "models/Qwen2-Audio-7B", "method": "sft"},
            "sft": {"model": "models/Qwen2-Audio-7B-Instruct"},
        },
    )
    site = make_site(layout, profile)
    index = (site / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)">([^<]+ against [^<]+)</a>', index)
    assert "instruct-sft-step-10 against Qwen2-Audio-7B" in [title for _, title in links]
    for file, title in links:
        assert f"<h1>{title}</h1>" in (site / file).read_text(encoding="utf-8")


def test_predictions_to_other_questions_are_not_scored(tmp_path: Path) -> None:
    """1,000 other questions with the same choices were scored without a word."""
    questions = make_questions(30)
    write_json(tmp_path / "questions.json", questions)
    rows = [
        {**row, "question": f"Another question {index}?", "model_output": row["answer"]}
        for index, row in enumerate(questions)
    ]
    write_json(tmp_path / "predictions.json", rows)
    command = [sys.executable, "-m", "flows.score", str(tmp_path / "predictions.json")]
    command += ["--benchmark", "demo", "--questions", str(tmp_path / "questions.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Another question 0?" in done.stderr
