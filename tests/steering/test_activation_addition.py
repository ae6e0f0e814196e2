"""Activation addition: the layer convention, where it is added, and that it equals a hook written by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from plain import assert_close_by_norm, plain_changed, plain_logits
from torch import Tensor

import caa_lens as caa
from caa_lens.engine.decoding import Sampler
from caa_lens.evaluation.side_effects import side_effects
from caa_lens.interventions.interventions import Intervention, as_interventions
from caa_lens.interventions.operations import Ablate
from caa_lens.models.adapters import adapt
from caa_lens.prompts import format_prompt
from caa_lens.steering.activation_addition import PromptAddition, SinglePromptWarning, addition, space_token
from caa_lens.vectors.vectors import Provenance, SteeringVector

LAYER = 2
PROMPTS = ["hello there, this is it", "one two three four five six seven eight nine ten eleven", "so that is it then"]
GREEDY: Any = {"max_new_tokens": 3, "prompt_format": "plain"}


def ids_of(model: Any, text: str) -> list[int]:
    return list(format_prompt(model, text, prompt_format="plain").ids)


def block_inputs(model: Any, ids: list[int], layer: int = LAYER) -> Tensor:
    """``hook_resid_pre`` at every position, by TransformerLens' own cache."""
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([ids]))
    return cache["resid_pre", layer][0]


def by_hand(model: Any, text: str, added: list[tuple[int, Tensor, int]], n_new: int) -> str:
    """Greedy, the whole text again for every token; what is added: layer, values, first position."""
    ids = ids_of(model, text)
    n_prompt, adapter = len(ids), adapt(model)

    def change(values: Tensor, at: int) -> Any:
        def f(x: Tensor) -> Tensor:
            x = x.clone()
            x[:, at : at + len(values)] += values
            return x

        return f

    while len(ids) < n_prompt + n_new:
        changes = [(layer, "resid_pre", change(values, at)) for layer, values, at in added]
        token = int(plain_changed(model, ids, changes)[-1].argmax())
        if token in adapter.stop_ids:
            break
        ids.append(token)
    return str(adapter.tokenizer.decode(ids[n_prompt:], skip_special_tokens=True))


def test_values_are_the_difference_at_every_position_of_both_prompts_padded_with_spaces(model: Any) -> None:
    found = addition(model, "the one", "so", layer=LAYER, coefficient=3.0)
    positive, negative = ids_of(model, "the one"), ids_of(model, "so")
    space = model.tokenizer.convert_tokens_to_ids("▁" if "▁" in model.tokenizer.get_vocab() else "Ġ")
    assert len(negative) < len(positive) and space_token(adapt(model)) == space
    negative = [*negative, *[space] * (len(positive) - len(negative))]
    expected = block_inputs(model, positive) - block_inputs(model, negative)
    assert_close_by_norm(found.values, expected, rtol=1e-5)
    assert torch.equal(found.delta, found.values * 3.0) and len(found) == len(positive)
    assert [len(tokens) for tokens in found.tokens] == [len(positive)] * 2 and found.tokens[1][-1] == " "
    if adapt(model).prepends_bos and model.tokenizer.bos_token_id is not None:
        assert positive[0] == negative[0] == model.tokenizer.bos_token_id
        assert float(found.values[0].abs().max()) == 0.0, "BOS cancels"


def test_layer_l_is_caas_layer_l_minus_one(model: Any) -> None:
    """The same matrix added to the block before, at its output, where CAA would add it."""
    found = addition(model, "the one", "so", layer=LAYER, coefficient=2.0)
    tokens = torch.tensor([ids_of(model, PROMPTS[0])])

    def add(resid: Tensor, hook: Any) -> Tensor:
        return torch.cat([resid[:, : len(found)] + found.delta, resid[:, len(found) :]], dim=1)

    with torch.no_grad():
        by_caa = model.run_with_hooks(
            tokens, fwd_hooks=[(f"blocks.{LAYER - 1}.hook_resid_post", add)], return_type="logits"
        )
        with caa.steer(model, found):
            by_actadd = model(tokens, return_type="logits")
    torch.testing.assert_close(by_actadd.log_softmax(-1), by_caa.log_softmax(-1), atol=1e-4, rtol=0)
    assert not torch.allclose(by_actadd[0], plain_logits(model, tokens[0].tolist()), atol=1e-2)
    assert found.provenance.hook_point == "hook_resid_pre" and found.provenance.method == "activation addition"


