"""Estimators: what each does to swapped, scaled and planted data, and that all have the mean difference's norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from plain import assert_close_by_norm

import caa_lens as caa
from caa_lens.analysis import cosine
from caa_lens.extraction.estimators import ESTIMATORS, estimate
from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.vectors.vectors import Provenance, SteeringVectors, random_like

PROVENANCE = Provenance.unknown("toy", method="mean difference", versions={"torch": "2"}, n_pairs=3)
ALL = [*ESTIMATORS, "random"]
OTHERS = [name for name in ESTIMATORS if name != "mean difference"]


def make(positive: torch.Tensor, negative: torch.Tensor, layers: tuple[int, ...] | None = None) -> ContrastActivations:
    """Activations ``[pair, layer, d_model]``, or of one layer ``[pair, d_model]``."""
    sides = [side[:, None] if side.ndim == 2 else side for side in (positive, negative)]
    layers = layers or tuple(range(sides[0].shape[1]))
    return ContrastActivations(
        sides[0].float(), sides[1].float(), layers, tuple(range(len(positive))), PROVENANCE, "kind"
    )


def noisy(n: int, d_model: int, seed: int, spread: torch.Tensor | float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A planted direction of length 2, and activations ``[2, n, d_model]`` that differ by it and vary by `spread`."""
    generator = torch.Generator().manual_seed(seed)
    planted = torch.randn(d_model, generator=generator)
    planted *= 2 / planted.norm()
    sides = torch.randn(2, n, d_model, generator=generator) * spread
    sides[0] += planted
    return planted, sides


@pytest.fixture
def some() -> ContrastActivations:
    """Activations of 12 pairs at the layers 3 and 5, d_model 8, off centre."""
    sides = torch.stack([noisy(12, 8, seed)[1] for seed in (0, 1)], dim=2) + 3
    return make(sides[0], sides[1], (3, 5))


def test_the_mean_difference_is_what_extraction_gives(some: ContrastActivations) -> None:
    assert estimate(some) == estimate(some, "mean difference") == some.vectors()


@pytest.mark.parametrize("method", ALL)
def test_norms_layers_and_name_are_the_mean_differences(some: ContrastActivations, method: str) -> None:
    found, mean = estimate(some, method), some.vectors()
    torch.testing.assert_close(found.norms(), mean.norms())
    assert (found.layers, found.name) == ((3, 5), "kind")


@pytest.mark.parametrize("method", list(ESTIMATORS))
def test_swapping_the_sides_negates(some: ContrastActivations, method: str) -> None:
    swapped = make(some.negative, some.positive, some.layers)
    assert_close_by_norm(estimate(swapped, method).values, -estimate(some, method).values, rtol=1e-5)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("factor", [0.01, 250.0])
def test_scaling_the_activations_scales_the_vector(some: ContrastActivations, method: str, factor: float) -> None:
    scaled = make(some.positive * factor, some.negative * factor, some.layers)
    expected = estimate(some, method).values * factor
    assert_close_by_norm(estimate(scaled, method).values, expected, rtol=1e-3)


@pytest.mark.parametrize("method", list(ESTIMATORS))
def test_what_both_sides_have_in_common_everywhere_does_not_matter(some: ContrastActivations, method: str) -> None:
    moved = make(some.positive + 5, some.negative + 5, some.layers)
    assert_close_by_norm(estimate(moved, method).values, estimate(some, method).values, rtol=1e-4)


@pytest.mark.parametrize("method", list(ESTIMATORS))
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_direction_is_found(method: str, seed: int) -> None:
    planted, sides = noisy(400, 32, seed)
    found = estimate(make(sides[0], sides[1]), method)
    assert float(found[0].cosine(planted)) > 0.9


def test_a_random_direction_finds_nothing() -> None:
    planted, sides = noisy(400, 256, 0)
    assert abs(float(estimate(make(sides[0], sides[1]), "random")[0].cosine(planted))) < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_lda_beats_the_mean_difference_where_a_few_directions_are_noisy(seed: int) -> None:
    spread = torch.ones(64)
    spread[:4] = 100
    planted, sides = noisy(200, 64, seed, spread)
    activations = make(sides[0], sides[1])
    of = {name: float(estimate(activations, name)[0].cosine(planted)) for name in ("lda", "mean difference")}
    assert of["lda"] > 0.8 > 0.5 > of["mean difference"]


