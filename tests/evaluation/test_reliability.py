"""Agreement, split halves and separability against loops over all pairs, planted directions and hand-made cases."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caa_lens.evaluation.reliability import directional_agreement, separability, split_half
from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.vectors.vectors import Provenance

PROVENANCE = Provenance.unknown("toy")


def make(positive: Any, negative: Any = 0.0, layers: tuple[int, ...] = ()) -> ContrastActivations:
    """Activations ``[pair, layer, d_model]``, or of one layer ``[pair, d_model]``."""
    positive = torch.as_tensor(positive, dtype=torch.float32)
    positive = positive[:, None] if positive.ndim == 2 else positive
    negative = torch.as_tensor(negative, dtype=torch.float32)
    negative = negative[:, None] if negative.ndim == 2 else negative
    negative = negative.expand_as(positive)
    layers = layers or tuple(range(positive.shape[1]))
    return ContrastActivations(positive, negative, layers, tuple(range(len(positive))), PROVENANCE, "kind")


def noisy(n: int, d_model: int, seed: int, size: float = 1.0, n_layers: int = 1) -> ContrastActivations:
    """Activations that differ by a planted direction of this length and vary with a standard deviation of 1."""
    generator = torch.Generator().manual_seed(seed)
    positive, negative = torch.randn(2, n, n_layers, d_model, generator=generator)
    planted = torch.ones(d_model) * size / d_model**0.5
    return make(positive + planted, negative)


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_columns_and_layers() -> None:
    activations = noisy(6, 4, 0, n_layers=2)
    activations = make(activations.positive, activations.negative, (3, 5))
    expected = {
        "with_mean between_pairs": directional_agreement(activations),
        "cosine cosine_low cosine_high": split_half(activations, n_splits=3),
        "d_prime share_ordered": separability(activations, activations),
    }
    for columns, found in expected.items():
        assert list(found) == ["layer", "n_pairs", *columns.split()]
        assert found["layer"].tolist() == [3, 5] and found["n_pairs"].tolist() == [6, 6]


def test_agreement_by_hand() -> None:
    found = directional_agreement(make([[2.0, 0], [0, 2], [2, 0]])).iloc[0]
    root = 5**0.5
    assert found["with_mean"] == pytest.approx((2 / root + 1 / root + 2 / root) / 3)
    assert found["between_pairs"] == pytest.approx(1 / 3)
    same = directional_agreement(make([[1.0, 2], [3, 6]])).iloc[0]
    assert (same["with_mean"], same["between_pairs"]) == pytest.approx((1, 1))


@pytest.mark.parametrize("n", [2, 3, 9])
@pytest.mark.parametrize("seed", range(3))
def test_agreement_is_the_mean_over_all_pairs_of_pairs(n: int, seed: int) -> None:
    activations = noisy(n, 5, seed, n_layers=2)
    found = directional_agreement(activations)
    for column in range(2):
        differences = (activations.positive - activations.negative)[:, column].double().numpy()
        between = [cos(a, b) for a, b in permutations(differences, 2)]
        with_mean = [cos(each, differences.mean(axis=0)) for each in differences]
        assert found["between_pairs"][column] == pytest.approx(np.mean(between))
        assert found["with_mean"][column] == pytest.approx(np.mean(with_mean))


def test_differences_that_have_nothing_in_common() -> None:
    found = directional_agreement(noisy(100, 4000, 0, size=0)).iloc[0]
    assert abs(found["between_pairs"]) < 0.01 and found["with_mean"] == pytest.approx(0.1, abs=0.01)


def test_split_half_of_equal_pairs_is_one_and_of_nothing_is_zero() -> None:
    same = split_half(make([[1.0, 2]] * 5)).iloc[0]
    assert (same["cosine"], same["cosine_low"], same["cosine_high"]) == pytest.approx((1, 1, 1))
    nothing = split_half(noisy(40, 500, 0, size=0)).iloc[0]
    assert abs(nothing["cosine"]) < 0.1
    some = split_half(noisy(40, 500, 0, size=5)).iloc[0]
    assert 0 < some["cosine_low"] < some["cosine"] < some["cosine_high"] < 1


def test_split_half_is_a_loop_over_random_halves() -> None:
    """The distribution, by another generator: means of the halves of 7 pairs, of 3 and 4."""
    activations = noisy(7, 5, 1, size=2)
    differences = (activations.positive - activations.negative)[:, 0].double().numpy()
    generator = np.random.default_rng(0)
    slow = []
    for _ in range(4000):
        order = generator.permutation(7)
        slow.append(cos(differences[order[:3]].mean(axis=0), differences[order[3:]].mean(axis=0)))
    found = split_half(activations, n_splits=4000).iloc[0]
    assert found["cosine"] == pytest.approx(np.mean(slow), abs=0.02)
    assert (found["cosine_low"], found["cosine_high"]) == pytest.approx(
        tuple(np.quantile(slow, [0.025, 0.975])), abs=0.04
    )


def test_two_pairs_have_one_split() -> None:
    found = split_half(make([[1.0, 0], [1, 1]]), n_splits=9).iloc[0]
    assert (found["cosine"], found["cosine_low"], found["cosine_high"]) == pytest.approx((0.5**0.5,) * 3)


def test_splits_are_seeded_and_shared_by_the_layers() -> None:
    activations = noisy(9, 4, 2)
    both = make(activations.positive.repeat(1, 2, 1), activations.negative.repeat(1, 2, 1))
    found = split_half(both, seed=5)
    pd.testing.assert_frame_equal(found, split_half(both, seed=5))
    assert found["cosine"][0] == found["cosine"][1] != split_half(both, seed=6)["cosine"][0]


@pytest.mark.parametrize(("n", "d_model", "size"), [(40, 500, 5), (200, 50, 2), (1000, 50, 2)])
def test_halves_are_as_alike_as_their_noise_allows(n: int, d_model: int, size: float) -> None:
    """A half's mean is the planted direction and noise of variance 2 / (n / 2) in each of d_model directions."""
    expected = size**2 / (size**2 + d_model * 4 / n)
    assert split_half(noisy(n, d_model, 0, size))["cosine"].item() == pytest.approx(expected, abs=0.05)


