import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.errors import PipelineError
from storage.jsonl import read_jsonl
from storage.records.model import ModelRef
from storage.records.training import (
    Sampled,
    StepMetrics,
    TrainingRecord,
    append_metrics,
    append_sampled,
    end_step,
    forget_after,
    read_metrics,
    read_sampled,
    warnings_of,
)

METRICS = StepMetrics(
    step=1,
    loss=0.25,
    grad_norm=1.5,
    learning_rate=1e-6,
    reward=1.25,
    reward_std=0.5,
    rewards={"accuracy": 0.75, "own": 0.5},
    shares={"cut_off": 0.0},
    completion_length=9.5,
    seconds={"rollout": 1.5, "total": 2.0},
    tokens_per_second=40.0,
    peak_memory_bytes=1024,
)
RECORD = TrainingRecord(
    name="grpo",
    method="grpo",
    variant="full",
    prompt="answer",
    seed=42,
    start=ModelRef(key="tiny", path="models/tiny", digest="d"),
    examples=Path("train.jsonl"),
    examples_sha256="e",
    num_examples=12,
    num_devices=1,
    settings={"grpo": {"beta": 0.04}},
    idle={"threads": 1},
    versions={"torch": "2.13.0"},
)


@pytest.mark.parametrize(
    ("accuracies", "end"),
    [
        ([0.5, None, 0.5, 0.6, 0.6, None, 0.5, 0.7], 7),  # twice in a row no better than 0.6
        ([0.5, 0.4, 0.6, 0.5], None),
        ([0.5, 0.5, 0.5], 3),
        ([0.1] + [None] * 9, 10),
    ],
)
def test_a_training_ends_with_its_patience_or_its_last_step_or_has_still_to_tell(
    tmp_path: Path, accuracies: list[float | None], end: int | None
) -> None:
    for step, accuracy in enumerate(accuracies, start=1):
        append_metrics(tmp_path, replace(METRICS, step=step, validation_accuracy=accuracy))
    assert end_step(tmp_path, 10, 2) == end
    assert end_step(tmp_path, 10, None) == 10


def test_steps_are_read_as_they_were_written_from_flat_lines(tmp_path: Path) -> None:
    append_metrics(tmp_path, METRICS)
    (line,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert line["accuracy_reward"] == 0.75
    assert line["cut_off_share"] == 0.0
    assert "kl" not in line
    assert read_metrics(tmp_path) == [METRICS]


def test_a_number_that_is_no_number_is_null_in_the_file(tmp_path: Path) -> None:
    append_metrics(tmp_path, replace(METRICS, loss=math.nan))
    (line,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert line["loss"] is None
    assert read_metrics(tmp_path)[0].loss is None


def test_of_a_step_logged_twice_the_last_counts(tmp_path: Path) -> None:
    for step, loss in ((1, 0.1), (2, 0.2), (2, 0.3)):
        append_metrics(tmp_path, replace(METRICS, step=step, loss=loss))
    assert [(metrics.step, metrics.loss) for metrics in read_metrics(tmp_path)] == [
        (1, 0.1),
        (2, 0.3),
    ]


def test_steps_to_be_done_again_are_forgotten_with_their_completions(tmp_path: Path) -> None:
    sampled = Sampled(
        step=1,
        id="183",
        question="Which?",
        choices=("dog", "cat"),
        answer="dog",
        completion="dog",
        reward=1.0,
        rewards={"own": 1.0},
        finished=True,
    )
    for step in (1, 2, 3):
        append_metrics(tmp_path, replace(METRICS, step=step))
        append_sampled(tmp_path, replace(sampled, step=step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in mid-write
    forget_after(tmp_path, 2)
    assert [metrics.step for metrics in read_metrics(tmp_path)] == [1, 2]
    assert read_sampled(tmp_path) == [sampled, replace(sampled, step=2)]


def test_a_training_is_read_as_it_was_written(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "run.json")
    assert TrainingRecord.read(tmp_path / "run.json") == RECORD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": None},
            r"run\.json is of format None, this version reads 2; nothing was touched",
        ),
        (
            {"seed": "x"},
            r"run\.json is not a training's record: seed: Input should be a valid integer",
        ),
        ({"unknown": 1}, r"is not a training's record: unknown: Extra inputs are not permitted"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RECORD.model_dump(mode="json") | change))
    with pytest.raises(PipelineError, match=message) as refusal:
        TrainingRecord.read(path)
    assert "\n" not in str(refusal.value)


def steps(number: int, **changed: Any) -> list[StepMetrics]:
    """Steps of a training that learns, but for what is changed by functions of the step."""
    sound = {
        "reward": lambda step: 0.5 + step / 200 + 0.1 * (step % 2),
        "kl": lambda step: 0.001 * step,
        "zero_variance": lambda _: 0.5,
        "cut_off": lambda _: 0.1,
    } | changed
    return [
        replace(
            METRICS,
            step=step,
            reward=sound["reward"](step),
            kl=sound["kl"](step),
            shares={name: sound[name](step) for name in ("zero_variance", "cut_off")},
        )
        for step in range(1, number + 1)
    ]


@pytest.mark.parametrize(
    ("number", "changed", "told"),
    [
        (200, {}, None),
        (49, {"zero_variance": lambda _: 1.0}, None),
        (50, {"zero_variance": lambda _: 1.0}, "in 50 steps the completions of every prompt"),
        (200, {"reward": lambda step: 0.5 + 0.1 * (step % 2)}, "the reward of the last 50 steps"),
        (100, {"kl": lambda step: 0.1 if step <= 50 else 3.0}, "KL runs away (3 nats a token aft"),
        (60, {"cut_off": lambda _: 0.9}, "more than half of the completions are cut off"),
    ],
)
def test_a_training_that_learns_nothing_is_told_with_the_usual_cause(
    number: int, changed: dict[str, Any], told: str | None
) -> None:
    warnings = warnings_of(steps(number, **changed))
    assert [told is not None and warning.startswith(told) for warning in warnings] == (
        [True] if told else []
    )
