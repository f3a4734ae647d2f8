"""An evaluation as a user types it: own prompts, a sample, an endpoint, clips of any length."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from model.prompt import PROMPTS
from storage.benchmarks.parse import write_questions
from storage.jsonl import read_json, read_jsonl
from storage.records.question import Question
from tests.model.test_run_endpoint import Endpoint, Handler

pytestmark = pytest.mark.long

MINE = {"name": "mine", "text": "{question} {json}", "system": "Listen.", "extract": ["boxed"]}
TASKS = ("sound", "sound", "music")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(("127.0.0.1", 0), Handler) as found:
        found.scripts, found.asked, found.keys = {}, [], set()
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, endpoint: Endpoint) -> Path:
    """Nine questions, the first about a clip of 0.02 s, the second about one of 31 s."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "audio").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(31 * 16_000)
    questions: list[Question] = []
    for number in range(9):
        seconds = {0: 0.02, 1: 31.0}.get(number, 0.03 if number == 2 else 1.0)
        clip = f"q{number}.wav"
        soundfile.write(folder / "audio" / clip, noise[: round(seconds * 16_000)], 16_000)
        task = TASKS[number % 3]
        asked = Question(f"q{number}", (clip,), f"q{number}?", ("snow", "rain"), "rain", task)
        questions.append(asked)
        endpoint.scripts[f"q{number}"] = ["429", "good"] if number else ["refusal"]
    write_questions(folder / "questions.json", questions)
    return folder


def evaluate(folder: Path, endpoint: Endpoint, *options: str, **changes: object) -> str:
    """Run evaluate and report by their command; what was said, with its exit code in front."""
    benchmark = {"name": "own", "questions": f"{folder}/questions.json", "audio": f"{folder}/audio"}
    url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    there = {"name": "there", "kind": "endpoint", "url": url, "model": "m", "retry_wait_s": 0.01}
    profile = {
        "experiment": "asked",
        "train": [],
        "evaluate": {
            "benchmarks": [benchmark | {"allow_unreadable": True}],
            "models": [
                {"name": "mine", "model": "random:tiny", "prompt": MINE},
                {"name": "letters", "model": "random:tiny", "prompt": "mmsu"},
                there,
            ],
            "max_new_tokens": 4,
            "workers": 0,
            **changes,
        },
        "report": {"published": False},
    }
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    command = [sys.executable, "-m", "flows.full_pipeline", "--profile", str(path)]
    done = subprocess.run(
        [*command, "--workspace", str(folder / "ws"), "--only", "evaluate,report", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_prompts_endpoint_and_clips_of_any_length_come_through_to_the_report(
    folder, endpoint
) -> None:
    said = evaluate(folder, endpoint)
    assert said.startswith("0\n"), said
    assert "own: 1 clips are longer than the model hears: q1" in said
    assert "own: 1 not asked, count as wrong: q0. q0: " in said
    assert "0.02 s; the model hears nothing of 0.02 s or less" in said
    assert "q0: refused: I cannot hear that" in said
    assert f"prompt mmsu (sha256 {PROMPTS['mmsu'].sha256[:8]}): " in said
    root = folder / "ws/asked"
    (run,) = root.glob("evaluation/mine/own-*/mine/run.json")
    assert read_json(run)["prompt"]["text"] == "{question} {json}"
    lines = {line["id"]: line for line in read_jsonl(run.parent / "answers.jsonl")}
    assert lines["q1"]["cut"]
    assert not lines["q2"]["error"]  # 0.03 s is one audio token
    rows = read_json(root / "site/leaderboard.json")
    assert {row["prompt_text"] for row in rows} >= {"{question} {json}", PROMPTS["mmsu"].text}
    right = {row["model"]: row["average"]["num_correct"] for row in rows}
    assert right["there"] == 8
    assert "longer than the model hears: q1" in (root / "site/model-mine.html").read_text()


def test_clips_too_short_for_the_model_stop_it_by_id_where_none_may_fail(folder, endpoint) -> None:
    benchmark = {"name": "own", "questions": f"{folder}/questions.json", "audio": f"{folder}/audio"}
    models = [{"name": "strict", "model": "random:tiny"}]
    said = evaluate(folder, endpoint, benchmarks=[benchmark], models=models)
    assert said.startswith("1\n")
    assert "1 of 9 clips are too short: q0. q0 has 0.02 s" in said
    assert "allow_unreadable: true" in said


def test_a_sample_is_stable_stratified_and_marked_wherever_it_stands(folder, endpoint) -> None:
    evaluate(folder, endpoint)  # skipped where it was run
    said = evaluate(folder, endpoint, limit=6)
    assert said.startswith("0\n"), said
    (sample,) = (folder / "ws/benchmarks").glob("own-sample-6-*/questions.json")
    tasks = [question["task"] for question in json.loads(sample.read_text())]
    assert (tasks.count("sound"), tasks.count("music")) == (4, 2)
    rows = read_json(folder / "ws/asked/site/leaderboard.json")
    assert {row["benchmark"] for row in rows} == {"own-sample-6"}
    assert {row["num_questions"] for row in rows} == {6}
    assert "own-sample-6, official scorer, n = 6" in said
    # The same model asked the same about the same clip: nothing is asked twice.
    (run,) = (folder / "ws/asked/evaluation/mine").glob("own-sample-6-*/mine/answers.jsonl")
    made = {line["made_in"] for line in read_jsonl(run) if not line["error"]}
    assert {place.rpartition("-")[0] for place in made} == {"asked/evaluation/mine/own"}
    assert "mine on own-sample-6: " in said


def test_the_controls_of_a_further_model_are_asked_beside_its_proper_run(folder, endpoint) -> None:
    models = [{"name": "quoted", "model": "random:tiny"}]
    said = evaluate(folder, endpoint, models=models, controls=["silence", "cyclic-shifts"])
    assert said.startswith("0\n"), said
    assert [line for line in said.splitlines() if " runs of a model" in line] == [
        "evaluate: 5 of 5 runs of a model on a benchmark"
    ]
