import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline_config import load_config
from flows.preflight import check_stage, main, preflight
from model.config import EvaluateConfig, TrainConfig
from model.network.measure import measure_config
from model.network.tiny import build_tiny
from model.train.estimates import forecast_step_s
from storage.benchmarks.parse import write_questions
from storage.benchmarks.published import prepare_questions
from storage.config import BenchmarkConfig, FetchConfig, FolderSource, HuggingFaceSource
from storage.errors import PipelineError
from storage.host.checks import (
    check_disk,
    check_hub,
    check_port,
    check_python,
    check_url,
    check_writable,
    check_ytdlp_age,
)
from storage.host.gpus import Gpu
from storage.layout import Layout
from storage.records.question import Question
from storage.records.sizes import published_sizes
from tasks.cost import checkpoints_bytes, disk_needs, start_models
from tasks.models import sizes_of
from tasks.preflight import (
    check_benchmark,
    check_evaluated,
    check_memory,
    check_settings,
    check_sources,
    check_training,
)

QUESTION = Question("q", ("q.wav",), "Who?", ("dog", "cat"), "dog", "sound")
H200 = Gpu("GPU-a", "0", "NVIDIA H200", 143_771 << 20)
SEVEN_B = published_sizes("Qwen/Qwen2-Audio-7B-Instruct")
A100 = Gpu("GPU-b", "0", "NVIDIA A100", 81_920 << 20)


def test_the_demo_needs_nothing_that_a_fresh_checkout_lacks(tmp_path, capsys):
    assert main(["--profile", "demo", "--workspace", str(tmp_path), "--offline"]) == 0
    assert "0 error" in capsys.readouterr().out


def test_the_paper_offline_names_everything_to_bring_and_where_it_goes(tmp_path, capsys):
    assert main(["--profile", "paper", "--workspace", str(tmp_path), "--offline"]) == 1
    lines = capsys.readouterr().out.splitlines()
    errors = "\n".join(line for line in lines if line.startswith("error"))
    for needed in (
        "hf download Qwen/Qwen2-Audio-7B-Instruct",
        "--set train.model=FOLDER",
        "train_qa.json (annotations): download it elsewhere and set its key",
        "set evaluate.benchmarks' `audio` of mmau-test-mini-original",
        "bring the workspace's clips/ and ledger.sqlite",
    ):
        assert needed in errors


