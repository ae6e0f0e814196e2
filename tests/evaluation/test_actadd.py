"""Evaluations of activation additions: against the slow way by hand, the laws of their controls, and their messages."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import plain_changed, plain_logits
from torch import Tensor
from ways import way, ways_of

import caa_lens as caa
from caa_lens.evaluation import actadd
from caa_lens.evaluation.actadd import (
    beside_controls,
    completion_loss,
    continuations,
    controls,
    knowledge_kept,
    last_words,
    load_facts,
    nonsense,
    norms_along,
    perplexity_ratio,
    random_like,
    sentiment_shift,
    sweep_additions,
    topic_words,
    with_controls,
    word_odds,
)
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.steering.activation_addition import PromptAddition, addition
from caa_lens.vectors.vectors import Provenance, SteeringVector

RELATED = ["the one and the two are there", "is it the one that was there"]
UNRELATED = ["a dog and a cat sat on the mat", "so be it", "every day it was the same again"]
FACTS = [
    ("the one is the", " two"),
    ("the one is the", " dog"),
    ("it was there that the dog", " sat"),
    ("so it is not", " me"),
]
PROMPTS = ["hello there, this is it", "one two three four five six seven"]


@pytest.fixture(scope="module", params=[case for case in tiny_models.model_cases() if case[1] in ("llama", "gpt2")])
def either(request: pytest.FixtureRequest) -> Any:
    """Both model classes, with BOS and without; for what rests on what is tested in every style."""
    kind, style = request.param
    return request.getfixturevalue(kind)(style)


def made(model: Any, layer: int = 1, coefficient: float = 4.0, at: Any = "front") -> PromptAddition:
    return addition(model, "the o", "so", layer=layer, coefficient=coefficient, at=at)


def ids_of(model: Any, text: str) -> list[int]:
    return list(format_prompt(model, text, prompt_format="plain").ids)


def with_it(model: Any, ids: list[int], parts: Any, n_prompt: int | None = None) -> Tensor:
    """Logits at every position, each part added by a hook where it belongs in a prompt of so many tokens."""

    def adding(part: PromptAddition) -> Any:
        room = (len(ids) if n_prompt is None else n_prompt) - len(part)
        first = {"front": 0, "middle": room // 2, "back": room}[part.at]

        def f(x: Tensor) -> Tensor:
            after = first + len(part)
            return torch.cat([x[:, :first], x[:, first:after] + part.delta, x[:, after:]], dim=1)

        return (part.layer, "resid_pre", f)

    return plain_changed(model, ids, [adding(part) for part in parts])


def test_ratio_is_by_hand_and_covered_positions_do_not_count(model: Any) -> None:
    love = made(model)
    frame = perplexity_ratio(model, love, RELATED, UNRELATED, n_nulls=1)
    ways, n = with_controls(model, love, n_nulls=1), len(love)
    assert list(dict.fromkeys(ways_of(frame))) == ["unsteered", "vector", "random-0", "nonsense-0"]
    assert list(ways) == [("unsteered", -1), ("vector", -1), ("random", 0), ("nonsense", 0)]
    assert set(frame["vector"]) == {"unsteered", love.name}
    for row in frame.to_dict("records"):
        ids = ids_of(model, {"related": RELATED, "unrelated": UNRELATED}[row["text_kind"]][row["item"]])
        logp = with_it(model, ids, ways[row["kind"], row["draw"]]).double().log_softmax(-1)[n:-1]
        before = plain_logits(model, ids).double().log_softmax(-1)[n:-1]
        tokens = torch.tensor(ids[n + 1 :]).unsqueeze(1)
        nll, own = (-float(each.gather(1, tokens).mean()) for each in (logp, before))
        kl = float((logp.exp() * (logp - before)).sum(-1).mean())
        assert row["n_tokens"] == len(ids) - n - 1
        assert row["ratio"] == pytest.approx(math.exp(nll - own), rel=1e-3)
        assert row["nll_steered"] == pytest.approx(nll, abs=1e-4) and row["kl"] == pytest.approx(kl, abs=1e-4)
    assert frame.groupby("text_kind")["item"].nunique().to_dict() == {"related": 2, "unrelated": 3}
    steered = frame.query("kind == 'vector'")
    assert (steered["kl"] > 1e-3).all() and (frame.query("kind == 'unsteered'")["ratio"] == 1).all()


def test_coefficient_zero_is_the_unsteered_model_bit_by_bit(either: Any) -> None:
    model = either
    nothing = made(model) * 0.0
    frame = perplexity_ratio(model, nothing, RELATED, UNRELATED, n_nulls=1)
    assert (frame["ratio"] == 1).all() and (frame["kl"] == 0).all()
    told = continuations(model, nothing, PROMPTS, n_nulls=1, max_new_tokens=3)
    assert told.groupby("item")["text"].nunique().tolist() == [1, 1]
    kept = knowledge_kept(model, nothing, FACTS, n_nulls=1, k=(1,))
    own = kept.query("kind == 'unsteered'")["logp"].to_numpy()
    for kind in ("vector", "random", "nonsense"):
        assert kept.query(f"kind == '{kind}'")["logp"].to_numpy() == pytest.approx(own, abs=1e-5)


def test_knowledge_is_by_hand_and_batched_is_one_by_one(model: Any) -> None:
    some = [made(model), made(model, layer=2, coefficient=-3.0, at="middle"), made(model, layer=2, at="back")]
    frame = knowledge_kept(model, some, FACTS, k=(1, 20), n_nulls=1)
    ways = with_controls(model, some, n_nulls=1)
    for row in frame.to_dict("records"):
        text, answer = FACTS[row["item"]]
        whole = format_prompt(model, text, answer, prompt_format="plain")
        start = whole.spans["answer"][0]
        logits = with_it(model, list(whole.ids[:start]), ways[row["kind"], row["draw"]])[-1].double()
        own = logits[whole.ids[start]]
        assert row["logp"] == pytest.approx(float(own - logits.logsumexp(-1)), abs=1e-3)
        surely, perhaps = (int((logits > own + margin).sum()) for margin in (1e-3, -1e-3))
        assert surely + 1 <= row["rank"] <= perhaps, "itself included"
        assert row["hit"] == float(row["rank"] <= row["k"])
    assert len(frame) == len(ways) * len(FACTS) * 2
    ranks = sorted({int(rank) for rank in frame.query("kind == 'vector'")["rank"]})
    again = knowledge_kept(model, some, FACTS, k=ranks, n_nulls=1).query("kind == 'vector' and k == rank")
    assert len(again) == len(FACTS) and (again["hit"] == 1).all(), "K is among the K likeliest"
    single = knowledge_kept(model, some, FACTS, k=(1, 20), n_nulls=1, batch_size=1)
    np.testing.assert_allclose(single["logp"], frame["logp"], atol=1e-4)


def test_logits_that_are_no_numbers_know_nothing(bridge: Any) -> None:
    model = bridge("llama")
    far = made(model, at="back", coefficient=1e39)
    frame = knowledge_kept(model, far, FACTS, k=(1, 100), n_nulls=1)
    steered = frame.query("kind == 'vector'")
    assert steered["logp"].isna().all() and (steered["hit"] == 0).all()
    assert (steered["rank"] == int(adapt(model).cfg.d_vocab)).all()


def test_continuations_are_generates_and_measures_are_of_them(model: Any) -> None:
    love = made(model, at="back")
    frame = continuations(model, love, PROMPTS, n_samples=2, n_nulls=1, max_new_tokens=4, seed=3)
    how: Any = {"temperature": 1.0, "top_p": 0.3, "frequency_penalty": 1.0, "seed": 3, "max_new_tokens": 4}
    asked = [prompt for prompt in PROMPTS for _ in range(2)]
    for (kind, draw), parts in with_controls(model, love, n_nulls=1, seed=3).items():
        one = frame[(frame["kind"] == kind) & (frame["draw"] == draw)]
        assert one["text"].tolist() == caa.generate(model, asked, steer=parts or None, prompt_format="plain", **how)
        assert one["prompt"].tolist() == asked and one["item"].tolist() == [0, 0, 1, 1]
        assert one["sample"].tolist() == [0, 1, 0, 1]
    assert frame.groupby(["kind", "draw"])["text"].apply(tuple).nunique() > 2, "the ways differ"
    loss = completion_loss(model, frame)
    for row in loss.to_dict("records"):
        whole = format_prompt(model, row["prompt"], row["text"], prompt_format="plain")
        first = whole.spans.get("answer", (len(whole.ids), 0))[0]
        if first >= len(whole.ids):
            assert math.isnan(row["loss"])
            continue
        logp = plain_logits(model, whole.ids).double().log_softmax(-1)[first - 1 : -1]
        own = -float(logp.gather(1, torch.tensor(whole.ids[first:]).unsqueeze(1)).mean())
        assert row["loss"] == pytest.approx(own, abs=1e-3)


def test_the_samples_of_a_single_prompt_are_its_items(bridge: Any) -> None:
    model = bridge("llama")
    frame = continuations(model, made(model), PROMPTS[:1], n_samples=3, n_nulls=2, max_new_tokens=2)
    assert (
        frame.query("kind == 'nonsense' and draw == 1")["item"].tolist() == [0, 1, 2] and len(set(ways_of(frame))) == 6
    )
    greedy = continuations(model, made(model), PROMPTS, n_nulls=1, sampling={"temperature": 0}, max_new_tokens=2)
    plain = caa.generate(model, PROMPTS, prompt_format="plain", max_new_tokens=2)
    assert greedy.query("kind == 'unsteered'")["text"].tolist() == plain


def written(**texts: list[str]) -> pd.DataFrame:
    rows = [
        {**way(name.replace("_", "-")), "item": item, "sample": 0, "prompt": "p", "text": text}
        for name, of_way in texts.items()
        for item, text in enumerate(of_way)
    ]
    return pd.DataFrame(rows)


def test_topic_words_are_whole_words_in_any_case() -> None:
    told = written(steered=["A Wedding!", "weddings", "the ice cream", "icecream", "re-wed.", "wedding_day", ""])
    assert topic_words(told, ["wedding", "ice cream", "wed"])["hit"].tolist() == [1, 0, 1, 0, 1, 0, 0]
    assert topic_words(told, ["a.w"])["hit"].sum() == 0, "a full stop is one"
    assert "hit" not in told


def test_a_scorer_is_any_callable_and_may_have_no_score() -> None:
    told = written(steered=["good good", "bad"], unsteered=["good", "no"])

    def scorer(texts: list[str]) -> list[float | None]:
        return [None if text == "no" else text.count("good") - text.count("bad") for text in texts]

    scored = sentiment_shift(told, scorer)["score"]
    assert scored.tolist()[:3] == [2, -1, 1] and math.isnan(scored[3])
    with pytest.raises(ValueError, match="the scorer gave 1 scores for 4 texts: it must give one for each"):
        sentiment_shift(told, lambda texts: [0.0])
    with pytest.raises(ValueError, match="the scorer gave an infinite score: give finite numbers, or None"):
        sentiment_shift(told, lambda texts: [math.inf] * 4)


def test_controls_have_the_norm_of_each_position(either: Any) -> None:
    model = either
    for love in (made(model, at="back"), made(model) * -2.0, replace(made(model), tokens=())):
        for control in [*random_like(love, 2), *nonsense(model, love, 2)]:
            torch.testing.assert_close(control.norms(), love.norms(), rtol=1e-5, atol=1e-6)
            assert (control.layer, control.at, control.coefficient) == (love.layer, love.at, love.coefficient)
            zero = love.norms() == 0
            assert bool((control.values[zero] == 0).all())
            cosine = torch.cosine_similarity(control.values[~zero], love.values[~zero])
            assert bool((cosine.abs() < 0.95).all())
    names = [each.name for each in [*random_like(love, 2), *nonsense(model, love, 2)]]
    assert names == ["random-0", "random-1", "nonsense-0", "nonsense-1"]


def test_controls_are_drawn_apart_and_again_the_same(bridge: Any) -> None:
    model = bridge("gpt2")
    love = made(model)
    for draw in (lambda a, n, s=0: random_like(a, n, s), lambda a, n, s=0: nonsense(model, a, n, seed=s)):
        one, two, three = draw(love, 3)
        assert not torch.equal(one.values, two.values) and not torch.equal(two.values, three.values)
        again, other = draw(love, 3), draw(love, 3, 1)
        assert torch.equal(again[2].values, three.values) and not torch.equal(other[2].values, three.values)
        stronger = draw(love * 7.0, 3)
        assert torch.equal(stronger[0].values, one.values), "a sweep over coefficients shares them"
        elsewhere = draw(made(model, layer=2), 1)[0]
        assert not torch.allclose(
            elsewhere.values[-1] / elsewhere.values[-1].norm(), one.values[-1] / one.values[-1].norm()
        )
        assert draw(love, 0) == [] and one.provenance.method == one.name.partition("-")[0]
        assert one.provenance.seed == 0


def test_nonsense_is_the_difference_of_two_random_strings(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    love, adapter = made(model), adapt(model)
    rows: list[list[int]] = []
    forward = type(adapter).forward
    monkeypatch.setattr(
        type(adapter), "forward", lambda self, ids, *rest: rows.extend(ids.tolist()) or forward(self, ids, *rest)
    )
    found = nonsense(model, love, 2)
    monkeypatch.undo()
    bos = adapter.tokenizer.bos_token_id if adapter.prepends_bos else None
    assert len(rows) == 4 and all(len(row) == len(love) for row in rows)
    special = set(adapter.tokenizer.all_special_ids)
    for index, control in enumerate(found):
        first, second = rows[2 * index : 2 * index + 2]
        head = 0 if bos is None else 1
        assert first[:head] == second[:head] == [bos][:head]
        assert not special & {*first[head:], *second[head:]}
        assert all(a != b for a, b in zip(first[head:], second[head:], strict=True))
        assert [len(tokens) for tokens in control.tokens] == [len(love)] * 2
        streams = []
        for ids in (first, second):
            with torch.no_grad():
                _, cache = model.run_with_cache(torch.tensor([ids]))
            streams.append(cache["resid_pre", love.layer][0])
        cosine = torch.cosine_similarity(control.values, streams[0] - streams[1])[love.norms() > 0]
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::caa_lens.steering.activation_addition.SinglePromptWarning")
def test_nonsense_of_a_single_prompt_is_one_string(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")
    alone = addition(model, "the one", None, layer=1)
    [control] = nonsense(model, alone, 1)
    assert len(control.tokens) == 1 and float(control.norms()[0]) == pytest.approx(float(alone.norms()[0]), rel=1e-5)
    torch.testing.assert_close(control.values[0], alone.values[0], rtol=1e-4, atol=1e-4)
    by_hand = replace(made(model), values=torch.ones_like(made(model).values))
    assert norms_along(model, by_hand, PROMPTS)["norm"].iloc[0] == pytest.approx(4 * 32**0.5), "needs no controls"
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model ran"))
    first = r"nonsense additions are zero at position 0, which is BOS, and .* has norm 5\.657 there: they cannot be"
    calls: list[Any] = [
        lambda: nonsense(model, by_hand, 1),
        lambda: with_controls(model, by_hand),
        lambda: perplexity_ratio(model, by_hand, RELATED, UNRELATED),
        lambda: word_odds(model, by_hand, PROMPTS, "b", "z"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=first):
            call()


def test_strings_that_are_the_same_to_the_model_make_no_control(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")
    love = made(model)
    monkeypatch.setattr(controls, "block_inputs", lambda _adapter, _layer, strings: [love.values for _ in strings])
    with pytest.raises(ValueError, match="nonsense-0 is zero where 'the o' - 'so' is not: .* give another seed"):
        nonsense(model, love, 1)


def test_norms_along_are_those_of_the_cache(either: Any) -> None:
    model = either
    for at in ("front", "middle"):
        love = made(model, layer=2, at=at)
        frame = norms_along(model, love, PROMPTS)
        assert len(frame) == len(PROMPTS) * len(love)
        for row in frame.to_dict("records"):
            ids = ids_of(model, PROMPTS[row["item"]])
            with torch.no_grad():
                _, cache = model.run_with_cache(torch.tensor([ids]))
            column = love.first_position(len(ids)) + row["position"]
            stream = float(cache["resid_pre", 2][0, column].norm())
            assert row["stream_norm"] == pytest.approx(stream, rel=1e-3)
            assert row["norm"] == pytest.approx(float(love.delta[row["position"]].norm()), rel=1e-4, abs=1e-6)
            assert row["relative"] == pytest.approx(row["norm"] / stream, rel=1e-3, abs=1e-6)
            assert row["token"] == format_prompt(model, PROMPTS[row["item"]], prompt_format="plain").tokens[column]


def test_a_sweep_measures_every_cell_of_what_is_made_once_a_layer(bridge: Any, capsys: Any) -> None:
    model, layers, seen = bridge("llama"), [], []

    def make(layer: int) -> PromptAddition:
        layers.append(layer)
        return made(model, layer=layer)

    def measure(love: PromptAddition) -> pd.DataFrame:
        seen.append((love.layer, love.at, love.coefficient))
        return knowledge_kept(model, love, FACTS[1:3], k=(1, 5), n_nulls=1)

    at: Any = ("front", "back")
    frame = sweep_additions(model, make, measure, layers=[2, 0], coefficients=[-1, 3], at=at, progress="cells")
    cells = [(layer, place, step) for layer in (0, 2) for place in at for step in (-1.0, 3.0)]
    assert layers == [0, 2] and seen == cells
    assert list(frame[["layer", "at", "coefficient"]].drop_duplicates().itertuples(index=False, name=None)) == cells
    one = frame.query("layer == 2 and at == 'back' and coefficient == 3").reset_index(drop=True)
    direct = knowledge_kept(
        model, replace(made(model, layer=2, at="back"), coefficient=3.0), FACTS[1:3], k=(1, 5), n_nulls=1
    )
    pd.testing.assert_frame_equal(one[list(direct)], direct)
    table = beside_controls(frame, "logp")
    assert len(table) == len(cells) * 2 and list(table)[:4] == ["layer", "at", "coefficient", "k"]
    assert "8" in capsys.readouterr().err, "how many cells there are"


def outcome(before: list[float], after: list[float], *null: float) -> pd.DataFrame:
    """A frame in which each control moves every item by one of these."""
    ways = {"unsteered": before, "vector": after}
    for index, moved in enumerate(null):
        ways |= {f"{kind}-{index}": [value + moved for value in before] for kind in ("random", "nonsense")}
    rows = [{**way(name), "item": item, "v": v} for name, of_way in ways.items() for item, v in enumerate(of_way)]
    return pd.DataFrame(rows)


def test_an_effect_is_beside_its_controls() -> None:
    [row] = beside_controls(outcome([1, 2, 3], [2.5, 3.5, 4.5], 0.0, 1.0, 2.0, -3.0), "v").to_dict("records")
    assert (row["n_items"], row["value_unsteered"], row["value_steered"]) == (3, 2.0, 3.5)
    assert row["effect"] == row["effect_low"] == row["effect_high"] == 1.5, "paired: all items move alike"
    assert row["value_steered_low"] < 3.5 < row["value_steered_high"]
    assert row["n_random"] == 4 and row["beyond_random"] == row["beyond_nonsense"] == 0.75 and row["random_mean"] == 0.0
    assert (row["random_low"], row["random_high"]) == pytest.approx((-2.775, 1.925))
    [down] = beside_controls(outcome([1, 2, 3], [0, 1, 2], 0.0, 1.0, 2.0, -3.0), "v").to_dict("records")
    assert down["effect"] == -1 and down["beyond_random"] == 0.75, "beyond 0, 1 and 2, not beyond -3"


def test_yes_and_no_have_intervals_that_do_not_shrink_to_nothing() -> None:
    [row] = beside_controls(outcome([0.0] * 30, [0.0] * 30, 0.0), "v").to_dict("records")
    assert (row["value_steered_low"], row["value_steered_high"]) == pytest.approx((0, 0.1135), abs=1e-4)
    assert (row["effect_low"], row["effect_high"]) == pytest.approx((-0.1135, 0.1135), abs=1e-4)
    [half] = beside_controls(outcome([0.0] * 20, [0.0, 1.0] * 10, 0.0), "v").to_dict("records")
    assert (half["value_steered_low"], half["value_steered_high"]) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert (half["effect_low"], half["effect_high"]) == pytest.approx((0.2426, 0.7007), abs=1e-4)


def test_the_change_of_a_share_is_that_of_the_same_items() -> None:
    """Newcombe's paired interval, against its formula on the table of both, and narrower where items agree."""
    before, after = [1.0] * 12 + [0.0] * 18, [1.0] * 11 + [0.0] + [1.0] * 6 + [0.0] * 12
    [row] = beside_controls(outcome(before, after, 0.0), "v").to_dict("records")
    yes, up, down, no = 11, 6, 1, 12
    phi = (yes * no - up * down - 30 / 2) / math.sqrt(17 * 13 * 12 * 18)
    (low, high), (was_low, was_high) = (0.3920, 0.7262), (0.2459, 0.5768)  # Wilson's of 17 and 12 of 30
    one, other = 17 / 30 - low, was_high - 12 / 30
    below = math.sqrt(one**2 + other**2 - 2 * phi * one * other)
    one, other = high - 17 / 30, 12 / 30 - was_low
    above = math.sqrt(one**2 + other**2 - 2 * phi * one * other)
    effect = 5 / 30
    assert (row["effect_low"], row["effect_high"]) == pytest.approx((effect - below, effect + above), abs=3e-4)
    [apart] = beside_controls(outcome(before, after[::-1], 0.0), "v").to_dict("records")
    assert apart["effect"] == row["effect"] and apart["effect_low"] < row["effect_low"] < 0 < row["effect_high"]


