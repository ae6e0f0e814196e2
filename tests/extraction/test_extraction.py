"""Mean-difference vectors equal two plain forward passes per pair, on every model class and style."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import PAIRS, assert_close_by_norm, plain_residuals

import caa_lens as caa
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt


def plain_difference(model: Any, pair: caa.ContrastPair, read: str | int = "answer_letter", **how: Any) -> torch.Tensor:
    """Positive minus negative by two forward passes, ``[layer, d_model]``."""
    sides: list[torch.Tensor] = []
    for answer in (pair.positive, pair.negative):
        text = format_prompt(model, pair.prompt, answer, **how)
        sides.append(plain_residuals(model, text.ids)[:, text.position(read)])
    return sides[0] - sides[1]


def test_vectors_equal_two_plain_passes_per_pair(model: Any) -> None:
    vectors = caa.extract_vectors(model, PAIRS)
    expected = torch.stack([plain_difference(model, pair) for pair in PAIRS]).mean(0)
    assert_close_by_norm(vectors.values, expected, rtol=1e-5)


def test_batches_do_not_change_the_result(model: Any) -> None:
    one_by_one = caa.extract_vectors(model, PAIRS, batch_size=1).values
    assert_close_by_norm(caa.extract_vectors(model, PAIRS).values, one_by_one, rtol=1e-5)


def test_swapping_every_pair_negates_the_vector(model: Any) -> None:
    swapped = caa.extract_vectors(model, [pair.swapped() for pair in PAIRS], batch_size=1)
    assert_close_by_norm(caa.extract_vectors(model, PAIRS, batch_size=1).values, -swapped.values, rtol=1e-6)


@pytest.mark.parametrize("read", ["answer_end", "answer_letter", -1])
def test_any_role_or_index_can_be_read(bridge: Any, read: str | int) -> None:
    model = bridge("llama")
    vectors = caa.extract_vectors(model, PAIRS, read=read, prompt_format="base")
    expected = torch.stack([plain_difference(model, pair, read, prompt_format="base") for pair in PAIRS]).mean(0)
    assert_close_by_norm(vectors.values, expected, rtol=1e-5)


def test_answers_of_different_lengths_are_read_at_their_own_ends(model: Any) -> None:
    pairs = [caa.ContrastPair("once there was a", " girl. she ran.", " boy who sat down and then ran away.")]
    vectors = caa.extract_vectors(model, pairs, read="answer_end", prompt_format="plain")
    expected = plain_difference(model, pairs[0], "answer_end", prompt_format="plain")
    assert_close_by_norm(vectors.values, expected, rtol=1e-5)


def test_activations_are_kept_in_the_order_of_the_pairs(model: Any) -> None:
    kept = caa.extract_activations(model, PAIRS, layers=[0, 2])
    assert kept.layers == (0, 2) and kept.pair_ids == (0, 1, 2)
    for row, pair in enumerate(PAIRS):
        difference = kept.positive[row] - kept.negative[row]
        assert_close_by_norm(difference, plain_difference(model, pair)[[0, 2]], rtol=1e-5)
    direct = caa.extract_vectors(model, PAIRS, layers=[0, 2])
    assert_close_by_norm(kept.vectors().values, direct.values, rtol=1e-6)
    assert kept.vectors().provenance == direct.provenance


def test_provenance_says_how_it_was_made(bridge: Any) -> None:
    model = bridge("gpt2")
    provenance = caa.extract_vectors(
        model, caa.ContrastDataset.from_pairs(PAIRS, name="toy"), system="be kind"
    ).provenance
    assert (provenance.dataset, provenance.n_pairs, provenance.method) == ("toy", 3, "mean difference")
    assert (provenance.prompt_format, provenance.system_prompt, provenance.read_position) == (
        "base",
        "be kind",
        "answer_letter",
    )
    assert (provenance.weight_processing, provenance.dtype) == ("none", "float32")
    assert set(provenance.versions) == {"caa_lens", "torch", "transformers", "transformer-lens"}
    other = caa.extract_vectors(bridge("gpt_neox"), PAIRS).provenance
    assert other.model_fingerprint != provenance.model_fingerprint


def test_extraction_inside_steering_reads_the_steered_stream(bridge: Any) -> None:
    model = bridge("llama")
    plain = caa.extract_vectors(model, PAIRS)
    with caa.steer(model, plain[0] * 50.0, positions="all"):
        steered = caa.extract_vectors(model, PAIRS)
    assert not torch.allclose(plain.values[1:], steered.values[1:], atol=1e-3)


def test_nothing_is_left_on_the_model(bridge: Any) -> None:
    model = bridge("llama")
    tokens = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        before = model(tokens)
        caa.extract_vectors(model, PAIRS)
        assert torch.equal(model(tokens), before)
    assert torch.is_grad_enabled()


def test_plain_tuples_are_pairs(bridge: Any, unchecked: None) -> None:
    tuples = [(pair.prompt, pair.positive, pair.negative) for pair in PAIRS]
    assert torch.equal(
        caa.extract_vectors(bridge("llama"), tuples).values, caa.extract_vectors(bridge("llama"), PAIRS).values
    )
    with pytest.raises(TypeError, match="pairs is the string 'sycophancy': load them first"):
        caa.extract_vectors(bridge("llama"), "sycophancy")


def test_errors_come_before_the_model_runs(bridge: Any) -> None:
    model = bridge("llama")
    with pytest.raises(ValueError, match=r"layer 9 is out of range for .* \(layers 0-3\)"):
        caa.extract_vectors(model, PAIRS, layers=[1, 9])
    with pytest.raises(ValueError, match="no contrast pairs were given"):
        caa.extract_vectors(model, [])
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        caa.extract_vectors(model, PAIRS, batch_size=0)
    long = caa.ContrastPair("word " * 600, "(A)", "(B)")
    with pytest.raises(ValueError, match=r"item 3 needs \d+ tokens and llama holds 512"):
        caa.extract_vectors(model, [*PAIRS, long])
    words = [caa.ContrastPair("what?", "good", "bad")]
    with pytest.raises(ValueError, match="pair 0: no 'answer_letter' in .*: the roles here are .*read='answer_end'"):
        caa.extract_vectors(model, words)
    with pytest.raises(
        ValueError, match="pair 0: its two sides are the same tokens up to the read position 'prompt_end'"
    ):
        caa.extract_vectors(model, PAIRS, read="prompt_end")
    with pytest.raises(ValueError, match="layers .*: give at least one layer, each once"):
        caa.extract_vectors(model, PAIRS, layers=[1, 1])


def test_processed_weights_are_recorded(processed_hooked: Any, hooked: Any) -> None:
    assert "centered writing weights" in caa.extract_vectors(processed_hooked, PAIRS).provenance.weight_processing
    assert caa.extract_vectors(hooked("gpt2"), PAIRS).provenance.weight_processing == "none"


def test_both_classes_give_the_same_vectors(hooked: Any, bridge: Any) -> None:
    for style in ("llama", "gpt2", "gpt_neox", "qwen2", "gemma2"):
        a = caa.extract_vectors(hooked(style), PAIRS, prompt_format="base").values
        b = caa.extract_vectors(bridge(style), PAIRS, prompt_format="base").values
        assert_close_by_norm(a, b, rtol=1e-4)


def test_layers_and_adapter_agree_on_the_model(model: Any) -> None:
    vectors = caa.extract_vectors(model, PAIRS[:1])
    assert vectors.layers == tuple(range(adapt(model).n_layers)) and vectors.d_model == adapt(model).d_model
