"""What GRPO's settings do to a step."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from model.config import LoraConfig
from model.network.loading import load_model
from model.network.policy import add_adapter
from model.train.grpo_step import GrpoStep
from model.train.rollout import Rollout, Scored, replace_rows
from model.train.session import Session, open_session
from model.train.step_log import Means
from tests.model.conftest import training_run, write_training_lines

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


class Prepared(NamedTuple):
    """A run whose first step is prepared."""

    session: Session
    method: GrpoStep
    micro_batches: list[Rollout]
    means: Means

    @property
    def rollout(self) -> Rollout:
        return self.micro_batches[0]


def make(model: Path, lines: Path, output: Path, *, more: Any = None, **grpo: Any) -> Prepared:
    settings: dict[str, Any] = {
        "name": "small",
        "max_steps": 3,
        "save_steps": 3,
        "prompts_per_device": BATCH,
        "prompts_per_step": BATCH,
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
    } | (more or {})
    run = training_run(model, lines, output, settings)
    session, means = open_session(run, None), Means()
    method = GrpoStep(session)
    return Prepared(session, method, method.prepare(1, means), means)


def is_even(prepared: Prepared) -> list[bool]:
    return [int(name) % 2 == 0 for name in prepared.rollout.drawn.ids]


def test_groups_that_score_alike_are_kept_with_advantage_zero(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    prepared = make(tiny_model, training_lines, tmp_path)
    even = torch.tensor(is_even(prepared))
    assert even.any()
    assert (~even).any()
    assert (prepared.rollout.advantage_QG[even] == 0).all()
    # Every completion weighs 1 / (4 prompts x 3 completions).
    weight_QG = prepared.rollout.weight_QGC.sum(-1)
    assert torch.allclose(weight_QG, torch.full((BATCH, 3), 1 / 12))


def test_skipped_groups_weigh_nothing_and_the_others_share_the_mean(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    prepared = make(tiny_model, training_lines, tmp_path, zero_variance="skip")
    even = torch.tensor(is_even(prepared))
    weight_QG = prepared.rollout.weight_QGC.sum(-1)
    assert (weight_QG[even] == 0).all()
    assert torch.allclose(weight_QG[~even], 1 / ((~even).sum() * 3.0))


def test_resampled_groups_are_exchanged_for_other_prompts(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    kept = make(tiny_model, training_lines, tmp_path / "a")
    prepared = make(
        tiny_model, training_lines, tmp_path / "b", zero_variance="resample", resample_attempts=12
    )
    assert any(is_even(kept))
    assert not any(is_even(prepared))
    for row, even in enumerate(is_even(kept)):
        if not even:  # what taught something stays where it was
            assert prepared.rollout.scored.texts[row] == kept.rollout.scored.texts[row]
    assert prepared.means.sums["resampled_share"].tolist() == [sum(is_even(kept)), BATCH]


def test_an_exchanged_prompt_is_scored_as_it_was_alone(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    scored = make(tiny_model, training_lines, tmp_path / "a").rollout.scored
    prepared = make(tiny_model, training_lines, tmp_path / "b", max_completion_tokens=9)
    longer = prepared.rollout.scored

    def logprob(of: Scored) -> torch.Tensor:
        with torch.no_grad():
            scores = prepared.method._scores(prepared.session.policy, of)
        return scores.logprob_BGC * of.completions.mask_BGC

    mixed = replace_rows(
        scored, [1, 2, 3, 0], longer, pad_id=0
    )  # all rows go; row 0 of the spare to row 1
    assert mixed.drawn.examples[1] == longer.drawn.examples[0]
    width = mixed.completions.token_BGC.shape[-1]
    expected = logprob(longer)
    assert torch.allclose(logprob(mixed)[1, :, :width], expected[0, :, :width], atol=1e-5)


@pytest.fixture
def uneven_lines(tmp_path: Path) -> Path:
    """Prompts of four lengths."""
    rows: list[str] = []
    for n, seconds in enumerate((0.6, 1.3, 2.1, 2.9)):
        lines = write_training_lines(tmp_path / f"lines-{n}", 2, seconds=seconds)
        rows += lines.read_text().splitlines()
    records = [json.loads(row) | {"id": n} for n, row in enumerate(rows)]
    path = tmp_path / "uneven.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def by_position(prepared: Prepared) -> dict[int, tuple[list[str], list[float]]]:
    """What was sampled and earned for each prompt of the step."""
    scored = [part.scored for part in prepared.micro_batches]
    return {
        position: (part.texts[row], part.reward_QG[row].tolist())
        for part in scored
        for row, position in enumerate(part.drawn.positions)
    }


def gradient(prepared: Prepared) -> torch.Tensor:
    """Of the step's loss, all parameters in one row."""
    policy = prepared.session.policy
    policy.train()
    for part in prepared.micro_batches:
        prepared.method.loss(part, Means()).backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@pytest.mark.parametrize("size", [1, 2])