def test_numbers_that_happen_to_be_zero_or_one_are_no_shares() -> None:
    """Without an addition every ratio is exactly 1, and so are the ends of its interval."""
    frame = outcome([1.0] * 5, [1.0] * 5, 0.0).rename(columns={"v": "ratio"})
    [row] = beside_controls(frame, "ratio").to_dict("records")
    assert row["value_steered_low"] == row["value_steered_high"] == 1 and row["effect_low"] == row["effect_high"] == 0
    cells = [outcome([0.0, 1.0], after, 0.0).assign(coefficient=after[1]) for after in ([0.0, 1.0], [0.0, 3.0])]
    [none, three] = beside_controls(pd.concat(cells), "v").to_dict("records")
    assert none["effect_low"] == none["effect_high"] == 0, "a count, as the other cell shows"
    assert three["effect"] == 1
    with pytest.raises(ValueError, match="n_bootstrap is 0: an interval needs at least 1 resampling"):
        beside_controls(frame, "ratio", n_bootstrap=0)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=8),
    scale=st.floats(0.5, 4),
    moved=st.floats(-3, 3),
)
def test_laws_of_the_summary(values: list[tuple[float, float]], scale: float, moved: float) -> None:
    before, after = [v for v, _ in values], [v for _, v in values]
    before, after = [v + 0.25 for v in before], [v + 0.25 for v in after]  # so that they are not all 0 and 1
    one = beside_controls(outcome(before, after, 0.5, -0.5), "v", n_bootstrap=200).iloc[0]
    assert one["effect_low"] <= one["effect"] + 1e-9 and one["effect"] - 1e-9 <= one["effect_high"]
    frame = outcome(before, after, 0.5, -0.5)
    other = beside_controls(frame.assign(v=frame["v"] * scale + moved), "v", n_bootstrap=200).iloc[0]
    for name in ("effect", "random_low", "nonsense_high"):
        assert other[name] == pytest.approx(one[name] * scale, abs=1e-6)
    mixed = beside_controls(frame.sample(frac=1, random_state=0), "v", n_bootstrap=200).iloc[0]
    for name in ("effect", "effect_low", "effect_high", "beyond_random"):
        assert mixed[name] == pytest.approx(one[name], abs=1e-9)


