"""Every cell of a sweep equals a full forward pass of its own, on every model class and style."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain import PAIRS, assert_close_by_norm, plain_logits
from ways import way

import caa_lens as caa
from caa_lens.evaluation.choices import choose_layers, sharing_nulls
from caa_lens.extraction.nulls import null_vectors
from caa_lens.prompts import format_prompt
from caa_lens.vectors.vectors import random_like

ITEMS = caa.ContrastDataset.from_pairs(
    [*PAIRS, caa.ContrastPair("really?\n (A) no\n (B) yes", "(B)", "(A)")], name="toy"
)


def vectors_of(model: Any) -> caa.SteeringVectors:
    return caa.extract_vectors(model, ITEMS) * 3.0


def test_every_cell_equals_a_full_forward_pass(model: Any) -> None:
    vectors = vectors_of(model)
    frame = caa.sweep(model, vectors, ITEMS, multipliers=(-1, 0, 2), n_nulls=1, seed=4)
    kinds = {"vector": vectors, "random": random_like(vectors, 1, 4)[0]}
    assert len(frame) == len(ITEMS) * len(vectors) * (3 + 2)
    assert set(frame["vector"]) == set(frame["behavior"]) == {vectors.name}
    assert set(zip(frame["kind"], frame["draw"], strict=True)) == {("vector", -1), ("random", 0)}
    for row in frame.itertuples():
        pair = ITEMS[row.item]
        text = format_prompt(model, pair.prompt, pair.positive)
        wrong = format_prompt(model, pair.prompt, pair.negative)
        at = text.position("answer_letter")
        edits = [(row.layer, kinds[row.kind][row.layer].values * row.multiplier)] if row.multiplier else []
        logits = plain_logits(model, text.ids[:at], edits, text.position("prompt_end"))[-1].log_softmax(-1)
        assert abs(row.logp_matching - float(logits[text.ids[at]])) < 1e-4
        assert abs(row.logp_other - float(logits[wrong.ids[at]])) < 1e-4


def test_columns_are_what_they_say(bridge: Any) -> None:
    frame = caa.sweep(bridge("llama"), vectors_of(bridge("llama")), ITEMS, layers=[1], multipliers=(1,))
    assert set(frame["multiplier"]) == {0.0, 1.0}, "multiplier 0 is always there: effects are measured against it"
    a, b = np.exp(frame["logp_matching"]), np.exp(frame["logp_other"])
    np.testing.assert_allclose(frame["p_matching"], a / (a + b), rtol=1e-9)
    np.testing.assert_allclose(frame["mass"], a + b, rtol=1e-9)
    matching_a = frame["letter"] == "A"
    np.testing.assert_allclose(
        frame["p_a"], np.where(matching_a, frame["p_matching"], 1 - frame["p_matching"]), rtol=1e-9
    )
    assert frame["letter"].tolist()[:4] == ["A", "B", "A", "B"]


def test_swapped_items_exchange_the_two_answers(bridge: Any) -> None:
    model = bridge("qwen2")
    swapped = caa.ContrastDataset.from_pairs([pair.swapped() for pair in ITEMS], name="toy")
    vectors = vectors_of(model)
    one, two = (caa.sweep(model, vectors, items, layers=[0]) for items in (ITEMS, swapped))
    assert_close_by_norm(one["logp_matching"], two["logp_other"], rtol=1e-5)
    assert_close_by_norm(one["p_a"], two["p_a"], rtol=1e-5)


def test_batches_do_not_change_the_result(model: Any) -> None:
    vectors = vectors_of(model)
    together, alone = (caa.sweep(model, vectors, ITEMS, n_nulls=1, batch_size=size) for size in (None, 1))
    assert_close_by_norm(together["logp_matching"], alone["logp_matching"], rtol=1e-5)


def test_answers_that_are_no_letters(bridge: Any) -> None:
    model = bridge("llama")
    items = caa.ContrastDataset.from_pairs([caa.ContrastPair("then", " she ran", " he ran")], name="who")
    vectors = caa.extract_vectors(model, items, read="answer_end", prompt_format="plain")
    frame = caa.sweep(model, vectors, items, prompt_format="plain")
    assert frame["letter"].isna().all() and frame["p_a"].isna().all()
    text = format_prompt(model, "then", " she ran", prompt_format="plain")
    first = text.spans["answer"][0]
    logits = plain_logits(model, text.ids[:first])[-1].log_softmax(-1)
    other = format_prompt(model, "then", " he ran", prompt_format="plain").ids
    differ = next(i for i, (a, b) in enumerate(zip(text.ids, other, strict=False)) if a != b)
    if differ == first:
        assert abs(frame["logp_matching"].iloc[len(vectors)] - float(logits[text.ids[first]])) < 1e-4


def test_several_behaviours_at_once_are_each_alone(bridge: Any) -> None:
    model = bridge("llama")
    vectors = {"one": vectors_of(model), "two": -vectors_of(model)}
    frame = caa.sweep(model, vectors, {"one": ITEMS, "two": ITEMS[:2]}, layers=[1])
    alone = caa.sweep(model, vectors["two"], ITEMS[:2], layers=[1])
    both = frame[frame["behavior"] == "two"]
    assert_close_by_norm(both["logp_other"], alone["logp_other"], rtol=1e-5)


def test_errors_name_what_was_given(bridge: Any, unchecked: None) -> None:
    model = bridge("llama")
    vectors = vectors_of(model)
    with pytest.raises(ValueError, match=r"vectors are named \['a'\] and items \['b'\]"):
        caa.sweep(model, {"a": vectors}, {"b": ITEMS})
    with pytest.raises(ValueError, match="vectors are dict and items are ContrastDataset: give vectors with a"):
        caa.sweep(model, {"a": vectors}, ITEMS)
    with pytest.raises(ValueError, match=r"multipliers \[1, 1\]: give each once"):
        caa.sweep(model, vectors, ITEMS, multipliers=[1, 1])
    with pytest.raises(ValueError, match=r"layer 7 is out of range for llama \(layers 0-3\)"):
        caa.sweep(model, vectors, ITEMS, layers=[7])
    with pytest.raises(ValueError, match="layer 3 is not in these vectors"):
        caa.sweep(model, caa.extract_vectors(model, ITEMS, layers=[0, 1]), ITEMS, layers=[3])
    for layers in ([], [2, 2]):
        with pytest.raises(ValueError, match="give at least one layer, each once"):
            caa.sweep(model, vectors, ITEMS, layers=layers)
    with pytest.raises(ValueError, match=r"layers 2: give whole numbers in a list, such as \[2, 3\]"):
        caa.sweep(model, vectors, ITEMS, layers=2)
    prefixed = caa.ContrastDataset.from_pairs([caa.ContrastPair("what", " so", " so it is")], name="toy")
    with pytest.raises(ValueError, match="item 0: the answers ' so' and ' so it is' cannot be told apart"):
        caa.sweep(model, vectors, prefixed, prompt_format="plain")


def frame_of(p: dict[tuple[float, int], float], letters: str, name: str = "vector") -> Any:
    """A sweep's frame from p(matching) by multiplier and item."""
    import pandas as pd

    rows = []
    for (multiplier, item), value in p.items():
        letter = letters[item]
        rows.append(
            {
                "behavior": "toy",
                **way(name),
                "layer": 3,
                "multiplier": multiplier,
                "item": item,
                "letter": letter,
                "logp_matching": float(np.log(value * 0.9)),
                "logp_other": float(np.log((1 - value) * 0.9)),
                "p_matching": value,
                "p_a": value if letter == "A" else 1 - value,
                "mass": 0.9,
            }
        )
    return pd.DataFrame(rows)


