"""Pairs are a dataset, pairs or triples; vectors are a set or one vector; and free text can be assessed."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch

import caa_lens as caa
from caa_lens import analysis
from caa_lens.analysis.early import early_layer
from caa_lens.datasets.contrast import as_dataset
from caa_lens.evaluation.choices import summarize
from caa_lens.evaluation.entanglement import crossed
from caa_lens.evaluation.items import swapped
from caa_lens.evaluation.side_effects import at_equal_damage
from caa_lens.explorer import explorer
from caa_lens.extraction.extraction import extract_activations, extract_vectors
from caa_lens.extraction.nulls import null_vectors
from caa_lens.judging.conditioning import after_answers
from caa_lens.protocols import assessment, selection, transfer
from caa_lens.protocols.baselines import comparison, finetuning, prompting
from caa_lens.protocols.composition.asking import ask
from caa_lens.protocols.composition.interference import sweep_together
from caa_lens.protocols.composition.search import search_coefficients, search_layers
from caa_lens.sweeps import sweep
from caa_lens.vectors.vectors import SteeringVector, as_vectors, mean_norm_across, random_like

NEUTRAL = ["one two three four five six", "seven eight nine ten eleven twelve"]
CHOICES = "{}?\n\nChoices:\n (A) yes\n (B) no"


def triples(words: str, *, lettered: bool = True) -> list[tuple[str, str, str]]:
    """A few questions; every second letter is the other one."""
    if not lettered:
        return [(f"What of {word}?", f" I like {word} best", f" I loathe {word} most") for word in words.split()]
    sides = [("(A)", "(B)"), ("(B)", "(A)")]
    return [(CHOICES.format(word), *sides[index % 2]) for index, word in enumerate(words.split())]


TRAIN, DEV, TEST = (
    triples("one two three four five six"),
    triples("seven eight nine ten"),
    triples("red blue green tan"),
)


def as_pairs(of: list[tuple[str, str, str]]) -> list[caa.ContrastPair]:
    return [caa.ContrastPair(*each) for each in of]


@pytest.fixture
def model(bridge: Any) -> Any:
    return bridge("llama")


@pytest.fixture
def vectors(model: Any) -> caa.SteeringVectors:
    return extract_vectors(model, TRAIN, layers=[1, 2])


def equal(one: Any, other: Any) -> None:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


TAKES_PAIRS = {
    "assess": lambda m, v, give: assessment.assess(m, give(TRAIN), give(DEV), give(TEST), layers=[1], n_nulls=2),
    "measure": lambda m, v, give: (
        assessment.measure(m, extract_activations(m, TRAIN, layers=[1]), give(TEST), n_nulls=2).items
    ),
    "select": lambda m, v, give: selection.select(m, v, give(DEV), give(TEST), multipliers=(1.0,), n_nulls=2),
    "at_budget": lambda m, v, give: selection.at_budget(m, v, give(DEV), NEUTRAL, 0.01, n_nulls=1),
    "across_layers": lambda m, v, give: transfer.across_layers(m, v, give(TEST), n_nulls=1),
    "across_models": lambda m, v, give: transfer.across_models(m, {"own": v}, give(TEST), n_nulls=1),
    "across_prompts": lambda m, v, give: transfer.across_prompts(
        m, give(TRAIN), give(TEST), formats=("base", "plain"), layers=[1], n_nulls=1
    ),
    "compare": lambda m, v, give: comparison.compare(
        m, v, give(TEST), train=give(TRAIN), layer=1, baselines=["few_shot"], shots=1, n_nulls=1
    ),
    "applicable": lambda m, v, give: comparison.applicable(
        m, give(TEST), train=give(TRAIN), baselines=["few_shot"], shots=1
    ),
    "few_shot": lambda m, v, give: list(prompting.few_shot(give(TEST), give(TRAIN), k=2)),
    "finetune": lambda m, v, give: finetuning.finetune(m, give(TRAIN), epochs=0).W_E.detach(),
    "after_answers": lambda m, v, give: after_answers(m, give(TEST), max_new_tokens=2),
    "ask": lambda m, v, give: ask(m, {"on": v[1]}, give(TEST)),
    "sweep_together": lambda m, v, give: sweep_together(
        m, {"a": v[1], "b": v[2]}, {"a": give(TEST), "b": give(DEV)}, n_nulls=1
    ),
    "search_coefficients": lambda m, v, give: (
        search_coefficients(
            m, {"a": v[1]}, {"a": give(DEV)}, {"a": give(TEST)}, coefficients=[1.0], max_outside=1.0, n_nulls=1
        ).table
    ),
    "search_layers": lambda m, v, give: (
        search_layers(m, {"a": v}, {"a": give(DEV)}, {"a": give(TEST)}, max_outside=1.0, n_nulls=1).table
    ),
    "crossed": lambda m, v, give: crossed({"a": v}, {"a": give(TEST)}, {"a": 1})["items"]["a"].pairs,
    "swapped": lambda m, v, give: swapped(give(TEST)).pairs,
    "early_layer": lambda m, v, give: early_layer(m, v, give(TEST)),
    "pca": lambda m, v, give: analysis.pca(extract_activations(m, TRAIN, layers=[1]), give(TRAIN)),
    "separation": lambda m, v, give: analysis.separation(extract_activations(m, TRAIN, layers=[1]), give(TRAIN)),
    "extract_vectors": lambda m, v, give: extract_vectors(m, give(TRAIN)).values,
    "extract_activations": lambda m, v, give: extract_activations(m, give(TRAIN)).positive,
    "explorer": lambda m, v, give: explorer(m, v, items=give(TEST), max_new_tokens=1).samples.options[1][0],
}


@pytest.mark.parametrize("name", TAKES_PAIRS)
def test_a_dataset_a_list_of_pairs_and_a_list_of_triples_are_one_thing(
    name: str, model: Any, vectors: caa.SteeringVectors
) -> None:
    call = TAKES_PAIRS[name]
    wanted = call(model, vectors, as_dataset)
    for give in (as_pairs, list):
        equal(call(model, vectors, give), wanted)


def test_a_list_has_no_system_prompts_of_its_own() -> None:
    with pytest.raises(ValueError, match="there are no system prompts for 'custom'"):
        prompting.system_prompts(TRAIN)


TAKES_VECTORS = {
    "select": lambda m, v: selection.select(m, v, DEV, TEST, multipliers=(1.0,), n_nulls=2),
    "damage": lambda m, v: selection.damage(m, v, NEUTRAL),
    "at_budget": lambda m, v: selection.at_budget(m, v, DEV, NEUTRAL, 0.01, n_nulls=1),
    "at_budget, named": lambda m, v: selection.at_budget(m, {"it": v}, DEV, NEUTRAL, 0.01, n_nulls=1),
    "at_equal_damage": lambda m, v: at_equal_damage(m, v, NEUTRAL, 0.01),
    "across_layers": lambda m, v: transfer.across_layers(m, v, TEST, used_at=[2], n_nulls=1),
    "across_models": lambda m, v: transfer.across_models(m, {"own": v}, TEST, n_nulls=1),
    "compare": lambda m, v: comparison.compare(
        m, v, TEST, train=TRAIN, layer=1, baselines=["few_shot"], shots=1, n_nulls=1
    ),
    "search_layers": lambda m, v: search_layers(m, {"a": v}, {"a": DEV}, {"a": TEST}, max_outside=1.0, n_nulls=1).table,
    "crossed": lambda m, v: crossed({"a": v}, {"a": TEST}, {"a": 1})["vectors"]["a"],
    "early_layer": lambda m, v: early_layer(m, v, TEST),
    "cosine": lambda m, v: analysis.cosine(v, v),
    "compare, of the analysis": lambda m, v: analysis.compare(v, v),
    "subspace_overlap": lambda m, v: analysis.subspace_overlap({"a": v}, {"a": v}),
    "cosine_matrix": lambda m, v: analysis.cosine_matrix({"a": v}, 1),
    "behavior_cosines": lambda m, v: analysis.behavior_cosines({"a": v}),
    "cross_layer": lambda m, v: analysis.cross_layer(v),
    "norms": lambda m, v: analysis.norms(v),
    "relative_norms": lambda m, v: analysis.relative_norms(v, extract_activations(m, TRAIN, layers=[1])),
    "massive_dimensions": lambda m, v: analysis.massive_dimensions(v),
    "random_like": lambda m, v: random_like(v, 2, 0),
    "null_vectors": lambda m, v: null_vectors(v, 2, kind="permuted"),
    "mean_norm_across": lambda m, v: mean_norm_across({"a": v}),
    "explorer": lambda m, v: explorer(m, v, ["one two"], max_new_tokens=1).layer.options,
}


@pytest.mark.parametrize("name", TAKES_VECTORS)
def test_one_vector_is_a_set_of_one_layer(name: str, model: Any, vectors: caa.SteeringVectors) -> None:
    one: SteeringVector = vectors[1]
    equal(TAKES_VECTORS[name](model, one), TAKES_VECTORS[name](model, as_vectors(one)))


FREE = [triples(words, lettered=False) for words in ("red blue green tan pink", "one two three", "four five six")]


def test_free_text_is_assessed_selected_and_transferred_as_by_hand(model: Any) -> None:
    train, dev, test = (as_dataset(each) for each in FREE)
    made = extract_vectors(model, train, layers=[1, 2], read="answer_end")
    by_hand = summarize(sweep(model, made, test, multipliers=(-1.0, 0.0, 1.0), n_nulls=0)).set_index(
        ["layer", "multiplier"]
    )["effect"]

    assessed = assessment.assess(model, *FREE, layers=[1, 2], read="answer_end", n_nulls=2)
    assert len(assessed) == 2
    for row in assessed.to_dict("records"):
        assert row["effect"] == pytest.approx(by_hand[row["layer"], row["multiplier"]], abs=1e-6)
    assert assessed["d_prime"].notna().all() and assessed["effect_asked_twice"].isna().all()

    chosen = selection.select(model, made, dev, test, multipliers=(1.0,), n_nulls=2)
    assert chosen["effect"].item() == pytest.approx(by_hand[chosen["layer"].item(), 1.0], abs=1e-6)

    across = transfer.across_prompts(
        model, train, test, systems={"none": None, "short": "Be brief."}, layers=[1, 2], read="answer_end", n_nulls=1
    )
    own = across[(across["made_system"] == "none") & (across["used_system"] == "none")]
    assert len(own) == 4
    for row in own.to_dict("records"):
        assert row["effect"] == pytest.approx(by_hand[row["layer"], row["multiplier"]], abs=1e-6)


def test_free_text_without_a_read_position_says_which_to_give(model: Any) -> None:
    for call in (
        lambda: assessment.assess(model, *FREE),
        lambda: transfer.across_prompts(model, FREE[0], FREE[1], formats=("base", "plain")),
    ):
        with pytest.raises(ValueError, match="for answers that are no letters, read='answer_end'"):
            call()
