"""A choice is the best of what is permitted, is reported elsewhere, and methods are compared where damage is equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import caa_lens as caa
from caa_lens.evaluation.side_effects import side_effects
from caa_lens.protocols.selection import OperatingPoint, at_budget, choose, damage, select, selected
from caa_lens.vectors.vectors import Provenance, SteeringVectors, random_like

TEXTS = ["the one then the other", "this is a somewhat longer text than the others are", "a b c"]
QUESTIONS = ["Is it so?", "one two three?", "a?", "why then the other?", "and now?", "which?"]


def items_of(questions: list[str] = QUESTIONS) -> caa.ContrastDataset:
    pairs = [caa.ContrastPair(f"{question}\n (A) yes\n (B) no", "(A)", "(B)") for question in questions]
    mixed = [pair if index % 2 else pair.swapped() for index, pair in enumerate(pairs)]
    return caa.ContrastDataset.from_pairs(mixed, name="toy")


def vectors_of(model: Any, seed: int = 0, layers: tuple[int, ...] = (0, 1, 2)) -> SteeringVectors:
    values = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVectors(values, layers, Provenance.unknown("toy"), "toy")


def summary_of(cells: dict[tuple[int, float], tuple[float, float]], behavior: str = "toy") -> pd.DataFrame:
    """A summary from (layer, multiplier) -> (balanced effect, mass); the plain effect is twice the balanced one."""
    return pd.DataFrame(
        [
            {
                "behavior": behavior,
                "layer": layer,
                "multiplier": multiplier,
                "effect": 2 * balanced,
                "effect_balanced": balanced,
                "mass": mass,
            }
            for (layer, multiplier), (balanced, mass) in cells.items()
        ]
    )


CELLS = {(1, -1.0): (-0.2, 0.9), (1, 0.0): (0.0, 0.9), (1, 1.0): (0.3, 0.9), (1, 2.0): (0.5, 0.2), (4, 1.0): (0.4, 0.8)}
KL = {(1, -1.0): 0.1, (1, 0.0): 0.0, (1, 1.0): 0.1, (1, 2.0): 0.4, (4, 1.0): 0.9}


def damage_of(kl: dict[tuple[int, float], float]) -> pd.DataFrame:
    return pd.DataFrame([{"behavior": "toy", "layer": i, "multiplier": m, "kl": value} for (i, m), value in kl.items()])


def test_the_largest_effect_among_the_permitted_is_chosen() -> None:
    summary = summary_of(CELLS)
    assert choose(summary) == {"toy": OperatingPoint(1, 2.0)}
    assert choose(summary, min_mass=0.5) == {"toy": OperatingPoint(4, 1.0)}
    assert choose(summary, max_kl=0.5, damage=damage_of(KL)) == {"toy": OperatingPoint(1, 2.0)}
    assert choose(summary, max_kl=0.5, min_mass=0.5, damage=damage_of(KL)) == {"toy": OperatingPoint(1, 1.0)}
    overflowed = damage_of(KL | {(1, 2.0): float("nan")})
    assert choose(summary, max_kl=0.5, damage=overflowed) == {"toy": OperatingPoint(1, 1.0)}
    assert choose(summary, sign=-1) == {"toy": OperatingPoint(1, -1.0)}


def test_ties_go_to_the_smaller_multiplier_and_unbalanced_items_by_the_plain_effect() -> None:
    same = summary_of({(3, 2.0): (0.3, 1), (5, 1.0): (0.3, 1), (4, 1.0): (0.3, 1)})
    assert choose(same) == {"toy": OperatingPoint(4, 1.0)}
    one_letter = summary_of({(3, 1.0): (np.nan, 1), (5, 1.0): (np.nan, 1)}).assign(effect=[0.1, 0.2])
    assert choose(one_letter) == {"toy": OperatingPoint(5, 1.0)}
    two = pd.concat([same, summary_of({(7, 0.5): (0.1, 1)}, "other")])
    assert choose(two) == {"toy": OperatingPoint(4, 1.0), "other": OperatingPoint(7, 0.5)}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([-1, 1]), st.floats(0, 1), st.floats(0.01, 1))
def test_nothing_permitted_is_better(seed: int, sign: int, min_mass: float, max_kl: float) -> None:
    generator = np.random.default_rng(seed)
    cells = {(layer, m): tuple(generator.uniform(-1, 1, 2)) for layer in (2, 5, 6) for m in (-2.0, -1.0, 0.0, 1.0, 2.0)}
    summary = summary_of({cell: (effect, abs(mass)) for cell, (effect, mass) in cells.items()})
    kl = {cell: float(generator.uniform(0, 1)) for cell in cells}
    permitted = [
        cell for cell, (_, mass) in cells.items() if cell[1] * sign > 0 and abs(mass) >= min_mass and kl[cell] <= max_kl
    ]
    conditions: Any = {"sign": sign, "min_mass": min_mass, "max_kl": max_kl, "damage": damage_of(kl)}
    if not permitted:
        with pytest.raises(ValueError, match="no layer and multiplier of toy is permitted"):
            choose(summary, **conditions)
        return
    point = choose(summary, **conditions)["toy"]
    assert (point.layer, point.multiplier) in permitted
    assert cells[point.layer, point.multiplier][0] * sign == max(cells[cell][0] * sign for cell in permitted)


def test_the_optimism_of_a_choice() -> None:
    dev, test = summary_of({(1, -2.0): (-0.5, 0.9)}), summary_of({(1, -2.0): (-0.3, 0.8), (1, 0.0): (0, 1)})
    [row] = selected(dev, test, {"toy": OperatingPoint(1, -2.0)}).to_dict("records")
    assert row["optimism"] == pytest.approx(0.2), "further against the vector on dev"
    assert (row["effect_balanced"], row["effect_balanced_dev"], row["effect_dev"]) == (-0.3, -0.5, -1.0)
    assert (row["mass"], row["mass_dev"]) == (0.8, 0.9)
    [row] = selected(dev, test.assign(effect_balanced=np.nan), {"toy": OperatingPoint(1, -2.0)}).to_dict("records")
    assert row["optimism"] == pytest.approx(0.4), "of the plain effects"


def test_what_cannot_be_chosen_is_said() -> None:
    summary = summary_of(CELLS)
    with pytest.raises(ValueError, match="this is not the frame of summarize.*: it lacks the columns effect_balanced"):
        choose(summary.drop(columns="effect_balanced"))
    with pytest.raises(ValueError, match="the summary has no multiplier below 0"):
        choose(summary[summary["multiplier"] >= 0], sign=-1)
    with pytest.raises(ValueError, match=r"max_kl 0.5 needs the KL on neutral text: give damage=damage\(...\)"):
        choose(summary, max_kl=0.5)
    with pytest.raises(ValueError, match="sign 0, min_mass 0.0, max_kl None: sign is 1 or -1"):
        choose(summary, sign=0)
    with pytest.raises(ValueError, match=r"1 of 3 cells of the summary have no row in the damage"):
        choose(summary, max_kl=0.5, damage=damage_of(KL)[:-1])
    with pytest.raises(ValueError, match=r"of toy is permitted: its largest mass is 0.9, its least KL 0.1; give small"):
        choose(summary, max_kl=0.05, damage=damage_of(KL))
    with pytest.raises(ValueError, match="the summary of test has 0 rows of toy at layer 1 and multiplier 2: sweep th"):
        selected(summary, summary[summary["multiplier"] < 2], {"toy": OperatingPoint(1, 2.0)})


def test_damage_is_the_mean_over_all_tokens(model: Any) -> None:
    vectors = vectors_of(model)
    table = damage(model, vectors, TEXTS, layers=[0, 2], multipliers=(-1, 0, 0.5))
    assert list(zip(table["layer"], table["multiplier"], strict=True)) == [(i, m) for i in (0, 2) for m in (-1, 0, 0.5)]
    for row in table.itertuples():
        frame = side_effects(model, {"it": vectors[row.layer] * row.multiplier}, TEXTS)
        weights = frame["n_tokens"] / frame["n_tokens"].sum()
        assert row.n_tokens == frame["n_tokens"].sum() and row.kl_max == pytest.approx(frame["kl_max"].max(), abs=1e-4)
        for mine, theirs in (("kl", "kl_mean"), ("nll_steered", "nll_steered"), ("top1_agreement", "top1_agreement")):
            assert getattr(row, mine) == pytest.approx((frame[theirs] * weights).sum(), abs=1e-4)
    assert (table.loc[table["multiplier"] == 0, "kl"] == 0).all() and frame["n_tokens"].nunique() > 1


def test_select_chooses_on_dev_and_reports_on_test(bridge: Any) -> None:
    model = bridge("llama")
    dev, test = items_of(), items_of(["or so?", "two?", "then the third one?", "not it?"])
    vectors = vectors_of(model)
    steps = (0.5, 2.0)
    table = select(model, vectors, dev, test, multipliers=steps, sign=-1, n_nulls=3, seed=2)
    on_dev, on_test = (
        caa.summarize(caa.sweep(model, vectors, items, multipliers=(-0.5, -2), n_nulls=3, seed=2), seed=2)
        for items in (dev, test)
    )
    point = choose(on_dev, sign=-1)["toy"]
    assert (table["layer"].item(), table["multiplier"].item()) == (point.layer, point.multiplier)
    expected = selected(on_dev, on_test, {"toy": point})
    numbers = expected.select_dtypes("number").columns
    np.testing.assert_allclose(table[numbers].astype(float), expected[numbers].astype(float), atol=1e-4)
    kl = damage(model, vectors, TEXTS, multipliers=(-0.5, -2))
    tight = float(kl["kl"].min()) * 1.0001
    held = select(model, vectors, dev, test, multipliers=steps, sign=-1, max_kl=tight, texts=TEXTS)
    assert held["kl"].item() == pytest.approx(kl["kl"].min(), rel=1e-4)
    least = kl.loc[kl["kl"].idxmin()]
    assert (held["layer"].item(), held["multiplier"].item()) == (least["layer"], least["multiplier"])


def test_select_refuses_before_the_model_runs() -> None:
    model: Any = caa.load_model("organism-chat")
    items, vectors = items_of(), vectors_of(model)
    with pytest.raises(ValueError, match=r"dev and test share 6 questions, such as '.*': give sets apart"):
        select(model, vectors, items, items)
    with pytest.raises(
        ValueError, match=r"multipliers \[-1\]: give numbers above 0; sign=-1 steers against the vector"
    ):
        select(model, vectors, items, items_of(["new?"]), multipliers=(-1,))
    with pytest.raises(ValueError, match="max_kl 0.1 needs the KL on neutral text"):
        select(model, vectors, items, items_of(["new?"]), max_kl=0.1)


def test_at_a_budget_every_vector_does_that_damage_and_has_its_effect(model: Any) -> None:
    budget, tolerance, items, text = 0.05, 0.1, items_of(), [TEXTS[2]]
    named = {"one": vectors_of(model, layers=(0, 2)), "other": vectors_of(model, 1, (0, 2))}
    table = at_budget(model, named, items, text, budget, sign=-1, tolerance=tolerance, n_nulls=1)
    assert len(table) == 4 and table["reached"].all() and (table["multiplier"] < 0).all()
    for row in table.itertuples():
        vector = named[row.vector][row.layer]
        recipes = {"at": vector * row.multiplier, "below": vector * (row.multiplier * (1 - 1.5 * tolerance))}
        at, below = side_effects(model, recipes, text)["kl_p95"]
        assert below < budget <= at + 1e-4 and at == pytest.approx(row.kl, abs=1e-4)
        assert row.added_norm == pytest.approx(abs(row.multiplier) * vector.norm(), rel=1e-5) and row.n_random == 1
    row = table.iloc[-1]
    steered = caa.sweep(model, named["other"], items, layers=[2], multipliers=(row["multiplier"],))
    expected = caa.summarize(steered).query("multiplier != 0").iloc[0]
    assert row["vector"] == "other" and row["layer"] == 2
    for column in ("effect", "effect_balanced", "balanced_low", "p_a", "mass"):
        assert row[column] == pytest.approx(expected[column], abs=1e-3)


def test_length_does_not_matter_at_a_budget(bridge: Any) -> None:
    model = bridge("llama")
    vectors = vectors_of(model, layers=(0, 2))
    named = {"short": vectors, "long": vectors * 4.0}  # a power of 2: the search takes the same steps
    table = at_budget(model, named, items_of(), TEXTS, 0.05, n_nulls=3).set_index(["vector", "layer"])
    short, long = table.loc["short"], table.loc["long"]
    np.testing.assert_allclose(long["multiplier"] * 4, short["multiplier"], rtol=0.011)
    np.testing.assert_allclose(long["added_norm"], short["added_norm"], rtol=0.011)
    np.testing.assert_allclose(long["effect"], short["effect"], atol=5e-3)
    nulls = ["n_random", "random_low", "random_high"]
    np.testing.assert_allclose(long[nulls], short[nulls])


def test_random_vectors_are_at_their_own_equal_damage(bridge: Any) -> None:
    model = bridge("llama")
    vectors, items = vectors_of(model, layers=(1,)), items_of()
    table = at_budget(model, vectors, items, TEXTS[2:], 0.05, n_nulls=2, seed=3)
    effects = []
    for null in random_like(vectors, 2, 3):
        alone = at_budget(model, {"null": null}, items, TEXTS[2:], 0.05)
        effects.append(alone["effect_balanced"].item())
    assert (table["random_low"].item(), table["random_high"].item()) == pytest.approx(
        tuple(np.quantile(effects, [0.025, 0.975])), abs=1e-4
    )
    assert table["vector"].tolist() == table["behavior"].tolist() == ["toy"]


def test_a_budget_that_is_not_reached_has_no_effect(bridge: Any) -> None:
    model = bridge("llama")
    named = {"one": vectors_of(model, layers=(1,)), "weak": vectors_of(model, 1, layers=(1,)) * 1e-4}
    options: Any = {"largest": 4.0, "tolerance": 0.3, "n_nulls": 2}
    table = at_budget(model, named, items_of(), TEXTS[2:], 0.05, **options).set_index("vector")
    assert table["reached"].to_dict() == {"one": True, "weak": False} and table.loc["one"].notna().all()
    assert table.loc["weak", ["multiplier", "effect", "effect_balanced", "mass", "beats_random"]].isna().all()
    assert table.loc["weak", "n_items"] == 6 and table.loc["weak", "kl"] < 0.05
    tiny = at_budget(model, named["weak"], items_of(), TEXTS[2:], 0.05, **options)
    assert (tiny["n_random"] == 0).all(), "random vectors of that length did not reach it either"


def test_what_cannot_be_compared_is_refused(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, items = bridge("llama"), items_of()
    monkeypatch.setattr(
        "caa_lens.protocols.selection.at_equal_damage", lambda *args, **named: pytest.fail("the model ran")
    )
    with pytest.raises(ValueError, match="no vectors were given: at least one is needed"):
        at_budget(model, {}, items, TEXTS, 0.1)
    with pytest.raises(ValueError, match=r"has layer 0-2 and d_model 32, .* has layer 1-2"):
        at_budget(model, {"a": vectors_of(model), "b": vectors_of(model, layers=(1, 2))}, items, TEXTS, 0.1)
    with pytest.raises(ValueError, match="a compared vector is named 'toy', as the behaviour is"):
        at_budget(model, {"one": vectors_of(model), "toy": vectors_of(model)}, items, TEXTS, 0.1, n_nulls=1)
    with pytest.raises(ValueError, match="no chat template"):
        at_budget(bridge("gpt2"), vectors_of(bridge("gpt2")), items, TEXTS, 0.1, prompt_format="chat")
