"""Conditions: decided once a prompt, on the unsteered prompt, the same however it is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import caa_lens as caa
from caa_lens.evaluation.side_effects import side_effects
from caa_lens.interventions.interventions import Intervention
from caa_lens.interventions.operations import Ablate
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.steering.conditions import Condition, find_threshold, similarities, thresholds
from caa_lens.steering.steering import edits_of
from caa_lens.vectors.vectors import Provenance, SteeringVector, SteeringVectors

PROMPTS = ["hello there", "a", "one two three four five six seven eight nine ten eleven", "so it is", "(B) the other"]
FORM: Any = {"prompt_format": "plain"}


def vector(layer: int = 1, seed: int = 0, scale: float = 3.0, **known: Any) -> SteeringVector:
    value = torch.randn(tiny_models.D_MODEL, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(value * scale, layer, Provenance.unknown("toy", **known), "toy")


def plain_cosines(model: Any, v: SteeringVector, over: str) -> Tensor:
    found: list[Tensor] = []
    for text in PROMPTS:
        ids = format_prompt(model, text, **FORM).ids
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([ids]))
        stream = cache[v.site, v.layer][0]
        read = stream[-1] if over == "last" else stream[min(1, len(ids) - 1) :].mean(dim=0)
        found.append(torch.nn.functional.cosine_similarity(read, v.values, dim=0))
    return torch.stack(found)


@pytest.mark.parametrize("over", ["last", "mean"])
def test_similarities_equal_plain_passes(model: Any, over: Any) -> None:
    for v in (vector(), vector(2, hook_point="hook_attn_out")):
        expected = plain_cosines(model, v, over)
        for batch_size in (None, 1, 2):
            found = similarities(model, v, PROMPTS, over=over, batch_size=batch_size, **FORM)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not tiny_models.attached_hooks(model)


def half_way(model: Any, v: SteeringVector, above: bool = True, over: Any = "last") -> tuple[Condition, list[bool]]:
    """A condition that some prompts meet, and which."""
    cosines = similarities(model, v, PROMPTS, over=over, **FORM)
    condition = Condition(v, float(cosines.sort().values[1:3].mean()), above, over)
    return condition, [condition.holds(float(cosine)) for cosine in cosines]


@pytest.mark.parametrize(("over", "above"), [("last", True), ("mean", False)])
def test_generate_steers_only_the_prompts_it_holds_for(model: Any, over: Any, above: bool) -> None:
    """The condition is read in a later layer than what is steered."""
    steering = vector(0, scale=6.0)
    kwargs: Any = {"max_new_tokens": 5, **FORM}
    never, always = (caa.generate(model, PROMPTS, steer=steer, **kwargs) for steer in (None, steering))
    condition, holds = half_way(model, vector(2, 1), above, over)
    assert 0 < sum(holds) < len(holds)
    recipe = Intervention(steering, when=condition)
    expected = [(always if held else never)[place] for place, held in enumerate(holds)]
    assert expected not in (never, always)
    for how in ({}, {"batch_size": 2}, {"use_cache": False}):
        assert caa.generate(model, PROMPTS, steer=recipe, **how, **kwargs) == expected
    ways = {"when": recipe, "always": steering, "never": None}
    together = caa.generate(model, PROMPTS, steer=ways, **kwargs)
    assert together == {"when": expected, "always": always, "never": never}


def test_a_sweep_steers_only_the_items_it_holds_for(bridge: Any) -> None:
    model = bridge("llama")
    items = caa.ContrastDataset.from_pairs([(f"{text}\n (A) yes\n (B) no", "(A)", "(B)") for text in PROMPTS])
    vectors = SteeringVectors(torch.randn(4, tiny_models.D_MODEL) * 3, (0, 1, 2, 3), Provenance.unknown("toy"), "toy")
    cosines = similarities(model, vector(3), [pair.prompt for pair in items])
    condition = Condition(vector(3), float(cosines.median()))
    frames = [caa.sweep(model, vectors, items, layers=[1], n_nulls=0, when=when) for when in (None, condition)]
    both = frames[0].merge(frames[1], on=["multiplier", "item"])
    base = frames[0].query("multiplier == 0").set_index("item")["logp_matching"]
    for row in both.itertuples():
        steered = condition.holds(float(cosines[row.item])) and row.multiplier != 0
        expected = row.logp_matching_x if steered else base[row.item]
        assert row.logp_matching_y == pytest.approx(expected, abs=1e-5)
        assert not steered or abs(row.logp_matching_x - base[row.item]) > 1e-3
    assert 0 < (cosines > condition.threshold).sum() < len(items)


@pytest.mark.parametrize("over", ["last", "mean"])
def test_steer_decides_for_each_row_and_keeps_to_it_while_decoding(model: Any, over: Any) -> None:
    condition, _ = half_way(model, vector(1, 1), over=over)
    steering = vector(1, scale=6.0)
    recipe = Intervention(steering, when=condition)
    for text in PROMPTS:
        ids = torch.tensor([format_prompt(model, text, **FORM).ids])
        if ids.shape[1] < 2:
            continue  # a pass over one token is a step of decoding

        def run(steer: Any, ids: Tensor = ids) -> list[int]:
            with caa.steer(model, steer):
                out = model.generate(ids, max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False)
            return out[0].tolist()

        holds = condition.holds(float(similarities(model, condition.vector, [text], over=over, **FORM)))
        assert run(recipe) == run(steering if holds else [])
    tokens = torch.tensor([[20, 7, 9, 30], [21, 50, 60, 11], [25, 90, 8, 3]])
    with torch.no_grad():
        plain, whole = model(tokens, return_type="logits"), steered_logits(model, tokens, steering)
        _, cache = model.run_with_cache(tokens)
        stream = cache["resid_post", 1]
        cosines = condition.vector.cosine(stream[:, -1] if over == "last" else stream[:, 1:].mean(dim=1))
        held = Condition(condition.vector, float(cosines.sort().values[:2].mean()), over=over)
        found = steered_logits(model, tokens, Intervention(steering, when=held))
    for row in range(3):
        assert torch.equal(found[row], (whole if held.holds(float(cosines[row])) else plain)[row])


def steered_logits(model: Any, tokens: Tensor, recipe: Any) -> Tensor:
    with caa.steer(model, recipe):
        return model(tokens, return_type="logits")


def test_the_last_prompt_token_is_where_steering_starts(bridge: Any) -> None:
    """In a text that goes on after its prompt, the condition is read at the prompt's end."""
    model, v = bridge("gpt2"), vector()
    ids, end = torch.tensor([[20, 7, 9, 30, 12, 44]]), 2
    with torch.no_grad():
        plain = model(ids)
        _, cache = model.run_with_cache(ids)
        cosines = v.cosine(cache["resid_post", 1][0])
        positions: Any
        for at, positions in ((end, end), (5, "all")):
            for above, shift, steers in ((True, -1e-4, True), (False, 1e-4, True), (True, 1e-4, False)):
                condition = Condition(v, float(cosines[at]) + shift, above)
                with caa.steer(model, Intervention(vector(2), when=condition), positions=positions):
                    assert torch.equal(model(ids), plain) != steers