def test_the_median_is_not_moved_by_a_few_odd_pairs() -> None:
    planted, sides = noisy(101, 16, 0)
    sides[0, :5] += 1000 * torch.eye(16)[0]
    activations = make(sides[0], sides[1])
    assert float(estimate(activations, "median")[0].cosine(planted)) > 0.9
    assert float(estimate(activations)[0].cosine(planted)) < 0.7


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_the_median_is_numpys(n: int) -> None:
    positive, negative = torch.randn(2, n, 7, dtype=torch.float64)
    expected = np.median((positive - negative).numpy(), axis=0)
    np.testing.assert_allclose(ESTIMATORS["median"](positive, negative).numpy(), expected, rtol=1e-12)


def test_pca_is_that_of_the_differences_with_both_signs() -> None:
    positive, negative = noisy(30, 6, 2)[1].double()
    differences = positive - negative
    both = torch.cat([differences, -differences])
    variance, directions = torch.linalg.eigh(both.T @ both)
    found = ESTIMATORS["pca"](positive, negative)
    assert abs(float(found @ directions[:, variance.argmax()])) == pytest.approx(1)
    assert float(found @ differences.mean(0)) > 0


def test_pca_takes_what_differs_most_for_the_behaviour() -> None:
    """The answer's letter, which half the pairs have one way round and half the other."""
    planted, sides = noisy(200, 32, 0, 0.1)
    letter = torch.randn(32, generator=torch.Generator().manual_seed(1))
    letter -= planted * (letter @ planted) / (planted @ planted)
    sides[0] += 3 * letter / letter.norm() * torch.tensor([1.0, -1.0]).repeat(100)[:, None]
    activations = make(sides[0], sides[1])
    assert abs(float(estimate(activations, "pca")[0].cosine(planted))) < 0.2
    assert float(estimate(activations)[0].cosine(planted)) > 0.99


def test_the_probe_is_at_the_minimum_of_its_loss() -> None:
    positive, negative = noisy(40, 5, 3)[1].double()
    rows = torch.cat([positive, negative])
    rows = rows - rows.mean(0)
    rows = rows / rows.square().mean().sqrt()
    sides = torch.tensor([1.0] * 40 + [0.0] * 40, dtype=torch.float64)
    weights = torch.zeros(6, dtype=torch.float64, requires_grad=True)  # the last is the intercept
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        logits = rows @ weights[:5] + weights[5]
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, sides, reduction="sum")
        value = entropy + weights[:5].square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(ESTIMATORS["logistic"](positive, negative), weights.detach()[:5], rtol=1e-3, atol=1e-4)


def test_lda_is_the_textbooks_where_pairs_are_many() -> None:
    spread = torch.tensor([1.0, 2.0, 4.0])
    planted, sides = noisy(100_000, 3, 0, spread)
    expected = planted.double() / spread.double().square()
    found = ESTIMATORS["lda"](sides[0], sides[1])
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.999


