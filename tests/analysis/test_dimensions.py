"""The huge dimensions: by hand, in what is left without them, and in the published vectors."""

from __future__ import annotations

import pytest
import torch

from caa_lens import analysis
from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.vectors.vectors import Provenance, SteeringVectors

PROVENANCE = Provenance.unknown("toy")
TOY = SteeringVectors(torch.tensor([[3.0, 0.0, -4.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), (0, 1, 2), PROVENANCE, "kind")


def test_shares_by_hand() -> None:
    frame = analysis.massive_dimensions(TOY, k=2)
    assert list(frame.columns) == ["behavior", "layer", "rank", "dimension", "value", "share", "cumulative"]
    first, second, tied = frame.iloc[0], frame.iloc[1], frame[frame["layer"] == 1]
    assert (first["behavior"], first["rank"], first["dimension"], first["value"]) == ("kind", 1, 2, -4)
    assert (first["share"], first["cumulative"]) == pytest.approx((0.64, 0.64))
    assert (second["dimension"], second["share"], second["cumulative"]) == (0, pytest.approx(0.36), pytest.approx(1))
    assert tied["dimension"].tolist() == [0, 1], "the first of equal ones comes first"
    assert frame[frame["layer"] == 2]["share"].isna().all()


def test_many_behaviours_are_named() -> None:
    frame = analysis.massive_dimensions({"one": TOY, "two": TOY}, k=3)
    assert frame.groupby("behavior").size().to_dict() == {"one": 9, "two": 9}
    assert frame.query("layer == 0").groupby("behavior")["share"].sum().tolist() == pytest.approx([1, 1])


def test_a_cosine_that_two_dimensions_decide() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(1, 50, generator=generator)
    a, b = shared.clone(), shared.clone()
    a[0, 7], b[0, 7] = 200.0, -200.0
    one, other = (SteeringVectors(rows, (0,), PROVENANCE, name) for rows, name in ((a, "a"), (b, "b")))
    assert analysis.massive_dimensions(one, k=1)["dimension"].tolist() == [7]
    assert float(analysis.cosine(one, other)) < -0.99
    without = [analysis.without_dimensions(each, [7]) for each in (one, other)]
    assert float(analysis.cosine(*without)) == pytest.approx(1)
    assert without[0].provenance.operations == ("without dimensions 7",)
    assert float(one.values[0, 7]) == 200, "vectors are values: the old one stays"


def test_activations_too() -> None:
    sides = torch.ones(2, 4, 1, 3)
    given = ContrastActivations(sides[0], 2 * sides[1], (5,), (0, 1, 2, 3), PROVENANCE, "kind")
    found = analysis.without_dimensions(given, [2, 0])
    assert found.positive.tolist() == [[[0, 1, 0]]] * 4 and found.negative.tolist() == [[[0, 2, 0]]] * 4
    assert found.provenance.operations == ("without dimensions 0, 2",)


def test_what_is_huge_in_the_stream_need_not_be_in_the_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    sides = torch.randn(2, 30, 1, 20, generator=generator)
    sides[0, ..., 4] += 3
    sides[..., 11] += 300
    given = ContrastActivations(sides[0], sides[1], (5,), tuple(range(30)), PROVENANCE, "kind")
    [stream] = analysis.massive_dimensions(given, k=1).to_dict("records")
    assert (stream["behavior"], stream["layer"], stream["dimension"]) == ("kind", 5, 11)
    assert stream["share"] > 0.99 and stream["value"] == pytest.approx(300, abs=1)
    both = analysis.massive_dimensions({"stream": given, "vector": given.vectors()}, k=1)
    assert both["dimension"].tolist() == [11, 4]


def test_what_is_not_there_is_refused() -> None:
    for dims in ([3], [-1], []):
        with pytest.raises(ValueError, match=r"dimensions \[.*\]: give one or more of 0 to 2, the d_model"):
            analysis.without_dimensions(TOY, dims)
    for k in (0, 4):
        with pytest.raises(ValueError, match=rf"k is {k}: give 1 to 3, the d_model of 'kind'"):
            analysis.massive_dimensions(TOY, k)
