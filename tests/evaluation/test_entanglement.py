"""One crossed sweep equals a sweep of every vector over every behaviour's items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import caa_lens as caa
from caa_lens.evaluation.entanglement import crossed, entanglement
from caa_lens.vectors.vectors import Provenance, SteeringVectors

QUESTIONS = ["Is it so?", "one two three?", "a?", "why then the other?"]
LAYERS = {"one": 0, "two": 2, "three": 2}


def items_of(name: str) -> caa.ContrastDataset:
    pairs = [caa.ContrastPair(f"{name} {question}\n (A) yes\n (B) no", "(A)", "(B)") for question in QUESTIONS]
    return caa.ContrastDataset.from_pairs([*pairs[:2], *[pair.swapped() for pair in pairs[2:]]], name=name)


def vectors_of(model: Any, seed: int, layers: tuple[int, ...] = (0, 1, 2)) -> SteeringVectors:
    values = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVectors(values * 2, layers, Provenance.unknown("toy"), "toy")


def test_every_pair_equals_a_sweep_of_its_own(model: Any) -> None:
    vectors = {name: vectors_of(model, seed) for seed, name in enumerate(LAYERS)}
    items = {name: items_of(name) for name in ("one", "two")}
    frame = caa.sweep(model, **crossed(vectors, items, LAYERS), multipliers=(-0.5,))
    table = entanglement(frame, LAYERS, n_bootstrap=50)
    assert len(table) == 3 * 2
    for row in table.itertuples():
        own = caa.sweep(
            model, vectors[row.vector], items[row.behavior], layers=[row.layer], multipliers=(row.multiplier,)
        )
        expected = caa.summarize(own, n_bootstrap=50).query("multiplier != 0").iloc[0]
        assert row.layer == LAYERS[row.vector] and row.n_items == 4
        np.testing.assert_allclose(
            [row.effect, row.effect_balanced, row.balanced_low, row.balanced_high],
            [expected[name] for name in ("effect", "effect_balanced", "balanced_low", "balanced_high")],
            atol=1e-4,
        )


def fake_frame(effects: dict[tuple[str, str], float]) -> Any:
    """A crossed sweep's frame in which every item of a behaviour moves by the same effect."""
    import pandas as pd

    rows = []
    for (vector, behavior), effect in effects.items():
        for multiplier in (0.0, 1.0) if vector == behavior else (1.0,):
            for item in range(4):
                p = 0.5 + effect * multiplier
                rows.append(
                    {
                        "behavior": behavior,
                        "vector": vector,
                        "kind": "vector" if vector == behavior else "compared",
                        "draw": -1,
                        "layer": 1,
                        "multiplier": multiplier,
                        "item": item,
                        "letter": "AB"[item % 2],
                        "logp_matching": float(np.log(p)),
                        "logp_other": float(np.log(1 - p)),
                        "p_matching": p,
                        "p_a": p if item % 2 == 0 else 1 - p,
                        "mass": 1.0,
                    }
                )
    return pd.DataFrame(rows)


def test_the_share_of_the_own_effect() -> None:
    frame = fake_frame({("a", "a"): 0.4, ("b", "a"): 0.1, ("a", "b"): -0.2, ("b", "b"): 0.0})
    table = entanglement(frame, {"a": 1, "b": 1}).set_index(["vector", "behavior"])
    assert table["effect_balanced"].to_dict() == pytest.approx(
        {("a", "a"): 0.4, ("a", "b"): -0.2, ("b", "a"): 0.1, ("b", "b"): 0.0}
    )
    assert table.loc[("a", "b"), "share_of_own"] == pytest.approx(-0.5)
    assert table.loc[("a", "a"), "share_of_own"] == 1.0
    assert table.loc["b", "share_of_own"].isna().all(), "b moves nothing of its own"


def test_vectors_need_no_other_layer_than_their_own(bridge: Any) -> None:
    model = bridge("llama")
    vectors = {"one": vectors_of(model, 0, (0,)), "two": vectors_of(model, 1, (2,))}
    layers = {"one": 0, "two": 2}
    items = {name: items_of(name) for name in vectors}
    laid_out = crossed(vectors, items, layers)
    assert laid_out["vectors"]["one"].layers == (0, 2) and laid_out["vectors"]["one"].norms()[1] == 0
    table = entanglement(caa.sweep(model, **laid_out), layers, n_bootstrap=10)
    assert set(table["multiplier"]) == {-1.0, 1.0} and table["effect"].abs().gt(0).all()


def test_errors_name_what_was_given(bridge: Any) -> None:
    vectors, items = {"one": vectors_of(bridge("llama"), 0)}, {"one": items_of("one")}
    with pytest.raises(ValueError, match="no items were given"):
        crossed(vectors, {}, {"one": 0})
    with pytest.raises(ValueError, match=r"there are items for \['two'\] and vectors for \['one'\]"):
        crossed(vectors, {"two": items["one"]}, {"one": 0})
    with pytest.raises(ValueError, match=r"layers are given for \['two'\] and vectors for \['one'\]"):
        crossed(vectors, items, {"two": 0})
    with pytest.raises(ValueError, match=r"layer 7 is not in these vectors \(layers 0-2\)"):
        crossed(vectors, items, {"one": 7})
    frame = fake_frame({("a", "a"): 0.4})
    with pytest.raises(ValueError, match="the frame has no vector 'a' at layer 3"):
        entanglement(frame, {"a": 3})
    with pytest.raises(ValueError, match="it lacks the columns vector"):
        entanglement(frame.drop(columns="vector"), {"a": 1})