def test_separability_by_hand() -> None:
    """Projections on the first axis: 3, 5 against 0, 2, so means 3 apart, both variances 2; all pairs in order."""
    held_out = make([[3.0, 7], [5, -4]], [[0.0, 1], [2, 9]])
    found = separability(make([[10.0, 0]]), held_out).iloc[0]
    assert found["d_prime"] == pytest.approx(3 / 2**0.5) and found["share_ordered"] == 1
    crossed = make([[3.0, 0], [5, 0], [1, 0]], [[4.0, 0], [1, 0], [1, 0]])
    assert separability(make([[1.0, 0]]), crossed)["share_ordered"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(4))
def test_separability_is_what_projections_say(seed: int) -> None:
    train, held_out = noisy(12, 6, seed, n_layers=2), noisy(9, 6, seed + 100, n_layers=2)
    found = separability(train, held_out)
    for column in range(2):
        direction = (train.positive - train.negative)[:, column].double().mean(0).numpy()
        positive, negative = (
            side[:, column].double().numpy() @ direction for side in (held_out.positive, held_out.negative)
        )
        pooled = np.sqrt((positive.var(ddof=1) + negative.var(ddof=1)) / 2)
        assert found["d_prime"][column] == pytest.approx((positive.mean() - negative.mean()) / pooled)
        assert found["share_ordered"][column] == (positive > negative).mean()


