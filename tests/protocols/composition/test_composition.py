"""Vectors together: what a recipe does to each item, by hand and by the laws of sums, and what interference is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import caa_lens as caa
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.models.adapters import adapt
from caa_lens.prompts import both_answers
from caa_lens.protocols.composition import ask, combined, compared, effects, interference, simultaneous, sweep_together
from caa_lens.protocols.composition.asking import Way
from caa_lens.protocols.composition.interference import random_parts
from caa_lens.vectors.vectors import Provenance, SteeringVector

LETTERS = (("(A)", "(B)"), ("(B)", "(A)"))
MODEL_FACTS = {"hook_point": "hook_resid_post", "model_fingerprint": "f", "n_pairs": 4, "dataset_hash": "h"}


def vector(values: list[float], layer: int = 1, name: str = "kind", **known: Any) -> SteeringVector:
    return SteeringVector(torch.tensor(values), layer, Provenance.unknown("toy", **(MODEL_FACTS | known)), name)


def items(name: str, n: int = 6) -> ContrastDataset:
    rows = [(f"{name} {'very ' * (i % 3)}{i}?\n (A) yes\n (B) no", *LETTERS[i % 2]) for i in range(n)]
    return ContrastDataset.from_pairs(rows, name=name)


def some_parts(d_model: int) -> dict[str, SteeringVector]:
    """Three vectors at layers 0, 1 and 2, large enough to change any tiny model's answers."""
    made = Provenance.unknown("toy")
    return {
        name: SteeringVector(
            torch.randn(d_model, generator=torch.Generator().manual_seed(layer)) * 2, layer, made, name
        )
        for layer, name in enumerate(("brave", "kind", "loud"))
    }


@pytest.fixture(scope="module")
def parts(model: Any) -> dict[str, SteeringVector]:
    return some_parts(int(model.cfg.d_model))


@pytest.fixture(scope="module")
def llama(bridge: Any) -> Any:
    return bridge("llama")


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=2), st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_a_combination_is_the_weighted_sum(weights: list[float], numbers: list[float]) -> None:
    one, two = vector(numbers[:2], name="a"), vector(numbers[2:], name="b")
    both = {"a": one, "b": two}
    found = combined(both, dict(zip("ab", weights, strict=True)))
    expected = weights[0] * one.values.double() + weights[1] * two.values.double()
    assert torch.equal(found.values, expected.float())
    assert torch.equal(combined(both, "sum").values, combined(both, {"a": 1, "b": 1}).values)
    three = both | {"c": one - two}
    assert torch.equal(combined(three, "mean").values, combined(three, dict.fromkeys(three, 1 / 3)).values)


def test_a_combination_says_what_it_is_made_of() -> None:
    one = vector([1.0, 0.0], name="a", dataset="A", method="mean difference", seed=1) * 2.0
    two = vector([0.0, 1.0], name="b", dataset="B", method="mean difference", dataset_hash="g", seed=2)
    found = combined({"a": one, "b": two}, {"a": 1.0, "b": -0.5})
    assert found.name == "a + b" and found.layer == 1
    made = found.provenance
    assert made.operations == ("a: x 2", "combined: 1 x a + -0.5 x b")
    assert (made.dataset, made.method, made.n_pairs, made.seed) == ("A + B", "mean difference", 8, None)
    assert made.dataset_hash not in ("h", "g") and made.model_fingerprint == "f" and found.site == "resid_post"
    assert combined({"a": one, "b": two}, "mean").provenance.operations[-1] == "combined: mean"


@pytest.mark.parametrize(
    ("vectors", "how", "message"),
    [
        ({"a": vector([1.0])}, "sum", "vectors of ['a']: give those of two or more"),
        ({"a": vector([1.0]), "b": vector([1.0])}, "max", "how is 'max': give 'sum', 'mean', or a mapping of weights"),
        ({"a": vector([1.0]), "b": vector([1.0])}, {"a": 1.0}, "weights are {'a': 1.0} and vectors ['a', 'b']"),
        ({"a": vector([1.0]), "b": vector([1.0])}, {"a": 1.0, "b": float("inf")}, "give each a finite weight"),
        ({"a": vector([1.0]), "b": vector([1.0], 2)}, "sum", "has layer 1 and d_model 1, 'kind' has layer 2"),
        ({"a": vector([1.0]), "b": vector([1.0], model_fingerprint="g")}, "sum", "made on different models: a on toy"),
        (
            {"a": vector([1.0]), "b": vector([1.0], hook_point="hook_mlp_out")},
            "sum",
            "mlp_out (b): give vectors of one",
        ),
    ],
)
def test_what_cannot_be_combined_is_refused(vectors: Any, how: Any, message: str, unchecked: None) -> None:
    with pytest.raises(ValueError) as raised:
        combined(vectors, how)
    assert message in str(raised.value)


