"""Comparing vectors: against values worked out by hand, and on what cannot be compared."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caa_lens import analysis
from caa_lens.vectors.vectors import Provenance, SteeringVectors


def make(rows, layers=None, name="kind") -> SteeringVectors:
    rows = torch.as_tensor(rows, dtype=torch.float32)
    return SteeringVectors(rows, tuple(layers or range(len(rows))), Provenance.unknown("toy"), name)


A = make([[1.0, 0.0], [3.0, 4.0]], name="a")
B = make([[0.0, 2.0], [3.0, 4.0]], name="b")
ZERO = make([[0.0, 0.0], [1.0, 0.0]], name="zero")


def test_cosine_and_compare():
    assert analysis.cosine(A, B).tolist() == pytest.approx([0, 1])
    frame = analysis.compare(A, B)
    assert frame.to_dict("list") == {
        "layer": [0, 1],
        "cosine": pytest.approx([0, 1]),
        "norm_a": pytest.approx([1, 5]),
        "norm_b": pytest.approx([2, 5]),
    }


def test_only_shared_layers_are_compared():
    later = make([[3.0, 4.0], [1.0, 1.0]], layers=(1, 5), name="b")
    assert analysis.compare(A, later)["layer"].tolist() == [1]
    assert analysis.cosine(A, later).tolist() == pytest.approx([1])
    assert set(analysis.behavior_cosines({"a": A, "b": later})["layer"]) == {1}


def test_cosine_matrix_has_names_on_both_axes():
    matrix = analysis.cosine_matrix({"x": A, "y": B}, layer=0)
    expected = pd.DataFrame([[1.0, 0.0], [0.0, 1.0]], index=["x", "y"], columns=["x", "y"])
    pd.testing.assert_frame_equal(matrix, expected)


def test_behavior_cosines_is_tidy():
    frame = analysis.behavior_cosines({"x": A, "y": B})
    assert list(frame.columns) == ["layer", "behavior_a", "behavior_b", "cosine"]
    assert len(frame) == 2 * 2 * 2
    for layer in (0, 1):
        square = frame[frame["layer"] == layer].pivot(index="behavior_a", columns="behavior_b", values="cosine")
        assert square.to_numpy() == pytest.approx(analysis.cosine_matrix({"x": A, "y": B}, layer).to_numpy())


def test_cross_layer_has_layers_on_both_axes():
    frame = analysis.cross_layer(make([[1.0, 0.0], [3.0, 4.0]], layers=(2, 7)))
    assert (list(frame.index), list(frame.columns)) == ([2, 7], [2, 7])
    assert frame.to_numpy() == pytest.approx(torch.tensor([[1, 0.6], [0.6, 1]]).numpy())


def test_cross_layer_of_two_models_and_of_many_behaviours():
    other = make([[0.0, 2.0]], layers=(4,))
    square = analysis.cross_layer(A, other)
    assert (list(square.index), list(square.columns)) == ([0, 1], [4])
    assert square[4].tolist() == pytest.approx(
        [analysis.cosine(make([row.tolist()], layers=(4,)), other).item() for row in A.values]
    )
    tidy = analysis.cross_layer({"x": A, "y": B}, {"y": other, "x": B})
    assert list(tidy.columns) == ["behavior", "layer_a", "layer_b", "cosine"]
    for name, expected in {"x": analysis.cross_layer(A, B), "y": analysis.cross_layer(B, other)}.items():
        of_name = tidy[tidy["behavior"] == name].pivot(index="layer_a", columns="layer_b", values="cosine")
        assert of_name.to_numpy() == pytest.approx(expected.to_numpy())
    with pytest.raises(ValueError, match=r"vectors are of \['x'\] and the others of \['y'\]: give the same behaviours"):
        analysis.cross_layer({"x": A}, {"y": A})
    with pytest.raises(ValueError, match="one behaviour's vectors were given beside a mapping: give both of one kind"):
        analysis.cross_layer(A, {"y": A})
    with pytest.raises(ValueError, match="different d_model"):
        analysis.cross_layer(A, make([[1.0, 2.0, 3.0]], layers=(0,)))


def test_norms_of_one_and_of_many():
    one = analysis.norms(A)
    assert one.to_dict("list") == {"behavior": ["a", "a"], "layer": [0, 1], "norm": pytest.approx([1, 5])}
    many = analysis.norms({"x": A, "y": B})
    assert many["behavior"].tolist() == ["x", "x", "y", "y"]
    assert many["norm"].tolist() == pytest.approx([1, 5, 2, 5])


def test_a_zero_vector_has_no_cosine():
    assert analysis.cosine(A, ZERO)[0].isnan() and not analysis.cosine(A, ZERO)[1].isnan()
    matrix = analysis.cosine_matrix({"a": A, "zero": ZERO}, layer=0)
    assert math.isnan(matrix.loc["a", "zero"]) and math.isnan(matrix.loc["zero", "zero"])
    assert analysis.cross_layer(ZERO).isna().to_numpy().tolist() == [[True, True], [True, False]]
    assert analysis.norms(ZERO)["norm"].tolist() == [0, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.integers(1, 5))
def test_cosine_does_not_depend_on_length_or_order(seed, scale, n_layers):
    values = torch.randn(2, n_layers, 8, generator=torch.Generator().manual_seed(seed))
    a, b = make(values[0], name="a"), make(values[1], name="b")
    torch.testing.assert_close(analysis.cosine(a * scale, b), analysis.cosine(b, a))
    torch.testing.assert_close(analysis.cosine(a, -b), -analysis.cosine(a, b))
    torch.testing.assert_close(analysis.cosine(a, a * scale), torch.ones(n_layers))
    torch.testing.assert_close(analysis.cosine(a, b), torch.nn.functional.cosine_similarity(a.values, b.values))


def test_what_cannot_be_compared():
    wide = make(torch.ones(2, 3), name="wide")
    # The same name on both sides is usual (a base and a chat model's vectors) and must not hide the difference.
    for other in (wide, make(torch.ones(2, 3), name="a")):
        with pytest.raises(ValueError, match=rf"different d_model: 'a' has 2, '{other.name}' has 3"):
            analysis.compare(A, other)
    with pytest.raises(ValueError, match="different d_model"):
        analysis.cosine_matrix({"a": A, "wide": wide}, layer=0)
    with pytest.raises(ValueError, match="no layer in common: 'a' has 0-1, 'c' has 5"):
        analysis.cosine(A, make([[1.0, 1.0]], layers=(5,), name="c"))
    with pytest.raises(ValueError, match=r"layer 9 is not in these vectors \(layers 0-1\)"):
        analysis.cosine_matrix({"a": A}, layer=9)
    for nothing in (lambda: analysis.behavior_cosines({}), lambda: analysis.subspace_overlap({"a": A}, {})):
        with pytest.raises(ValueError, match="there are no vectors to compare"):
            nothing()
    with pytest.raises(ValueError, match="different d_model: 'a' has 2, 'wide' has 3"):
        analysis.subspace_overlap({"a": A}, {"wide": wide})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_cosines_and_angles_do_not_depend_on_the_axes(seed):
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q.float()
    named = {name: make(torch.randn(2, 8, generator=generator), name=name) for name in "abcd"}
    turned = {name: make(each.values @ rotation, name=name) for name, each in named.items()}
    before, after = analysis.behavior_cosines(named), analysis.behavior_cosines(turned)
    assert after["cosine"].to_numpy() == pytest.approx(before["cosine"].to_numpy(), abs=1e-5)
    sides = [({n: v[n] for n in "ab"}, {n: v[n] for n in "cd"}) for v in (named, turned)]
    angles = [analysis.subspace_overlap(*side)["cosine"].to_numpy() for side in sides]
    assert angles[0] == pytest.approx(angles[1], abs=1e-5)


def test_angles_between_two_planes():
    # In four dimensions: the plane of x and y against that of x and (y + z): one shared direction, then 45 degrees.
    a = {"x": make([[1.0, 0, 0, 0]]), "y": make([[0, 5.0, 0, 0]])}
    b = {"mixed": make([[2.0, 1, 1, 0]]), "other": make([[-1.0, 1, 1, 0]])}
    frame = analysis.subspace_overlap(a, b)
    assert list(frame.columns) == [
        "layer",
        "angle",
        "cosine",
        "degrees",
        "rank_a",
        "rank_b",
        "overlap",
        "chance",
    ]
    assert frame["angle"].tolist() == [1, 2]
    assert frame["degrees"].tolist() == pytest.approx([0, 45], abs=1e-3)
    assert frame["overlap"].tolist() == pytest.approx([0.75, 0.75])
    assert frame["chance"].tolist() == [0.5, 0.5]


def test_the_span_is_what_counts_not_its_vectors():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 1, 9, generator=generator)
    a = {"one": make(one), "two": make(two)}
    mixed = {"p": make(3 * one - two), "q": make(1e-3 * (one + two)), "again": make(one), "zero": make(0 * one)}
    frame = analysis.subspace_overlap(a, mixed)
    assert frame["cosine"].tolist() == pytest.approx([1, 1], abs=1e-6)
    assert set(zip(frame["rank_a"], frame["rank_b"], strict=True)) == {(2, 2)}
    assert analysis.subspace_overlap(a, {"zero": make(0 * one)}).empty


def test_random_spans_overlap_by_chance():
    generator = torch.Generator().manual_seed(0)
    a, b = [{str(i): make(torch.randn(40, 30, generator=generator)) for i in range(3)} for _ in range(2)]
    frame = analysis.subspace_overlap(a, b)
    assert frame["overlap"].mean() == pytest.approx(frame["chance"].mean(), abs=0.02)