def test_every_setting_is_listed_with_its_type_default_docstring_and_file(capsys):
    assert main(["--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    beta = lines.index("train.grpo.beta: float = 0.04")
    assert lines[beta + 1].endswith("holds no reference model. (model/config.py)")
    assert "evaluate.benchmarks.questions: str | None = null" in lines


def test_an_unknown_profile_is_one_clear_error(tmp_path):
    with pytest.raises(Exception, match="unknown profile nope: expected one of demo"):
        main(["--profile", "nope", "--workspace", str(tmp_path)])


def test_a_package_out_of_its_bounds_is_an_error_with_the_command_to_type(tmp_path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["pydantic<1", "no-such-package-7", "rich"]\n')
    (python, packages) = check_python(pyproject)
    assert python.level == "ok"
    assert packages.level == "error"
    assert "wanted <1; no-such-package-7 is missing: pip install -c" in packages.text
    assert "rich" not in packages.text


@pytest.mark.parametrize(
    ("day", "level"),
    [(datetime(2026, 11, 1, tzinfo=UTC), "ok"), (datetime(2027, 3, 1, tzinfo=UTC), "warning")],
)
def test_an_old_ytdlp_is_a_warning(day, level):
    assert check_ytdlp_age("2026.10.26", day).level == level


def test_a_workspace_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    (finding,) = check_writable(tmp_path / "file" / "workspace")
    assert finding.level == "error"
    assert "choose another: --workspace DIR" in finding.text


def test_a_disk_without_room_is_an_error_with_the_numbers(tmp_path):
    finding = check_disk(tmp_path / "not yet", {"clips": 1e9, "checkpoints of grpo": 1e18})
    assert finding.level == "error"
    assert "clips 1.0 + checkpoints of grpo 1000000000.0" in finding.text
    assert check_disk(tmp_path, {"clips": 1.0}).level == "ok"


def test_a_port_in_use_is_a_warning():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert check_port(port, "the reports", "--report-port").level == "warning"
    assert check_port(port, "the reports", "--report-port").level == "ok"


def test_an_address_that_does_not_answer_is_an_error():
    (finding,) = check_url("http://127.0.0.1:9/x.json", "annotations", "bring it")
    assert finding.level == "error"
    assert finding.text.endswith("bring it")


def test_a_local_folder_or_a_cached_copy_needs_no_hub(tmp_path, monkeypatch):
    assert check_hub(str(tmp_path), "model", offline=True, remedy="").level == "ok"
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "1234"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "hub" / "models--a--b" / "refs").mkdir()
    (tmp_path / "hub" / "models--a--b" / "refs" / "main").write_text("1234")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert check_hub("a/b", "model", offline=True, remedy="").level == "ok"
    assert check_hub("a/c", "model", offline=True, remedy="bring it").text.endswith("bring it")


def test_a_model_on_this_host_is_measured_once_by_a_child_and_then_remembered(tmp_path):
    model = build_tiny(tmp_path / "model", ["What?"], clip_length_s=1.0, seed=0)
    measured = sizes_of(str(model), tmp_path / "models")
    assert measured == measure_config(model)
    (kept,) = (tmp_path / "models").glob("*.sizes.json")
    kept.write_text(measured.model_copy(update={"vocabulary": 7}).model_dump_json())
    assert sizes_of(str(model), tmp_path / "models").vocabulary == 7
    assert sizes_of("org/elsewhere", tmp_path / "models") is None


def test_a_model_that_cannot_be_trained_names_the_families_that_can(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    found = check_training(TrainConfig(), [H200], str(tmp_path), tmp_path / "models", offline=True)
    assert found[-1].level == "error"
    assert "is a llama model, which cannot be used here: expected a model of " in found[-1].text
    assert "qwen2_audio" in found[-1].text


def test_a_training_that_cannot_fit_is_refused_with_what_would():
    finding = check_memory(TrainConfig(), [A100], SEVEN_B)
    assert finding.level == "error"
    assert "1 GPU(s) of 86 GB; it wants " in finding.text
    assert "sharding zero2 or fsdp" in finding.text
    one_gpu = TrainConfig(precision="bf16", optimizer="adamw-8bit-sr", gradient_checkpointing=True)
    assert check_memory(one_gpu, [H200], SEVEN_B).level == "ok"


def test_several_hosts_share_what_is_sharded():
    training = TrainConfig(sharding="zero2", gradient_checkpointing=True)
    assert check_memory(training, [A100, A100], SEVEN_B).level == "error"
    over_hosts = check_memory(training.model_copy(update={"num_hosts": 4}), [A100, A100], SEVEN_B)
    assert over_hosts.level == "ok"
    assert over_hosts.text.startswith("4 hosts with 2 GPU(s) of 86 GB; it wants ")


def test_a_big_model_without_a_gpu_is_an_error():
    assert check_memory(TrainConfig(), [], SEVEN_B).level == "error"


def test_more_gpus_than_there_are_is_an_error():
    training = TrainConfig(num_gpus=8)
    (finding,) = check_training(training, [H200], "Qwen/Qwen2-Audio-7B", Path("none"), offline=True)
    assert finding.text == "asks for 8 GPUs, 1 may be used; lower num_gpus"


def test_a_chain_of_trainings_starts_from_the_first_one_s_model():
    trainings = [
        TrainConfig(name="a", model="org/seven-b"),
        TrainConfig(name="b", model="training:a"),
        TrainConfig(name="c", model="training:b"),
    ]
    assert set(start_models(trainings).values()) == {"org/seven-b"}


def test_room_for_clips_and_checkpoints_is_counted_by_hand():
    """Ten checkpoints of fp32 weights; two, and one in writing, with 8 bytes of moments."""
    assert checkpoints_bytes(TrainConfig(), 8.4e9) == pytest.approx(8.4e9 * (11 * 2 + 3 * 12))
    needs = disk_needs([TrainConfig(model="random:tiny")], FetchConfig(), 40_000, Path("none"))
    assert needs == {"clips": pytest.approx(40_000 * 320_000)}


def test_sources_that_are_not_there_are_named(tmp_path):
    config = FetchConfig(
        sources=(
            FolderSource(path=tmp_path / "none"),
            HuggingFaceSource(dataset="gijs/avqa-processed"),
        )
    )
    folder, hub = check_sources(config, offline=True)
    assert folder.level == hub.level == "error"
    assert folder.text == f"{tmp_path}/none is no folder; correct fetch.sources"


def test_a_prepared_benchmark_needs_no_network(tmp_path):
    layout = Layout(tmp_path, "paper")
    config = BenchmarkConfig(name="mmau-test-mini-original")
    assert {each.level for each in check_benchmark(config, layout, offline=True)} == {"error"}
    questions = tmp_path / "questions.json"
    write_questions(questions, [QUESTION])
    mine = BenchmarkConfig(name="mine", questions=str(questions), audio="maker/clips")
    folder = prepare_questions(mine, layout.benchmarks).parent
    (folder / "clips.json").write_text("{}")
    assert {each.level for each in check_benchmark(mine, layout, offline=True)} == {"ok"}


def test_a_gpu_that_is_not_there_is_a_finding_not_a_crash(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aaa, NVIDIA H200, 143771, 0'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    config = load_config("demo", workspace=tmp_path)
    findings = preflight(config, Layout(Path(tmp_path), "demo"), offline=True)
    (gpus,) = [each for each in findings if each.subject == "gpus"]
    assert gpus.level == "error"
    assert "names GPU 5" in gpus.text


def test_an_evaluation_looks_at_its_own_models_before_it_starts(tmp_path):
    """It began without: a model that cannot be had was told by the child process, minutes later."""
    overrides = ["evaluate.models=[{name: own, model: /absent/model}]", "train=[]"]
    config = load_config("demo", workspace=tmp_path, overrides=overrides)
    with pytest.raises(PipelineError) as refusal:
        check_stage("evaluate", config, Layout(tmp_path, "demo"))
    message = str(refusal.value)
    assert message.startswith("this host is not ready for evaluate:\n  model: /absent/model ")
    assert message.endswith("give it as its `model` in evaluate.models")


def test_the_weights_of_a_model_to_evaluate_have_to_fit_one_gpu(tmp_path):
    """8.4 B parameters in bf16, and 3 GB: 20 GB. Batches adapt to what is left."""
    for size_gb, levels in ((16, ["error"]), (22, [])):
        gpu = Gpu("GPU-c", "0", "card", int(size_gb * 1e9))
        found = check_evaluated(
            "Qwen/Qwen2-Audio-7B", EvaluateConfig(), [A100, gpu], tmp_path, offline=True
        )
        assert [each.level for each in found[1:]] == levels  # the first: it is not on this host
    assert check_evaluated("random:tiny", EvaluateConfig(), [A100], tmp_path, offline=True) == []


@pytest.mark.parametrize(
    ("settings", "num_gpus", "told"),
    [
        ({"report_to": ["wandb"]}, 0, "report_to wandb needs the package wandb, which is not inst"),
        ({}, 7, "does not divide into 7 device(s) with prompts_per_device 1; the nearest that do:"),
        ({"report_to": ["tensorboard"], "lora": {}}, 8, None),
    ],
)
def test_what_the_settings_ask_for_is_looked_for_before_a_model_is_loaded(
    settings: dict[str, Any], num_gpus: int, told: str | None
) -> None:
    """A missing wandb was found after the 7B was loaded, three times."""
    found = check_settings(TrainConfig.model_validate(settings), num_gpus)
    assert [told in finding.text for finding in found] == ([True] if told else [])


def test_the_hours_of_a_training_are_told_before_it() -> None:
    """16 tokens through 32 layers at 0.7 ms, and 16 prompts of 33e12 operations on 8 cards."""
    sizes = published_sizes("Qwen/Qwen2-Audio-7B-Instruct")
    assert sizes is not None
    step_s = forecast_step_s(TrainConfig(), sizes, "NVIDIA H100 80GB HBM3", 8)
    assert step_s is not None
    assert step_s[0] == pytest.approx(0.358 + 528e12 / (8 * 0.25 * 989e12), rel=0.05)
    assert step_s[1] > 10 * step_s[0]
    assert forecast_step_s(TrainConfig(), sizes, "some other card", 8) is None