thousandths = st.integers(-990, 990).map(lambda value: value / 1000)


@given(
    st.lists(thousandths, min_size=1, max_size=12),
    st.lists(thousandths, min_size=1, max_size=12),
    st.booleans(),
)
def test_every_threshold_is_counted_and_the_best_is_chosen(yes: list[float], no: list[float], above: bool) -> None:
    frame = thresholds(torch.tensor(yes).double(), torch.tensor(no).double(), above=above)
    values = sorted({*yes, *no})
    assert len(frame) == len(values) + 1 and (frame["threshold"].diff().dropna() > 0).all()

    def share(side: list[float], threshold: float) -> float:
        return float(np.mean([(value > threshold) if above else (value < threshold) for value in side]))

    for row in frame.itertuples():
        assert (row.tpr, row.fpr) == pytest.approx((share(yes, row.threshold), share(no, row.threshold)))
        assert row.balanced_accuracy == pytest.approx((row.tpr + 1 - row.fpr) / 2)
    (chosen,) = frame[frame["chosen"]].itertuples()
    best = frame[frame["balanced_accuracy"] == frame["balanced_accuracy"].max()]
    assert chosen.balanced_accuracy == best["balanced_accuracy"].max() and chosen.gap == best["gap"].max()
    assert chosen.threshold == best[best["gap"] == best["gap"].max()]["threshold"].min()


