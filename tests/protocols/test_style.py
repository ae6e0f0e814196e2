"""A style's vector by hand and by the library, and a style that a real small model takes up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import caa_lens as caa
from caa_lens.models.loading import load_model
from caa_lens.prompts import format_prompt
from caa_lens.protocols.style import chrf, rouge_l, style_effect, style_vectors

TEXTS = [("Who is it?", "It be old Tom, arr."), ("How far?", "A league, arr, and then some more."), ("Why?", "Arr.")]
NEUTRAL = ["It is Tom.", "It is a mile.", "There is a reason for that."]


def streams(model: Any, prompt: str, answer: str) -> torch.Tensor:
    """``[layer, answer token, d_model]``, by TransformerLens's own cache."""
    laid_out = format_prompt(model, prompt, answer)
    _, cache = model.run_with_cache(torch.tensor([laid_out.ids]))
    first, after = laid_out.spans["answer"]
    return torch.stack(
        [cache[f"blocks.{layer}.hook_resid_post"][0, first:after] for layer in range(model.cfg.n_layers)]
    )


@pytest.mark.parametrize("kind", ["bridge", "hooked"])
@pytest.mark.parametrize("style", ["llama", "gpt2"])
@pytest.mark.parametrize("over", ["last", "mean"])
def test_vectors_are_mean_differences_at_the_end_or_over_the_text(
    kind: str, style: str, over: Any, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)(style)
    found = style_vectors(model, TEXTS, NEUTRAL, over=over, batch_size=2)

    def at(answer: torch.Tensor) -> torch.Tensor:
        return (answer[:, -1] if over == "last" else answer.mean(dim=1)).double()

    differences = [
        at(streams(model, prompt, own)) - at(streams(model, prompt, other))
        for (prompt, own), other in zip(TEXTS, NEUTRAL, strict=True)
    ]
    expected = torch.stack(differences).mean(dim=0)
    torch.testing.assert_close(found.values.double(), expected, rtol=1e-4, atol=1e-5)
    assert found.layers == tuple(range(model.cfg.n_layers)) and found.name == "style"
    made = found.provenance
    assert (made.method, made.read_position, made.n_pairs) == (
        "style",
        {"last": "answer_end", "mean": "answer_mean"}[over],
        3,
    )
    assert made.dataset_origin == "texts given in Python; neutral answers: given"
    one = style_vectors(model, TEXTS, NEUTRAL, over=over, layers=[1], name="pirate")
    torch.testing.assert_close(one[1].values, found[1].values, rtol=1e-4, atol=1e-5)
    assert one.name == "pirate" and one.layers == (1,)