def test_a_pure_letter_shift_has_no_balanced_effect() -> None:
    """The vector only makes A likelier, and three of four matching answers are A."""
    letters = "AAAB"
    unsteered = {(0.0, item): 0.5 for item in range(4)}
    steered = {(1.0, item): 0.9 if letters[item] == "A" else 0.1 for item in range(4)}
    row = caa.summarize(frame_of(unsteered | steered, letters)).query("multiplier == 1").iloc[0]
    assert row["effect"] == pytest.approx(0.2) and row["effect_balanced"] == pytest.approx(0.0)
    assert (
        row["letter_drift"] == pytest.approx(0.4) and row["share_wrong"] == 0.25 and row["mass"] == pytest.approx(0.9)
    )


def test_nulls_intervals_and_signs() -> None:
    import pandas as pd

    letters = "ABAB"
    own = (
        {(0.0, i): 0.5 for i in range(4)}
        | {(1.0, i): 0.7 + 0.02 * i for i in range(4)}
        | {(-1.0, i): 0.4 for i in range(4)}
    )
    parts = [frame_of(own, letters)]
    for draw, value in enumerate((0.45, 0.5, 0.55, 0.8)):
        parts.append(
            frame_of(
                {(1.0, i): value for i in range(4)} | {(-1.0, i): value for i in range(4)}, letters, f"random-{draw}"
            )
        )
    table = caa.summarize(pd.concat(parts)).set_index("multiplier")
    assert table.loc[1.0, "beats_random"] == 0.75 and table.loc[-1.0, "beats_random"] == 1.0
    assert table.loc[1.0, "n_random"] == 4
    assert table.loc[1.0, "effect_low"] <= table.loc[1.0, "effect"] <= table.loc[1.0, "effect_high"]
    assert table.loc[1.0, "effect_low"] < table.loc[1.0, "effect_high"]
    assert table.loc[-1.0, "effect"] == pytest.approx(-0.1) and table.loc[-1.0, "share_wrong"] == 0.0
    assert table.loc[0.0, "effect"] == 0.0 and np.isnan(table.loc[0.0, "share_wrong"])
    assert caa.choose_layer(table.reset_index()) == 3