def test_a_planted_direction_separates_as_far_as_it_is_long() -> None:
    found = separability(noisy(2000, 8, 0, size=2), noisy(2000, 8, 1, size=2)).iloc[0]
    assert found["d_prime"] == pytest.approx(2, abs=0.1)
    assert found["share_ordered"] == pytest.approx(0.921, abs=0.02)  # P(N(2, sqrt 2) > 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_laws(seed: int, scale: float) -> None:
    train, held_out = noisy(7, 5, seed), noisy(6, 5, seed + 2000)

    def both(change: Callable[[ContrastActivations], ContrastActivations]) -> list[pd.DataFrame]:
        one, other = change(train), change(held_out)
        return [directional_agreement(one), split_half(one, 20), separability(one, other)]

    plain = both(lambda each: each)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)))[0]
    unchanged = {
        "scaling": lambda each: make(each.positive * scale, each.negative * scale),
        "rotating": lambda each: make(each.positive @ rotation, each.negative @ rotation),
        "exchanging positive and negative everywhere": lambda each: make(each.negative, each.positive),
    }
    for change in unchanged.values():
        for one, other in zip(plain, both(change), strict=True):
            pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)
    turned = separability(train, make(held_out.negative, held_out.positive))
    assert turned["d_prime"].item() == pytest.approx(-plain[2]["d_prime"].item())
    assert turned["share_ordered"].item() == pytest.approx(1 - plain[2]["share_ordered"].item())


def test_one_pair() -> None:
    one = make([[1.0, 2]])
    agreement, halves, apart = directional_agreement(one), split_half(one), separability(one, one)
    assert agreement["with_mean"].item() == pytest.approx(1) and np.isnan(agreement["between_pairs"].item())
    assert halves[["cosine", "cosine_low", "cosine_high"]].isna().all(axis=None)
    assert np.isnan(apart["d_prime"].item()) and apart["share_ordered"].item() == 1


def test_a_zero_difference_has_no_direction() -> None:
    some = make([[[1.0, 0], [1, 0]], [[0, 0], [1, 1]], [[1, 0], [1, 0]]])
    found = directional_agreement(some)
    assert found.loc[0, ["with_mean", "between_pairs"]].isna().all()
    assert found.loc[1, ["with_mean", "between_pairs"]].notna().all(), "the other layer is as it is"
    cancelling = make([[1.0, 3], [-1, -3]])
    assert np.isnan(directional_agreement(cancelling)["with_mean"].item())
    assert directional_agreement(cancelling)["between_pairs"].item() == pytest.approx(-1)
    assert split_half(make([[0.0, 0]] * 4))[["cosine", "cosine_low", "cosine_high"]].isna().all(axis=None)
    apart = separability(cancelling, some_pairs := make([[1.0, 2], [3, 4]]))
    assert apart[["d_prime", "share_ordered"]].isna().all(axis=None) and apart["n_pairs"].item() == len(
        some_pairs.positive
    )


def test_projections_that_do_not_vary_have_no_d_prime() -> None:
    found = separability(make([[0.3, 0.1]]), make([[0.1, 0.7]] * 3)).iloc[0]
    assert np.isnan(found["d_prime"]) and found["share_ordered"] == 1


def test_errors_say_what_was_given() -> None:
    some, none = make([[1.0, 2]]), make(torch.zeros(0, 1, 2))
    message = "the activations 'kind' are of no pairs: at least one is needed"
    for call in (directional_agreement, split_half, lambda each: separability(each, some)):
        with pytest.raises(ValueError, match=message):
            call(none)
    with pytest.raises(ValueError, match=message):
        separability(some, none)
    with pytest.raises(ValueError, match="n_splits is 0: at least 1 split is needed"):
        split_half(some, n_splits=0)
    with pytest.raises(
        ValueError, match="the training pairs' activations have layer 4 and the held-out ones layer 0: ext"
    ):
        separability(make([[1.0, 2]], layers=(4,)), some)
    with pytest.raises(ValueError, match="have d_model 2 and the held-out ones d_model 3"):
        separability(some, make([[1.0, 2, 3]]))