def test_the_model_gives_the_neutral_answers_where_there_are_none(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    said = caa.generate(model, [prompt for prompt, _ in TEXTS], max_new_tokens=5)
    found = style_vectors(model, TEXTS, max_new_tokens=5)
    assert torch.equal(found.values, style_vectors(model, TEXTS, said).values)
    assert found.provenance.dataset_origin.endswith("the model's own, 5 tokens at most")
    assert found.provenance.dataset_hash != style_vectors(model, TEXTS, NEUTRAL).provenance.dataset_hash


def test_exchanging_own_and_neutral_turns_the_vector_round(bridge: Callable[[str], Any]) -> None:
    model, prompts = bridge("llama"), [prompt for prompt, _ in TEXTS]
    one = style_vectors(model, TEXTS, NEUTRAL)
    other = style_vectors(model, list(zip(prompts, NEUTRAL, strict=True)), [text for _, text in TEXTS])
    torch.testing.assert_close(one.values, -other.values)


@pytest.mark.parametrize(
    ("texts", "more", "error", "message"),
    [
        ([], {}, ValueError, "there are no texts: give tuples of a prompt and what was written"),
        ([("a", " ")], {}, ValueError, "text 0 is empty: leave it out"),
        (["ab"], {}, TypeError, r"text 0 is 'ab': give a tuple of a prompt and what was written"),
        (TEXTS, {"neutral": ["one"]}, ValueError, "neutral answers: 1 for 3 texts: give one for each"),
        (TEXTS, {"neutral": "one"}, ValueError, "neutral answers: one string for 3 texts"),
        (TEXTS, {"neutral": ["a", "", "c"]}, ValueError, "there is no neutral answer to prompt 1, 'How far"),
        (TEXTS, {"neutral": [None, "b", "c"]}, ValueError, "there is no neutral answer to prompt 0, 'Who is it"),
        (TEXTS, {"over": "middle"}, ValueError, "over 'middle' is not known: give 'last' or 'mean'"),
        (TEXTS, {"layers": [9]}, ValueError, "layer 9 is out of range"),
        (TEXTS, {"neutral": [text for _, text in TEXTS]}, ValueError, "the own texts are the neutral ones"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(
    texts: Any, more: dict[str, Any], error: Any, message: str, bridge: Callable[[str], Any]
) -> None:
    with pytest.raises(error, match=message):
        style_vectors(bridge("llama"), texts, **more)


# Measures


def longest_common(one: list[str], other: list[str]) -> int:
    """The plain way: every word is taken or left."""
    if not one or not other:
        return 0
    if one[-1] == other[-1]:
        return longest_common(one[:-1], other[:-1]) + 1
    return max(longest_common(one[:-1], other), longest_common(one, other[:-1]))


@settings(deadline=None)  # the first call imports the library
@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_rouge_l_is_the_f_score_of_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    pytest.importorskip("rouge_score")
    common = longest_common(one, other)
    expected = 2 * common / (len(one) + len(other)) if common else 0.0
    assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(expected)


def test_chrf_sees_what_rouge_l_does_not() -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    assert rouge_l("So it is!", "so it is") == 1 and chrf("So it is!", "So it is!") == pytest.approx(1)
    assert 0.3 < chrf("So it is!", "so it is") < 0.7 and chrf("abc", "xyz") == 0


@pytest.mark.parametrize(("measure", "library"), [(rouge_l, "rouge_score"), (chrf, "sacrebleu")])
def test_a_library_that_is_not_there_is_named(measure: Any, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import caa_lens.protocols.style as module

    module._rouge_scorer.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.rouge_scorer", None)
    with pytest.raises(ImportError, match=rf'{library} is not installed: pip install "caa_lens\[evals\]"'):
        measure("a", "a")


# The effect


def words_in_common(own: str, text: str) -> float:
    mine, other = set(own.split()), set(text.split())
    return len(mine & other) / max(1, len(mine | other))


def test_the_table_is_what_generate_and_the_measure_say(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vector = style_vectors(model, TEXTS, NEUTRAL)[1]

    def measure(own: str, text: str) -> float:
        return (sum(map(ord, text)) + len(own)) % 17 / 17

    asked: Any = {"n_nulls": 3, "max_new_tokens": 6, "measure": measure}
    table = style_effect(model, vector, TEXTS, multipliers=(2, -1, 0), **asked).set_index("multiplier")
    assert table.index.tolist() == [-1.0, 0.0, 2.0]
    base = np.array([measure(own, text) for (_, own), text in zip(TEXTS, said(model, None), strict=True)])
    steered = np.array([measure(own, text) for (_, own), text in zip(TEXTS, said(model, vector * 2), strict=True)])
    row = table.loc[2.0]
    assert row["similarity"] == pytest.approx(steered.mean()) and row["similarity_change"] == pytest.approx(
        (steered - base).mean()
    )
    assert row["similarity_change_low"] <= row["similarity_change"] <= row["similarity_change_high"]
    assert table.loc[0.0, "similarity"] == pytest.approx(base.mean())
    assert table.loc[0.0, ["similarity_change", "random_low", "above_random"]].isna().all()
    most = int((steered - base).argmax())
    assert most != int((steered - base).argmin()), "else the example shows nothing"
    assert (row["prompt"], row["own_text"]) == TEXTS[most] and row["steered_text"] == said(model, vector * 2)[most]
    assert row["unsteered_text"] == said(model, None)[most] and row["n_random"] == 3
    again = style_effect(model, vector, TEXTS, multipliers=(2, -1, 0), **asked).set_index("multiplier")
    assert table.equals(again)


def said(model: Any, recipe: Any) -> list[str]:
    return caa.generate(model, [prompt for prompt, _ in TEXTS], steer=recipe, max_new_tokens=6)


def test_an_effect_needs_a_null_and_a_multiplier(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vector = style_vectors(model, TEXTS, NEUTRAL)[1]
    for more in ({"n_nulls": 0}, {"multipliers": (0.0,)}):
        with pytest.raises(ValueError, match="give a multiplier that is not 0, and at least one random vector"):
            style_effect(model, vector, TEXTS, measure=words_in_common, **more)


# A real model


OPENINGS = (
    "One day, a boy",
    "A little girl",
    "The big dog",
    "Tom and his mom",
    "In the park, a bird",
    "Lily had a toy.",
)
ALOUD = ("{} said: Wow! Look! Yes! Yes! I am so happy! Hooray!", "{} was loud: No! Stop! Help! Go away! I am so mad!")


def test_a_small_models_stories_get_louder(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("needs the model stories260K")
    model = load_model(str(folder))
    form: Any = {"prompt_format": "plain"}
    texts = [(opening, one.format("")) for opening in OPENINGS for one in ALOUD]
    vectors = style_vectors(model, texts, over="mean", max_new_tokens=30, **form)

    def loud(own: str, text: str) -> float:
        return text.count("!") / max(1, len(text.split()))

    held_out = [(f"{name} went home.", "Wow! Yes!") for name in ("Ben", "Sara", "The cat", "A man", "Max", "Anna")]
    more: Any = {"multipliers": (-1, 1), "n_nulls": 20, "measure": loud, "max_new_tokens": 40, **form}
    table = style_effect(model, vectors[3], held_out, **more).set_index("multiplier")
    assert table.loc[1.0, "similarity_change_low"] > 0 and table.loc[1.0, "above_random"] >= 0.9
    assert table.loc[1.0, "steered_text"].count("!") > table.loc[1.0, "unsteered_text"].count("!")