def test_simultaneous_is_a_layer_each() -> None:
    one, two = vector([1.0], 1), caa.Intervention(vector([2.0], 2), -1.5)
    assert simultaneous({"a": one, "b": two}) == [caa.Intervention(one), two]
    with pytest.raises(
        ValueError, match=r"a and b are both at layer 1: simultaneous\(\) is for a layer each; combined"
    ):
        simultaneous({"a": one, "b": vector([3.0], 1)})
    with pytest.raises(ValueError, match=r"parts are \['a'\]: give those of two or more behaviours"):
        simultaneous({"a": one})
    with pytest.raises(ValueError, match="different models: a on toy, b on toy"):
        simultaneous({"a": one, "b": vector([1.0], 2, model_fingerprint="g")})


def test_every_way_is_what_steering_by_hand_gives(model: Any, parts: dict[str, SteeringVector]) -> None:
    asked = items("brave")
    recipe = [*parts.values()]
    frame = ask(model, {"all": recipe, "none": None}, asked)
    assert frame["vector"].drop_duplicates().tolist() == ["unsteered", "all", "none"]
    adapter = adapt(model)
    for index, pair in enumerate(asked):
        matching, other, start, differ = both_answers(adapter, pair, "item")
        ids = torch.tensor([matching[:differ]])
        for way, positions in (("all", start), ("unsteered", None)):
            with torch.no_grad():
                if positions is None:
                    logits = model(ids)[0, -1]
                else:
                    with caa.steer(model, recipe, positions=positions):
                        logits = model(ids)[0, -1]
            row = frame[(frame["vector"] == way) & (frame["item"] == index)].iloc[0]
            logp = logits.double().log_softmax(dim=-1)
            assert row["log_odds"] == pytest.approx(float(logp[matching[differ]] - logp[other[differ]]), abs=1e-3)
            assert row["mass"] == pytest.approx(float(logp[[matching[differ], other[differ]]].exp().sum()), abs=1e-4)
            assert row["outside"] == (int(logits.argmax()) not in (matching[differ], other[differ]))
    wide = frame.pivot(index="item", columns="vector", values="log_odds")
    assert (wide["none"] == wide["unsteered"]).all() and (wide["all"] != wide["unsteered"]).all()


def test_one_vector_is_what_a_sweep_measures(model: Any, parts: dict[str, SteeringVector]) -> None:
    from caa_lens.vectors.vectors import SteeringVectors

    kind, asked = parts["kind"], items("kind")
    vectors = SteeringVectors(kind.values[None], (1,), kind.provenance, "kind")
    swept = caa.sweep(model, vectors, asked, multipliers=(0, 1), n_nulls=0).query("multiplier == 1")
    own = ask(model, {"kind": kind}, asked).query("vector == 'kind'")
    for column in ("p_matching", "mass"):
        np.testing.assert_allclose(own[column], swept[column], atol=1e-6)
    assert own["letter"].tolist() == swept["letter"].tolist()
    assert set(own["behavior"]) == {"kind"}


def test_parts_of_one_layer_are_their_combination(llama: Any) -> None:
    parts, model = some_parts(32), llama
    here = {name: part.at_layer(1) for name, part in parts.items()}
    frame = sweep_together(model, here, {name: items(name) for name in here}, n_nulls=1)
    whole = ask(model, {"sum": combined(here)}, items("kind")).query("vector == 'sum'")
    found = frame[(frame["behavior"] == "kind") & (frame["kind"] == "together")]
    np.testing.assert_allclose(found["log_odds"], whole["log_odds"], atol=1e-3)


def test_the_rows_of_together(llama: Any) -> None:
    parts, model = some_parts(32), llama
    asked = {name: items(name, 4) for name in parts}
    frame = sweep_together(model, parts, asked, n_nulls=2)
    counts = frame[frame["behavior"] == "kind"].groupby("kind").size().to_dict()
    assert counts == {"vector": 12, "random": 24, "together": 4, "unsteered": 4, "random_others": 8}
    drawn = random_parts(caa.Intervention(parts["brave"], 1.0), "brave", 2, 0)
    others = random_parts(caa.Intervention(parts["loud"], 1.0), "loud", 2, 0)
    ways = {"random": drawn[1], "random_others": [parts["kind"], drawn[1], others[1]]}
    by_hand = ask(model, ways, asked["kind"])
    for kind, part in (("random", "brave"), ("random_others", "kind")):
        rows = frame[(frame[["behavior", "kind", "vector", "draw"]] == ["kind", kind, part, 1]).all(axis=1)]
        np.testing.assert_allclose(rows["log_odds"], by_hand[by_hand["vector"] == kind]["log_odds"], atol=1e-3)
    again = sweep_together(model, parts, asked, n_nulls=2, batch_size=1)
    np.testing.assert_allclose(frame["log_odds"], again["log_odds"], atol=1e-3)
    other = sweep_together(model, parts, asked, n_nulls=2, seed=1)
    same = np.isclose(frame["log_odds"], other["log_odds"], atol=1e-3)
    assert same[frame["draw"] < 0].all() and not same[frame["draw"] >= 0].all()