def test_summaries_without_a_baseline_are_refused() -> None:
    frame = frame_of({(1.0, 0): 0.5}, "A")
    with pytest.raises(ValueError, match="no rows at multiplier 0"):
        caa.summarize(frame)
    with pytest.raises(ValueError, match="it lacks the columns mass"):
        caa.summarize(frame.drop(columns="mass"))


def test_the_layer_with_the_largest_swing_is_chosen() -> None:
    import pandas as pd

    parts = []
    for layer, reach in ((0, 0.1), (1, 0.3), (2, 0.2)):
        values = (
            {(0.0, i): 0.5 for i in range(2)}
            | {(1.0, i): 0.5 + reach for i in range(2)}
            | {(-1.0, i): 0.5 - reach for i in range(2)}
        )
        parts.append(frame_of(values, "AB").assign(layer=layer))
    assert caa.choose_layer(caa.summarize(pd.concat(parts))) == 1


def test_other_letters_do_not_switch_balancing_off() -> None:
    letters = "AAABC"
    unsteered = {(0.0, item): 0.5 for item in range(5)}
    steered = {(1.0, item): {"A": 0.9, "B": 0.1, "C": 0.7}[letters[item]] for item in range(5)}
    row = caa.summarize(frame_of(unsteered | steered, letters)).query("multiplier == 1").iloc[0]
    assert row["effect_balanced"] == pytest.approx(0.0) and row["n_balanced"] == 4 and row["n_items"] == 5


def test_one_letter_alone_cannot_be_balanced() -> None:
    values = {(0.0, item): 0.5 for item in range(3)} | {(1.0, item): 0.8 for item in range(3)}
    table = caa.summarize(frame_of(values, "AAA"))
    assert table["effect_balanced"].isna().all() and table["n_balanced"].eq(0).all()
    assert caa.choose_layer(table) == 3


def test_frames_that_do_not_fit_together_are_refused() -> None:
    import pandas as pd

    base, moved = {(0.0, 0): 0.5, (0.0, 1): 0.5}, {(1.0, 0): 0.6, (1.0, 1): 0.7}
    with pytest.raises(ValueError, match="items more than once: were two sweeps put together"):
        caa.summarize(pd.concat([frame_of(base | moved, "AB"), frame_of(base | moved, "AB")]))
    with pytest.raises(ValueError, match="other items than multiplier 0"):
        caa.summarize(frame_of(base | {(1.0, 1): 0.7}, "AB"))
    with pytest.raises(ValueError, match="choose_layer takes the frame of summarize"):
        caa.choose_layer(frame_of(base, "AB"))
    with pytest.raises(ValueError, match="there is one multiplier only"):
        caa.choose_layer(caa.summarize(frame_of(base, "AB")))


def test_p_a_is_the_share_of_a_whichever_side_it_is_on(bridge: Any) -> None:
    model = bridge("llama")
    question = "What?\n (A) x\n (B) y\n (C) z"
    pairs = [caa.ContrastPair(question, *answers) for answers in (("(C)", "(A)"), ("(B)", "(C)"), ("(A)", "(C)"))]
    frame = caa.sweep(model, vectors_of(model), caa.ContrastDataset.from_pairs(pairs), layers=[0], multipliers=(0,))
    p_a, p_matching = frame["p_a"].tolist(), frame["p_matching"].tolist()
    assert p_a[0] == pytest.approx(1 - p_matching[0]) and np.isnan(p_a[1]) and p_a[2] == p_matching[2]