def test_a_threshold_is_found_on_dev_prompts(bridge: Any) -> None:
    model = bridge("qwen2")
    yes, no = ["yes a", "yes b", "yes c"], ["no one two", "no three four"]
    v = vector(2, 7)
    sides = [similarities(model, v, side, **FORM) for side in (yes, no)]
    condition, frame = find_threshold(model, v, yes, no, above=False, over="last", **FORM)
    assert condition == Condition(v, frame.loc[frame["chosen"], "threshold"].item(), False, "last")
    assert frame.equals(thresholds(*sides, above=False))
    apart = thresholds(torch.tensor([0.5, 0.6]), torch.tensor([0.1, 0.2]))
    assert apart[apart["chosen"]]["threshold"].item() == pytest.approx(0.35)
    with pytest.raises(ValueError, match="0 prompts to be steered and 2 not to be: give at least one of each"):
        find_threshold(model, v, [], no)
    with pytest.raises(
        ValueError, match="1 positive and 1 negative similarities: give at least one of each, all of them"
    ):
        thresholds(torch.tensor([float("nan")]), torch.tensor([0.5]))


def test_errors_name_what_was_given(bridge: Any, unchecked: None) -> None:
    model = bridge("llama")
    condition = Condition(vector(3), 0.1)
    late = Intervention(vector(1), when=condition)
    with (
        pytest.raises(
            ValueError, match="is read at resid_post of layer 3 and steering begins at resid_post of layer 1, b"
        ),
        caa.steer(model, late),
    ):
        pass
    mid = Condition(vector(1, hook_point="hook_resid_mid"), 0.1)
    with pytest.raises(ValueError, match="read at resid_mid of layer 1 and steering begins at attn_out of layer 1"):
        caa.steer(model, [Intervention(vector(2), when=mid), Intervention(vector(1), site="attn_out")]).__enter__()
    assert not tiny_models.attached_hooks(model)
    with pytest.raises(
        ValueError, match="has a condition on the prompt, which nothing here decides: conditions work in"
    ):
        edits_of(adapt(model), late)
    with pytest.raises(ValueError, match="condition 'toy' is decided on a prompt, and running text has none"):
        side_effects(model, {"late": late}, PROMPTS[2:])
    with pytest.raises(ValueError, match="threshold 1.5: it is a cosine, from -1 to 1"):
        Condition(vector(), 1.5)
    with pytest.raises(ValueError, match="over is 'first': give 'last', the last prompt token, or 'mean'"):
        Condition(vector(), 0.5, over="first")
    with pytest.raises(ValueError, match="is zero at layer 1: it has no direction"):
        Condition(vector() * 0.0, 0.5)
    with pytest.raises(ValueError, match="layer 40 is out of range"):
        caa.generate(model, PROMPTS, steer=Intervention(vector(), when=Condition(vector(40), 0.1)))
    with pytest.raises(TypeError, match="prompts is one string: give a list"):
        similarities(model, vector(), "hello")
    wide = SteeringVector(torch.ones(7), 0, Provenance.unknown("other"), "toy")
    with pytest.raises(ValueError, match="has d_model 7 and llama has 32: it was made on another model"):
        similarities(model, wide, PROMPTS)
    with pytest.raises(ValueError, match="has d_model 7 and llama has 32: it was made on another model"):
        caa.generate(model, PROMPTS, steer=Intervention(vector(), when=Condition(wide, 0.1), operation=Ablate()))
