"""Every number about running text equals plain passes, one text at a time; and what costs nothing measures nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import selection
import tiny_models
import torch
from plain import plain_logits

from caa_lens.engine import text_logprobs as running_text
from caa_lens.engine.text_logprobs import RunningTexts
from caa_lens.evaluation import side_effects
from caa_lens.evaluation.side_effects import Search, at_equal_damage
from caa_lens.interventions.interventions import Intervention
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.vectors.vectors import Provenance, SteeringVector, SteeringVectors

model = selection.model_fixture(tiny_models.STYLES)  # a running text is scored by a path of its own
TEXTS = ["the one then the other", "so it", "this is a somewhat longer text than the others are", "a b c"]


def vector(model: Any, layer: int = 1, seed: int = 0) -> SteeringVector:
    value = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(value, layer, Provenance.unknown("toy"), "toy")


def recipes_of(model: Any) -> dict[str, Any]:
    v, w = vector(model), vector(model, 0, seed=1)
    return {"one": v, "two": [Intervention(v, -2.0), w], "none": None, "zero": v * 0.0}


def plain_scores(model: Any, text: str, edits: list[tuple[int, torch.Tensor]]) -> dict[str, np.ndarray]:
    """Per counted token, from two full passes: kl, nll, nll_unsteered, agrees."""
    ids = format_prompt(model, text, prompt_format="plain").ids
    steered, unsteered = (plain_logits(model, ids, own, start=1).double().log_softmax(-1)[1:-1] for own in (edits, []))
    tokens = torch.tensor(ids[2:]).unsqueeze(1)
    return {
        "kl": (steered.exp() * (steered - unsteered)).sum(-1).numpy(),
        "nll": -steered.gather(1, tokens)[:, 0].numpy(),
        "nll_unsteered": -unsteered.gather(1, tokens)[:, 0].numpy(),
        "agrees": (steered.argmax(-1) == unsteered.argmax(-1)).numpy(),
    }


def test_every_number_equals_plain_passes(model: Any) -> None:
    v, w = vector(model), vector(model, 0, seed=1)
    edits = {"one": [(1, v.values)], "two": [(1, v.values * -2.0), (0, w.values)], "none": [], "zero": []}
    frame = side_effects.side_effects(model, recipes_of(model), TEXTS)
    assert list(zip(frame["vector"], frame["document"], strict=True)) == [
        (r, t) for r in edits for t in range(len(TEXTS))
    ]
    for row in frame.itertuples():
        expected = plain_scores(model, TEXTS[row.document], edits[row.vector])
        kl = expected["kl"]
        assert row.n_tokens == len(kl)
        np.testing.assert_allclose(
            [row.kl_mean, row.kl_p95, row.kl_max], [kl.mean(), np.quantile(kl, 0.95), kl.max()], atol=1e-4, rtol=1e-4
        )
        np.testing.assert_allclose(
            [row.nll_steered, row.nll_unsteered, row.top1_agreement],
            [expected["nll"].mean(), expected["nll_unsteered"].mean(), expected["agrees"].mean()],
            atol=1e-4,
        )
    assert (frame.query("vector == 'two'")["kl_mean"] > 0.01).all()


def test_what_adds_nothing_measures_exactly_nothing(model: Any) -> None:
    frame = side_effects.side_effects(model, recipes_of(model), TEXTS)
    nothing = frame[frame["vector"].isin(["none", "zero"])]
    assert (nothing[["kl_mean", "kl_p95", "kl_max"]] == 0).all(axis=None)
    assert (nothing["nll_steered"] == nothing["nll_unsteered"]).all() and (nothing["top1_agreement"] == 1).all()
    assert (frame["kl_mean"] >= 0).all()


def test_batches_do_not_change_the_result(model: Any) -> None:
    import pandas as pd

    whole, alone = (side_effects.side_effects(model, recipes_of(model), TEXTS, batch_size=n) for n in (None, 1))
    pd.testing.assert_frame_equal(whole, alone, check_exact=False, atol=1e-4, rtol=1e-4)
    backwards = side_effects.side_effects(model, recipes_of(model), TEXTS[::-1], batch_size=3)
    np.testing.assert_allclose(backwards["kl_max"][: len(TEXTS)][::-1], whole["kl_max"][: len(TEXTS)], atol=1e-4)


def test_the_unsteered_text_is_run_once_and_recipes_share_passes(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[bool, int]] = []
    run: Callable[..., torch.Tensor] = RunningTexts._logits

    def counting(self: RunningTexts, members: Any, edits: Any) -> torch.Tensor:
        passes.append((edits is None, len(members)))
        return run(self, members, edits)

    monkeypatch.setattr(RunningTexts, "_logits", counting)
    side_effects.side_effects(bridge("llama"), recipes_of(bridge("llama")), TEXTS)
    assert passes == [(True, 4), (False, 8)], "two of four recipes add something"


def test_log_probabilities_are_made_for_a_few_positions_at_a_time(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    model, sizes, rows = bridge("gemma2"), [], []
    expected = side_effects.side_effects(model, recipes_of(model), TEXTS)
    log_softmax = RunningTexts._log_softmax

    def measured(self: RunningTexts, *args: Any) -> torch.Tensor:
        sizes.append(log_softmax(self, *args).shape[0])
        return log_softmax(self, *args)

    run: Callable[..., torch.Tensor] = RunningTexts._logits
    monkeypatch.setattr(RunningTexts, "_logits", lambda *args: rows.append(len(args[1])) or run(*args))
    monkeypatch.setattr(RunningTexts, "_log_softmax", measured)
    room = 32 * 3 * running_text.logit_bytes(adapt(model))
    monkeypatch.setattr(running_text, "working_bytes", lambda device: room)
    found = side_effects.side_effects(model, recipes_of(model), TEXTS)
    assert max(sizes) <= 3 and max(rows) <= 3
    pd.testing.assert_frame_equal(found, expected, check_exact=False, atol=1e-4, rtol=1e-4)


def test_no_hook_is_left_after_an_exception(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")

    def broken(*args: Any) -> None:
        raise RuntimeError("half way")

    before = plain_logits(model, [1, 7, 9])
    monkeypatch.setattr(RunningTexts, "_compared", broken)
    with pytest.raises(RuntimeError, match="half way"):
        side_effects.side_effects(model, {"a": vector(model)}, TEXTS)
    assert torch.equal(plain_logits(model, [1, 7, 9]), before)
    assert not any(block._forward_pre_hooks for block in model.blocks)
    assert torch.is_grad_enabled()


def test_errors_name_what_was_given(bridge: Any, unchecked: None) -> None:
    model = bridge("llama")
    v = vector(model)
    run = side_effects.side_effects
    with pytest.raises(TypeError, match="texts is one string: give a list"):
        run(model, {"a": v}, "neutral text")
    with pytest.raises(TypeError, match="recipes are SteeringVector: give them under names"):
        run(model, v, TEXTS)
    with pytest.raises(ValueError, match="no recipes were given"):
        run(model, {}, TEXTS)
    with pytest.raises(ValueError, match="no texts were given"):
        run(model, {"a": v}, [])
    with pytest.raises(ValueError, match=r"text 1 has . tokens, '': at least 3 are needed"):
        run(model, {"a": v}, ["a b c d", ""])
    with pytest.raises(ValueError, match="item 0 needs .* tokens and llama holds 512"):
        run(model, {"a": v}, ["a b " * 400])
    with pytest.raises(ValueError, match="layer 40 is out of range"):
        run(model, {"a": vector(model, 40)}, TEXTS)
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        run(model, {"a": v}, TEXTS, batch_size=0)
    for wrong, what in (
        ({"budget": 0.0}, "budget is a positive number of nats"),
        ({"sign": 2}, "sign is 1 or -1"),
        ({"quantile": 95}, "quantile is from 0 to 1"),
        ({"smallest": -1.0}, "smallest is positive and at most largest"),
        ({"tolerance": 1.0}, "tolerance is between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=what):
            at_equal_damage(model, {"a": v}, TEXTS, **({"budget": 0.1} | wrong))
    with pytest.raises(TypeError, match="vectors are list: give SteeringVectors, or a mapping"):
        at_equal_damage(model, [v], TEXTS, 0.1)
    with pytest.raises(ValueError, match="no vectors were given"):
        at_equal_damage(model, {}, TEXTS, 0.1)


def vectors_of(model: Any, layers: tuple[int, ...] = (0, 1, 2)) -> SteeringVectors:
    values = torch.stack([vector(model, layer, seed=layer).values for layer in layers])
    return SteeringVectors(values, layers, Provenance.unknown("toy"), "toy")


def test_at_equal_damage_every_layer_does_that_damage(model: Any) -> None:
    vectors, budget, tolerance = vectors_of(model), 0.05, 0.1
    table = at_equal_damage(model, vectors, TEXTS[:2], budget, tolerance=tolerance, sign=-1)
    assert table["reached"].all() and table["layer"].tolist() == [0, 1, 2] and (table["vector"] == "toy").all()
    for row in table.itertuples():
        assert row.multiplier < 0
        assert row.added_norm == pytest.approx(-row.multiplier * vectors[row.layer].norm())

        def damage(multiplier: float, layer: int = row.layer) -> float:
            edits = [(layer, vectors[layer].values * multiplier)]
            return float(np.quantile(np.concatenate([plain_scores(model, t, edits)["kl"] for t in TEXTS[:2]]), 0.95))

        assert row.kl == pytest.approx(damage(row.multiplier), abs=1e-4) and row.kl >= budget
        assert damage(row.multiplier * (1 - 1.5 * tolerance)) < budget


def test_a_budget_that_is_not_reached_is_said_to_be(bridge: Any) -> None:
    model = bridge("llama")
    vectors = {"weak": vector(model) * 1e-3, "nothing": vector(model) * 0.0, "strong": vector(model) * 10.0}
    table = at_equal_damage(model, vectors, TEXTS, 0.1, largest=3.0).set_index("vector")
    assert table["reached"].to_dict() == {"weak": False, "nothing": False, "strong": True}
    assert table["multiplier"].isna().to_dict() == {"weak": True, "nothing": True, "strong": False}
    assert 0 < table.loc["weak", "kl"] < 0.1 and table.loc["nothing", "kl"] == 0
    assert (table["largest"] == 3.0).all()
    assert table.loc["weak", "n_evaluations"] == 9, "1/64, 1/32, ..., 2, and 3"


@pytest.mark.parametrize("keeps", [True, False])
def test_vectors_searched_together_are_each_alone(bridge: Any, monkeypatch: pytest.MonkeyPatch, keeps: bool) -> None:
    model = bridge("qwen2")
    if not keeps:
        monkeypatch.setattr(running_text, "working_bytes", lambda device: 1 << 16)
    kwargs = {"tolerance": 0.3, "smallest": 0.1}
    together = at_equal_damage(model, vectors_of(model, (0, 2)), TEXTS[:2], 0.2, **kwargs)
    for row in together.itertuples():
        own = {"it": vectors_of(model)[row.layer]}
        alone = at_equal_damage(model, own, TEXTS[:2], 0.2, batch_size=1, **kwargs).iloc[0]
        assert alone["multiplier"] == row.multiplier and alone["n_evaluations"] == row.n_evaluations
        assert alone["kl"] == pytest.approx(row.kl, abs=1e-4)


def searched(damage: Callable[[float], float], budget: float = 1.0, largest: float = 64.0) -> Search:
    search = Search(budget, 1 / 64, largest, 0.01)
    while not search.done:
        search.take(damage(search.multiplier), 0.0)
        assert search.n_evaluations < 100
    return search


def test_the_first_crossing_is_found() -> None:
    high = searched(lambda x: x * x / 9).high
    assert high is not None and 3.0 <= high <= 3.0 * 1.011
    returning = searched(lambda x: x if x < 3 else 0.5 if x < 20 else x)
    assert returning.high is not None and 1.0 <= returning.high <= 1.011, "not the second, at 20"
    early = searched(lambda x: 1000 * x)
    assert early.high is not None and 1e-3 <= early.high <= 1.011e-3, "below the smallest tried first"
    overflowing = searched(lambda x: math.nan if x > 5 else 0.1)
    assert overflowing.high is not None and 5.0 <= overflowing.high <= 5.051
    rounding = searched(lambda x: 2.0)
    assert rounding.high is not None and rounding.high < 1e-9 and rounding.kl == 2.0
    never = searched(lambda x: 0.5, largest=10.0)
    assert never.high is None and never.kl == 0.5 and never.multiplier == 10.0
