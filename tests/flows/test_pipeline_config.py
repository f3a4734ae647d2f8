"""Profiles: defaults, overrides, and one clear line for each wrong key."""

from pathlib import Path

import pytest
import yaml

from flows.full_pipeline import chosen_stages, main
from flows.pipeline_config import PROFILES, PipelineConfig, load_config
from model.config import TrainConfig
from storage.errors import PipelineError

WORKSPACE = Path("/data/workspace")


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_that_ships_validates(profile: str) -> None:
    assert load_config(profile, workspace=WORKSPACE).experiment


def test_the_defaults_are_the_papers() -> None:
    config = PipelineConfig(experiment="x")
    (training,) = config.train
    assert training.grpo.group_size == 8
    assert training.grpo.beta == 0.04
    assert training.grpo.learning_rate == 1e-6
    assert (training.max_steps, training.save_steps, training.seed) == (1000, 100, 42)
    assert config.fetch.clip_length_s == 10
    assert config.fetch.videos_per_hour == 240


def test_the_workspace_and_the_worlds_port_are_filled_in() -> None:
    config = load_config("demo", workspace=WORKSPACE, overrides=["world.port=9001"])
    assert config.annotations.train == "/data/workspace/world/annotations/train_qa.json"
    (source,) = config.fetch.sources
    assert source.kind == "youtube"
    assert source.url_template == "http://127.0.0.1:9001/watch/{video_id}"


def test_a_key_is_set_in_every_training_or_in_one_by_number_or_name() -> None:
    config = load_config(
        "demo",
        workspace=WORKSPACE,
        overrides=["train.seed=7", "train.0.max_steps=5", "train.grpo.learning_rate=2e-6"],
    )
    assert [training.seed for training in config.train] == [7, 7]
    assert config.train[0].max_steps == 5
    assert config.train[1].grpo.learning_rate == 2e-6
    named = load_config("demo", workspace=WORKSPACE, overrides=["train.warm-start.max_steps=6"])
    assert named.train[0].max_steps == 6
    both = load_config("demo", workspace=WORKSPACE, overrides=["train.grpo.seed=5"])
    assert [training.seed for training in both.train] == [42, 5], "no field: the training grpo"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["fetch.wrokers=3"], r"fetch\.wrokers: there is no .*is fetch\.workers \(found 3\)"),
        (["train.max_step=3"], r"train\.1\.max_step: there is no .*is train\.max_steps"),
        (["evaluate.benchmarks.0.name=../../../../x"], r"evaluate\.benchmarks\.0\.name: String"),
        (["experiment=clips"], "a folder that all experiments of a workspace share"),
        (["experiment=../x"], "experiment: String should match pattern"),
        (["fetch.workers=\x1b[31m"], "is not YAML: unacceptable character"),
        (["evaluate.models=[{a"], r"is not YAML: expected .* \(line 1, column 4\)$"),
        (["fetch.workers=99"], r"fetch\.workers: .*less than or equal to 16 \(found 99\)"),
        (["train.9.seed=1"], "there are 2 entries, counted from 0"),
        (["fetch.workers"], "expected KEY=VALUE"),
        (["train.1.name=warm-start"], "two trainings are named warm-start"),
        (["train.0.model=training:nobody"], "training:nobody, which no earlier entry is named"),
        (["train.1.precision=bf16"], "98% of bf16 weights never move"),
    ],
)
def test_a_wrong_override_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        load_config("demo", workspace=WORKSPACE, overrides=overrides)


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(
        PipelineError, match=r"unknown profile demmo: expected one of .*demo.*paper"
    ):
        load_config("demmo", workspace=WORKSPACE)


def test_a_file_that_is_no_profile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- a list\n")
    with pytest.raises(PipelineError, match=r"mine\.yaml holds list"):
        load_config(str(path), workspace=WORKSPACE)
    path.write_text("experiment: [unclosed\n")
    with pytest.raises(PipelineError, match=r"mine\.yaml is not YAML"):
        load_config(str(path), workspace=WORKSPACE)


def test_stages_are_named_by_commas_and_an_unknown_one_is_one_line() -> None:
    assert chosen_stages(("report", "evaluate"), "train") == ["evaluate", "report"]
    message = "unknown stage nope: expected some of fetch,convert,train,evaluate,report"
    with pytest.raises(PipelineError, match=message):
        main(["--only", "evaluate, nope", "--workspace", str(WORKSPACE)])


def test_a_training_that_continues_another_has_its_settings_and_keeps_what_it_rests_on(
    tmp_path: Path,
) -> None:
    profile = tmp_path / "long.yaml"
    grpo = {"name": "grpo", "max_steps": 100, "seed": 7, "grpo": {"beta": 0.1, "group_size": 4}}
    more = {"name": "more", "continues": "grpo@100", "max_steps": 120, "grpo": {"beta": 0.2}}

    def load(**changed: object) -> TrainConfig:
        tree = {"experiment": "long", "train": [grpo, more | changed]}
        profile.write_text(yaml.safe_dump(tree))
        return load_config(str(profile), workspace=tmp_path).train[1]

    training = load()
    assert (training.seed, training.grpo.beta, training.grpo.group_size) == (7, 0.2, 4)
    assert training.saved_steps == (120,)
    with pytest.raises(PipelineError, match="more continues grpo@100: it cannot with another seed"):
        load(seed=8)
    with pytest.raises(PipelineError, match=r"another max_steps \(100, which must be more\)"):
        load(max_steps=100)
    with pytest.raises(PipelineError, match="step 50 of grpo, which saves"):
        load(continues="grpo@50")