def test_random_parts_keep_norm_layer_and_amount() -> None:
    part = caa.Intervention(vector([3.0, 4.0], 2), -1.5)
    drawn = random_parts(part, "a", 3, 0)
    assert [(each.layer, each.multiplier) for each in drawn] == [(2, -1.5)] * 3
    assert [each.vector.norm() for each in drawn] == pytest.approx([5.0] * 3)
    assert random_parts(part, "b", 1, 0)[0].vector != drawn[0].vector, "every behaviour has random vectors of its own"


def made_up(odds: dict[str, list[float]], letters: str = "AABB", behavior: str = "a") -> pd.DataFrame:
    """A frame of `sweep_together` with these log odds by way."""
    kinds = {name: Way(name, name) for name in ("unsteered", "together")} | {name: Way(name) for name in "ab"}
    kinds |= {f"random-{draw} for {name}": Way(name, "random", draw) for name in "ab" for draw in range(2)}
    kinds |= {f"with random-{draw}": Way(behavior, "random_others", draw) for draw in range(2)}
    rows = [
        {"behavior": behavior, **kinds[way]._asdict()}
        | {"item": item, "letter": letters[item], "log_odds": value, "p_matching": 1 / (1 + np.exp(-value))}
        | {"mass": 0.9, "outside": way == "together" and item == 0}
        for way, values in odds.items()
        for item, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


FOUR = np.array([0.5, -0.25, 1.0, 0.0])
WAYS = {
    "unsteered": FOUR, "a": FOUR + [1, 2, 3, 4], "b": FOUR + [0.5, 0, 0, 0.5],
    "together": FOUR + [1.5, 2, 3, 4.5],
    "random-0 for a": FOUR + 0.1, "random-1 for a": FOUR - 9, "random-0 for b": FOUR - 0.2, "random-1 for b": FOUR,
    "with random-0": FOUR + [1.5, 2.5, 3.5, 4.5], "with random-1": FOUR + [1, 2, 3, 4],
}  # fmt: skip


def test_vectors_that_add_up_have_no_interference() -> None:
    table = effects(made_up({way: list(values) for way, values in WAYS.items()})).set_index("vector")
    assert table.index.tolist() == ["a", "b", "together", "expected", "interference"]
    assert table.loc["a", "log_odds_change"] == pytest.approx(2.5) and table.loc[
        "b", "log_odds_change"
    ] == pytest.approx(0.25)
    assert table.loc["expected", "log_odds_change"] == pytest.approx(2.75)
    beyond = table.loc["interference"]
    assert [beyond[f"log_odds_change{end}"] for end in ("", "_low", "_high")] == pytest.approx([0, 0, 0], abs=1e-12)
    # with random-0: 3.0 in all, less 2.5 of a alone and -0.2 of what stands for b, is 0.7; with random-1 it is 0
    assert (beyond["n_random"], beyond["outsizes_random"]) == (2, 0.0)
    assert beyond["random_high"] == pytest.approx(0.7 * 0.975) and beyond["random_low"] == pytest.approx(0.7 * 0.025)
    assert table.loc["a", "outsizes_random"] == 0.5 and table.loc["b", "outsizes_random"] == 1.0
    assert np.isnan(table.loc["together", "outsizes_random"]) and np.isnan(table.loc["expected", "effect_even"])
    assert table.loc["together", "share_outside"] == 0.25 and np.isnan(table.loc["interference", "share_outside"])


def test_interference_is_together_minus_the_sum_with_letters_balanced() -> None:
    # Three items match with A and one with B: the plain mean of these changes is 1, the balanced one 4 / 3 - 1 = 1 / 6.
    ways = {way: list(values) for way, values in WAYS.items()}
    ways["together"] = list(FOUR + [1.5, 2, 3, 4.5] + np.array([2.0, 1.0, 1.0, -1.0]))
    row = interference(made_up(ways, letters="AAAB")).iloc[0]
    assert row["interference"] == pytest.approx((4 / 3 - 1) / 2)
    assert row["interference_low"] < row["interference"] < row["interference_high"]
    assert row["alone"] + row["others"] == pytest.approx(row["expected"])
    assert row["together"] - row["expected"] == pytest.approx(row["interference"])
    assert row["effect_together"] - row["effect_alone"] == pytest.approx(row["effect_change"])
    assert (row["outside_unsteered"], row["outside_alone"], row["outside_together"]) == (0.0, 0.0, 0.25)
    assert row["mass_together"] == pytest.approx(0.9) and row["n_items"] == 4


def test_an_interference_is_compared_by_its_size() -> None:
    ways = {way: list(values) for way, values in WAYS.items()}
    table = interference(made_up(ways | {"together": list(np.array(ways["together"]) - 5)}))
    assert table.iloc[0]["interference"] == pytest.approx(-5) and table.iloc[0]["outsizes_random"] == 1.0


def test_where_letters_cannot_be_balanced_the_plain_mean_stands() -> None:
    frame = made_up({way: list(values) for way, values in WAYS.items()}, letters="AAAA")
    assert effects(frame).set_index("vector").loc["a", "log_odds_change"] == pytest.approx(2.5)
    assert compared(frame[frame["draw"] < 0]).set_index("vector").loc["a", "log_odds_change"] == pytest.approx(2.5)


def test_overflow_is_outside_and_nan(llama: Any) -> None:
    parts, model = some_parts(32), llama
    frame = ask(model, {"far": caa.Intervention(parts["kind"], 1e38)}, items("kind", 2)).query("vector == 'far'")
    broken = frame["log_odds"].isna()
    assert (frame.loc[broken, "outside"]).all() and frame.loc[broken, "mass"].isna().all()


def test_planted_behaviours_work_together_less_than_alone() -> None:
    model = caa.load_model("organism-chat")
    names = ("refusal", "sycophancy")
    parts = {name: caa.extract_vectors(model, caa.load_contrast_pairs(name)[:100])[2] * 2.0 for name in names}
    asked = {name: caa.load_contrast_pairs(name, "test_ab")[:40] for name in names}
    table = interference(sweep_together(model, parts, asked, n_nulls=5))
    assert (table["effect_alone"] > 0.4).all() and (table["effect_together"] > 0.2).all()
    assert (table["interference_high"] < 0).all() and (table["effect_change_high"] < 0).all()
    assert (table["outside_together"] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {"kind": vector([1.0])}}, "parts are ['kind']: give the vectors of two or more"),
        ({"items": {"kind": items("kind")}}, "parts are named ['brave', 'kind'] and items ['kind']: give both"),
        ({"n_nulls": 0}, "n_nulls is 0: no interference is given without its null, so give 1 or more"),
        ({"rename": "together"}, "a behaviour is named 'together', as a row of the results is"),
        ({"scale": 0.0}, "the part of brave adds nothing"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_model_runs(change: dict[str, Any], message: str) -> None:
    model: Any = caa.load_model("organism-chat")
    scale = change.pop("scale", 1.0)
    names = ["brave", "kind" if "rename" not in change else change.pop("rename")]
    given: dict[str, Any] = {
        "parts": {name: vector([1.0] * 128) * scale for name in names}, "items": {n: items(n) for n in names},
    } | change  # fmt: skip
    with pytest.raises(ValueError) as raised:
        sweep_together(model, given.pop("parts"), given.pop("items"), **given)
    assert message in str(raised.value)


def test_frames_of_another_kind_are_refused() -> None:
    frame = made_up({way: list(values) for way, values in WAYS.items()})
    with pytest.raises(
        ValueError, match=r"not a frame of ask\(\) or sweep_together\(\): it lacks the columns letter, mass"
    ):
        compared(frame.drop(columns=["mass", "letter"]))
    with pytest.raises(ValueError, match=r"or sweep_together\(\): it lacks the columns draw, kind"):
        effects(frame.drop(columns=["kind", "draw"]))
    with pytest.raises(
        ValueError, match=r"not a frame of sweep_together\(\): it has no rows of the kind 'random_others'"
    ):
        effects(frame[frame["draw"] < 0])
    with pytest.raises(ValueError, match="the frame of a has no rows of the kind 'unsteered'"):
        compared(frame[frame["kind"] != "unsteered"])
    with pytest.raises(ValueError, match="the frame of a does not have every item once under each way: was it cut"):
        compared(frame.iloc[:-1])


def test_items_and_names_of_ways_are_checked() -> None:
    model: Any = caa.load_model("organism-chat")
    with pytest.raises(ValueError, match="a vector is named 'unsteered', as the model without any is"):
        ask(model, {"unsteered": None}, items("kind"))
    with pytest.raises(ValueError, match="there are no items in 'kind': at least one is needed"):
        ask(model, {}, items("kind")[:0])
