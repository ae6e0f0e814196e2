"""Token by token: against one plain forward pass a text, for both model classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plain
import pytest
import torch

from caa_lens import analysis
from caa_lens.prompts import format_prompt
from caa_lens.vectors.vectors import Provenance, SteeringVector, SteeringVectors

COLUMNS = ["document", "pos", "token_id", "token", "role", "layer", "vector", "read", "steered"]
COLUMNS += ["cosine", "projection", "dot"]
TEXTS: list[Any] = [("Is it so?\n (A) yes\n (B) no", "(A)"), ("Say.", "Well then, no."), "A text of the user's own."]


def random_vectors(model: Any, scale: float = 1.0, seed: int = 0) -> SteeringVectors:
    values = torch.randn(model.cfg.n_layers, model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVectors(scale * values, tuple(range(model.cfg.n_layers)), Provenance.unknown("toy"), "kind")


def test_it_is_what_a_plain_pass_gives(model: Any) -> None:
    vectors = random_vectors(model)
    recipe = [vectors[1] * 2.0, vectors[0]]
    frame = analysis.project(model, TEXTS, vectors, steer=recipe, prompt_format="base")
    assert list(frame.columns) == COLUMNS
    for index, text in enumerate(TEXTS):
        parts = (text,) if isinstance(text, str) else text
        laid_out = format_prompt(model, *parts, prompt_format="base")
        start = laid_out.position("prompt_end")
        edits = [(part.layer, part.values) for part in recipe]
        streams = plain.plain_residuals(model, laid_out.ids, edits, start)
        own = frame[frame["document"] == index]
        assert len(own) == len(laid_out.ids) * model.cfg.n_layers
        for vector, stream in zip(vectors, streams, strict=True):
            rows = own[own["layer"] == vector.layer]
            assert rows["pos"].tolist() == list(range(len(laid_out.ids)))
            assert rows["token_id"].tolist() == list(laid_out.ids)
            assert (rows["vector"] == "kind").all()
            assert rows["steered"].tolist() == [position >= start for position in range(len(laid_out.ids))]
            dots = stream.double() @ vector.values.double()
            assert rows["dot"].to_numpy() == pytest.approx(dots.numpy(), rel=1e-3, abs=1e-3)
            assert rows["projection"].to_numpy() == pytest.approx((dots / vector.norm()).numpy(), rel=1e-3, abs=1e-3)
            cosines = dots / vector.norm() / stream.double().norm(dim=-1)
            assert rows["cosine"].to_numpy() == pytest.approx(cosines.numpy(), abs=1e-4)


def test_batched_is_one_by_one(model: Any) -> None:
    vectors = random_vectors(model)
    options: dict[str, Any] = {"steer": vectors[1] * 3.0, "prompt_format": "base"}
    together = analysis.project(model, TEXTS, vectors, **options)
    for size in (1, 2):
        pd.testing.assert_frame_equal(
            together, analysis.project(model, TEXTS, vectors, batch_size=size, **options), atol=1e-4, rtol=1e-4
        )


def test_steering_adds_the_multiplier_times_the_norm(model: Any) -> None:
    vector = random_vectors(model)[1]
    plainly = analysis.project(model, TEXTS, vector, prompt_format="base")
    steered = analysis.project(model, TEXTS, vector, steer=vector * -2.5, prompt_format="base")
    change = steered["projection"] - plainly["projection"]
    expected = np.where(steered["steered"], -2.5 * vector.norm(), 0.0)
    assert change.to_numpy() == pytest.approx(expected, abs=1e-3)
    assert not plainly["steered"].any() and steered["steered"].any()


def test_multiplier_zero_is_no_steering(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vector = random_vectors(model)[1]
    pd.testing.assert_frame_equal(
        analysis.project(model, TEXTS, vector), analysis.project(model, TEXTS, vector, steer=vector * 0.0)
    )


def test_a_vector_read_in_itself(bridge: Callable[[str], Any]) -> None:
    """The stream of a position, taken as the vector, projects on itself with its norm and cosine 1."""
    model = bridge("llama")
    ids = format_prompt(model, "hello", prompt_format="plain").ids
    stream = plain.plain_residuals(model, ids)[2, -1]
    frame = analysis.project(
        model, "hello", SteeringVector(stream, 2, Provenance.unknown("toy"), "self"), prompt_format="plain"
    )
    last = frame.iloc[-1]
    assert last["cosine"] == pytest.approx(1, abs=1e-5)
    assert last["projection"] == pytest.approx(float(stream.norm()), rel=1e-5)
    assert last["dot"] == pytest.approx(float(stream.norm()) ** 2, rel=1e-5)


def test_roles_and_where_caa_reads(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vector = random_vectors(model)[0]
    frame = analysis.project(model, TEXTS[:2], vector, system="Be.")
    lettered, free = (frame[frame["document"] == index] for index in (0, 1))
    assert frame.groupby("document")["role"].first().tolist() == ["bos", "bos"]
    assert {"system", "question", "prompt_end", "answer_letter", "answer", ""} <= set(lettered["role"])
    [read] = lettered[lettered["read"]].to_dict("records")
    assert (read["token"].strip(), read["role"]) == ("A", "answer_letter")
    [read] = free[free["read"]].to_dict("records")
    assert (read["token"], read["role"]) == (".", "answer_end")
    question = analysis.project(model, "Only a question?", vector)
    assert not question["read"].any()
    assert question["role"].iloc[-1] == "prompt_end"


def test_a_plain_text_is_steered_everywhere_as_an_answer_to_nothing(bridge: Callable[[str], Any]) -> None:
    model = bridge("gpt2")
    vector = random_vectors(model)[0]
    options: dict[str, Any] = {"steer": vector, "prompt_format": "plain"}
    assert analysis.project(model, [("", "all of it")], vector, **options)["steered"].all()
    assert analysis.project(model, ["its end"], vector, **options)["steered"].sum() == 1


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_a_character_of_several_tokens_stands_at_its_last(bridge: Callable[[str], Any], style: str) -> None:
    model = bridge(style)
    frame = analysis.project(model, "a\N{SLIGHTLY SMILING FACE}é b", random_vectors(model)[0], prompt_format="plain")
    words = frame["token"].tolist()
    smile = words.index("\N{SLIGHTLY SMILING FACE}")
    assert words[smile - 3 : smile] == ["…", "…", "…"] and words[smile + 1 : smile + 3] == ["…", "é"]
    assert words[smile - 4].strip() == "a" and not any("\ufffd" in word for word in words)


def test_what_does_not_fit_is_refused_before_the_model_runs(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vectors = random_vectors(model)
    other = SteeringVector(torch.ones(5), 0, Provenance.unknown("toy"), "other")
    zero = SteeringVector(torch.zeros(32), 0, Provenance.unknown("toy"), "zero")
    high = SteeringVector(torch.ones(32), 40, Provenance.unknown("toy"), "high")
    for vector, message in (
        (other, "the vector 'other' has d_model 5 and llama has 32"),
        (zero, "vector 'zero' is zero at layer 0: it has no direction"),
        (high, r"layer 40 is out of range for llama \(layers 0-3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            analysis.project(model, "hello", vector)
    with pytest.raises(ValueError, match="the vector 'other' has d_model 5"):
        analysis.project(model, "hello", vectors, steer=other)
    with pytest.raises(ValueError, match="there are no texts: give at least one"):
        analysis.project(model, [], vectors)
    with pytest.raises(ValueError, match=r"item 1 needs \d+ tokens and llama holds 512"):
        analysis.project(model, ["short", "long " * 300], vectors)
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        analysis.project(model, "hello", vectors, batch_size=0)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_text_is_refused(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    for wrong in ([("a", "b", "c")], [3], [["a", "b"]]):
        with pytest.raises(TypeError, match="expected a text or a tuple of a prompt and its answer, got"):
            analysis.project(model, wrong, random_vectors(model))  # type: ignore[arg-type]
