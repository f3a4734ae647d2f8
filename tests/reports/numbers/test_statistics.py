"""Expected values: worked by hand or from the literature named beside them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from reports.numbers.statistics import (
    holm,
    mcnemar_exact,
    newcombe,
    paired,
    paired_interval,
    smallest_detectable_gap,
    wilson,
)
from storage.records.evaluation import Tally


def test_the_papers_score_has_wilsons_interval_from_61_5_to_67_4():
    low, high = wilson(Tally(645, 1000))
    assert 100 * low == pytest.approx(61.48, abs=0.01)
    assert 100 * high == pytest.approx(67.41, abs=0.01)


def test_wilsons_interval_is_wide_but_possible_where_questions_are_few():
    assert [100 * end for end in wilson(Tally(6, 10))] == pytest.approx([31.3, 83.2], abs=0.05)
    assert wilson(Tally(0, 5)).low == 0
    assert wilson(Tally(5, 5)).high == 1


@given(st.integers(1, 9000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_agrees_with_statsmodels(counts):
    expected = proportion_confint(*counts, method="wilson")
    assert wilson(Tally(*counts)) == pytest.approx(tuple(map(float, expected)), abs=1e-9)


def test_an_interval_of_no_questions_is_refused():
    with pytest.raises(ValueError, match="at least one question"):
        wilson(Tally(0, 0))


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"), [(35, 60, 0.013), (75, 100, 0.069), (125, 150, 0.148), (0, 0, 1)]
)
def test_the_same_gap_is_more_or_less_certain_by_the_number_of_flips(lost, gained, p_value):
    assert mcnemar_exact(lost, gained) == pytest.approx(p_value, abs=0.0005)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 900), st.integers(0, 900))
def test_mcnemars_p_is_that_of_scipys_binomial_test(lost, gained):
    expected = binomtest(gained, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar_exact(lost, gained) == pytest.approx(float(expected), rel=1e-6)


def test_five_thousand_flips_one_way_have_a_p_of_nothing_and_no_trouble():
    assert mcnemar_exact(0, 5000) == 0.0
    assert mcnemar_exact(2500, 2500) == 1.0


def test_a_paired_gap_of_60_gained_and_35_lost_spans_0_6_to_4_4_points():
    ends = paired_interval(35, 60, num_questions=1000)
    assert [100 * end for end in ends] == pytest.approx([0.6, 4.4], abs=0.02)


def test_models_that_never_disagree_still_have_an_interval():
    low, high = paired_interval(0, 0, num_questions=100)
    assert low < 0 < high


def test_paired_counts_all_four_outcomes():
    test = paired("1" * 5 + "1" * 2 + "0" * 3 + "0" * 10, "1" * 5 + "0" * 2 + "1" * 3 + "0" * 10)
    assert (test.both_right, test.only_first, test.only_second, test.both_wrong) == (5, 2, 3, 10)
    assert test.difference == pytest.approx(1 / 20)
    assert test.odds == pytest.approx(1.5)
    assert test.flip_share == pytest.approx(0.25)


def test_a_paired_test_of_different_questions_is_refused():
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired("10", "101")


def test_a_published_row_is_compared_unpaired_by_newcombes_interval():
    ends = newcombe(Tally(492, 1000), Tally(645, 1000))
    assert [100 * end for end in ends] == pytest.approx([10.98, 19.54], abs=0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(0, 400), st.integers(1, 400), st.integers(0, 400))
def test_newcombes_interval_agrees_with_statsmodels(n, right, m, more_right):
    counts = (min(more_right, m), m, min(right, n), n)
    expected = confint_proportions_2indep(*counts, method="newcomb", compare="diff")
    found = newcombe(Tally(min(right, n), n), Tally(min(more_right, m), m))
    assert found == pytest.approx(tuple(map(float, expected)), abs=1e-9)


@given(st.integers(20, 10_000), st.floats(0.01, 0.9))
def test_the_smallest_gap_solves_connors_equation(num_questions, flips):
    gap = smallest_detectable_gap(num_questions, flip_share=flips)
    most = num_questions**0.5 * flips - 1.959964 * flips**0.5 - 0.841621 * (flips - flips**2) ** 0.5
    assert (gap is None) == (most <= 0) or abs(most) < 1e-4
    if gap is not None:
        needed = 1.959964 * flips**0.5 + 0.841621 * (flips - gap * gap) ** 0.5
        assert num_questions**0.5 * gap == pytest.approx(needed, rel=1e-5)


@pytest.mark.parametrize(
    ("flip_share", "points"), [(0.06, 2.2), (0.13, 3.2), (0.19, 3.9), (0.31, 4.9)]
)
def test_the_resolution_of_a_thousand_questions_depends_on_the_flips(flip_share, points):
    gap = smallest_detectable_gap(1000, flip_share=flip_share)
    assert gap is not None
    assert 100 * gap == pytest.approx(points, abs=0.05)


def test_ten_questions_detect_nothing():
    assert smallest_detectable_gap(10, flip_share=0.1) is None


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_never_reorders():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@settings(max_examples=10, deadline=None)  # statsmodels takes 0.1 s to collect garbage
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_agrees_with_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected))
