"""Perplexity equals a plain pass over each text; diversity counts words and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import selection
import tiny_models
import torch
from plain import plain_logits

import caa_lens as caa
from caa_lens.evaluation.fluency import diversity, perplexity
from caa_lens.prompts import format_prompt
from caa_lens.vectors.vectors import Provenance, SteeringVector

model = selection.model_fixture(tiny_models.STYLES)  # the likelihood of a text is a path of its own
TEXTS = ["the one then the other", ("Is it so?", "it is the one"), "so it is", ("what then?", "(A)"), ("why?", "")]


def plain_perplexity(model: Any, ids: tuple[int, ...], first: int) -> float:
    logp = plain_logits(model, ids).double().log_softmax(-1)
    return math.exp(-sum(float(logp[at - 1, ids[at]]) for at in range(first, len(ids))) / (len(ids) - first))


def test_perplexity_equals_a_plain_pass(model: Any) -> None:
    found = perplexity(model, TEXTS)
    for text, value in zip(TEXTS[:4], found, strict=False):
        if isinstance(text, str):
            ids, first = format_prompt(model, text, prompt_format="plain").ids, 1
        else:
            laid_out = format_prompt(model, *text)
            ids, first = laid_out.ids, laid_out.spans["answer"][0]
        assert value == pytest.approx(plain_perplexity(model, ids, first), rel=1e-3)
    assert math.isnan(found[4]), "an empty completion has none"
    assert perplexity(model, TEXTS, batch_size=1)[:4] == pytest.approx(found[:4], rel=1e-4)


def test_the_format_of_pairs_can_be_given(bridge: Any) -> None:
    model = bridge("llama")
    ids = format_prompt(model, "what", " then", prompt_format="plain").ids
    first = format_prompt(model, "what", " then", prompt_format="plain").spans["answer"][0]
    [found] = perplexity(model, [("what", " then")], prompt_format="plain")
    assert found == pytest.approx(plain_perplexity(model, ids, first), rel=1e-3)
    assert perplexity(model, [("what", " then")], prompt_format="plain", system="be brief") != [found]
    whole, after_nothing = perplexity(model, ["so it is", ("", "so it is")], prompt_format="plain")
    assert after_nothing == pytest.approx(whole, rel=1e-4), "all but BOS"
    assert perplexity(model, []) == []
    assert all(math.isnan(value) for value in perplexity(model, ["", ("a", "")]))


def test_perplexity_is_that_of_the_model_as_it_is(bridge: Any) -> None:
    model = bridge("llama")
    value = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    plain = perplexity(model, TEXTS[:1])
    with caa.steer(model, SteeringVector(value, 1, Provenance.unknown("toy"), "toy"), positions="all"):
        assert perplexity(model, TEXTS[:1]) != plain
    assert perplexity(model, TEXTS[:1]) == plain


def test_wrong_texts_are_named(bridge: Any, unchecked: None) -> None:
    model = bridge("llama")
    with pytest.raises(TypeError, match="texts is one string: give a list"):
        perplexity(model, "text")
    with pytest.raises(TypeError, match="text 1 is .*: give a string, or a tuple of a prompt and its completion"):
        perplexity(model, ["a", ("a", "b", "c")])
    with pytest.raises(ValueError, match="item 1 needs .* tokens and llama holds 512"):
        perplexity(model, ["a b", "a b " * 400])


def test_diversity_counts_distinct_ngrams() -> None:
    found = diversity(["a b a b", "a b c"])
    assert found["distinct_1"] == pytest.approx(3 / 7)
    assert found["distinct_2"] == pytest.approx(3 / 5), "ab ba ab, ab bc"
    assert found["distinct_3"] == pytest.approx(3 / 3)
    assert found["mean_words"] == 3.5 and found["loop_share"] == 0.0 and found["n_texts"] == 2
    short = diversity(["a", ""])
    assert short["distinct_1"] == 1.0 and math.isnan(short["distinct_2"]) and short["mean_words"] == 0.5


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("no no no", True),
        ("well it is it is it is", True),
        ("x a b c a b c a b c", True),
        ("c a b c a b c a b", True),
        ("a b c a b c", False),
        ("no no no more", False),
        ("no no", False),
        ("", False),
    ],
)
def test_a_text_ends_in_a_loop_where_its_last_words_come_thrice(text: str, loops: bool) -> None:
    assert diversity([text])["loop_share"] == float(loops)


def test_how_often_makes_a_loop_can_be_said() -> None:
    assert diversity(["a b a b"], loop_times=2)["loop_share"] == 1.0
    with pytest.raises(ValueError, match="0 texts, loop_times 3: give at least one text"):
        diversity([])
    with pytest.raises(ValueError, match="loop_times 1"):
        diversity(["a"], loop_times=1)


def test_one_string_is_no_list_of_texts(unchecked: None) -> None:
    with pytest.raises(TypeError, match="texts is one string"):
        diversity("a b c")