def test_torch_is_left_as_it_was(bridge: Any) -> None:
    caa.sweep(bridge("llama"), vectors_of(bridge("llama")), ITEMS, layers=[0])
    assert torch.is_grad_enabled()


def test_pairs_triples_and_single_vectors_are_taken(bridge: Any) -> None:
    model = bridge("llama")
    vectors = vectors_of(model)
    expected = caa.sweep(model, vectors, ITEMS, layers=[1], n_nulls=1)
    triples = [(pair.prompt, pair.positive, pair.negative) for pair in ITEMS]
    for given, items in ((vectors, [*ITEMS]), (vectors[1], triples)):
        pd.testing.assert_frame_equal(caa.sweep(model, given, items, layers=[1], n_nulls=1), expected)
    named = caa.sweep(model, {"toy": vectors[1]}, {"toy": triples}, n_nulls=1)
    pd.testing.assert_frame_equal(
        named.drop(columns=["behavior", "vector"]), expected.drop(columns=["behavior", "vector"])
    )


def test_nulls_and_compared_vectors_are_told_apart(bridge: Any) -> None:
    model = bridge("llama")
    vectors, other = vectors_of(model), -vectors_of(model)
    nulls = {"permuted": null_vectors(vectors, 2, kind="permuted")}
    frame = caa.sweep(model, vectors, ITEMS, layers=[1], n_nulls=1, nulls=nulls, compared={"other": other[1]})
    rows = frame[["vector", "kind", "draw"]].drop_duplicates().values.tolist()
    name = vectors.name
    assert rows == [
        [name, "vector", -1], ["other", "compared", -1], [name, "random", 0], ["other", "random", 0],
        [name, "permuted", 0], [name, "permuted", 1],
    ]  # fmt: skip
    assert set(frame.loc[frame["kind"] != "vector", "multiplier"]) == {-1.0, 1.0}
    summary = caa.summarize(frame)
    assert summary["vector"].value_counts().to_dict() == {name: 3, "other": 2}
    alone = caa.summarize(caa.sweep(model, other, ITEMS, layers=[1], n_nulls=1))
    mine = summary[summary["vector"] == "other"]
    for column in ("effect", "effect_low", "random_low", "beats_random"):
        np.testing.assert_allclose(mine[column], alone.loc[alone["multiplier"] != 0, column], atol=1e-4)
    assert (mine["n_random"] == 1).all() and (mine["n_permuted"] == 0).all()
    shared = caa.summarize(sharing_nulls(frame[frame["vector"] == name])).set_index("multiplier")
    assert (shared.loc[[-1.0, 1.0], "n_permuted"] == 2).all()
    with pytest.raises(ValueError, match="has several vectors: keep one"):
        caa.choose_layer(summary)
    both = caa.summarize(sharing_nulls(frame.query("kind != 'random'")))
    assert (both.loc[(both["vector"] == "other"), "n_permuted"] == 2).all()


def test_several_behaviours_have_a_layer_each() -> None:
    values = {(0.0, i): 0.5 for i in range(2)} | {(1.0, i): 0.8 for i in range(2)}
    frame = frame_of(values, "AB")
    summary = caa.summarize(pd.concat([frame, frame.assign(behavior="second")]))
    assert choose_layers(summary) == {"toy": 3, "second": 3}
    with pytest.raises(
        ValueError, match=r"the summary is of \['toy', 'second'\]: evaluation.choices.choose_layers\(\) gives"
    ):
        caa.choose_layer(summary)


def test_nulls_and_compared_vectors_are_checked(bridge: Any) -> None:
    model, vectors = bridge("llama"), vectors_of(bridge("llama"))
    null = random_like(vectors, 1, 0)
    for options, message in (
        ({"nulls": {"random": null}}, "nulls has random ones, and n_nulls is 20: give n_nulls=0"),
        ({"nulls": {"vector": null}}, "nulls of the kind 'vector': that is what rows that are no nulls are called"),
        ({"compared": {vectors.name: vectors}}, "as the behaviour is: give it another name"),
    ):
        with pytest.raises(ValueError, match=message):
            caa.sweep(model, vectors, ITEMS, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"compared are given for \['x'\], and vectors for \['a'\]"):
        caa.sweep(model, {"a": vectors}, {"a": ITEMS}, compared={"x": vectors})
