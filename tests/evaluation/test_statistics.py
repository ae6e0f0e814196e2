"""Intervals, nulls and tests of shares: against truths that are known, formulas written out again, and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from caa_lens.evaluation.statistics import (
    Estimate,
    against_nulls,
    balanced,
    direction,
    mcnemar,
    newcombe,
    quantile_interval,
    resampled,
    upper_limit,
    wilson,
)

VALUES = st.lists(st.floats(-10, 10), min_size=2, max_size=12)


def test_a_quantile_interval_leaves_out_two_and_a_half_on_either_side() -> None:
    assert quantile_interval(range(1001)) == (25.0, 975.0)
    assert all(math.isnan(end) for end in (*quantile_interval([]), *quantile_interval([1.0, math.nan])))


def test_an_estimate_names_its_columns() -> None:
    found = Estimate(1.0, 0.5, 1.5)
    assert found.columns("effect") == {"effect": 1.0, "effect_low": 0.5, "effect_high": 1.5}
    assert list(found.columns("effect_balanced", "balanced")) == ["effect_balanced", "balanced_low", "balanced_high"]


# Intervals over items


def test_the_plain_interval_is_the_percentile_bootstrap() -> None:
    values = np.array([0.0, 1.0, 5.0, 2.0])
    draws = np.random.default_rng(7).integers(0, 4, (500, 4))
    expected = np.quantile([np.mean([values[place] for place in draw]) for draw in draws], [0.025, 0.975])
    assert resampled(4, 500, 7).mean(values) == pytest.approx((2.0, *expected))


@settings(max_examples=40, deadline=None)
@given(VALUES, st.floats(0.1, 5), st.floats(-5, 5))
def test_intervals_move_and_stretch_with_the_values(values: list[float], scale: float, shift: float) -> None:
    items, own = resampled(len(values), 100), np.array(values)
    one, other = items.mean(own), items.mean(own * scale + shift)
    assert other == pytest.approx([each * scale + shift for each in one], abs=1e-9)
    assert one.low - 1e-9 <= one.high and items.mean(own * 0 + shift) == pytest.approx((shift,) * 3)


def test_each_letter_is_drawn_from_its_own_and_counts_half() -> None:
    letters = np.array(["A"] * 9 + ["B"])
    items = resampled(letters, 200, 1)
    assert all(set(draw) <= set(range(9)) for draw in items.draws_of_halves[0].tolist())
    assert set(items.draws_of_halves[1].ravel()) == {9} and items.draws.shape == (200, 10)
    a_liking = np.array([1.0] * 9 + [-1.0])  # what a vector that prefers a letter does
    assert items.balanced(a_liking) == (0.0, 0.0, 0.0) and items.mean(a_liking).value == pytest.approx(0.8)
    assert items.mean(a_liking) == pytest.approx((0.8, 0.8, 0.8)), "every resampling has nine of A"


@pytest.mark.parametrize(("letters", "n_halves"), [("AAAA", 0), ("ABAB", 2), ("CACA", 0), ("ABCA", 2), ("", 0)])
def test_what_can_be_balanced(letters: str, n_halves: int) -> None:
    items = resampled(np.array(list(letters)), 50)
    assert len(items.halves) == n_halves
    values = np.arange(len(letters), dtype=float)
    assert math.isnan(items.balanced(values).value) == (n_halves == 0)
    if letters:
        even = items.balanced_or_plain(values)
        assert even == (items.balanced(values) if n_halves else items.mean(values))
    assert math.isnan(balanced(values, ()))


def test_without_letters_balanced_is_plain_and_none_are_the_same_as_empty() -> None:
    values = np.array([1.0, 4.0, 2.0])
    assert resampled(3).balanced(values) == resampled(3).mean(values) == resampled(np.array(["", "", ""])).mean(values)
    assert resampled(np.array([None] * 3)).balanced(values) == resampled(3).mean(values)


def test_values_that_are_missing_are_left_out_of_each_resampling() -> None:
    items = resampled(3, 400)
    found = items.mean_of_known(np.array([1.0, math.nan, 3.0]))
    assert found == (2.0, 1.0, 3.0)
    assert all(math.isnan(each) for each in items.mean_of_known(np.full(3, math.nan)))


def test_a_ratio_is_of_sums() -> None:
    items = resampled(2, 400)
    assert items.ratio(np.array([1, 3]), np.array([10, 10])) == pytest.approx((0.2, 0.1, 0.3))


def test_no_resamplings_are_refused() -> None:
    with pytest.raises(ValueError, match="n_bootstrap is 0: an interval needs at least 1 resampling"):
        resampled(3, 0)


@pytest.mark.parametrize("by_letter", [False, True])
def test_the_interval_of_many_items_covers_the_truth(by_letter: bool) -> None:
    """Of 600 sets of 200 items with mean 0.3, 95 % of the intervals hold it; three standard errors are .027."""
    generator = np.random.default_rng(0)
    letters = np.array(["A", "B"] * 100) if by_letter else 200
    held = 0
    for seed in range(600):
        found = resampled(letters, 500, seed).balanced(generator.normal(0.3, 1, 200))
        held += found.low <= 0.3 <= found.high
    assert 0.923 <= held / 600 <= 0.977


# Effects beside nulls


@settings(max_examples=60, deadline=None)
@given(st.floats(-5, 5), VALUES)
def test_laws_of_an_effect_beside_nulls(effect: float, nulls: list[float]) -> None:
    n = len(nulls)
    up, down, both = (against_nulls(effect, nulls, tail=tail) for tail in ("greater", "less", "two-sided"))  # pyright: ignore[reportArgumentType]
    assert up.n == n and (up.low, up.high) == (down.low, down.high) == (both.low, both.high) == quantile_interval(nulls)
    mirrored = against_nulls(-effect, [-each for each in nulls], tail="less")
    assert (mirrored.beaten, mirrored.p) == (up.beaten, up.p)
    assert up.beaten + down.beaten + np.mean(np.array(nulls) == effect) == pytest.approx(1)
    for found in (up, down, both):
        assert 0 < found.p <= 1 and found.p == pytest.approx((1 + n - round(found.beaten * n)) / (1 + n))
    assert both.beaten == np.mean([abs(each) < abs(effect) for each in nulls])


def test_nothing_is_beaten_where_nothing_was_compared() -> None:
    none = against_nulls(1.0, [])
    assert none.n == 0 and all(math.isnan(each) for each in none[1:])
    unknown = against_nulls(math.nan, [1.0, 2.0])
    assert unknown.n == 2 and unknown.low > 1 and math.isnan(unknown.beaten) and math.isnan(unknown.p)
    assert math.isnan(against_nulls(1.0, [0.0, math.nan]).beaten)


def test_the_columns_say_which_share_it_is() -> None:
    found = against_nulls(2.0, [0.0, 1.0, 3.0, 4.0], tail=direction(-1.0))
    expected = {"n_random": 4, "random_low": 0.075, "random_high": 3.925, "beats_random": 0.5}
    assert found.columns("random") == pytest.approx(expected)
    assert list(found.columns("permuted", "outsizes"))[-1] == "outsizes_permuted"


@pytest.mark.parametrize("tail", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("n", [19, 39])
def test_a_vector_like_its_nulls_passes_one_time_in_twenty(tail: str, n: int) -> None:
    """Exchangeable with its nulls, an effect has p <= .05 in at most 5 of 100 cases; 3 standard errors of 2000 more."""
    generator = np.random.default_rng(n)
    drawn = generator.standard_t(3, (2000, n + 1)) - 1  # heavy tails, and nulls that are not around zero
    p = np.array([against_nulls(row[0], row[1:], tail=tail).p for row in drawn])  # pyright: ignore[reportArgumentType]
    for level in (0.05, 0.1, 0.25):
        assert (p <= level).mean() <= level + 3 * (level * (1 - level) / 2000) ** 0.5
    assert (p <= 0.05).mean() > 0.035, "and it is not wasteful where 1 + n is a multiple of 20"


def test_a_direction_taken_from_the_effect_is_no_test() -> None:
    """Why `beyond_` of ActAdd's controls is no `beats_`: half of all nulls are beyond most of their like."""
    drawn = np.random.default_rng(0).normal(size=(2000, 20))
    p = [against_nulls(row[0], row[1:], tail=direction(row[0])).p for row in drawn]
    assert np.mean(np.array(p) <= 0.05) > 0.08


