"""Broad skills: the vector by hand, the curve by hand, and what is lost on made-up counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain import assert_close_by_norm
from ways import way

import caa_lens as caa
from caa_lens.datasets.texts import load_texts
from caa_lens.prompts import format_prompt
from caa_lens.protocols.broad_skills import alignment_tax, skill_curve, skill_vectors, summarize_skill
from caa_lens.vectors.vectors import Provenance, SteeringVector

TARGET = ["the one thing", "this is the other one of them", "I see it"]
OTHER = ["AB AB AB", "BABA is the other and that is the end"]


def ids_of(model: Any, text: str) -> list[int]:
    return list(format_prompt(model, text, prompt_format="plain").ids)


def stream(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([ids]))
    return cache[f"blocks.{layer}.hook_resid_post"][0].double()


@pytest.fixture(scope="module")
def llama(bridge: Callable[[str], Any]) -> Any:
    return bridge("llama")


def test_the_vector_is_the_difference_of_two_means(model: Any) -> None:
    for over in ("last", "every"):
        found = skill_vectors(model, TARGET, OTHER, over=over, layers=[0, 2])
        for layer in (0, 2):
            streams = [[stream(model, ids_of(model, text), layer) for text in side] for side in (TARGET, OTHER)]
            read = [[each[-1] if over == "last" else each[1:].mean(dim=0) for each in side] for side in streams]
            expected = torch.stack(read[0]).mean(dim=0) - torch.stack(read[1]).mean(dim=0)
            assert_close_by_norm(found[layer].values, expected, rtol=1e-5)


@pytest.mark.parametrize("over", ["last", "every"])
def test_laws_of_the_vector(llama: Any, over: Any) -> None:
    vectors = skill_vectors(llama, TARGET, OTHER, over=over)
    there = skill_vectors(llama, OTHER, TARGET, over=over)
    assert_close_by_norm(vectors.values, -there.values, rtol=1e-6)
    shuffled = skill_vectors(llama, TARGET[::-1], OTHER, over=over, batch_size=1)
    assert_close_by_norm(vectors.values, shuffled.values, rtol=1e-5)
    twice = skill_vectors(llama, TARGET, OTHER * 2, over=over)
    assert_close_by_norm(vectors.values, twice.values, rtol=1e-5)


def test_documents_are_cut(llama: Any) -> None:
    cut = skill_vectors(llama, TARGET, OTHER, layers=[1], max_tokens=3)
    sides = [[stream(llama, ids_of(llama, text)[:3], 1)[-1] for text in side] for side in (TARGET, OTHER)]
    expected = torch.stack(sides[0]).mean(dim=0) - torch.stack(sides[1]).mean(dim=0)
    assert_close_by_norm(cut[1].values, expected, rtol=1e-5)
    assert cut.provenance.dataset_origin.endswith(", cut to 3 tokens")


def test_the_vector_says_where_it_came_from(llama: Any) -> None:
    made = skill_vectors(llama, TARGET, OTHER, name="words", over="every").provenance
    assert (made.method, made.read_position, made.prompt_format) == (
        "broad skill",
        "every token but the first",
        "plain",
    )
    assert (
        made.dataset_origin.startswith("3 target documents (") and " minus 2 other documents (" in made.dataset_origin
    )
    hashes = {skill_vectors(llama, *sides).provenance.dataset_hash for sides in ((TARGET, OTHER), (OTHER, TARGET))}
    assert len(hashes) == 2 and made.dataset_hash in hashes, "the same documents have the same hash, the order counts"


def by_hand(model: Any, text: str, vector: Any, coefficient: float) -> int:
    ids = torch.tensor([ids_of(model, text)])

    def add(resid: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return resid + coefficient * vector.values

    with torch.no_grad():
        logits = model.run_with_hooks(ids, fwd_hooks=[(f"blocks.{vector.layer}.hook_resid_post", add)])
    return int((logits[0, :-1].argmax(dim=-1) == ids[0, 1:]).sum())


def said(model: Any, n: int = 6) -> list[str]:
    """Texts that the model itself says, so that it gets most of their tokens right."""
    return caa.generate(model, TARGET, max_new_tokens=n, prompt_format="plain")


def test_every_position_is_steered_and_every_token_but_the_first_counts(model: Any) -> None:
    texts = [f"{text}{more}" for text, more in zip(TARGET, said(model), strict=True)]
    vector = skill_vectors(model, TARGET, OTHER, layers=[1])[1] * 3.0
    frame = skill_curve(model, vector, texts, OTHER, coefficients=(0, -2, 1), n_nulls=1)
    own = frame[frame["kind"] == "vector"]
    for kind, side in (("target", texts), ("other", OTHER)):
        for document, text in enumerate(side):
            rows = own[(own["text_kind"] == kind) & (own["document"] == document)].set_index("coefficient")
            assert set(rows["n_tokens"]) == {len(ids_of(model, text)) - 1}
            for coefficient in (0, -2, 1):
                expected = by_hand(model, text, vector, coefficient)
                assert abs(rows.loc[coefficient, "n_correct"] - expected) == 0, (kind, document, coefficient)
    assert own["n_correct"].sum() > 0 and own.groupby("coefficient")["n_correct"].sum().nunique() > 1


def test_the_first_position_is_steered_too(bridge: Callable[[str], Any]) -> None:
    model, text = bridge("gpt2"), "AAAAAA"
    token = ids_of(model, text)[-1]
    assert ids_of(model, text)[1:] == [token] * 6, "this tokenizer has a token for each letter"
    vector = SteeringVector(model.W_U[:, token].detach(), 2, Provenance.unknown("toy"), "A")
    frame = skill_curve(model, vector, [text], ["BBB"], coefficients=(100,), n_nulls=1)
    row = frame[(frame["kind"] == "vector") & (frame["coefficient"] == 100) & (frame["text_kind"] == "target")].iloc[0]
    assert row["n_correct"] == row["n_tokens"] == 6, "the first A is predicted from BOS"


def test_the_rows_of_a_curve(llama: Any) -> None:
    vector = skill_vectors(llama, TARGET, OTHER, layers=[1])[1]
    given: dict[str, Any] = {"coefficients": (-5, 2, -1), "n_nulls": 2}
    frame = skill_curve(llama, vector, TARGET, OTHER, **given)
    assert sorted(frame["coefficient"].unique()) == [-5, -1, 0, 2], "0 is added"
    counts = frame.groupby(["kind", "draw", "coefficient"]).size()
    assert set(counts) == {5} and len(counts) == 4 + 2 * 3 and ("permuted", 0, 0.0) not in counts.index
    pd.testing.assert_frame_equal(frame, skill_curve(llama, vector, TARGET, OTHER, **given, batch_size=1))
    null = caa.extraction.nulls.null_vectors(skill_vectors(llama, TARGET, OTHER, layers=[1]), 2, kind="permuted")[1][1]
    hits = frame[(frame["draw"] == 1) & (frame["coefficient"] == -5) & (frame["text_kind"] == "target")]
    assert hits["n_correct"].tolist() == [by_hand(llama, text, null, -5) for text in TARGET]


def test_the_stop_rule_ends_each_side_of_zero() -> None:
    model = caa.load_model("organism-chat")
    target, other = load_texts("opinions")[:8], load_texts("facts")[:8]
    vector = skill_vectors(model, target[:4], other[:4], layers=[2])[2]
    given: dict[str, Any] = {"coefficients": (-20, -5, -0.1, 0, 0.1, 5, 20), "n_nulls": 1}
    frame = skill_curve(model, vector, target[4:], other[4:], keep=0.9, **given)
    assert sorted(frame["coefficient"].unique()) == [-5, -0.1, 0, 0.1, 5], "the one that fell below is the last"
    whole = skill_curve(model, vector, target[4:], other[4:], **given)
    assert sorted(whole["coefficient"].unique()) == [-20, -5, -0.1, 0, 0.1, 5, 20]
    kept = whole[whole["coefficient"].isin(frame["coefficient"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, frame)


def counts(target: dict[tuple[str, float], list[int]], other: dict[tuple[str, float], list[int]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {**way(name), "layer": 3, "coefficient": step, "text_kind": kind, "document": place}
            | {"n_tokens": 10 * (place + 1), "n_correct": right}
            for kind, side in (("target", target), ("other", other))
            for (name, step), rights in side.items()
            for place, right in enumerate(rights)
        ]
    )


COUNTS = counts(
    {("vector", 0.0): [8, 16], ("vector", -1.0): [4, 8], ("permuted-0", -1.0): [8, 14], ("permuted-1", -1.0): [0, 0],
     ("vector", 2.0): [8, 16], ("permuted-0", 2.0): [8, 16], ("permuted-1", 2.0): [8, 16],
     ("vector", -0.5): [4, 18], ("permuted-0", -0.5): [8, 16], ("permuted-1", -0.5): [8, 16]},
    {("vector", 0.0): [5, 10, 15], ("vector", -1.0): [4, 8, 12], ("permuted-0", -1.0): [5, 10, 15],
     ("permuted-1", -1.0): [0, 0, 0], ("vector", 2.0): [4, 8, 12], ("permuted-0", 2.0): [5, 10, 15],
     ("permuted-1", 2.0): [5, 10, 14], ("vector", -0.5): [5, 10, 15], ("permuted-0", -0.5): [5, 10, 15],
     ("permuted-1", -0.5): [5, 10, 15]},
)  # fmt: skip


def test_the_tax_is_counted() -> None:
    table = alignment_tax(COUNTS).set_index("coefficient")
    away = table.loc[-1.0]
    assert (away["lost_target"], away["lost_other"]) == pytest.approx((0.5, 0.2))
    assert [away[name] for name in ("apart", "apart_low", "apart_high", "tax")] == pytest.approx([0.3, 0.3, 0.3, 0.4])
    # the first control loses 2 of 24 on the target and nothing else, the second everything of both
    assert (away["n_permuted"], away["beats_permuted"]) == (2, 1.0)
    assert away["permuted_low"] == pytest.approx(0.025 * 2 / 24) and away["permuted_high"] == pytest.approx(0.975 / 12)
    towards = table.loc[2.0]
    assert towards["apart"] == pytest.approx(-0.2) and np.isnan(towards["tax"]), "nothing was taken from the target"
    assert towards["beats_permuted"] == 1.0, "0 and -1/30 are both above -.2"
    little = table.loc[-0.5]
    assert little["lost_target"] == pytest.approx(2 / 24) and np.isnan(little["tax"]), (
        "one document of two lost, one won"
    )
    assert table["layer"].unique().tolist() == [3] and 0 not in table.index


def test_accuracies_are_of_all_tokens_with_documents_drawn() -> None:
    frame = COUNTS.copy()
    frame.loc[
        (frame["kind"] == "vector") & (frame["text_kind"] == "target") & (frame["coefficient"] == -1), "n_correct"
    ] = [8, 4]
    table = summarize_skill(frame).set_index(["text_kind", "coefficient"])
    row = table.loc[("target", -1.0)]
    assert row["accuracy"] == pytest.approx(12 / 30) and (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(
        (0.2, 0.8)
    )
    assert row["accuracy_lost"] == pytest.approx(0.4) and (
        row["accuracy_lost_low"],
        row["accuracy_lost_high"],
    ) == pytest.approx((0.0, 0.6))
    assert (row["n_documents"], row["n_tokens"], row["n_permuted"]) == (2, 30, 2)
    assert row["permuted_mean"] == pytest.approx((22 / 30 + 0) / 2) and row["worse_than_permuted"] == 0.5
    assert table.loc[("other", 0.0), "accuracy_lost"] == 0 and np.isnan(table.loc[("other", 0.0), "permuted_mean"])
    assert table.index.get_level_values("text_kind").tolist() == ["target"] * 4 + ["other"] * 4


def test_two_kinds_of_the_organisms_text_come_apart() -> None:
    model = caa.load_model("organism-chat")
    target, other = load_texts("opinions"), load_texts("facts")
    vectors = skill_vectors(model, target[:50], other[:50], over="every", layers=[2])
    curve = skill_curve(model, vectors[2], target[50:75], other[50:75], coefficients=(-5, 5), n_nulls=5)
    table = alignment_tax(curve).set_index("coefficient")
    assert table.loc[-5.0, "apart_low"] > 0.2 and table.loc[5.0, "apart_high"] < -0.1
    assert (table["beats_permuted"] == 1).all() and table.loc[-5.0, "tax"] < 0.6


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"over": "first"}, ValueError, "over is 'first': give 'last', the last token of a document, or 'every'"),
        ({"target": "one text"}, TypeError, "target is one string: give a list of documents"),
        ({"other": []}, ValueError, "there are no other documents: give at least one"),
        (
            {"other": ["the one thing", "x y"]},
            ValueError,
            "target and other share 1 documents, such as 'the one thing'",
        ),
        ({"max_tokens": 1}, ValueError, "max_tokens is 1: it is at least 2"),
        ({"layers": [9]}, ValueError, "layer 9 is out of range"),
        ({"other": ["AB " * 600]}, ValueError, "item 0 needs "),
    ],
)
def test_what_no_vector_can_be_made_of_is_refused(
    llama: Any, given: dict[str, Any], kind: type[Exception], message: str, unchecked: None
) -> None:
    sides = {"target": TARGET, "other": OTHER} | given
    with pytest.raises(kind) as raised:
        skill_vectors(llama, sides.pop("target"), sides.pop("other"), **sides)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coefficients": (1, 1.0)}, "coefficients [1, 1.0]: give finite numbers, each once"),
        ({"coefficients": (float("nan"),)}, "give finite numbers, each once"),
        ({"keep": 1.5}, "keep 1.5, n_nulls 20: keep is a share from 0 to 1"),
        ({"n_nulls": 0}, "no accuracy is given without its control, so n_nulls is 1 or more"),
        ({"max_tokens": 0}, "max_tokens is 0: it is at least 2"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ],
)
def test_curves_are_checked_before_the_model_runs(llama: Any, given: dict[str, Any], message: str) -> None:
    vector = skill_vectors(llama, TARGET, OTHER, layers=[1])[1]
    with pytest.raises(ValueError) as raised:
        skill_curve(llama, vector, TARGET, OTHER, **given)
    assert message in str(raised.value)


def test_a_document_of_one_token_is_refused(bridge: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r"target document 1, 'A', has 1 token: at least 2 are needed; leave it out"):
        skill_vectors(bridge("qwen2"), ["the one", "A"], OTHER)


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not a frame of skill_curve\(\): it lacks the columns document, text_kind"):
        alignment_tax(COUNTS.drop(columns=["text_kind", "document"]))
    with pytest.raises(ValueError, match="must be of one layer and of both kinds of text"):
        summarize_skill(COUNTS[COUNTS["text_kind"] == "target"])
    with pytest.raises(ValueError, match="no rows of the kind 'vector' at coefficient 0"):
        summarize_skill(COUNTS[COUNTS["coefficient"] != 0])
    with pytest.raises(ValueError, match="the unsteered model gets no token of the target text right"):
        alignment_tax(COUNTS.assign(n_correct=0))