def test_a_step_is_the_same_in_whatever_groups_it_is_sampled_and_learned(
    size: int, tiny_model: Path, uneven_lines: Path, tmp_path: Path
) -> None:
    """The parity reward makes half of the groups teach nothing; the others differ in length."""
    whole = make(tiny_model, uneven_lines, tmp_path / "whole")
    more = {"prompts_per_device": size}
    parts = make(tiny_model, uneven_lines, tmp_path / "parts", more=more)
    assert len(parts.micro_batches) == BATCH // size
    assert by_position(parts) == by_position(whole)
    expected = gradient(whole)
    assert expected.norm() > 0
    assert torch.allclose(gradient(parts), expected, atol=1e-6)


def test_prompts_of_like_length_are_learned_from_together(
    tiny_model: Path, uneven_lines: Path, tmp_path: Path
) -> None:
    more = {"prompts_per_device": 2}
    prepared = make(tiny_model, uneven_lines, tmp_path, more=more)
    scored = [part.scored for part in prepared.micro_batches]
    lengths = [
        part.drawn.prompt["prompt_mask"].sum(-1) + part.completions.mask_BGC.sum((1, 2))
        for part in scored
    ]
    assert min(lengths[0].tolist()) >= max(lengths[1].tolist())


def test_memory_that_runs_out_halves_the_rollout_and_changes_no_completion(
    tiny_model: Path, uneven_lines: Path, tmp_path: Path
) -> None:
    prepared = make(tiny_model, uneven_lines, tmp_path)
    sampler = prepared.method._sampler
    drawn = prepared.rollout.scored.drawn
    sizes: list[int] = []

    def run_out(module: Any, arguments: Any, named: Any) -> None:
        del module, arguments
        sizes.append(len(named.get("inputs_embeds", named.get("input_ids"))))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError

    network: Any = prepared.session.unwrapped.network
    network.model.language_model.register_forward_pre_hook(run_out, with_kwargs=True)
    found = sampler.sample(drawn)
    assert torch.equal(found.token_BGC, prepared.rollout.scored.completions.token_BGC)
    assert sizes[:3] == [4, 2, 1]
    sizes.clear()
    sampler.sample(drawn)
    assert set(sizes) == {1}  # the size that went well is kept


def test_no_reference_is_held_where_beta_is_zero(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    prepared = make(tiny_model, training_lines, tmp_path, beta=0.0)
    assert prepared.session.reference is None
    assert prepared.rollout.reference_QGC is None


def test_a_rollout_serves_as_many_steps_as_set(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    grpo = {"steps_per_rollout": 2, "learning_rate": 1e-2}
    prepared = make(tiny_model, training_lines, tmp_path, more={"save_steps": 2}, **grpo)
    first = prepared.rollout
    assert prepared.method._old == {}  # the policy that samples is the one that learns
    loss = prepared.method.loss(first, Means())
    sampled_under = prepared.method._old[tuple(first.drawn.positions)].clone()
    loss.backward()
    with torch.no_grad():
        for parameter in prepared.session.policy.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad.sign())
    means = Means()
    second = prepared.method.prepare(2, means)[0]
    assert second is first  # the second step is on the same rollout
    prepared.method.loss(second, means)
    assert torch.equal(prepared.method._old[tuple(first.drawn.positions)], sampled_under)
    clipped, number = means.sums["clipped_share"].tolist()
    assert 0 < clipped <= number
    assert prepared.method.prepare(3, Means())[0].scored is not first.scored


def test_with_a_lora_adapter_the_base_is_the_reference(
    tiny_model: Path, training_lines: Path, tmp_path: Path
) -> None:
    full = make(tiny_model, training_lines, tmp_path / "full")
    lora = {"lora": {"rank": 4}}
    adapted = make(tiny_model, training_lines, tmp_path / "lora", more=lora)
    policy = adapted.session.policy
    names = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert names
    assert all("lora_" in name and "language_model" in name for name in names)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:  # starts at zero: no change until it is trained
                parameter.fill_(0.1)
    scored = full.rollout.scored
    expected = full.method._reference_logprob(scored)
    found = adapted.method._reference_logprob(scored)
    assert expected is not None
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-6)
    with torch.no_grad():
        changed = adapted.method._scores(policy, scored).logprob_BGC
    assert not torch.allclose(changed, expected, atol=1e-3)


def test_a_saved_adapter_is_loaded_on_its_base(tiny_model: Path, tmp_path: Path) -> None:
    adapted = add_adapter(load_model(tiny_model, precision="fp32"), LoraConfig(rank=4, dropout=0))
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
