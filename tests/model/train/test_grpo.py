"""GRPO's arithmetic, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import GrpoConfig
from model.train.grpo import (
    AdvantageScale,
    group_advantages,
    is_zero_variance,
    kl_estimate,
    loss_denominator,
    loss_weights,
    token_loss,
)

ALL = torch.ones(1, dtype=torch.bool)


def test_advantages_are_centred_and_scaled_within_the_group() -> None:
    """Rewards 2, 2, 1, 1: mean 1.5, sample standard deviation sqrt(1/3) = 0.57735."""
    advantage = group_advantages(torch.tensor([[2.0, 2.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0]]))
    expected = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    assert advantage[0].tolist() == pytest.approx([expected, expected, -expected, -expected])
    assert advantage[1].tolist() == [0, 0, 0, 0]


def test_advantages_can_be_scaled_by_the_batch_or_not_at_all() -> None:
    """Centred: -1, 1, -3, 3; their sample variance is (1 + 1 + 9 + 9) / 3."""
    reward = torch.tensor([[0.0, 2.0], [0.0, 6.0]])
    assert group_advantages(reward, scale="none").tolist() == [[-1, 1], [-3, 3]]
    by_batch = group_advantages(reward, scale="batch")
    assert by_batch[1, 1].item() == pytest.approx(3 / (math.sqrt(20 / 3) + 1e-4))


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=16))
def test_the_mean_advantage_of_a_group_is_zero(rewards: list[float]) -> None:
    for scale in ("group", "batch", "none"):
        advantage = group_advantages(torch.tensor([rewards]), scale=scale)
        assert abs(float(advantage.mean())) < 1e-3


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_that_scores_alike_teaches_exactly_nothing(scale: AdvantageScale) -> None:
    """`make test` failed in a fresh clone: rounding of the mean made advantages of 0.0024."""
    reward = torch.tensor([[2.8606581687927246] * 3, [0.1] * 3])
    advantage = group_advantages(reward, scale=scale)
    assert advantage.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert advantage.dtype == torch.float32


def test_a_group_that_scores_alike_stays_at_zero_beside_one_that_does_not() -> None:
    reward = torch.tensor([[2.8606581687927246] * 3, [0.0, 1.0, 2.0]])
    for scale in ("group", "batch", "none"):
        alike, other = group_advantages(reward, scale=scale).tolist()
        assert alike == [0, 0, 0]
        assert other[0] < other[1] == 0 < other[2]


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="group_size"):
        GrpoConfig(group_size=1)


def test_zero_variance_means_that_all_completions_score_alike() -> None:
    reward = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert is_zero_variance(reward).tolist() == [True, False, True]


def test_the_kl_estimate_is_zero_where_the_models_agree_and_positive_elsewhere() -> None:
    """At a difference of 1 nat: e - 1 - 1 = 0.71828; at -1: 1/e + 1 - 1 = 0.36788."""
    kl = kl_estimate(torch.tensor([-2.0, -2.0, -1.0]), torch.tensor([-2.0, -1.0, -2.0]))
    assert kl.tolist() == pytest.approx([0, math.e - 2, 1 / math.e])


def test_a_token_that_the_policy_has_lost_overflows_no_kl() -> None:
    policy = torch.tensor([[[-200.0, -1.0]]], requires_grad=True)
    estimate = kl_estimate(policy, torch.full((1, 1, 2), -1.0))
    estimate.sum().backward()
    assert estimate.tolist() == [[[pytest.approx(math.exp(20) - 21), 0.0]]]
    assert torch.isfinite(policy.grad).all()


def test_the_first_step_of_a_rollout_has_ratio_one_and_the_policy_gradient() -> None:
    logprob = torch.tensor([[[-1.0, -2.0]]], requires_grad=True)
    terms = token_loss(
        logprob,
        GrpoConfig(beta=0.04, clip_low=0.2, clip_high=0.2),
        old_QGC=logprob.detach(),
        reference_QGC=torch.tensor([[[-1.0, -1.0]]]),
        advantage_QG=torch.tensor([[0.5]]),
    )
    assert terms.loss_QGC[0, 0].tolist() == pytest.approx([-0.5, -0.5 + 0.04 * (math.e - 2)])
    terms.loss_QGC.sum().backward()
    # d(-ratio A) = -A; d(KL) = 1 - exp(reference - logprob).
    assert logprob.grad is not None
    assert logprob.grad[0, 0].tolist() == pytest.approx([-0.5, -0.5 + 0.04 * (1 - math.e)])


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "clipped"),
    [
        (1.5, 1.0, -1.28, True),  # too far up: cut at 1 + clip_high
        (1.5, -1.0, 1.5, False),  # the worse of the two counts
        (0.5, -1.0, 0.8, True),  # too far down: cut at 1 - clip_low
        (0.5, 1.0, -0.5, False),
        (1.1, 1.0, -1.1, False),
    ],
)
def test_the_ratio_is_clipped_on_the_side_that_would_gain(
    ratio: float, advantage: float, expected: float, *, clipped: bool
) -> None:
    terms = token_loss(
        torch.full((1, 1, 1), math.log(ratio)),
        GrpoConfig(beta=0.0, clip_low=0.2, clip_high=0.28),
        old_QGC=torch.zeros(1, 1, 1),
        reference_QGC=None,
        advantage_QG=torch.full((1, 1), advantage),
    )
    assert terms.loss_QGC.item() == pytest.approx(expected)
    assert terms.clipped_QGC.item() is clipped


def test_each_aggregation_weighs_tokens_as_its_paper_says() -> None:
    """Two completions of 1 and 3 tokens, of at most 5."""
    mask = torch.tensor([[[True, False, False], [True, True, True]]])

    def weights(aggregation: str) -> list[list[float]]:
        settings = {"loss_aggregation": aggregation, "max_completion_tokens": 5}
        config = GrpoConfig.model_validate(settings)
        weight = loss_weights(mask, ALL, config) / loss_denominator(mask, ALL, config)
        return weight[0].tolist()

    sixth, quarter, tenth = (pytest.approx(1 / n) for n in (6, 4, 10))
    assert weights("sequence") == [[0.5, 0, 0], [sixth, sixth, sixth]]
    assert weights("token") == [[quarter, 0, 0], [quarter, quarter, quarter]]
    assert weights("constant") == [[tenth, 0, 0], [tenth, tenth, tenth]]


def test_a_skipped_prompt_is_left_out_of_the_mean() -> None:
    mask = torch.ones(2, 2, 1, dtype=torch.bool)
    keep = torch.tensor([True, False])
    config = GrpoConfig(loss_aggregation="sequence", max_completion_tokens=1)
    weight, total = (of(mask, keep, config) for of in (loss_weights, loss_denominator))
    assert (weight / total).flatten().tolist() == [0.5, 0.5, 0, 0]
