"""Steering: composes with every TransformerLens call, leaves no trace, and equals the plain path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import plain_greedy, plain_logits

import caa_lens as caa
from caa_lens.interventions.interventions import Intervention
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.vectors.vectors import Provenance, SteeringVector

IDS = [1, 7, 9, 30, 12, 44]


def vector(model: Any, layer: int = 1, seed: int = 0) -> SteeringVector:
    value = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(value, layer, Provenance.unknown("toy"), "toy")


def run(model: Any, ids: list[int] | torch.Tensor = IDS) -> torch.Tensor:
    tokens = ids if isinstance(ids, torch.Tensor) else torch.tensor([ids])
    with torch.no_grad():
        return model(tokens, return_type="logits")


def test_steer_equals_the_plain_path(model: Any) -> None:
    v = vector(model)
    with caa.steer(model, v, multiplier=1.5, positions=2):
        steered = run(model)[0]
    torch.testing.assert_close(steered, plain_logits(model, IDS, [(1, v.values * 1.5)], start=2), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(steered, plain_logits(model, IDS), atol=1e-3)


def test_multiplier_zero_is_bitwise_unsteered(model: Any) -> None:
    plain = run(model)
    for recipe, multiplier in (
        (vector(model), 0.0),
        (vector(model) * 0.0, 1.0),
        (Intervention(vector(model), 0.0), 3.0),
    ):
        with caa.steer(model, recipe, multiplier, positions="all"):
            assert torch.equal(run(model), plain)


def test_default_positions_are_the_last_of_a_pass(model: Any) -> None:
    v = vector(model)
    with caa.steer(model, v):
        steered = run(model)[0]
    plain = run(model)[0]
    assert torch.equal(steered[:-1], plain[:-1])
    torch.testing.assert_close(steered, plain_logits(model, IDS, [(1, v.values)], len(IDS) - 1), atol=1e-4, rtol=1e-4)


def test_positions_all_index_per_row_and_mask_agree(model: Any) -> None:
    v, tokens = vector(model), torch.tensor([IDS, IDS[::-1]])
    starts = torch.tensor([2, -1])
    mask = torch.arange(len(IDS)) >= torch.tensor([[2], [len(IDS) - 1]])
    with caa.steer(model, v, positions=starts):
        by_index = run(model, tokens)
    with caa.steer(model, v, positions=mask):
        by_mask = run(model, tokens)
    assert torch.equal(by_index, by_mask)
    with caa.steer(model, v, positions="all"):
        everywhere = run(model)[0]
    torch.testing.assert_close(everywhere, plain_logits(model, IDS, [(1, v.values)], 0), atol=1e-4, rtol=1e-4)


def test_a_mask_of_one_position_is_obeyed(model: Any) -> None:
    plain = run(model, [7])
    with caa.steer(model, vector(model), positions=torch.tensor([[False]])):
        assert torch.equal(run(model, [7]), plain)
    with caa.steer(model, vector(model), positions=torch.tensor([[False, True]])):
        assert not torch.equal(run(model, [7]), plain), "one position against a longer mask is a step of decoding"


def test_composes_with_run_with_cache_and_run_with_hooks(model: Any) -> None:
    v, last = vector(model), model.cfg.n_layers - 1
    with torch.no_grad():
        _, before = model.run_with_cache(torch.tensor([IDS]))
        with caa.steer(model, v, 2.0, positions="all"):
            _, cache = model.run_with_cache(torch.tensor([IDS]))
            hooked = model.run_with_hooks(
                torch.tensor([IDS]), fwd_hooks=[(f"blocks.{last}.hook_resid_post", lambda resid, hook: resid * 0.0)]
            )
            still_steered = run(model)
    difference = cache["resid_post", 1] - before["resid_post", 1]
    torch.testing.assert_close(difference[0], (2 * v.values).expand(len(IDS), -1), atol=1e-4, rtol=1e-4)
    assert torch.equal(before["resid_post", 0], cache["resid_post", 0])
    assert not torch.allclose(hooked, still_steered)
    expected = plain_logits(model, IDS, [(1, v.values * 2)], 0)
    torch.testing.assert_close(still_steered[0], expected, atol=1e-4, rtol=1e-4)


def test_nested_and_listed_interventions_add_up(model: Any) -> None:
    a, b = vector(model, 0, 1), vector(model, 1, 2)
    with caa.steer(model, a, positions="all"), caa.steer(model, b, -0.5, positions="all"):
        nested = run(model)
    with caa.steer(model, [Intervention(a), Intervention(b, -0.5)], positions="all"):
        listed = run(model)
    assert torch.equal(nested, listed)
    with caa.steer(model, [a, a], positions="all"):
        twice = run(model)
    torch.testing.assert_close(twice[0], plain_logits(model, IDS, [(0, a.values * 2)], 0), atol=1e-4, rtol=1e-4)


def test_no_hook_is_left_after_an_exception(model: Any) -> None:
    plain = run(model)
    with pytest.raises(RuntimeError, match="mine"), caa.steer(model, vector(model)):
        raise RuntimeError("mine")
    assert torch.equal(run(model), plain)
    with pytest.raises(ValueError, match="steering starts at"), caa.steer(model, vector(model), positions=40):
        run(model)
    assert torch.equal(run(model), plain)


def test_steered_generation_of_transformer_lens_itself(model: Any) -> None:
    v = vector(model) * 4.0
    tokens = torch.tensor([IDS])
    with caa.steer(model, v):
        out = model.generate(tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False, verbose=False)
    assert out[0, len(IDS) :].tolist() == plain_greedy(model, IDS, [(1, v.values)], 5, stop=set())


def test_errors_name_what_was_given_and_what_is_allowed(model: Any, unchecked: None) -> None:
    n = model.cfg.n_layers
    with (
        pytest.raises(ValueError, match=rf"layer 40 is out of range for .* \(layers 0-{n - 1}\)"),
        caa.steer(model, vector(model, layer=40)),
    ):
        pass
    wide = SteeringVector(torch.ones(7), 0, Provenance.unknown("other"), "toy")
    with (
        pytest.raises(ValueError, match="d_model 7 and .* has 32: it was made on another model"),
        caa.steer(model, wide),
    ):
        pass
    with (
        pytest.raises(ValueError, match="'begin' is not known: give 'prompt_end', 'all'"),
        caa.steer(
            model,
            vector(model),
            positions="begin",  # pyright: ignore[reportArgumentType]
        ),
    ):
        pass
    with pytest.raises(ValueError, match="multiplier must be a finite number, got nan"):
        caa.steer(model, vector(model), float("nan")).__enter__()
    with (
        caa.steer(model, vector(model), positions=torch.ones(1, 3, dtype=torch.bool)),
        pytest.raises(ValueError, match=r"the mask has shape \(1, 3\) and this pass has \(batch 1, pos 6\)"),
    ):
        run(model)


def test_something_that_is_no_model_is_refused(unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"expected a TransformerLens model .* got Linear"):
        adapt(torch.nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]


PROMPTS = ["hello there", "a", "one two three four five six seven eight nine ten eleven"]


def test_generate_equals_the_plain_path_cached_and_uncached(model: Any) -> None:
    v = vector(model) * 3.0
    kwargs = {"steer": v, "max_new_tokens": 6, "prompt_format": "plain"}
    cached = caa.generate(model, PROMPTS, **kwargs)
    assert cached == caa.generate(model, PROMPTS, **kwargs, use_cache=False)
    assert cached == caa.generate(model, PROMPTS, **kwargs, batch_size=1)
    adapter = adapt(model)
    for prompt, text in zip(PROMPTS, cached, strict=True):
        ids = format_prompt(model, prompt, prompt_format="plain").ids
        new = plain_greedy(model, ids, [(1, v.values)], 6, adapter.stop_ids)
        assert text == adapter.tokenizer.decode(new, skip_special_tokens=True)


def test_sampling_is_seeded_and_independent_of_the_batch(model: Any) -> None:
    kwargs = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 8, "prompt_format": "plain"}
    first = caa.generate(model, PROMPTS, seed=1, **kwargs)
    assert first == caa.generate(model, PROMPTS, seed=1, **kwargs)
    assert first == caa.generate(model, PROMPTS, seed=1, batch_size=1, **kwargs)
    assert first == caa.generate(model, PROMPTS, seed=1, use_cache=False, **kwargs)
    assert any(first != caa.generate(model, PROMPTS, seed=seed, **kwargs) for seed in (2, 3, 4))


def test_sampling_at_a_tiny_top_p_is_greedy(bridge: Any) -> None:
    model = bridge("llama")
    greedy = caa.generate(model, PROMPTS, max_new_tokens=8, prompt_format="plain")
    assert greedy == caa.generate(model, PROMPTS, max_new_tokens=8, prompt_format="plain", temperature=1.0, top_p=1e-9)


def test_generate_takes_any_number_of_prompts_and_refuses_one_string(bridge: Any, unchecked: None) -> None:
    model = bridge("llama")
    assert caa.generate(model, [], prompt_format="plain") == []
    assert len(caa.generate(model, ["hello"] * 70, prompt_format="plain", max_new_tokens=1)) == 70
    with pytest.raises(TypeError, match="prompts is one string: give a list"):
        caa.generate(model, "hello")
    with pytest.raises(ValueError, match="temperature is at least 0, top_p is above 0"):
        caa.generate(model, ["hello"], top_p=0.0)
    with pytest.raises(ValueError, match="needs 6.. tokens and .* holds 512"):
        caa.generate(model, ["hello"], max_new_tokens=600)


def ways_of(model: Any) -> dict[Any, Any]:
    """Names of several kinds; no steering, none that is felt, one vector, and two at once."""
    v, w = vector(model) * 3.0, vector(model, 0, seed=2)
    return {"two": [v, Intervention(w, -2.0)], 1.5: v * 1.5, None: None, ("nothing", 0): v * 0.0, -1: v * -1.0}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_several_ways_of_steering_equal_separate_calls(
    model: Any, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways, kind, prefilled = ways_of(model), type(adapt(model)), []
    kwargs = {"temperature": temperature, "top_p": 0.9, "seed": 3, "max_new_tokens": 5, "prompt_format": "plain"}
    apart = {way: caa.generate(model, PROMPTS, steer=recipe, **kwargs) for way, recipe in ways.items()}
    assert len({tuple(texts) for texts in apart.values()}) > 2 and apart[None] == apart["nothing", 0]
    prefill = kind.prefill
    monkeypatch.setattr(kind, "prefill", lambda self, ids, mask: prefilled.append(len(ids)) or prefill(self, ids, mask))
    together = caa.generate(model, PROMPTS, steer=ways, **kwargs)
    assert together == apart and list(together) == list(ways)
    assert prefilled == [len(PROMPTS)], "each prompt is run once"
    assert caa.generate(model, PROMPTS, steer=ways, batch_size=len(ways), **kwargs) == apart
    assert prefilled[1:] == [1] * len(PROMPTS), "also where a batch holds one prompt's ways"
    assert caa.generate(model, PROMPTS, steer=ways, use_cache=False, **kwargs) == apart


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("style", ["llama", "gemma2"])
def test_batches_that_split_the_ways_of_a_prompt_change_nothing(style: str, temperature: float, bridge: Any) -> None:
    model = bridge(style)
    ways = ways_of(model)
    kwargs = {"temperature": temperature, "seed": 3, "max_new_tokens": 4, "prompt_format": "plain", "steer": ways}
    whole = caa.generate(model, PROMPTS, **kwargs)
    for batch_size in (1, 2, 7):
        assert caa.generate(model, PROMPTS, batch_size=batch_size, **kwargs) == whole
    assert caa.generate(model, PROMPTS, batch_size=7, use_cache=False, **kwargs) == whole


def test_no_way_of_steering_and_no_prompt_are_answered_in_kind(bridge: Any) -> None:
    model = bridge("llama")
    assert caa.generate(model, PROMPTS, steer={}, prompt_format="plain") == {}
    assert caa.generate(model, [], steer={"a": None, "b": vector(model)}, prompt_format="plain") == {"a": [], "b": []}
    one = caa.generate(model, PROMPTS, steer={"only": None}, max_new_tokens=2, prompt_format="plain")
    assert one == {"only": caa.generate(model, PROMPTS, max_new_tokens=2, prompt_format="plain")}
    with pytest.raises(ValueError, match="layer 40 is out of range"):
        caa.generate(model, PROMPTS, steer={"fine": None, "not": vector(model, layer=40)}, prompt_format="plain")
