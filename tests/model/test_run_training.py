"""Whole trainings of a tiny model: resume, refusals, what is written."""

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from model import checkpoints
from model.config import TrainConfig
from model.run_training import train
from model.training_record import TrainingRun, training_record
from storage.errors import PipelineError
from storage.host.supervisor import SUPERVISED
from storage.jsonl import read_json, read_jsonl
from storage.records.model import ModelRef, TrainingRef
from tests.model.conftest import training_run

# A reward in which sampled nonsense differs, so that a random model has something to learn.
OWN_REWARD = """
def vowels(completion, example):
    return sum(completion.count(vowel) for vowel in "aeiou") / (1 + len(completion))
"""


@pytest.fixture(autouse=True)
def own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "vowel_reward.py").write_text(OWN_REWARD)
    monkeypatch.syspath_prepend(tmp_path / "own")


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """torchao's optimiser compiles itself, which takes minutes on a CPU and changes no rule."""
    with torch.compiler.set_stance("force_eager"):
        yield


def make_run(model: Path, lines: Path, output: Path, **changes: Any) -> TrainingRun:
    settings: dict[str, Any] = {
        "name": "small",
        "method": "grpo",
        "max_steps": 4,
        "save_steps": 2,
        "prompts_per_device": 2,
        "prompts_per_step": 4,
        "precision": "fp32",
        "dataloader_workers": 0,
        "threads": 1,
        "grpo": {
            "group_size": 3,
            "learning_rate": 1e-3,
            "max_completion_tokens": 6,
            "reward": "vowel_reward.vowels",
        },
    }
    settings["grpo"] |= changes.pop("grpo", {})
    return training_run(model, lines, output, settings | changes)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    (file,) = checkpoint.glob("*.safetensors")
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def without_times(metrics: Path) -> list[dict[str, Any]]:
    measured = {"seconds", "tokens_per_second", "peak_memory_bytes", "mfu"}
    return [{k: v for k, v in row.items() if k not in measured} for row in read_jsonl(metrics)]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "sft", "sft": {"learning_rate": 1e-3, "random_target_share": 0.5}},
        {"lora": {"rank": 2, "dropout": 0.3}},
        {"precision": "bf16-mixed"},
        {"precision": "bf16", "optimizer": "adamw-8bit-sr", "grpo": {"beta": 0.0}},
        {"grpo": {"steps_per_rollout": 2, "zero_variance": "resample"}, "shuffle_choices": True},
    ],
    ids=[
        "grpo",
        "sft",
        "lora",
        "bf16 from fp32",
        "bf16 with 8-bit optimiser",
        "two steps a rollout, resampled",
    ],
)
def test_a_resumed_run_is_the_run(
    tiny_model: Path, training_lines: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = make_run(tiny_model, training_lines, tmp_path / "whole", **changes)
    train(whole)
    expected = weights(whole.output / "checkpoint-4")
    expected_metrics = without_times(whole.output / "metrics.jsonl")
    begin = weights(whole.output / "checkpoint-2")
    assert any(not torch.equal(begin[name], expected[name]) for name in expected)

    shutil.rmtree(whole.output / "checkpoint-4")
    train(whole)

    resumed = weights(whole.output / "checkpoint-4")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert without_times(whole.output / "metrics.jsonl") == expected_metrics


@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16-mixed", "attention": "flex"},
        {"precision": "bf16", "lora": {"rank": 2}},
        {"precision": "bf16", "optimizer": "adamw-8bit-sr", "gradient_checkpointing": True},
    ],
    ids=["mixed with flex", "lora", "8-bit optimiser"],
)
def test_on_a_gpu_a_resumed_run_goes_on_as_the_run_did(
    tiny_model: Path, training_lines: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Not bit for bit: a GPU adds up in another order each time."""
    whole = make_run(tiny_model, training_lines, tmp_path / "whole", **changes)
    train(whole)
    expected = read_jsonl(whole.output / "metrics.jsonl")
    assert expected[-1]["peak_memory_bytes"] > 0
    shutil.rmtree(whole.output / "checkpoint-4")
    train(whole)
    resumed = read_jsonl(whole.output / "metrics.jsonl")
    assert [row["step"] for row in resumed] == [1, 2, 3, 4]
    assert resumed[2]["loss"] == pytest.approx(expected[2]["loss"], rel=0.1, abs=1e-3)
    assert resumed[2]["completion_length"] == pytest.approx(expected[2]["completion_length"], 0.2)


def test_a_torn_checkpoint_is_passed_over(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run")
    train(run)
    expected = weights(run.output / "checkpoint-4")
    torn = run.output / "checkpoint-4" / "model.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    assert checkpoints.find_resumable(run.output) == run.output / "checkpoint-2"

    train(run)

    assert all(torch.equal(v, expected[k]) for k, v in weights(run.output / "checkpoint-4").items())


def test_a_resume_with_other_settings_names_the_keys(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    train(make_run(tiny_model, training_lines, tmp_path / "run", max_steps=2))
    other = make_run(
        tiny_model, training_lines, tmp_path / "run", max_steps=6, grpo={"beta": 0.1}, threads=2
    )
    with pytest.raises(PipelineError) as refusal:
        train(other)
    assert "grpo.beta (was 0.04, now 0.1); max_steps (was 2, now 6)" in str(refusal.value)
    assert "threads" not in str(refusal.value)


def test_a_reward_that_was_edited_between_stop_and_resume_is_another_experiment(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    source = tmp_path / "own" / "edited_reward.py"
    source.write_text(OWN_REWARD)
    grpo = {"reward": "edited_reward.vowels"}
    run = make_run(tiny_model, training_lines, tmp_path / "run", max_steps=2, grpo=grpo)
    train(run)
    source.write_text(OWN_REWARD.replace("aeiou", "aei"))
    again = make_run(tiny_model, training_lines, tmp_path / "run", max_steps=2, grpo=grpo)
    with pytest.raises(PipelineError, match=r"own functions.edited_reward.vowels \(was '"):
        train(again)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return None", r"gives None for example \d+ with the completion '.*'; expected a finite"),
        ("return float('nan')", r"gives nan for example \d+"),
        ("return {}['gone']", r"fails for example \d+ .*: KeyError: 'gone'"),
    ],
)
def test_an_own_reward_that_fails_is_told_in_one_line(
    tiny_model: Path, training_lines: Path, tmp_path: Path, body: str, told: str
) -> None:
    """It ended in JSON or KeyError, three loads of the 7B later."""
    name = f"failing_{abs(hash(body))}"
    (tmp_path / "own" / f"{name}.py").write_text(f"def reward(text, example): {body}\n")
    grpo = {"reward": f"{name}.reward"}
    run = make_run(tiny_model, training_lines, tmp_path / "run", grpo=grpo)
    with pytest.raises(PipelineError, match=rf"^grpo\.reward {name}\.reward {told}"):
        train(run)


def test_a_finished_training_does_nothing_more(
    tiny_model: Path, training_lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run", max_steps=2)
    train(run)
    before = (run.output / "metrics.jsonl").read_bytes()
    train(run)
    assert "step 2/2 is done already" in capsys.readouterr().out
    assert (run.output / "metrics.jsonl").read_bytes() == before


def test_checkpoints_are_loaded_by_plain_transformers_and_old_ones_are_weights_only(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(
        tiny_model,
        training_lines,
        tmp_path / "run",
        max_steps=3,
        save_steps=1,
        checkpoints={"full": 1},
    )
    train(run)
    names = {path.name for path in run.output.iterdir()}
    assert {f"checkpoint-{step}" for step in (1, 2, 3)} <= names
    assert not [name for name in names if name.endswith(".part")]
    for step in (1, 2, 3):
        folder = run.output / f"checkpoint-{step}"
        model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
        assert AutoProcessor.from_pretrained(folder).audio_token == "<|AUDIO|>"  # noqa: S105
        assert model.config.architectures == ["Qwen2AudioForConditionalGeneration"]
        assert checkpoints.is_whole(folder)
        card = (folder / "README.md").read_text()
        assert card.startswith('---\nbase_model: "tiny"')
        assert f"step {step} of 3" in card
        assert "12 examples; 0 more could not be used" in card
        assert (folder / "optimizer.pt").exists() == (step == 3)
    assert checkpoints.find_resumable(run.output) == run.output / "checkpoint-3"


def test_weights_to_evaluate_are_bf16_and_masters_lie_in_the_newest_alone(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    """A full training left 537 GB: fp32 weights in each of ten checkpoints."""
    run = make_run(
        tiny_model,
        training_lines,
        tmp_path / "run",
        max_steps=5,
        save_steps=1,
        precision="bf16-mixed",
        checkpoints={"full": 1, "weights": ["last", {"every": 2}]},
        grpo={"learning_rate": 1e-6},
    )
    train(run)
    left = {path.name for path in run.output.glob("checkpoint-*")}
    assert left == {"checkpoint-2", "checkpoint-4", "checkpoint-5"}
    for step in (2, 4, 5):
        folder = run.output / f"checkpoint-{step}"
        assert checkpoints.is_whole(folder)
        assert (folder / "masters").exists() == (folder / "optimizer.pt").exists() == (step == 5)
        assert {tensor.dtype for tensor in weights(folder).values()} == {torch.bfloat16}
        model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype="auto")
        assert model.dtype == torch.bfloat16
    masters = weights(run.output / "checkpoint-5" / "masters")
    assert {tensor.dtype for tensor in masters.values()} == {torch.float32}
    movement = read_json(run.output / "movement.json")  # of bf16 weights, nearly none has moved
    assert movement["language_model"]["moved_share"] > 0.8

    run.record.write(run.output / "run.json")
    assert not run.record.is_start_rounded
    made_by = TrainingRef(name="small", seed=42, step=5)
    path = str(run.output / "checkpoint-5")
    start = ModelRef(key="small-step-5", path=path, digest="5", training=made_by)
    again = training_record(
        run.config, start=start, examples=training_lines, num_examples=12, num_devices=1
    )
    assert again.is_start_rounded  # what was evaluated is what it starts from, and says so


def test_a_checkpoint_of_other_bytes_is_not_gone_on_from(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run")
    train(run)
    shutil.rmtree(run.output / "checkpoint-4")
    file = run.output / "checkpoint-2" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(PipelineError, match=r"checkpoint-2/model.safetensors holds other bytes"):
        train(run)


def test_a_full_disk_is_named_as_such(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run", max_steps=1)
    run.record.write(run.output / "run.json")
    command = f"{sys.executable} -m model.run_training {run.output / 'run.json'}"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "own")}
    done = subprocess.run(  # files of 1 MB at most: as a quota refuses them
        ["/bin/bash", "-c", f"ulimit -f 1000; exec {command}"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: checkpoint-1 cannot be written into {run.output}, where ")
    assert "python -m flows.prune" in line


def test_steps_on_one_rollout_say_whose_they_are_and_leave_no_hole(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run", grpo={"steps_per_rollout": 2})
    train(run)
    rows = read_jsonl(run.output / "metrics.jsonl")
    assert [row["rollout_step"] for row in rows] == [1, 1, 3, 3]
    rewards = [row["reward"] for row in rows]
    assert rewards[::2] == pytest.approx(rewards[1::2], rel=1e-6)


def test_a_training_that_learns_nothing_says_so_in_its_log(
    tiny_model: Path, training_lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model never writes the format: every completion earns 0."""
    grpo = {"group_size": 2, "max_completion_tokens": 2, "reward": None, "beta": 0}
    run = make_run(
        tiny_model,
        training_lines,
        tmp_path / "run",
        max_steps=51,
        save_steps=51,
        prompts_per_step=2,
        grpo=grpo,
    )
    train(run)
    out = capsys.readouterr().out
    assert out.count("warning: step 50: in 50 steps the completions of every prompt scored") == 1


def test_held_out_questions_are_answered_at_each_checkpoint_and_change_no_bit(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    lines = tmp_path / "train.jsonl"
    shutil.copy(training_lines, lines)
    alone = make_run(tiny_model, lines, tmp_path / "alone")
    train(alone)
    asking = make_run(tiny_model, lines, tmp_path / "asking", validation_questions=5)
    with pytest.raises(PipelineError, match=r"validation_questions is 5,? and there is no"):
        train(asking)
    shutil.copy(training_lines, tmp_path / "validation.jsonl")
    train(asking)
    rows = read_jsonl(asking.output / "metrics.jsonl")
    assert ["validation_accuracy" in row for row in rows] == [False, True, False, True]
    assert rows[1]["validation_accuracy"] * 5 in range(6)
    expected = weights(alone.output / "checkpoint-4")
    found = weights(asking.output / "checkpoint-4")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_metrics_and_completions_say_what_one_watches(
    tiny_model: Path, training_lines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run", max_steps=2)
    train(run)
    rows = read_jsonl(run.output / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    expected = {
        *("step", "loss", "reward", "reward_std", "accuracy_reward", "format_reward", "own_reward"),
        *("zero_variance_share", "all_right_share", "all_wrong_share", "kl", "entropy"),
        *("completion_length", "cut_off_share", "grad_norm", "learning_rate", "seconds"),
        *("tokens_per_second", "peak_memory_bytes"),
    }
    assert expected <= rows[0].keys()
    phases = {"features", "rollout", "reward", "reference", "policy", "optimiser", "total"}
    assert rows[0]["seconds"].keys() == phases
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[0]["learning_rate"] == pytest.approx(1e-3)
    completions = read_jsonl(run.output / "completions.jsonl")
    assert {row["step"] for row in completions} == {1}
    assert completions[0].keys() >= {"id", "completion", "reward", "rewards", "finished"}
    out = capsys.readouterr().out
    assert "a loss near 0 is expected" in out
    assert "step 2/2 loss" in out


def test_a_loss_that_is_no_number_stops_at_the_last_good_checkpoint(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(
        tiny_model,
        training_lines,
        tmp_path / "run",
        max_steps=10,
        save_steps=1,
        lr_scheduler="constant_with_warmup",
        warmup_steps=1,  # the rate is 0 at step 1 and far too high from step 2
        grpo={"learning_rate": 1e30},
    )
    with pytest.raises(
        PipelineError, match=r"(loss|norm) is (nan|inf).*examples \d+, \d+.*last good"
    ):
        train(run)
    assert checkpoints.last_step(run.output) is not None


def test_examples_that_cannot_be_used_are_listed_with_the_reason(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    rows = read_jsonl(training_lines)
    rows[3]["audio_path"] = str(tmp_path / "absent.wav")
    rows[5]["question_text"] = "tone " * 1200
    lines = tmp_path / "train.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_run(
        tiny_model, lines, tmp_path / "run", max_steps=1, save_steps=1, max_bad_share=0.1
    )
    train(run)
    dropped = read_jsonl(run.output / "dropped.jsonl")
    assert [(row["id"], row["reason"]) for row in dropped] == [
        ("3", "unreadable"),
        ("5", "too-long"),
    ]
    assert dropped[1]["num_tokens"] > 1024
    with pytest.raises(PipelineError, match="1 of 12 examples have audio that cannot be read"):
        train(make_run(tiny_model, lines, tmp_path / "other", max_bad_share=0.01))


def test_fewer_examples_than_one_batch_are_refused(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(
        tiny_model, training_lines, tmp_path / "run", prompts_per_step=13, prompts_per_device=13
    )
    with pytest.raises(PipelineError, match=r"12 of 12 examples .* the 13 of one batch"):
        train(run)


def test_a_checkpoint_in_the_middle_of_a_rollout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"3 is no multiple of grpo\.steps_per_rollout 2"):
        TrainConfig.model_validate({"save_steps": 3, "grpo": {"steps_per_rollout": 2}})


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can do it")
def test_flex_attention_on_a_cpu_is_refused(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run", attention="flex")
    with pytest.raises(PipelineError, match="attention flex needs a GPU"):
        train(run)


def test_metrics_go_to_tensorboard_too(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(
        tiny_model, training_lines, tmp_path / "run", max_steps=2, report_to=["tensorboard"]
    )
    train(run)
    events = list(run.output.rglob("events.out.tfevents.*"))
    assert len(events) == 1
    # Not where the others are imported: what needs a GPU runs where there is no TensorBoard.
    read = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = read.EventAccumulator(str(events[0].parent)).Reload().Tags()["scalars"]
    assert {"train/reward", "train/kl", "train/seconds/rollout", "train/grad_norm"} <= set(found)


def test_workers_that_compute_features_change_nothing(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    alone = make_run(tiny_model, training_lines, tmp_path / "alone", max_steps=2)
    helped = make_run(
        tiny_model, training_lines, tmp_path / "helped", max_steps=2, dataloader_workers=2
    )
    train(alone)
    helped.record.write(helped.output / "run.json")
    # In a process of its own, as always: Prefect's clean-up fails in forks of one that ran a flow.
    command = [sys.executable, "-m", "model.run_training", str(helped.output / "run.json")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "own")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    expected = weights(alone.output / "checkpoint-2")
    assert all(
        torch.equal(tensor, expected[name])
        for name, tensor in weights(helped.output / "checkpoint-2").items()
    )


def test_a_frozen_part_and_the_table_of_positions_do_not_move(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(
        tiny_model,
        training_lines,
        tmp_path / "run",
        max_steps=2,
        freeze=["audio_encoder", "projector"],
    )
    train(run)
    before = weights(tiny_model)
    after = weights(run.output / "checkpoint-2")
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("language_model") for name in moved)
    movement = read_json(run.output / "movement.json")
    assert movement["audio_encoder"]["moved_share"] == 0
    assert movement["projector"]["relative_change"] == 0
    assert movement["language_model"]["moved_share"] > 0.5


@pytest.mark.long
@pytest.mark.parametrize("num_processes", [1, 2], ids=["one", "two, continued"])
def test_kills_at_random_moments_change_no_bit(
    tiny_model: Path, training_lines: Path, tmp_path: Path, num_processes: int
) -> None:
    """Passes, rollouts used twice, dropout, held-out questions: all follow from seed and step."""
    lines, is_continued = tmp_path / "train.jsonl", num_processes > 1
    for name in ("train.jsonl", "validation.jsonl"):
        shutil.copy(training_lines, tmp_path / name)
    changes: dict[str, Any] = {"max_steps": 20, "save_steps": 2, "prompts_per_device": 1}
    changes |= {"lora": {"rank": 2, "dropout": 0.3}, "validation_questions": 3}
    changes |= {"grpo": {"steps_per_rollout": 2}, "progress_every_s": 1e-9}
    changes |= {"checkpoints": {"full": 9}} if is_continued else {"stop": {"patience": 6}}
    whole, killed = (make_run(tiny_model, lines, tmp_path / n, **changes) for n in ("a", "b"))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] * is_continued
    paths = os.pathsep.join([str(Path.cwd()), str(tmp_path / "own")])
    environment = os.environ | {"PYTHONPATH": paths, SUPERVISED: "1"}  # none outlives its parent

    def start(run: TrainingRun) -> subprocess.Popen[str]:
        command = [*launcher, "-m", "model.run_training", str(run.output / "run.json")]
        return subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment
        )

    whole.record.write(whole.output / "run.json")
    with start(whole) as process:
        process.communicate()
    parent, first = None, 0
    if is_continued:
        parent, first = ModelRef(key="a-4", path=str(whole.output / "checkpoint-4"), digest="4"), 4
    killed.record.model_copy(update={"parent": parent}).write(killed.output / "run.json")
    moments, num_kills = random.Random(7), 0
    for _ in range(2):
        with start(killed) as process:
            assert process.stdout is not None
            steps = (line for line in process.stdout if line.startswith("step "))
            next(islice(steps, moments.randrange(4), None), None)
            time.sleep(moments.uniform(0, 0.2))
            num_kills += process.poll() is None
            process.kill()
    with start(killed) as process:
        process.communicate()
    assert process.returncode == 0
    assert num_kills == 2
    last = f"checkpoint-{checkpoints.last_step(whole.output)}"
    assert (last == "checkpoint-20") == is_continued  # else its validation ended it
    expected, found = weights(whole.output / last), weights(killed.output / last)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    rows = without_times(whole.output / "metrics.jsonl")
    assert without_times(killed.output / "metrics.jsonl") == rows[first:]


@pytest.mark.long
def test_a_terminated_process_ends_at_once_and_the_same_command_finishes_the_run(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    run = make_run(tiny_model, training_lines, tmp_path / "run", max_steps=60, save_steps=5)
    run.record.write(run.output / "run.json")
    command = [sys.executable, "-m", "model.run_training", str(run.output / "run.json")]
    paths = os.pathsep.join([str(Path.cwd()), str(tmp_path / "own")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    while not (run.output / "checkpoint-5").exists():
        assert process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 128 + signal.SIGTERM
    process.stdout.close()
    assert checkpoints.last_step(run.output) != 60

    finished = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)

    assert finished.returncode == 0, finished.stderr
    assert read_json(run.output / "checkpoint-60" / "checkpoint.json")["can_resume"]
    assert [row["step"] for row in read_jsonl(run.output / "metrics.jsonl")] == list(range(1, 61))
