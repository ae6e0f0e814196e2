"""Nulls keep what they say they keep, destroy the rest, and go through a sweep beside the vector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import caa_lens as caa
from caa_lens.extraction.nulls import KINDS, null_vectors

PAIRS = [
    (f"Is number {number} more than {other}?\n\nChoices:\n (A) Yes\n (B) No", *answers)
    for number, other in ((3, 1), (2, 5), (7, 4), (1, 9), (8, 6), (5, 2))
    for answers in [("(A)", "(B)") if number > other else ("(B)", "(A)")]
]


@pytest.fixture(scope="module")
def made(bridge: Any) -> tuple[Any, Any]:
    activations = caa.extract_activations(bridge("llama"), caa.ContrastDataset.from_pairs(PAIRS), prompt_format="base")
    return activations, activations.vectors()


@pytest.mark.parametrize("kind", KINDS)
def test_nulls_have_the_vectors_norms_their_own_directions_and_a_seed(made: tuple[Any, Any], kind: str) -> None:
    activations, vectors = made
    first, second = null_vectors(vectors, 2, kind=kind, seed=3, activations=activations)
    again, _ = null_vectors(vectors, 2, kind=kind, seed=3, activations=activations)
    other, _ = null_vectors(vectors, 2, kind=kind, seed=4, activations=activations)
    assert (first.name, second.name) == (f"{kind}-0", f"{kind}-1")
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, second.values)
    assert not torch.equal(first.values, other.values)
    torch.testing.assert_close(first.norms(), vectors.norms())
    assert (first.provenance.method, first.provenance.seed) == (kind, 3)


def test_permuted_nulls_keep_every_value(made: tuple[Any, Any]) -> None:
    _, vectors = made
    (null,) = null_vectors(vectors, 1, kind="permuted")
    for layer in vectors.layers:
        torch.testing.assert_close(null[layer].values.sort().values, vectors[layer].values.sort().values)


def test_shuffled_nulls_are_means_with_half_of_the_pairs_exchanged(made: tuple[Any, Any]) -> None:
    activations, vectors = made
    (null,) = null_vectors(vectors, 1, kind="shuffled", activations=activations)
    differences = (activations.positive - activations.negative).double()
    signs = torch.tensor([[1.0 if bits >> pair & 1 else -1.0 for pair in range(6)] for bits in range(64)]).double()
    halves = signs[signs.sum(dim=1) == 0]
    means = torch.einsum("sp,pld->sld", halves, differences) / 6
    alike = torch.cosine_similarity(means, null.values.double()[None], dim=2).min(dim=1).values
    assert alike.max() > 1 - 1e-6


def test_bad_requests_say_what_is_missing(made: tuple[Any, Any]) -> None:
    _, vectors = made
    with pytest.raises(ValueError, match=r"no nulls of the kind 'zero': give one of random, permuted, shuffled"):
        null_vectors(vectors, 1, kind="zero")
    with pytest.raises(ValueError, match=r"no activations were given: give activations=extract_activations"):
        null_vectors(vectors, 1, kind="shuffled")
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        null_vectors(vectors, -1, kind="permuted")


def test_a_sweep_takes_nulls_and_the_summary_has_columns_of_each_kind(bridge: Any, made: tuple[Any, Any]) -> None:
    activations, vectors = made
    items = caa.ContrastDataset.from_pairs(PAIRS)
    nulls = {kind: null_vectors(vectors, 3, kind=kind, seed=1, activations=activations) for kind in KINDS}
    model: Any = bridge("llama")
    frame = caa.sweep(model, vectors, items, layers=[1], n_nulls=0, nulls=nulls, prompt_format="base")
    alone = caa.sweep(model, vectors, items, layers=[1], prompt_format="base")
    by_random = caa.sweep(model, vectors, items, layers=[1], n_nulls=3, seed=1, prompt_format="base")
    summary = caa.summarize(frame)
    for kind in KINDS:
        assert (summary.loc[summary["multiplier"] != 0, f"n_{kind}"] == 3).all()
        assert summary.loc[summary["multiplier"] != 0, f"beats_{kind}"].between(0, 1).all()
    columns = ["p_matching", "effect", "effect_balanced", "share_wrong"]
    assert summary[columns].round(4).equals(caa.summarize(alone)[columns].round(4))
    for column in ("random_low", "random_high", "beats_random"):
        expected = caa.summarize(by_random)[column]
        assert ((summary[column] - expected).abs().fillna(0) < 1e-4).all()
    with pytest.raises(ValueError, match=r"nulls are given for \['random', 'permuted', 'shuffled'\], and vectors for"):
        caa.sweep(model, {"a": vectors, "b": vectors}, {"a": items, "b": items}, nulls=nulls, prompt_format="base")
