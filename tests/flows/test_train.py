"""Trainings that lose a process, and one over two hosts, by the commands that a user types."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.config import TrainConfig
from model.network.tiny import build_tiny
from storage.jsonl import read_json, read_jsonl
from storage.layout import Layout, list_checkpoints
from storage.manifest import file_digest
from tasks.train import is_finished, is_under_way
from tests.model.conftest import QUESTION, SOUNDS, write_training_lines

ROOT = Path(__file__).parents[2]
# A reward from which a random model can learn. In the step after the first checkpoint it kills the
# process that runs it, once, where a file says so.
REWARD = """
import os, signal
from pathlib import Path

def vowels(completion, example):
    marker = Path(os.environ.get("KILL_ONCE", "absent"))
    if os.environ.get("RANK", "0") == "0" and marker.exists():
        if (marker.parent / "checkpoint-2").exists():
            marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return sum(completion.count(vowel) for vowel in "aeiou") / (1 + len(completion))
"""


class Site:
    """A workspace with a training of four steps that can be started in several ways."""

    def __init__(self, folder: Path, name: str, model: Path) -> None:
        self.layout = Layout(folder / name, "small")
        self.folder = self.layout.training("grpo")
        self.folder.mkdir(parents=True)
        lines = write_training_lines(self.layout.root, 12)
        assert lines == self.layout.train_jsonl
        (folder / "vowel_reward.py").write_text(REWARD)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "OMP_NUM_THREADS": "1",
            "KILL_ONCE": str(self.folder / "kill-once"),
        }
        self.profile = folder / f"{name}.yaml"
        self.settings = {
            "name": "grpo",
            "model": str(model),
            "max_steps": 4,
            "save_steps": 2,
            "prompts_per_step": 2,
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

    def start(
        self, *more: str, hosts: int = 1, others: Sequence[dict[str, Any]] = ()
    ) -> subprocess.Popen[str]:
        """`python -m flows.train` with a profile of this one training, and of others."""
        training = self.settings | {"num_hosts": hosts}
        profile = {"experiment": "small", "world": {}, "train": [training, *others]}
        self.profile.write_text(yaml.safe_dump(profile))
        command = [sys.executable, "-m", "flows.train", "--profile", str(self.profile)]
        command += ["--workspace", str(self.layout.workspace), *more]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_once(self) -> None:
        """Let the trainer be killed in its third step."""
        (self.folder / "kill-once").touch()

    def train_as(self, other: "Site", *launch: str) -> None:
        """Run the training process alone, with another site's settings and examples."""
        shutil.copy(other.folder / "run.json", self.folder)
        command = [*launch, "-m", "model.run_training", str(self.folder / "run.json")]
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT, env=self.environment)

    @property
    def weights(self) -> dict[str, str]:
        return {
            path.name: file_digest(path / "model.safetensors")
            for path in list_checkpoints(self.folder)
        }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(
        tmp_path_factory.mktemp("tiny") / "model", [QUESTION, *SOUNDS], clip_length_s=3.0, seed=0
    )