# Shares


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.data())
def test_wilsons_interval_is_scipys(n: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n))
    theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.data())
def test_the_upper_limit_is_clopper_and_pearsons(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    assert upper_limit(count, n) == pytest.approx(stats.binomtest(count, n).proportion_ci(method="exact").high)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_is_the_binomial_one(gained: int, lost: int) -> None:
    expected = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def paired(yes_yes: int, lost: int, gained: int, no_no: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (yes_yes, lost, gained, no_no)
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)


def test_newcombes_interval_is_the_published_one() -> None:
    """The first example of his paper (1998, 17:2635, table II, method 10), as before minus after."""
    before, after = paired(36, 12, 2, 0)
    found = newcombe(after, before)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 30)] * 4).filter(any))
def test_newcombes_interval_is_his_formula(table: tuple[int, int, int, int]) -> None:
    before, after = paired(*table)
    found = newcombe(after, before)
    assert (found.low, found.high) == pytest.approx(by_formula(*table), abs=1e-9)
    other = newcombe(before, after)
    assert (other.value, other.low, other.high) == pytest.approx((-found.value, -found.high, -found.low), abs=1e-9)


def by_formula(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    n = a + b + c + d
    first, second = ((a + b) / n, *wilson(a + b, n)), ((a + c) / n, *wilson(a + c, n))
    margin = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    product = a * d - b * c
    phi = 0.0 if not margin else (max(product - n / 2, 0) if product > 0 else product) / margin
    below = (first[0] - first[1], second[2] - second[0])
    above = (first[2] - first[0], second[0] - second[1])
    lower, upper = (math.sqrt(x**2 - 2 * phi * x * y + y**2) for x, y in (below, above))
    return first[0] - second[0] - lower, first[0] - second[0] + upper


def test_newcombes_interval_covers_the_truth() -> None:
    """Paired answers of which 20 % are gained and 10 % lost: the change is +.1 in 95 % of the intervals."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        counts = generator.multinomial(40, [0.4, 0.1, 0.2, 0.3])
        found = newcombe(*paired(*counts.tolist()))
        held += found.low <= 0.1 <= found.high
    assert 0.935 <= held / 1000 <= 0.985


def test_no_items_have_no_share() -> None:
    nothing = np.zeros(0)
    assert all(math.isnan(each) for each in (*wilson(0, 0), *newcombe(nothing, nothing), *resampled(0).mean(nothing)))
