"""What GRPO's settings do to a step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import LoraConfig
from model.network.lora import add_adapter
from model.network.qwen2_audio import load_base, load_model
from model.run_training import make_trainer
from model.train.grpo_trainer import GrpoTrainer
from model.train.rollout import Rollout, exchange
from tests.model.conftest import training_run

# Completions of even examples score alike; those of odd ones nearly never.
OWN_REWARD = """
def parity(completion, example):
    return 0.0 if int(example["id"]) % 2 == 0 else float(len(completion))
"""
BATCH = 4


@pytest.fixture(autouse=True)
def own_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "parity_reward.py").write_text(OWN_REWARD)
    monkeypatch.syspath_prepend(tmp_path / "own")


def make(model: Path, lines: Path, output: Path, **grpo: Any) -> GrpoTrainer:
    """A trainer whose first step is prepared."""
    settings: dict[str, Any] = {
        "name": "small",
        "max_steps": 3,
        "save_steps": 3,
        "prompts_per_device": BATCH,
        "gradient_accumulation": 1,
        "precision": "fp32",
        "dataloader_workers": 0,
        "threads": 1,
        "grpo": {
            "group_size": 3,
            "max_completion_tokens": 5,
            "accuracy_weight": 0,
            "format_weight": 0,
            "reward": "parity_reward.parity",
        }
        | grpo,
    }
    run = training_run(model, lines, output, settings)
    trainer = make_trainer(run, {}, None)
    assert isinstance(trainer, GrpoTrainer)
    trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    return trainer


def is_even(trainer: GrpoTrainer) -> list[bool]:
    return [int(str(example["id"])) % 2 == 0 for example in trainer.rollouts[0].examples]


def test_groups_that_score_alike_are_kept_with_advantage_zero(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_model, training_lines, tmp_path)
    rollout = trainer.rollouts[0]
    even = torch.tensor(is_even(trainer))
    assert even.any()
    assert (~even).any()
    assert (rollout.advantage_QG[even] == 0).all()
    # Every completion weighs 1 / (4 prompts x 3 completions).
    assert torch.allclose(rollout.weight_QGC.sum(-1), torch.full((BATCH, 3), 1 / 12))


def test_skipped_groups_weigh_nothing_and_the_others_share_the_mean(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_model, training_lines, tmp_path, zero_variance="skip")
    even = torch.tensor(is_even(trainer))
    weight_QG = trainer.rollouts[0].weight_QGC.sum(-1)
    assert (weight_QG[even] == 0).all()
    assert torch.allclose(weight_QG[~even], 1 / ((~even).sum() * 3.0))


def test_resampled_groups_are_exchanged_for_other_prompts(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    kept = make(tiny_model, training_lines, tmp_path / "a")
    trainer = make(
        tiny_model, training_lines, tmp_path / "b", zero_variance="resample", resample_attempts=12
    )
    assert any(is_even(kept))
    assert not any(is_even(trainer))
    for row, even in enumerate(is_even(kept)):
        if not even:  # what taught something stays where it was
            assert trainer.rollouts[0].texts[row] == kept.rollouts[0].texts[row]
    expected = trainer.means.means(trainer.means.as_tensor())["resampled_share"]
    assert expected == pytest.approx(sum(is_even(kept)) / BATCH)


def test_an_exchanged_prompt_is_scored_as_it_was_alone(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    rollout = make(tiny_model, training_lines, tmp_path / "a").rollouts[0]
    trainer = make(tiny_model, training_lines, tmp_path / "b", max_completion_tokens=9)
    longer = trainer.rollouts[0]

    def logprob(of: Rollout) -> torch.Tensor:
        with torch.no_grad():
            return trainer._scores(trainer.policy, of).logprob_BGC * of.completions.mask_BGC

    mixed = exchange(rollout, [1, 2, 3, 0], longer)  # all rows go; row 0 of the spare to row 1
    assert mixed.examples[1] == longer.examples[0]
    width = mixed.completions.token_BGC.shape[-1]
    expected = logprob(longer)
    assert torch.allclose(logprob(mixed)[1, :, :width], expected[0, :, :width], atol=1e-5)


def test_no_reference_is_held_where_beta_is_zero(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_model, training_lines, tmp_path, beta=0.0)
    assert trainer._reference is None
    assert trainer.rollouts[0].reference_QGC is None


def test_a_rollout_serves_as_many_steps_as_set(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_model, training_lines, tmp_path, steps_per_rollout=2, learning_rate=1e-2)
    first = trainer.rollouts[0]
    batches = iter(trainer.get_train_dataloader())
    loss = trainer.micro_batch_loss(trainer.model, 0)
    assert first.old_QGC is not None
    old = first.old_QGC.clone()
    loss.backward()
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad.sign())
    trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    assert trainer.rollouts[0] is first  # the second step is on the same rollout
    trainer.micro_batch_loss(trainer.model, 0)
    assert torch.equal(first.old_QGC, old)
    sums = trainer.means.means(trainer.means.as_tensor())
    assert sums["clipped_share"] > 0
    trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    assert trainer.rollouts[0] is not first


def test_with_a_lora_adapter_the_base_is_the_reference(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    trainer = make(tiny_model, training_lines, tmp_path / "full")
    settings = trainer.config.model_dump(mode="json") | {"lora": {"rank": 4}}
    run = training_run(tiny_model, training_lines, tmp_path / "lora", settings)
    adapted = make_trainer(run, {}, None)
    assert isinstance(adapted, GrpoTrainer)
    names = {name for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in name and "language_model" in name for name in names)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:  # starts at zero: no change until it is trained
                parameter.fill_(0.1)
    rollout = trainer.rollouts[0]
    expected = trainer._reference_logprob(rollout)
    assert torch.allclose(adapted._reference_logprob(rollout), expected, atol=1e-6)
    with torch.no_grad():
        changed = adapted._scores(adapted.model, rollout).logprob_BGC
    assert not torch.allclose(changed, expected, atol=1e-3)


def test_a_saved_adapter_is_loaded_on_its_base(tiny_model: Path, tmp_path: Path) -> None:
    adapted = add_adapter(load_base(tiny_model, precision="fp32"), LoraConfig(rank=4, dropout=0))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.eval()
    adapted.save_pretrained(tmp_path)
    prompt_ids = torch.randint(10, 100, (1, 20))
    mask = torch.ones_like(prompt_ids)
    with torch.no_grad():
        expected = adapted(input_ids=prompt_ids, attention_mask=mask).logits
        merged = load_model(tmp_path, precision="fp32")
        found = merged(input_ids=prompt_ids, attention_mask=mask).logits
        base = load_model(tiny_model, precision="fp32")
        unadapted = base(input_ids=prompt_ids, attention_mask=mask).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, unadapted, atol=1e-2)