def test_samples_of_a_prompt_are_one_item_and_missing_values_are_left_out() -> None:
    frame = outcome([0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, math.nan], 0.0).assign(item=lambda each: each["item"] // 2)
    [row] = beside_controls(frame, "v").to_dict("records")
    assert (row["n_items"], row["value_unsteered"], row["value_steered"], row["effect"]) == (2, 0.5, 0.5, 0.0)
    lost = outcome([0.2, 0.4], [0.5, math.nan], 0.0)
    [row] = beside_controls(lost, "v").to_dict("records")
    assert row["n_items"] == 1 and row["effect"] == pytest.approx(0.3)
    [row] = beside_controls(outcome([0.2], [math.nan], 0.0), "v").to_dict("records")
    assert row["n_items"] == 0 and math.isnan(row["effect"]) and math.isnan(row["beyond_random"])
    dead = outcome([0.2, 0.4], [0.5, 0.5], 0.1, 0.2)
    dead.loc[(dead["kind"] == "random") & (dead["draw"] == 1), "v"] = math.nan
    [row] = beside_controls(dead, "v").to_dict("records")
    assert row["n_random"] == 1 and row["n_nonsense"] == 2


def test_no_effect_without_its_controls(bridge: Any) -> None:
    model, frame = bridge("llama"), outcome([0.0, 1.0], [1.0, 1.0], 0.5)
    for kind in ("random", "nonsense"):
        with pytest.raises(ValueError, match="controls of both kinds .*, without which no effect is given"):
            beside_controls(frame[frame["kind"] != kind], "v")
    with pytest.raises(ValueError, match="the frame lacks the columns loss: it has vector, kind, draw, item, v"):
        beside_controls(frame, "loss")
    calls: list[Any] = [
        lambda: with_controls(model, made(model), n_nulls=0),
        lambda: perplexity_ratio(model, made(model), RELATED, UNRELATED, n_nulls=0),
        lambda: continuations(model, made(model), PROMPTS, n_nulls=0),
        lambda: knowledge_kept(model, made(model), FACTS, n_nulls=0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="n_nulls is 0: no effect is given without its null, so give 1 or more"):
            call()


def test_facts_are_read_and_made(tmp_path: Path) -> None:
    assert last_words(["The sound of a cow is a moo.", "So it is!", "So it is"]) == [
        ("The sound of a cow is a", " moo"),
        ("So it", " is"),
    ]
    with pytest.raises(ValueError, match="'Moo.' has one word: give sentences whose last word can be asked for"):
        last_words(["Moo."])
    rows = [{"prompt": "2 + 2 = ", "answer": "4"}, {"prompt": "Say", "answer": " no"}, {"prompt": "So", "answer": "!"}]
    (tmp_path / "f.json").write_text(json.dumps(rows))
    assert load_facts(tmp_path / "f.json") == [("2 + 2 =", " 4"), ("Say", " no"), ("So", "!")]
    (tmp_path / "bad.json").write_text(json.dumps([{"prompt": "So"}]))
    with pytest.raises(ValueError, match="1 problem in 1 items: item 0, field answer: missing"):
        load_facts(tmp_path / "bad.json")


def test_errors_come_before_the_model_runs(bridge: Any, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    model = bridge("llama")
    love, n = made(model), len(made(model))
    vector: Any = SteeringVector(torch.ones(32), 1, Provenance.unknown("toy"), "toy")
    for name in ("prefill", "forward"):
        monkeypatch.setattr(type(adapt(model)), name, lambda *_: pytest.fail("the model ran"))
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model ran"))

    def refuses(kind: type[Exception], message: str, call: Any, *args: Any, **keywords: Any) -> None:
        with pytest.raises(kind, match=message):
            call(model, *args, **keywords)

    refuses(TypeError, "is no addition to a prompt: give what .*addition returns", with_controls, vector)
    refuses(ValueError, "there are no additions: give at least one", with_controls, [])
    refuses(ValueError, "has d_model 7 and llama has 32", with_controls, replace(love, values=torch.ones(2, 7)))
    refuses(ValueError, r"layer 9 is out of range for llama \(layers 0-3\)", nonsense, replace(love, layer=9), 1)
    refuses(ValueError, "the number of controls must be 0 or more, got -1", nonsense, love, -1)
    with pytest.raises(ValueError, match="the number of controls must be 0 or more, got -1"):
        random_like(love, -1)
    ratio = perplexity_ratio
    refuses(TypeError, r"related is one string: give a list, such as \['the one", ratio, love, RELATED[0], UNRELATED)
    refuses(ValueError, "there are no unrelated texts: give at least one of each kind", ratio, love, RELATED, [])
    refuses(ValueError, f"at least {n + 2} are needed, since the first {n} are", ratio, love, RELATED, ["the"])
    back = replace(love, at="back")
    refuses(ValueError, "in running text an addition is made at the front", ratio, back, RELATED, UNRELATED)
    short = rf"prompt 1 has 3 tokens and 'the o' - 'so' has {n} positions: give a prompt of"
    refuses(TypeError, "prompts is one string", continuations, love, "hello")
    refuses(ValueError, "0 prompts, n_samples 1: give at least one of each", continuations, love, [])
    refuses(ValueError, "2 prompts, n_samples 0: give at least one", continuations, love, PROMPTS, n_samples=0)
    refuses(ValueError, short, continuations, love, [PROMPTS[0], "a"])
    refuses(ValueError, "sampling has top_k: it takes temper", continuations, love, PROMPTS, sampling={"top_k": 3})
    greedy = {"temperature": 0.0}
    same = "n_samples is 2 at temperature 0: all of a prompt's texts would be the same"
    refuses(ValueError, same, continuations, love, PROMPTS, n_samples=2, sampling=greedy)
    refuses(ValueError, "top_p is above 0 and at most 1", continuations, love, PROMPTS, sampling={"top_p": 2.0})
    refuses(ValueError, "needs 4021 tokens and llama holds 512", continuations, love, PROMPTS, max_new_tokens=4000)
    refuses(ValueError, r"there are no facts: give at least one, such as \('The", knowledge_kept, love, [])
    refuses(ValueError, r"k is \[0\]: give numbers of 1 or more, each once", knowledge_kept, love, FACTS, k=[0])
    refuses(ValueError, "each once", knowledge_kept, love, FACTS, k=[1, 1])
    refuses(ValueError, "fact 0, .*: no token comes from the text, or from the", knowledge_kept, love, [("so", "")])
    refuses(ValueError, f"fact 1 has 3 tokens and .* has {n}", knowledge_kept, love, [FACTS[0], ("a", " b")])
    refuses(TypeError, "prompts is one string", word_odds, love, "hello", " a", " b")
    refuses(ValueError, "there are no prompts: give at least one", word_odds, love, [], " a", " b")
    refuses(ValueError, short, word_odds, love, [PROMPTS[0], "a"], "b", "z")
    refuses(ValueError, "fact 2, .*: no token comes from the text, or from the", word_odds, love, PROMPTS, "b", "")
    refuses(TypeError, "prompts is one string", norms_along, love, "hello")
    refuses(ValueError, "there are no prompts: give at least one", norms_along, love, [])
    refuses(ValueError, short, norms_along, love, [PROMPTS[0], "a"])
    cells: Any = (lambda layer: pytest.fail("made"), lambda love: pytest.fail("measured"))
    refuses(ValueError, "layer 7 is out of range", sweep_additions, *cells, layers=[7])
    once = r"coefficients \[1.0, 1.0\]: give finite numbers, each once"
    refuses(ValueError, once, sweep_additions, *cells, coefficients=[1.0, 1.0])
    refuses(
        ValueError, r"at \['end'\]: give some of front, middle, back, each once", sweep_additions, *cells, at=["end"]
    )
    frame = written(steered=["a"])
    with pytest.raises(TypeError, match=r"words is one string: give a list, such as \['love'\]"):
        topic_words(frame, "love")
    with pytest.raises(ValueError, match=r"words are \['a', ' '\]: give at least one, and none that is empty"):
        topic_words(frame, ["a", " "])
    with pytest.raises(ValueError, match=r"the frame lacks the columns text: give what continuations\(\) returns"):
        topic_words(frame.drop(columns="text"), ["a"])


def test_the_module_names_what_it_has() -> None:
    for name in ("perplexity_ratio", "knowledge_kept", "topic_words", "beside_controls", "continuations"):
        assert f"`{name}`" in str(actadd.__doc__) or f"{name}(" in str(actadd.__doc__)


def test_word_odds_are_those_of_both_words(either: Any) -> None:
    model = either
    love = made(model, at="back")
    frame = word_odds(model, love, PROMPTS, "b", "z", n_nulls=1)
    both = [knowledge_kept(model, love, [(p, word) for p in PROMPTS], n_nulls=1, k=(1,)) for word in ("b", "z")]
    assert ways_of(frame) == ways_of(both[0]) and frame["item"].tolist() == both[0]["item"].tolist()
    np.testing.assert_allclose(frame["log_odds"], both[0]["logp"] - both[1]["logp"], atol=1e-4)
    exchanged = word_odds(model, love, PROMPTS, "z", "b", n_nulls=1)
    np.testing.assert_allclose(exchanged["log_odds"], -frame["log_odds"], atol=1e-4)
    with pytest.raises(ValueError, match="' two' and ' two' begin with the same token after 'hello there, this is it'"):
        word_odds(model, love, PROMPTS, " two", " two")