def test_a_profile_without_a_training_on_several_hosts_has_nothing_to_join(
    tmp_path: Path, model: Path
) -> None:
    process = Site(tmp_path, "alone", model).start("--join", "1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith("error: --join: no training of this profile runs on several hosts")


@pytest.mark.long
def test_a_training_of_an_older_version_is_refused_in_one_line_and_left_as_it_is(
    tmp_path: Path, model: Path
) -> None:
    site = Site(tmp_path, "old", model)
    old = '{"train": {"name": "grpo"}, "start_model_digest": "", "output": "/elsewhere"}'
    (site.folder / "run.json").write_text(old)
    process = site.start()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert "run.json is of format 1, this version reads 2; nothing was touched" in line
    assert [path.name for path in site.folder.iterdir()] == ["run.json"]
    assert (site.folder / "run.json").read_text() == old


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return output


@pytest.mark.long
def test_a_killed_trainer_is_tried_again_from_its_newest_checkpoint_and_ends_the_same(
    tmp_path: Path, model: Path
) -> None:
    whole, killed = (Site(tmp_path, name, model) for name in ("whole", "killed"))
    killed.kill_once()
    finish(killed.start("--set", "report.remake_s=0.5"))
    assert (killed.layout.site / "training-grpo.html").exists()  # made before it was tried again
    log = (killed.folder / "trainer.log").read_text(encoding="utf-8")
    assert log.count("training from") == 2
    assert "training from grpo/checkpoint-2" in log
    whole.train_as(killed)
    assert killed.weights == whole.weights
    assert len(set(whole.weights.values())) == 2


@pytest.mark.long
def test_a_training_that_continues_another_ends_as_if_it_had_not_stopped(
    tmp_path: Path, model: Path
) -> None:
    """`max_steps` could not be raised after the end, and old checkpoints lost their optimiser."""
    site = Site(tmp_path, "site", model)
    site.settings |= {"lr_scheduler": "constant", "checkpoints": {"full": 1}}
    gone = {"name": "gone", "continues": "grpo@2", "max_steps": 6}
    process = site.start(others=[gone])
    _, errors = process.communicate(timeout=300)
    assert "grpo-step-2 cannot be continued: its optimiser's state is gone" in errors
    assert "the nearest that has it is step 4" in errors

    whole = site.settings | {"name": "whole", "max_steps": 6}
    longer = {"name": "longer", "continues": "grpo@4", "max_steps": 6}
    finish(site.start(others=[whole, longer]))
    folders = [site.layout.training(name) for name in ("whole", "longer")]
    digests = {file_digest(folder / "checkpoint-6" / "model.safetensors") for folder in folders}
    assert len(digests) == 1
    assert [row["step"] for row in read_jsonl(folders[1] / "metrics.jsonl")] == [5, 6]
    assert read_json(folders[1] / "run.json")["parent"]["key"] == "grpo-step-4"
    assert "skipped" in finish(site.start(others=[whole, longer]))


@pytest.mark.long
def test_a_training_ends_by_its_validation_and_goes_on_where_patience_is_raised(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that answers no held-out question right never gets better."""
    monkeypatch.syspath_prepend(tmp_path)  # its reward
    site = Site(tmp_path, "site", model)
    shutil.copy(site.layout.train_jsonl, site.layout.validation_jsonl)
    site.settings |= {"max_steps": 20, "validation_questions": 3, "stop": {"patience": 1}}
    assert "stopped at step 4 of 20: 1 validation(s) in a row" in finish(site.start())
    patient, impatient = (
        TrainConfig.model_validate(site.settings | {"stop": {"patience": n}}) for n in (2, 1)
    )
    assert is_finished(impatient, site.layout)
    assert is_under_way(patient, site.layout)
    assert not is_finished(patient, site.layout)

    site.settings |= {"stop": {"patience": 2}}
    whole = site.settings | {"name": "whole"}
    longer = {"name": "longer", "continues": "grpo@6", "max_steps": 8, "stop": None}
    told = finish(site.start(others=[whole, longer]))
    assert told.count("stopped at step 6 of 20") == 2
    log = (site.folder / "trainer.log").read_text(encoding="utf-8")
    assert "training from grpo/checkpoint-4" in log
    at_once = site.layout.training("whole") / "checkpoint-6" / "model.safetensors"
    assert site.weights["checkpoint-6"] == file_digest(at_once)
    assert list(site.weights) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert (site.layout.training("longer") / "checkpoint-8").is_dir()
    assert is_finished(patient, site.layout)
    assert not is_under_way(impatient, site.layout)  # it has gone beyond: that is another training


@pytest.mark.long
def test_a_checkpoint_that_is_gone_is_no_reason_to_train(tmp_path: Path, model: Path) -> None:
    """A deleted checkpoint made the next run delete the later ones, which were finished."""
    site = Site(tmp_path, "gap", model)
    site.settings |= {"max_steps": 6}
    finish(site.start())
    before = site.weights
    shutil.rmtree(site.folder / "checkpoint-4")
    assert finish(site.start()) == "train: skipped (done before, unchanged)\n"
    del before["checkpoint-4"]
    assert site.weights == before


@pytest.mark.long
@pytest.mark.parametrize(("keep_full", "made_again"), [(2, []), (1, [2, 4])])
def test_without_its_last_checkpoint_a_training_goes_on_and_writes_none_over(
    tmp_path: Path, model: Path, keep_full: int, made_again: list[int]
) -> None:
    """Where none of those left can be gone on from, they are kept beside the new ones."""
    site = Site(tmp_path, "gap", model)
    site.settings |= {"max_steps": 6, "checkpoints": {"full": keep_full}}
    finish(site.start())
    before = site.weights
    shutil.rmtree(site.folder / "checkpoint-6")
    site.settings |= {"progress_every_s": 9}  # began it anew
    told = finish(site.start())
    log = (site.folder / "trainer.log").read_text(encoding="utf-8")
    assert site.weights == before
    kept = site.folder.with_name("grpo.replaced-1")
    names = [f"checkpoint-{step}" for step in made_again]
    assert [path.name for path in list_checkpoints(kept)] == names
    assert all(file_digest(kept / name / "model.safetensors") == before[name] for name in names)
    if not made_again:
        assert "training from grpo/checkpoint-4" in log
    else:
        assert f"trains again from the start model; what came after it is kept in {kept}" in told


@pytest.mark.long
def test_two_hosts_train_what_one_torchrun_does_though_one_loses_its_process(
    tmp_path: Path, model: Path
) -> None:
    """The first host's trainer is killed -9 once: both hosts go on from the newest checkpoint."""
    whole, split = (Site(tmp_path, name, model) for name in ("whole", "split"))
    split.kill_once()
    second = split.start("--join", "1", hosts=2)
    first = split.start(hosts=2)
    told = finish(first)
    joined = finish(second)
    assert "waiting for the first host to begin it" in joined
    assert joined.count("as host 1; log: ") == 2
    assert "joining at" in joined
    assert "for 1 other host(s)" in told
    assert not (split.folder / "call.json").exists()
    assert not (split.folder / "kill-once").exists()
    assert [row["step"] for row in read_jsonl(split.folder / "metrics.jsonl")] == [1, 2, 3, 4]

    whole.train_as(split, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert split.weights == whole.weights
    assert len(set(whole.weights.values())) == 2
