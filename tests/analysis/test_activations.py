"""Principal components and separation, on clouds whose shape is known and on the bundled model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import caa_lens as caa
from caa_lens import analysis
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.vectors.vectors import Provenance, SteeringVectors

D_MODEL = 6


def dataset(letters: str) -> ContrastDataset:
    """One pair for each letter, which is the matching one."""
    rows = [(f"Item {i}?", f"({x})", "(B)" if x == "A" else "(A)") for i, x in enumerate(letters)]
    return ContrastDataset.from_pairs(rows, name="kind")


def clouds(
    letters: str, *, behavior: float = 0.0, letter: float = 0.0, noise: float = 1.0, seed: int = 0, name: str = "kind"
) -> tuple[ContrastActivations, ContrastDataset]:
    """Noise around a point a pair; the behaviour moves along axis 0, letter A along axis 1; two layers alike."""
    pairs = dataset(letters)
    generator = torch.Generator().manual_seed(seed)
    sides = noise * torch.randn(2, len(letters), 2, D_MODEL, generator=generator)
    sides[0, ..., 0] += behavior
    for index, own in enumerate(letters):
        sides[0 if own == "A" else 1, index, :, 1] += letter
    provenance = replace(Provenance.unknown("toy"), dataset="kind", dataset_hash=pairs.hash, n_pairs=len(pairs))
    return ContrastActivations(sides[0], sides[1], (3, 4), tuple(range(len(pairs))), provenance, name), pairs


def test_components_are_sklearns() -> None:
    from sklearn.decomposition import PCA

    activations, pairs = clouds("AABBA" * 4, behavior=3)
    frame = analysis.pca(activations, pairs, n_components=3)
    assert list(frame.columns) == [
        *("behavior", "pair", "side", "letter", "layer", "pc1", "pc2", "pc3"),
        *("explained_1", "explained_2", "explained_3"),
    ]
    for column, layer in enumerate((3, 4)):
        own = frame[frame["layer"] == layer]
        rows = np.concatenate([activations.positive[:, column], activations.negative[:, column]])
        theirs = PCA(3, svd_solver="full").fit(rows.astype(np.float64))
        scores = own[["pc1", "pc2", "pc3"]].to_numpy()
        assert np.abs(scores) == pytest.approx(np.abs(theirs.transform(rows)), abs=1e-6)
        assert own[["explained_1", "explained_2", "explained_3"]].iloc[0].tolist() == pytest.approx(
            theirs.explained_variance_ratio_.tolist()
        )
        signed = scores.T @ (rows - rows.mean(axis=0))  # each component's direction, scaled
        assert (signed[np.arange(3), np.abs(signed).argmax(axis=1)] > 0).all(), "the largest coordinate is positive"


def test_every_activation_has_a_row_with_its_letter() -> None:
    activations, pairs = clouds("ABB")
    frame = analysis.pca(activations, pairs, layers=[4])
    assert frame["layer"].unique().tolist() == [4]
    assert frame[["pair", "side", "letter"]].to_numpy().tolist() == [
        *([0, "matching", "A"], [1, "matching", "B"], [2, "matching", "B"]),
        *([0, "other", "B"], [1, "other", "A"], [2, "other", "A"]),
    ]
    assert set(analysis.pca(activations)["letter"]) == {""}
    both = {"one": activations, "two": replace(activations, positive=activations.positive + 50)}
    frame = analysis.pca(both, {"one": pairs, "two": pairs})
    assert frame.groupby("behavior").size().to_dict() == {"one": 12, "two": 12}
    apart = frame.query("layer == 3 and side == 'matching'").groupby("behavior")["pc1"].mean()
    assert abs(apart["one"] - apart["two"]) == pytest.approx(50 * D_MODEL**0.5, rel=0.1), "seen together, not apart"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_components_do_not_depend_on_where_the_cloud_is(seed: int) -> None:
    activations, _ = clouds("AB" * 5, behavior=2, seed=seed)
    moved = replace(activations, positive=activations.positive + 7, negative=activations.negative + 7)
    before, after = (analysis.pca(each)[["pc1", "pc2"]].to_numpy() for each in (activations, moved))
    assert after == pytest.approx(before, abs=1e-4)


def test_a_behaviour_is_told_from_a_letter() -> None:
    letters = "AAABB" * 12  # 60 % of the matching letters are A
    columns = ["accuracy", "accuracy_balanced", "letter_accuracy", "letter_cosine"]

    def measured(**sizes: float) -> list[float]:
        frame = analysis.separation(*clouds(letters, **sizes))
        assert frame["layer"].tolist() == [3, 4] and (frame["n_pairs"] == 60).all()
        return frame[columns].iloc[0].tolist()

    accuracy, balanced, letter, _ = measured(behavior=8)
    assert accuracy > 0.97 and balanced > 0.97 and letter < 0.65
    accuracy, balanced, letter, cosine = measured(letter=30)
    assert accuracy == pytest.approx(0.6, abs=0.02), "a direction that is only the letter calls the usual letter right"
    assert balanced == pytest.approx(0.5, abs=0.02) and letter == 1 and cosine > 0.95
    accuracy, balanced, letter, _ = measured()
    assert 0.3 < accuracy < 0.7 and 0.3 < letter < 0.7, "held out, noise does not separate"


def test_d_prime_is_the_distance_in_deviations() -> None:
    activations, pairs = clouds("AB" * 300, behavior=2.5)
    frame = analysis.separation(activations, pairs)
    assert frame["d_prime"].tolist() == pytest.approx([2.5, 2.5], abs=0.25)
    still = analysis.separation(*clouds("AB" * 4, behavior=1, noise=0))
    assert still["accuracy"].tolist() == [1, 1] and still["d_prime"].isna().all()


def test_letters_that_are_not_known_are_nan() -> None:
    activations, _ = clouds("AB" * 5, behavior=5)
    frame = analysis.separation(activations)
    assert frame[["accuracy_balanced", "letter_accuracy", "letter_d_prime", "letter_cosine"]].isna().all(axis=None)
    assert frame["accuracy"].notna().all()
    frame = analysis.separation(*clouds("A" * 8, behavior=5))
    assert frame["accuracy_balanced"].isna().all(), "one letter cannot be balanced"
    assert frame["letter_cosine"].tolist() == pytest.approx([1, 1]), "nor told from the behaviour"


def test_no_pair_is_judged_by_itself() -> None:
    """In as many dimensions as there are pairs, a direction made with a pair would always call it right."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.randn(2, 40, 1, 500, generator=generator)
    noise = ContrastActivations(sides[0], sides[1], (0,), tuple(range(40)), Provenance.unknown("toy"), "noise")
    assert abs(analysis.separation(noise, folds=40)["accuracy"].iloc[0] - 0.5) < 0.2


