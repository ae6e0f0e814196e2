"""Every cell of a transfer table is what a plain sweep of that vector, there, under that prompt, gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import caa_lens as caa
from caa_lens import sweeps
from caa_lens.protocols.transfer import SYSTEM_PROMPTS, across_layers, across_models, across_prompts
from caa_lens.vectors.vectors import Provenance, SteeringVectors

QUESTIONS = ["Is it so?", "one two three?", "a?", "why then the other?", "and now?"]
MEASURED = ["n_items", "p_matching", "effect", "effect_low", "effect_high", "effect_balanced", "balanced_low"]
MEASURED += ["balanced_high", "share_wrong", "p_a", "letter_drift", "mass", "n_random", "random_low", "random_high"]


def items_of(questions: list[str] = QUESTIONS) -> caa.ContrastDataset:
    pairs = [caa.ContrastPair(f"{question}\n (A) yes\n (B) no", "(A)", "(B)") for question in questions]
    mixed = [pair if index % 2 else pair.swapped() for index, pair in enumerate(pairs)]
    return caa.ContrastDataset.from_pairs(mixed, name="toy")


def vectors_of(model: Any, seed: int = 0, layers: tuple[int, ...] = (0, 1, 2), name: str = "toy") -> SteeringVectors:
    values = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    lengths = torch.tensor([1.0, 2.0, 3.0])[list(layers)]
    return SteeringVectors(values * lengths[:, None], layers, Provenance.unknown("toy-model"), name)


def plain(model: Any, vectors: SteeringVectors, items: caa.ContrastDataset, **options: Any) -> pd.DataFrame:
    table = caa.summarize(caa.sweep(model, vectors, items, **options), seed=options.get("seed", 0))
    return table[table["multiplier"] != 0].reset_index(drop=True)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found[MEASURED].astype(float), expected[MEASURED].astype(float), atol=1e-4)


def test_a_layer_on_itself_is_a_plain_sweep(model: Any) -> None:
    vectors, items = vectors_of(model), items_of()
    expected = plain(model, vectors, items, n_nulls=3, seed=5)
    for norm in ("own", "target"):
        table = across_layers(model, vectors, items, norm=norm, n_nulls=3, seed=5)
        assert len(table) == 3 * 3 * 2
        assert_same(table[table["made_at"] == table["used_at"]].sort_values(["used_at", "multiplier"]), expected)


def test_every_other_cell_is_that_vector_at_that_layer(bridge: Any) -> None:
    model = bridge("qwen2")
    vectors, items = vectors_of(model, layers=(0, 2)), items_of()
    table = across_layers(model, vectors, items, made_at=[2], used_at=[0, 1], multipliers=(0.5,), n_nulls=2)
    assert list(zip(table["made_at"], table["used_at"], strict=True)) == [(2, 0), (2, 1)]
    for used in (0, 1):
        there = SteeringVectors(vectors[2].values[None], (used,), vectors.provenance, "toy")
        expected = plain(model, there, items, multipliers=(0.5,), n_nulls=2)
        assert_same(table[table["used_at"] == used], expected)
    assert table["norm"].to_numpy() == pytest.approx(vectors[2].norm(), rel=1e-6)
    cosine = torch.nn.functional.cosine_similarity(vectors[0].values, vectors[2].values, dim=0)
    assert table["cosine"].tolist() == pytest.approx([float(cosine), float("nan")], abs=1e-6, nan_ok=True)
    assert (table["effect"].abs() > 1e-4).all()


def test_the_targets_norm_is_the_targets(bridge: Any) -> None:
    model = bridge("llama")
    vectors, items = vectors_of(model), items_of()
    table = across_layers(model, vectors, items, norm="target", multipliers=(1,), n_nulls=2)
    for row in table.itertuples():
        assert row.norm == pytest.approx(vectors[row.used_at].norm(), rel=1e-6)
    moved = vectors[0].unit() * vectors[2].norm()
    there = SteeringVectors(moved.values[None], (2,), vectors.provenance, "toy")
    expected = plain(model, there, items, multipliers=(1,), n_nulls=2)
    assert_same(table.query("made_at == 0 and used_at == 2"), expected)


def test_all_vectors_go_through_one_sweep(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = bridge("llama"), []
    run = sweeps.branch_answers
    monkeypatch.setattr(
        sweeps, "branch_answers", lambda *args, **named: calls.append(len(args[1])) or run(*args, **named)
    )
    items = items_of()
    across_layers(model, vectors_of(model), items, n_nulls=2)
    across_models(model, {"one": vectors_of(model), "two": vectors_of(model, 1)}, items, n_nulls=2)
    assert calls == [len(items)] * 2, "each prompt once, for all layers, vectors and random vectors"
    calls.clear()
    across_prompts(model, items, items, formats=("plain", "base"), layers=[1])
    assert calls == [len(items)] * 2, "once under each format"


def test_the_models_own_vectors_first_and_the_others_beside_them(model: Any) -> None:
    own, other, items = vectors_of(model), vectors_of(model, seed=1), items_of()
    named = {"chat": own, "base": other, "against": -own, "again": own * 2.0}
    table = across_models(model, named, items, n_nulls=2)
    assert_same(table[table["vector"] == "chat"], plain(model, own, items, n_nulls=2))
    assert_same(table[table["vector"] == "base"], plain(model, other, items, n_nulls=2))
    against, along = table[table["vector"] == "against"], table[table["vector"] == "chat"]
    for layer in own.layers:
        effects = [part[part["layer"] == layer].set_index("multiplier")["effect"] for part in (against, along)]
        assert effects[0][1.0] == pytest.approx(effects[1][-1.0], abs=1e-5), "-v at 1 is v at -1"
    alike = table[table["multiplier"] == 1].pivot(index="vector", columns="layer", values="cosine")
    expected = torch.nn.functional.cosine_similarity(own.values, other.values).tolist()
    assert alike.loc["base"].tolist() == pytest.approx(expected, abs=1e-6)
    assert alike.loc["chat"].tolist() == pytest.approx([1] * 3) and alike.loc["against"].tolist() == pytest.approx(
        [-1] * 3
    )
    assert set(table["made_on"]) == {"toy-model"} and set(table["behavior"]) == {"toy"}
    level = across_models(model, named, items, norm="target", multipliers=(1,), n_nulls=2)
    assert_same(level[level["vector"] == "again"], plain(model, own, items, multipliers=(1,), n_nulls=2))


def test_layers_that_differ_are_named(bridge: Any) -> None:
    model, items = bridge("llama"), items_of()
    named = {"chat": vectors_of(model), "base": vectors_of(model, 1, (1, 2))}
    with pytest.raises(ValueError, match="the vectors have different layers: 'chat' has 0-2, 'base' has 1-2; give lay"):
        across_models(model, named, items)
    with pytest.raises(ValueError, match="'base' has no vector of layer 0: give layers that all have"):
        across_models(model, named, items, layers=[0, 1])
    table = across_models(model, named, items, layers=[2], multipliers=(1,))
    assert table["layer"].tolist() == [2, 2]
    wide = SteeringVectors(torch.ones(1, 7), (1,), Provenance.unknown("wide"), "toy")
    with pytest.raises(ValueError, match="have different d_model: 'toy' has 32, 'toy' has 7"):
        across_models(model, {"chat": vectors_of(model), "wide": wide}, items, layers=[1])
    with pytest.raises(
        ValueError, match=r"the vector 'toy' has d_model 7 and llama has 32: it was made on another mod"
    ):
        across_models(model, {"wide": wide}, items)


@pytest.fixture(scope="module")
def between_prompts(bridge: Any) -> tuple[Any, Any, pd.DataFrame]:
    model = bridge("llama")
    train, test = items_of(), items_of(["or so?", "two?", "then the third one?", "not it?"])
    systems = {"none": None, "brief": "Be brief."}
    table = across_prompts(model, train, test, formats=("chat", "plain"), systems=systems, layers=[1], n_nulls=2)
    return model, (train, test, systems), table


def test_made_and_used_under_every_prompt(between_prompts: tuple[Any, Any, pd.DataFrame]) -> None:
    model, (train, test, systems), table = between_prompts
    assert len(table) == 4 * 4 * 2
    keys = ["made_format", "made_system", "used_format", "used_system"]
    for (made, made_system, used, used_system), part in table.groupby(keys):
        vectors = caa.extract_vectors(model, train, layers=[1], prompt_format=made, system=systems[made_system])
        shape: Any = {"prompt_format": used, "system": systems[used_system]}
        assert_same(part, plain(model, vectors, test, n_nulls=2, **shape))


def test_items_are_ranked_as_where_the_vector_was_made(between_prompts: tuple[Any, Any, pd.DataFrame]) -> None:
    model, (train, test, _), table = between_prompts
    same = (table["made_format"] == table["used_format"]) & (table["made_system"] == table["used_system"])
    assert table.loc[same, "item_correlation"].tolist() == pytest.approx([1.0] * same.sum())
    vectors = caa.extract_vectors(model, train, layers=[1], prompt_format="plain")
    ranks = []
    for used in ("plain", "chat"):
        frame = caa.sweep(model, vectors, test, prompt_format=used, multipliers=(1,), n_nulls=0)
        odds = (frame["logp_matching"] - frame["logp_other"]).to_numpy().reshape(2, -1)
        ranks.append(np.argsort(np.argsort(odds[1] - odds[0])))
    where = "made_format == 'plain' and used_format == 'chat' and multiplier == 1"
    [found] = table.query(f"{where} and made_system == 'none' and used_system == 'none'")["item_correlation"]
    assert found == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_only_system_prompts_may_vary(bridge: Any) -> None:
    model, items = bridge("qwen2"), items_of()
    table = across_prompts(model, items, items, systems=SYSTEM_PROMPTS, layers=[1], multipliers=(1,))
    assert len(table) == len(SYSTEM_PROMPTS) ** 2 and set(table["used_format"]) == {"chat"}
    assert list(table["made_system"].unique()) == list(SYSTEM_PROMPTS)
    assert len(set(SYSTEM_PROMPTS.values())) == len(SYSTEM_PROMPTS)


def test_items_that_all_move_alike_have_no_correlation(bridge: Any) -> None:
    model, items = bridge("llama"), items_of(["same?"])
    table = across_prompts(model, items, items, formats=("plain",), layers=[1])
    assert table["item_correlation"].isna().all()


def test_errors_come_before_the_model_runs(bridge: Any, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    model, gemma, items = bridge("llama"), bridge("gemma2"), items_of()
    vectors = vectors_of(model)
    ran: list[Any] = []
    monkeypatch.setattr(sweeps, "branch_answers", lambda *args, **named: ran.append(args))
    monkeypatch.setattr("caa_lens.extraction.extraction.branch_residuals", lambda *args, **named: ran.append(args))
    broken = replace(vectors, values=vectors.values * torch.tensor([[0.0], [1.0], [1.0]]))
    with pytest.raises(ValueError, match="norm 'unit' is not known: give 'own' or 'target'"):
        across_layers(model, vectors, items, norm="unit")
    with pytest.raises(ValueError, match=r"multipliers \[0.0\]: give at least one that is not 0"):
        across_layers(model, vectors, items, multipliers=(0.0,))
    with pytest.raises(ValueError, match=r"multipliers \[1, 1\]: give .* each once"):
        across_prompts(model, items, items, formats=("plain",), multipliers=(1, 1))
    with pytest.raises(ValueError, match=r"layer 3 is not in these vectors \(layers 0-2\)"):
        across_layers(model, vectors, items, made_at=[3])
    with pytest.raises(ValueError, match=r"layer 3 is not in these vectors \(layers 0-2\)"):
        across_layers(model, vectors, items, used_at=[3], norm="target")
    with pytest.raises(ValueError, match="layer 9 is out of range for llama"):
        across_layers(model, vectors, items, used_at=[9])
    with pytest.raises(ValueError, match="vector 'toy' is zero at layer 0: it has no direction"):
        across_layers(model, broken, items, norm="target")
    with pytest.raises(ValueError, match="no vectors were given: give the model's own and others"):
        across_models(model, {}, items)
    with pytest.raises(ValueError, match="nothing varies: give formats="):
        across_prompts(model, items, items)
    with pytest.raises(ValueError, match="prompt format 'json' is not known"):
        across_prompts(model, items, items, formats=("plain", "json"))
    with pytest.raises(ValueError, match="chat template refuses the prompt with a system prompt"):
        across_prompts(gemma, items, items, systems=SYSTEM_PROMPTS)
    assert not ran