def test_generate_equals_a_hook_without_a_cache(model: Any) -> None:
    """At the front, in the middle and at the back, together and alone, several at once and beside a vector."""
    front = addition(model, "the one", "so", layer=LAYER, coefficient=4.0)
    middle = addition(model, "a b", "c", layer=1, coefficient=-6.0, at="middle")
    back = addition(model, "the one", "is it", layer=LAYER, coefficient=5.0, at="back")
    v = SteeringVector(torch.randn(tiny_models.D_MODEL), 1, Provenance.unknown("toy"), "toy")
    ways: Any = {
        "front": front,
        "middle": middle,
        "back": back,
        "two": [front, back],
        "none": None,
        "zero": front * 0.0,
    }
    together = caa.generate(model, PROMPTS, steer=ways | {"mixed": [v * 3.0, front]}, **GREEDY)
    assert together["zero"] == together["none"] == caa.generate(model, PROMPTS, **GREEDY)
    assert together == caa.generate(model, PROMPTS, steer=ways | {"mixed": [v * 3.0, front]}, use_cache=False, **GREEDY)
    assert together == caa.generate(model, PROMPTS, steer=ways | {"mixed": [v * 3.0, front]}, batch_size=1, **GREEDY)
    assert together["front"] == caa.generate(model, PROMPTS, steer=front, **GREEDY)
    different = 0
    for text, *found in zip(PROMPTS, *(together[name] for name in ways), strict=True):
        n = len(ids_of(model, text))
        room = {"front": 0, "middle": (n - len(middle)) // 2, "back": n - len(back)}
        added = {each.at: (each.layer, each.delta, room[each.at]) for each in (front, middle, back)}
        for name, out in zip(ways, found, strict=True):
            parts = [added["front"], added["back"]] if name == "two" else [added[name]] if name in added else []
            expected = by_hand(model, text, parts, 3)
            assert out == expected, (name, text)
            different += bool(parts) and expected != together["none"][PROMPTS.index(text)]
    assert different >= 4, "the test is about additions that are felt"


def test_new_tokens_are_not_touched(model: Any) -> None:
    """Also where the addition covers the whole prompt: a step of decoding sees the stream as it is."""
    found, text = addition(model, "so it is", "a", layer=LAYER, coefficient=3.0), "so it is"
    ids = ids_of(model, text)
    assert len(found) == len(ids)
    assert caa.generate(model, [text], steer=found, **GREEDY) == [by_hand(model, text, [(LAYER, found.delta, 0)], 3)]
    seen: list[Tensor] = []
    with (
        caa.steer(model, found),
        model.hooks(fwd_hooks=[(f"blocks.{LAYER}.hook_resid_pre", lambda x, hook: seen.append(x))]),
    ):
        out = model.generate(torch.tensor([ids]), max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False)
    plain = block_inputs(model, out[0].tolist())  # block 2 is entered unsteered whatever is added there
    assert [x.shape[1] for x in seen][:2] == [len(ids), 1]
    torch.testing.assert_close(seen[0][0], plain[: len(ids)] + found.delta, atol=1e-4, rtol=1e-4)
    later = torch.cat([x[0] for x in seen[1:]])
    torch.testing.assert_close(later, plain[len(ids) : len(ids) + len(later)], atol=1e-4, rtol=1e-4)


def test_a_prompt_is_run_once_for_each_set_of_additions(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("llama")
    kind, prefilled = type(adapt(model)), []
    prefill = kind.prefill
    one, two = (addition(model, "a b", text, layer=1) for text in ("c", "d e"))
    monkeypatch.setattr(kind, "prefill", lambda self, ids, mask: prefilled.append(len(ids)) or prefill(self, ids, mask))
    v = SteeringVector(torch.randn(tiny_models.D_MODEL), 1, Provenance.unknown("toy"), "toy")
    ways: Any = {0: None, 1: v, 2: v * 2.0, 3: one, 4: [one, v], 5: [one, two]}
    caa.generate(model, PROMPTS, steer=ways, **GREEDY)
    assert prefilled == [3 * len(PROMPTS)], "without, with one (shared by two ways), with both"


def test_the_prompts_exchanged_are_the_opposite_and_additions_are_linear(model: Any) -> None:
    one, other = addition(model, "the one", "so", layer=1), addition(model, "so", "the one", layer=1)
    assert torch.equal(one.delta, (-other).delta) and torch.equal((one * 2.5).delta, (2.5 * one).delta)
    tokens = torch.tensor([ids_of(model, PROMPTS[0])])

    def run(recipe: Any, *more: Any) -> Tensor:
        with torch.no_grad(), caa.steer(model, recipe, *more):
            return model(tokens, return_type="logits")

    torch.testing.assert_close(run([one, one]), run(one * 2.0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(run(one, 2.0), run(one * 2.0), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        plain = model(tokens, return_type="logits")
    assert torch.equal(run(one * 0.0), plain) and torch.equal(run(one, 0.0), plain)
    torch.testing.assert_close(run([one, other]), plain, atol=1e-3, rtol=1e-3)


def test_a_single_prompt_is_a_warning_with_the_norm_and_the_empty_one_is_subtracted(model: Any) -> None:
    with pytest.warns(SinglePromptWarning, match=r"'the one' is a single prompt: its first position, .*norm (\d|\.)+"):
        alone = addition(model, "the one", None, layer=1)
    ids = ids_of(model, "the one")
    torch.testing.assert_close(alone.values, block_inputs(model, ids, 1), atol=1e-5, rtol=1e-5)
    assert len(alone.tokens) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        against_nothing = addition(model, "the one", layer=1)
    space = space_token(adapt(model))
    has_bos = ids[0] == model.tokenizer.bos_token_id and model.tokenizer.bos_token_id is not None
    empty = [*ids[:1], *[space] * (len(ids) - 1)] if has_bos else [space] * len(ids)
    torch.testing.assert_close(
        against_nothing.values, alone.values - block_inputs(model, empty, 1), atol=1e-5, rtol=1e-5
    )


def test_saved_and_read_again(bridge: Any, tmp_path: Path) -> None:
    found = addition(bridge("gpt2"), "the one", "so", layer=1, coefficient=2.5, at="middle")
    found.save(tmp_path / "deep" / "love.safetensors")
    again = PromptAddition.load(tmp_path / "deep" / "love.safetensors")
    assert torch.equal(again.values, found.values) and [p.name for p in (tmp_path / "deep").iterdir()] == [
        "love.safetensors"
    ]
    for name in ("layer", "coefficient", "at", "tokens", "provenance", "name"):
        assert getattr(again, name) == getattr(found, name)
    assert repr(again) == repr(found) and "'the one' - 'so', layer 1, x 2.5" in repr(found)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        PromptAddition.load(tmp_path / "no.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        PromptAddition.load(tmp_path / "broken.safetensors")
    vectors = caa.extract_vectors(bridge("gpt2"), [caa.ContrastPair("a?", "(A)", "(B)")])
    vectors.save(tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="is no prompt addition: was it written by PromptAddition.save"):
        PromptAddition.load(tmp_path / "v.safetensors")


def test_errors_come_before_the_model_runs(bridge: Any, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    model = bridge("llama")
    found = addition(model, "one two three", "so", layer=1)
    n, short = len(found), len(ids_of(model, "a"))
    monkeypatch.setattr(type(adapt(model)), "prefill", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(
        ValueError, match=rf"prompt 1 has {short} tokens and 'one .*' - 'so' has {n} positions: give a pro"
    ):
        caa.generate(model, [PROMPTS[0], "a"], steer={"plain": None, "short": found}, **GREEDY)
    with (
        caa.steer(model, found),
        pytest.raises(ValueError, match=rf"this pass has 2 tokens and .* has {n} positions"),
    ):
        model(torch.tensor([[20, 7]]))
    with pytest.raises(ValueError, match=r"layer 9 is out of range for .* \(layers 0-3\)"):
        addition(model, "a", "b", layer=9)
    with pytest.raises(ValueError, match="at 'end' is not known: give one of front, middle, back"):
        addition(model, "a", "b", layer=1, at="end")
    with pytest.raises(ValueError, match="no token comes from the prompt ''"):
        addition(bridge("qwen2"), "", "b", layer=1)
    with pytest.raises(ValueError, match="has d_model 7 and llama has 32"):
        caa.generate(model, PROMPTS, steer=PromptAddition(torch.ones(2, 7), 1, 1.0, "front", (), found.provenance, "x"))
    with pytest.raises(
        TypeError, match="is added to a prompt's tokens, which are not steered here: it works in steer, g"
    ):
        as_interventions([found])
    monkeypatch.setattr(model.tokenizer, "convert_tokens_to_ids", lambda piece: None)
    with pytest.raises(ValueError, match="has no token of a single space to pad the shorter prompt with"):
        space_token(adapt(model))


def test_running_text_has_it_at_the_front_and_masks_what_it_covers(model: Any) -> None:
    found = addition(model, "the one", "so", layer=LAYER, coefficient=3.0)
    mixed = [found, Intervention(SteeringVector(torch.ones(32), 1, found.provenance, "x"), operation=Ablate())]
    frame = side_effects(model, {"love": found, "none": None, "mixed": mixed}, PROMPTS)
    n = len(found)
    for row in frame.query("vector != 'mixed'").itertuples():
        ids = ids_of(model, PROMPTS[row.document])

        def add(x: Tensor) -> Tensor:
            return torch.cat([x[:, :n] + found.delta, x[:, n:]], dim=1)

        changes = [(LAYER, "resid_pre", add)] if row.vector == "love" else []
        logp = plain_changed(model, ids, changes).double().log_softmax(-1)[n:-1]
        nll = -logp.gather(1, torch.tensor(ids[n + 1 :]).unsqueeze(1)).mean()
        assert row.n_tokens == len(ids) - n - 1 and row.nll_steered == pytest.approx(float(nll), abs=1e-4)
    assert (frame.query("vector == 'none'")["kl_max"] == 0).all()
    assert (frame.query("vector != 'none'")["kl_mean"] > 1e-3).all()
    back = addition(model, "the one", "so", layer=LAYER, at="back")
    with pytest.raises(ValueError, match="in running text an addition is made at the front: give at='front'"):
        side_effects(model, {"back": back}, PROMPTS)
    with pytest.raises(ValueError, match=rf"at least {n + 2} are needed, since the first {n} are added to and do not"):
        side_effects(model, {"love": found}, ["the"])


def test_frequency_penalty_counts_the_new_tokens_of_each_row() -> None:
    logits = torch.tensor([[3.0, 2.5, 0.0]] * 2)
    sampler = Sampler(0.0, 1.0, [0, 1], frequency_penalty=1.0)
    picked = [sampler.pick(logits, [0, 1]).tolist() for _ in range(3)]
    assert picked == [[0, 0], [1, 1], [0, 0]], "3, then 2 against 2.5, then 2 against 1.5"
    assert sampler.pick(logits[:1], [1]).tolist() == [1] and sampler.pick(logits[:1], [0]).tolist() == [1]
    assert torch.equal(logits, torch.tensor([[3.0, 2.5, 0.0]] * 2)), "the logits stay as they were"
    encouraging = Sampler(0.0, 1.0, [0], frequency_penalty=-1.0)
    assert [encouraging.pick(logits[:1], [0]).item() for _ in range(3)] == [0, 0, 0]


def test_the_papers_sampling(model: Any) -> None:
    sampling: Any = {"temperature": 1.0, "top_p": 0.3, "max_new_tokens": 12, "prompt_format": "plain", "seed": 1}
    none, paper = (caa.generate(model, PROMPTS, frequency_penalty=penalty, **sampling) for penalty in (0.0, 1.0))
    assert none == caa.generate(model, PROMPTS, **sampling)
    assert paper == caa.generate(model, PROMPTS, frequency_penalty=1.0, batch_size=1, use_cache=False, **sampling)
    assert none != paper or none == caa.generate(model, PROMPTS, frequency_penalty=1e4, **sampling)
    with pytest.raises(ValueError, match="frequency_penalty nan: give a finite number"):
        caa.generate(model, PROMPTS, frequency_penalty=float("nan"), **sampling)