def test_norms_beside_the_stream() -> None:
    activations, _ = clouds("AB", behavior=0)
    activations = replace(
        activations, positive=torch.full((2, 2, D_MODEL), 2.0), negative=torch.full((2, 2, D_MODEL), 2.0)
    )
    vectors = SteeringVectors(torch.ones(2, D_MODEL), (4, 9), Provenance.unknown("toy"), "kind")
    frame = analysis.relative_norms(vectors, activations)
    assert frame.to_dict("list") == {
        "behavior": ["kind"],
        "layer": [4],
        "norm": pytest.approx([D_MODEL**0.5]),
        "stream_norm": pytest.approx([2 * D_MODEL**0.5]),
        "relative": pytest.approx([0.5]),
    }
    with pytest.raises(ValueError, match="the vectors have layers 9 and d_model 6, the activations layers 3-4"):
        analysis.relative_norms(SteeringVectors(vectors.values[1:], (9,), vectors.provenance, "kind"), activations)


def test_what_does_not_fit_is_refused() -> None:
    activations, pairs = clouds("ABBA")
    with pytest.raises(ValueError, match=r"'kind' were not extracted from these pairs: they come from kind \(4 pairs"):
        analysis.pca(activations, dataset("ABAB"))
    with pytest.raises(ValueError, match=r"activations are named \['kind'\] and pairs \['sort'\]"):
        analysis.separation(activations, {"sort": pairs})
    with pytest.raises(ValueError, match=r"layers \[5\]: all of these activations have 3-4"):
        analysis.pca(activations, layers=[5])
    for n in (0, 7):
        with pytest.raises(ValueError, match=rf"n_components is {n}: give 1 to 6"):
            analysis.pca(activations, n_components=n)
    narrow = replace(activations, positive=activations.positive[..., :2], negative=activations.negative[..., :2])
    with pytest.raises(ValueError, match="different d_model: 'a' has 6, 'b' has 2"):
        analysis.pca({"a": activations, "b": narrow})
    with pytest.raises(ValueError, match="there are no activations"):
        analysis.pca({})
    with pytest.raises(ValueError, match="folds is 1: at least 2 are needed"):
        analysis.separation(activations, folds=1)
    one = replace(activations, positive=activations.positive[:1], negative=activations.negative[:1], pair_ids=(0,))
    with pytest.raises(ValueError, match="'kind' has 1 pair: at least 2 are needed"):
        analysis.separation(one)


def test_on_the_bundled_model_the_behaviour_is_no_letter() -> None:
    """Sycophancy was planted at layer 2; the stream grows by its end and the vector does not."""
    model: Any = caa.load_model("organism-chat")
    pairs = caa.load_contrast_pairs("sycophancy")[:60]
    activations = caa.extract_activations(model, pairs)
    frame = analysis.separation(activations, pairs).set_index("layer")
    assert frame.loc[2, "accuracy_balanced"] == 1 and frame.loc[2, "letter_accuracy"] < 0.9
    assert frame.loc[2, "d_prime"] > 2 * frame.loc[4, "d_prime"] > 5
    assert frame["letter_cosine"].abs().max() < 0.5
    relative = analysis.relative_norms(activations.vectors(), activations)["relative"]
    assert relative.is_monotonic_decreasing and relative.iloc[0] > 0.7 and relative.iloc[-1] < 0.2
