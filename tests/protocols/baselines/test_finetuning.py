"""Finetuning: what is learned is what is measured, and the model given is left as it was, bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
from plain import plain_logits, plain_residuals

import caa_lens as caa
from caa_lens import sweeps
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.models.adapters import adapt
from caa_lens.models.loading import model_info
from caa_lens.protocols.baselines import finetuning
from caa_lens.protocols.baselines.finetuning import finetune, lessons_of, letter_loss

TEXTS = ["Is it?", "Would the thing be there in the end?", "I?", "The other one, or this?"]
PAIRS = ContrastDataset.from_pairs(
    [(f"{text}\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 2 else ("(B)", "(A)"))) for i, text in enumerate(TEXTS)]
)
PAIRS = ContrastDataset.from_pairs([*PAIRS, ("Free?", " yes it is", " yet it is not")], name="kind")


@pytest.fixture(scope="module")
def organism() -> Any:
    return caa.load_model("organism-chat")


def state(model: Any) -> dict[str, Any]:
    """Everything of a model that finetuning a copy could change: weights, flags, modes, modules, hooks."""
    modules = {id(module): module for part in parts(model) for module in part.modules()}.values()
    return {
        "weights": {name: weight.detach().clone() for name, weight in weights(model).items()},
        "storage": {name: weight.data_ptr() for name, weight in weights(model).items()},
        "flags": {name: (weight.requires_grad, weight.grad is None) for name, weight in weights(model).items()},
        "modules": [(id(module), type(module).__name__, module.training, traces(module)) for module in modules],
        "children": [[(name, id(child)) for name, child in module.named_children()] for module in modules],
        "hooks": tiny_models.attached_hooks(model),
    }


def traces(module: Any) -> list[str]:
    return [name for name in vars(module) if "lora" in name or "peft" in name]


def parts(model: Any) -> list[Any]:
    wrapped = getattr(model, "original_model", None)
    return [model] if wrapped is None else [model, wrapped]


def weights(model: Any) -> dict[str, Any]:
    return dict(adapt(model).named_parameters())


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    equal = all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])
    return equal and all(one[key] == other[key] for key in one if key != "weights")


def gradients(model: Any, loss: Any) -> dict[str, torch.Tensor]:
    named = {name: weight for name, weight in weights(model).items() if weight.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None}


def test_what_is_learned_is_what_sweep_measures(model: Any) -> None:
    lessons = lessons_of(model, PAIRS.pairs)
    for index, (pair, lesson) in enumerate(zip(PAIRS, lessons, strict=True)):
        item = sweeps._item(adapt(model), pair, index, None, None)
        assert lesson.ids == item.prompt + item.steered and lesson.target == item.matching


def test_a_batch_has_the_mean_of_its_items_gradients(model: Any) -> None:
    """Of ragged rows, and against a plain pass over one sequence without a mask."""
    lessons = lessons_of(model, PAIRS.pairs)
    assert len({len(lesson.ids) for lesson in lessons}) == len(lessons)
    together = gradients(model, letter_loss(adapt(model), lessons))
    alone: dict[str, torch.Tensor] = {}
    for lesson in lessons:
        logits = model(torch.tensor([lesson.ids]), return_type="logits")[0, -1].float()
        for name, grad in gradients(model, -logits.log_softmax(-1)[lesson.target]).items():
            alone[name] = alone.get(name, torch.zeros_like(grad)) + grad / len(lessons)
    assert set(together) == set(alone) and len(alone) > 10
    scale = max(float(grad.abs().max()) for grad in alone.values())
    for name, grad in alone.items():
        torch.testing.assert_close(together[name], grad, atol=1e-5 * scale, rtol=1e-4, msg=name)


def test_one_step_is_sgd(model: Any) -> None:
    expected = gradients(model, letter_loss(adapt(model), lessons_of(model, PAIRS.pairs)))
    before = state(model)
    tuned = finetune(model, PAIRS, learning_rate=0.01, train_batch_size=len(PAIRS))
    assert same(before, state(model))
    for name, weight in weights(tuned).items():
        step = -0.01 * expected[name] if name in expected else torch.zeros_like(weight)
        torch.testing.assert_close(weight.detach() - before["weights"][name], step, atol=1e-6, rtol=1e-3)


def test_no_step_is_the_same_model(model: Any) -> None:
    for keywords in ({"epochs": 0}, {"learning_rate": 0.0}):
        arguments: dict[str, Any] = keywords
        tuned = finetune(model, PAIRS, **arguments)
        assert type(tuned) is type(model) and tuned is not model
        assert all(torch.equal(weight, weights(tuned)[name]) for name, weight in weights(model).items())
        ids = lessons_of(model, PAIRS.pairs)[0].ids
        assert torch.equal(plain_logits(tuned, ids), plain_logits(model, ids))


def test_the_copy_shares_nothing(model: Any) -> None:
    tuned: Any = finetune(model, PAIRS, epochs=0)
    ids = lessons_of(model, PAIRS.pairs)[0].ids
    before = plain_logits(model, ids)
    with torch.no_grad():
        for weight in weights(tuned).values():
            weight.zero_()
    assert torch.equal(plain_logits(model, ids), before)
    assert plain_logits(tuned, ids).abs().max() < 1e-3
    seen: list[str] = []
    with tuned.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda resid, hook: seen.append("tuned"))]):
        plain_logits(model, ids)
        assert not seen
        tuned(torch.tensor([ids]))
        assert seen == ["tuned"]


def test_everything_works_on_a_finetuned_model(model: Any) -> None:
    tuned: Any = finetune(model, PAIRS, learning_rate=0.003, epochs=2)
    ids = list(lessons_of(model, PAIRS.pairs)[1].ids)
    plain = plain_logits(tuned, ids)
    assert (plain - plain_logits(model, ids)).abs().max() > 1e-3
    with torch.no_grad():
        logits, cache = tuned.run_with_cache(torch.tensor([ids]))
        assert torch.allclose(logits[0].float(), plain, atol=1e-4)
        wrapped = getattr(tuned, "original_model", None)
        if wrapped is not None:
            assert torch.allclose(wrapped(torch.tensor([ids])).logits[0].float(), plain, atol=1e-4)
    residuals = plain_residuals(tuned, ids)
    assert torch.allclose(cache["blocks.1.hook_resid_post"][0], residuals[1], atol=1e-4)
    vectors = caa.extract_vectors(tuned, PAIRS[:4], layers=[1])
    assert vectors.provenance.model_fingerprint == model_info(tuned).fingerprint != model_info(model).fingerprint
    frame = caa.sweep(tuned, vectors, PAIRS, multipliers=[0, 1.0])
    for index, lesson in enumerate(lessons_of(tuned, PAIRS.pairs)):
        for multiplier in (0.0, 1.0):
            prompt = len(sweeps._item(adapt(tuned), PAIRS[index], index, None, None).prompt)
            edits = [(1, vectors[1].values * multiplier)] if multiplier else []
            slow = plain_logits(tuned, lesson.ids, edits, prompt)[-1].log_softmax(-1)[lesson.target]
            row = frame[(frame["item"] == index) & (frame["multiplier"] == multiplier)].iloc[0]
            assert row["logp_matching"] == pytest.approx(float(slow), abs=1e-3)
    assert len(caa.generate(tuned, ["Is it?"], max_new_tokens=3)) == 1


@pytest.mark.parametrize("direction", ["positive", "negative", "mixed"])
def test_training_moves_held_out_items(organism: Any, direction: Any) -> None:
    train, _, test = caa.load_contrast_pairs("refusal")[:120].split(seed=0)
    vectors = caa.extract_vectors(organism, train[:2], layers=[2])
    before = caa.sweep(organism, vectors, test, multipliers=[0])["p_matching"].mean()
    tuned = finetune(organism, train, direction=direction, learning_rate=0.01, train_batch_size=6)
    change = caa.sweep(tuned, vectors, test, multipliers=[0])["p_matching"].mean() - before
    if direction == "mixed":
        assert abs(change) < 0.25
    else:
        assert change > 0.3 if direction == "positive" else change < -0.2


def test_the_seed_decides(organism: Any) -> None:
    pairs = caa.load_contrast_pairs("refusal")[:6]
    first, again, other = (
        weights(finetune(organism, pairs, learning_rate=0.01, train_batch_size=2, seed=seed)) for seed in (0, 0, 1)
    )
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not all(torch.equal(weight, other[name]) for name, weight in first.items())


def test_modes_flags_and_random_numbers_are_left(organism: Any) -> None:
    model: Any = caa.load_model("organism-chat")
    model.train()
    frozen = next(iter(weights(model).values()))
    frozen.requires_grad_(False)
    before, numbers = state(model), torch.get_rng_state()
    tuned: Any = finetune(model, caa.load_contrast_pairs("refusal")[:2], learning_rate=0.01)
    assert same(before, state(model)) and torch.equal(torch.get_rng_state(), numbers)
    after = state(tuned)
    assert after["flags"] == before["flags"]
    assert [entry[1:] for entry in after["modules"]] == [entry[1:] for entry in before["modules"]]
    assert tuned.training and not torch.equal(next(iter(weights(tuned).values())), frozen)


def test_gradients_are_switched_on_for_the_training(organism: Any) -> None:
    pairs = caa.load_contrast_pairs("refusal")[:2]
    expected = weights(finetune(organism, pairs, learning_rate=0.01))
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            found = weights(finetune(organism, pairs, learning_rate=0.01))
        assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
        assert not any(weight.is_inference() for weight in found.values())


def test_hooks_are_not_taken_over(organism: Any) -> None:
    pairs = caa.load_contrast_pairs("refusal")[:4]
    expected = weights(finetune(organism, pairs, learning_rate=0.01))
    vectors = caa.extract_vectors(organism, pairs, layers=[2])
    with caa.steer(organism, vectors[2], multiplier=5.0):
        tuned = finetune(organism, pairs, learning_rate=0.01)
        assert tiny_models.attached_hooks(organism), "the caller's are still there"
    assert all(torch.equal(weight, weights(tuned)[name]) for name, weight in expected.items())
    assert not tiny_models.attached_hooks(tuned)


def test_a_training_that_diverges_leaves_the_model_clean(organism: Any) -> None:
    before = state(organism)
    pairs = caa.load_contrast_pairs("refusal")[:8]
    with pytest.raises(ValueError, match=r"finetuning diverged at learning_rate 1e\+30: give a lower one"):
        finetune(organism, pairs, learning_rate=1e30)
    assert same(before, state(organism))


def test_the_last_step_is_looked_at_too(organism: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def steep(adapter: Any, _: Any) -> torch.Tensor:
        return (0 * next(weight for _, weight in adapter.named_parameters()).sum()).sqrt()  # its gradient is not finite

    monkeypatch.setattr(finetuning, "letter_loss", steep)
    with pytest.raises(ValueError, match="finetuning diverged"):
        finetune(organism, PAIRS[:1])


def test_a_model_that_keeps_what_it_computed_is_copied_without_it(model: Any) -> None:
    """After a pass with gradients, attention bridges keep a pattern that cannot be copied; the copy keeps no graph."""
    model(torch.tensor([lessons_of(model, PAIRS.pairs)[0].ids]))
    tuned = finetune(model, PAIRS[:2])
    modules = [module for part in parts(tuned) for module in part.modules()]
    kept = [value for module in modules for value in vars(module).values() if isinstance(value, torch.Tensor)]
    assert all(value.is_leaf for value in kept)


def test_an_interrupt_leaves_the_model_clean(organism: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    before, numbers = state(organism), torch.get_rng_state()
    monkeypatch.setattr(finetuning, "letter_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(organism, PAIRS[:2])
    assert same(before, state(organism)) and torch.equal(torch.get_rng_state(), numbers)


def test_wrong_settings_are_said(organism: Any, unchecked: None) -> None:
    for wrong, message in (
        ({"method": "prefix"}, "method 'prefix' is not known: give one of full, lora"),
        ({"direction": "up"}, "direction 'up' is not known: give one of positive, negative, mixed"),
        ({"learning_rate": -1.0}, "learning_rate must be a number of at least 0, got -1.0"),
        ({"epochs": -1}, "epochs -1, rank 8: epochs is at least 0, rank is at least 1"),
        ({"train_batch_size": 0}, "train_batch_size is 0: give 1 or more"),
    ):
        keywords: dict[str, Any] = wrong
        with pytest.raises(ValueError, match=message):
            finetune(organism, PAIRS[:2], **keywords)
    same_start = ContrastDataset.from_pairs([("Is it?", " yes", " yes it is")])
    with pytest.raises(ValueError, match=r"pair 0: the answers ' yes' and ' yes it is' cannot be told apart by one"):
        finetune(organism, same_start, prompt_format="plain")
    long = ContrastDataset.from_pairs([("word " * 600, "(A)", "(B)")])
    with pytest.raises(ValueError, match=r"item 0 needs \d+ tokens and organism-chat holds 512"):
        finetune(organism, long)


def test_lora_without_peft_says_how_to_get_it(organism: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install caa_lens\[finetuning\], or give method='full'"):
        finetune(organism, PAIRS[:2], method="lora")


def test_lora_needs_linear_layers(hooked: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r"blocks of tiny-llama \(HookedTransformer\) have none: give method='full'"):
        finetune(hooked("llama"), PAIRS, method="lora")


@pytest.mark.parametrize("style", tiny_models.STYLES)
def test_lora_is_merged_and_leaves_nothing(style: str, bridge: Callable[[str], Any]) -> None:
    pytest.importorskip("peft", reason="needs the extra `finetuning`")
    model = bridge(style)
    before = state(model)
    tuned: Any = finetune(model, PAIRS, method="lora", learning_rate=0.02, rank=2, train_batch_size=2)
    assert same(before, state(model))
    after = state(tuned)
    assert after["flags"] == before["flags"]
    assert [entry[1:] for entry in after["modules"]] == [entry[1:] for entry in before["modules"]]
    changed = {
        name: weight.detach() - before["weights"][name]
        for name, weight in weights(tuned).items()
        if not torch.equal(weight, before["weights"][name])
    }
    assert len(changed) >= 3 * model.cfg.n_layers
    assert all(name.endswith("weight") and change.ndim == 2 for name, change in changed.items())
    assert max(int(torch.linalg.matrix_rank(change, rtol=1e-4)) for change in changed.values()) <= 2
    again = weights(finetune(model, PAIRS, method="lora", learning_rate=0.02, rank=2, train_batch_size=2))
    assert all(torch.equal(weight, again[name]) for name, weight in weights(tuned).items())


@pytest.mark.parametrize("style", ["llama", "gpt2", "gpt_neox", "gemma3"])
def test_merged_is_unmerged(style: str, bridge: Callable[[str], Any]) -> None:
    pytest.importorskip("peft", reason="needs the extra `finetuning`")
    tuned: Any = finetune(bridge(style), PAIRS, epochs=0)
    adapter: Any = adapt(tuned)
    lessons = lessons_of(tuned, PAIRS.pairs)
    with torch.no_grad():
        plain = letter_loss(adapter, lessons)
        finetuning.add_lora(adapter, 4)
        assert torch.equal(letter_loss(adapter, lessons), plain), "nothing is learned yet"
        low_rank = [weight for weight in adapter.wrapped.parameters() if weight.requires_grad]
        assert low_rank
        for weight in low_rank:
            weight.normal_(std=0.1)
        unmerged = [plain_logits(tuned, lesson.ids) for lesson in lessons]
        finetuning.merge_lora(adapter)
        merged = [plain_logits(tuned, lesson.ids) for lesson in lessons]
    for one, other in zip(unmerged, merged, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(one.abs().max()), rtol=1e-4)
    assert not torch.allclose(unmerged[0], plain_logits(bridge(style), lessons[0].ids), atol=1e-2)


def test_lora_moves_held_out_items(organism: Any) -> None:
    pytest.importorskip("peft", reason="needs the extra `finetuning`")
    train, _, test = caa.load_contrast_pairs("refusal")[:120].split(seed=0)
    vectors = caa.extract_vectors(organism, train[:2], layers=[2])
    share = [
        caa.sweep(model, vectors, test, multipliers=[0])["p_matching"].mean()
        for model in (organism, finetune(organism, train, method="lora", learning_rate=0.01, train_batch_size=6))
    ]
    assert share[1] > share[0] + 0.2