@pytest.mark.parametrize(("n", "d_model"), [(50, 8), (4, 30)])
def test_lda_solves_the_shrunk_covariance(n: int, d_model: int) -> None:
    from sklearn.covariance import LedoitWolf

    positive, negative = noisy(n, d_model, 1, torch.linspace(1, 5, d_model))[1].double()
    within = torch.cat([positive - positive.mean(0), negative - negative.mean(0)])
    covariance = torch.from_numpy(LedoitWolf(assume_centered=True).fit(within.numpy()).covariance_)
    expected = torch.linalg.solve(covariance, (positive - negative).mean(0))
    found = ESTIMATORS["lda"](positive, negative)
    assert float(torch.cosine_similarity(found, expected, dim=0)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize(("n", "d_model"), [(2, 3), (3, 200), (40, 1)])
def test_few_pairs_and_any_width_will_do(method: str, n: int, d_model: int) -> None:
    _, sides = noisy(n, d_model, 0)
    found = estimate(make(sides[0], sides[1]), method)
    torch.testing.assert_close(found.norms(), make(sides[0], sides[1]).vectors().norms())


@pytest.mark.parametrize("method", ["median", "pca", "logistic"])
def test_of_one_pair_all_make_its_difference(method: str) -> None:
    _, sides = noisy(1, 20, 0)
    activations = make(sides[0], sides[1])
    assert_close_by_norm(estimate(activations, method).values, activations.vectors().values, rtol=1e-5)


def test_two_pairs_that_vary_alike_on_both_sides_have_an_lda() -> None:
    """No shrinkage is found here, and without any the covariance, of rank 1, cannot be inverted."""
    planted, sides = noisy(2, 20, 0, 0.0)
    question = torch.randn(2, 20)
    found = estimate(make(sides[0] + question, sides[1] + question), "lda")[0]
    apart = question[0] - question[1]
    assert abs(float(found.cosine(apart))) < 1e-3 and float(found.cosine(planted)) > 0.7


@pytest.mark.parametrize("method", ALL)
def test_the_same_activations_give_the_same_bits(some: ContrastActivations, method: str) -> None:
    before, state = some.positive.clone(), torch.get_rng_state()
    assert estimate(some, method) == estimate(some, method)
    assert torch.equal(some.positive, before) and torch.equal(torch.get_rng_state(), state)


def test_random_has_a_seed_of_its_own(some: ContrastActivations) -> None:
    first, second = estimate(some, "random"), estimate(some, "random", seed=1)
    assert torch.equal(first.values, random_like(some.vectors(), 1, 0)[0].values)
    assert float(cosine(first, second).abs().max()) < 0.99
    assert (first.provenance.method, first.provenance.seed, second.provenance.seed) == ("random", 0, 1)
    assert estimate(some, "lda", seed=1) == estimate(some, "lda")


@pytest.mark.parametrize("method", OTHERS)
def test_provenance_names_the_estimator(some: ContrastActivations, method: str) -> None:
    provenance = estimate(some, method).provenance
    assert (provenance.method, provenance.seed, provenance.n_pairs) == (method, None, 3)
    assert provenance.operations == ("norms of the mean difference",)
    assert ("scikit-learn" in provenance.versions) == (method in ("logistic", "lda"))
    assert Provenance.from_json(provenance.to_json()) == provenance


def test_errors_say_what_to_do(some: ContrastActivations) -> None:
    with pytest.raises(
        ValueError, match="there is no estimator 'PCA': choose one of mean difference, median, pca, logistic, lda, rand"
    ):
        estimate(some, "PCA")
    with pytest.raises(ValueError, match="activations 'kind' are of no pairs: at least one is needed"):
        estimate(make(torch.zeros(0, 2, 4), torch.zeros(0, 2, 4)))
    with pytest.raises(
        ValueError, match=r"'lda' of 'kind' at layer 3: LDA divides by .* 1 pair\(s\) have none here: give two or more"
    ):
        estimate(make(some.positive[:1], some.negative[:1], some.layers), "lda")
    odd = torch.tensor([[1.0], [0.0], [0.0]])
    with pytest.raises(ValueError, match="'median' of 'kind' at layer 0 is zero, which is no direction: give more"):
        estimate(make(odd, torch.zeros(3, 1)), "median")
    same = make(some.positive, some.positive, some.layers)
    assert not estimate(same).values.any()
    for method in OTHERS:
        with pytest.raises(ValueError, match=f"'{method}' of 'kind' at layer 3: the mean difference is zero there"):
            estimate(same, method)
    with pytest.raises(ValueError, match="all activations are the same, so no probe can tell them apart"):
        ESTIMATORS["logistic"](torch.full((3, 2), 0.1), torch.full((3, 2), 0.1))
    with pytest.raises(ValueError, match=r"3 pair\(s\) have none here"):
        ESTIMATORS["lda"](torch.full((3, 2), 0.1), torch.full((3, 2), 0.7))
    with pytest.raises(ValueError, match="is not finite at layer 0"):
        estimate(make(odd * torch.inf, torch.zeros(3, 1)), "pca")


@pytest.mark.parametrize("method", ALL)
def test_on_a_model(bridge: Any, method: str) -> None:
    questions = ["Is it so?\n (A) yes\n (B) no", "a?\n (A) b\n (B) c", "is that one?\n (A) this\n (B) that"]
    pairs = [caa.ContrastPair(question, "(A)", "(B)") for question in questions]
    activations = caa.extract_activations(bridge("llama"), pairs)
    found = estimate(activations, method)
    assert isinstance(found, SteeringVectors) and len(found) == 4
    torch.testing.assert_close(found.norms(), activations.vectors().norms())
    if method != "random":
        assert float(cosine(found, activations.vectors()).min()) > 0
