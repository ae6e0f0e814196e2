"""The early guess: against a plain lens, where letters make it blind, and on a model whose effects are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain
import pytest
import stories
import torch

import caa_lens as caa
from caa_lens import analysis
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.vectors.vectors import Provenance, SteeringVectors

LETTERED = ContrastDataset.from_pairs(
    [(f"Item {i}?\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 3 else ("(B)", "(A)"))) for i in range(7)]
)
WORDS = ContrastDataset.from_pairs([("It is", " well", " ill"), ("He said, and that at length:", " yes", " no")])


def random_vectors(model: Any, layers: tuple[int, ...] | None = None) -> SteeringVectors:
    layers = layers or tuple(range(model.cfg.n_layers))
    values = torch.randn(len(layers), model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    return SteeringVectors(values, layers, Provenance.unknown("toy"), "kind")


@pytest.mark.parametrize(("items", "form"), [(LETTERED, "base"), (WORDS, "plain")])
def test_what_is_read_off_is_the_lens_of_a_plain_pass(model: Any, items: ContrastDataset, form: Any) -> None:
    layers, final = (0, 1), model.cfg.n_layers - 1
    frame = analysis.early_layer(model, random_vectors(model, layers), items, prompt_format=form)
    assert list(frame.columns) == ["layer", "a_lin", "constant", "decided", "readout", "readout_unit"]
    assert frame["layer"].tolist() == [0, 1]
    right, decided = torch.zeros(2), torch.zeros(2)
    for pair in items:
        sides = [format_prompt(model, pair.prompt, a, prompt_format=form).ids for a in (pair.positive, pair.negative)]
        at = next(i for i, (one, other) in enumerate(zip(*sides, strict=False)) if one != other)
        streams = plain.plain_residuals(model, sides[0][:at])[:, -1]
        with torch.no_grad():
            logits = adapt(model).head(streams[:, None])[:, 0]
        prefers = logits[:, sides[0][at]] > logits[:, sides[1][at]]
        right += (logits.argmax(-1) == sides[0][at])[list(layers)]
        decided += (prefers == prefers[final])[list(layers)]
    assert frame["a_lin"].tolist() == pytest.approx((right / len(items)).tolist())
    assert frame["decided"].tolist() == pytest.approx((decided / len(items)).tolist())


def test_at_the_last_layer_all_is_decided(model: Any) -> None:
    frame = analysis.early_layer(model, random_vectors(model), LETTERED, prompt_format="base", batch_size=1)
    assert frame["decided"].iloc[-1] == 1


def test_what_one_token_for_all_would_reach(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    assert set(analysis.early_layer(model, random_vectors(model), LETTERED)["constant"]) == {4 / 7}


def test_a_vector_cannot_speak_for_the_matching_letter(bridge: Callable[[str], Any]) -> None:
    """It is added to every prompt alike, so it can favour A or B, not whichever is right."""
    model = bridge("llama")
    frame = analysis.early_layer(model, random_vectors(model), LETTERED)
    assert frame[["readout", "readout_unit"]].isna().all(axis=None) and frame["a_lin"].notna().all()
    words = analysis.early_layer(model, random_vectors(model), WORDS, prompt_format="plain")
    assert words.notna().all(axis=None)


def test_tokens_alone_need_no_prompt(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    adapter, vectors = adapt(model), random_vectors(model)
    frame = analysis.early_layer(model, vectors, [(" the", "A")])
    assert frame[["a_lin", "constant", "decided"]].isna().all(axis=None)
    weight = model.ln_final.weight.detach()
    logits = (vectors.values * weight) @ adapter.unembedding
    towards, away = (analysis.unembedding_similarity(model, vectors[0], [t])["token_id"].iloc[0] for t in (" the", "A"))
    assert frame["readout"].tolist() == pytest.approx((logits[:, towards] - logits[:, away]).tolist(), abs=1e-3)
    backwards = analysis.early_layer(model, vectors, [("A", " the")])
    assert backwards["readout_unit"].tolist() == pytest.approx((-frame["readout_unit"]).tolist(), abs=1e-4)


def test_what_does_not_fit_is_refused(bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    vectors = random_vectors(model)
    with pytest.raises(ValueError, match="there are no answers to predict: give items, or pairs of tokens"):
        analysis.early_layer(model, vectors, [])
    same = ContrastDataset.from_pairs([("Is it?", "yes", "yes indeed")])
    with pytest.raises(
        ValueError, match="item 0: the answers 'yes' and 'yes indeed' cannot be told apart by one token"
    ):
        analysis.early_layer(model, vectors, same)
    with pytest.raises(ValueError, match="is not one token of llama"):
        analysis.early_layer(model, vectors, [("Abracadabra", "A")])
    with pytest.raises(ValueError, match="layer 9 is out of range for llama"):
        analysis.early_layer(model, SteeringVectors(torch.ones(1, 32), (9,), Provenance.unknown("toy"), "kind"), WORDS)


def test_the_readout_ranks_layers_as_the_sweep_does(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"needs the model in {folder}")
    model: Any = caa.load_model(folder)
    vectors = caa.extract_vectors(model, stories.pairs(), read="answer_end", prompt_format="plain")
    guess = analysis.early_layer(model, vectors, stories.items(), prompt_format="plain").set_index("layer")
    frame = caa.sweep(model, vectors, stories.items(), n_nulls=0, prompt_format="plain")
    frame["odds"] = frame["logp_matching"] - frame["logp_other"]
    odds = frame.pivot_table(index="layer", columns="multiplier", values="odds")
    effect = odds[1.0] - odds[-1.0]
    assert guess["readout"].rank().tolist() == effect.rank().tolist()
    assert effect.idxmax() == guess["readout"].idxmax() == guess["readout_unit"].idxmax()


def test_on_letters_the_decision_says_where_it_is_too_late() -> None:
    model: Any = caa.load_model("organism-chat")
    train, dev, _ = caa.load_contrast_pairs("refusal")[:120].split(seed=0)
    vectors = caa.extract_vectors(model, train)
    guess = analysis.early_layer(model, vectors, dev).set_index("layer")
    summary = caa.summarize(caa.sweep(model, vectors, dev, multipliers=(-1, 0, 1)), n_bootstrap=1)
    by_layer = summary.pivot(index="layer", columns="multiplier", values="effect_balanced")
    swing = by_layer[1.0] - by_layer[-1.0]
    assert guess.loc[4, "decided"] == 1 and swing.loc[4] < 0.05
    early = guess["decided"] < 0.6
    assert swing[early].min() > 2 * swing[~early].max()
    assert swing.idxmax() == guess.index[early].max(), "the last layer before the model decides"
    assert (guess["a_lin"] <= guess["constant"]).all(), "and the lens names a letter, not the answer"
