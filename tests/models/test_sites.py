"""A site is the same place on both model classes: what is done there is done to Hugging Face's own model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from plain import plain_changed, plain_logits
from torch import Tensor

import caa_lens as caa
from caa_lens.engine.branching import branch_residuals
from caa_lens.engine.edits import Edit
from caa_lens.engine.packing import Branch
from caa_lens.interventions.interventions import Intervention
from caa_lens.interventions.operations import Ablate, Add, Operation, Rotate
from caa_lens.models.adapters import adapt
from caa_lens.models.sites import SITES
from caa_lens.vectors.vectors import Provenance, SteeringVector, SteeringVectors

IDS = [20, 7, 9, 30, 12, 44]
LAYER = 1
PAIRS = [
    caa.ContrastPair("Is it so?\n (A) yes\n (B) no", "(A)", "(B)"),
    caa.ContrastPair("one two three four five?\n (A) this\n (B) or that", "(A)", "(B)"),
]


def vector(layer: int = LAYER, seed: int = 0, **known: Any) -> SteeringVector:
    value = torch.randn(tiny_models.D_MODEL, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(value * 2.0, layer, Provenance.unknown("toy", **known), "toy")


def sites_of(model: Any) -> list[str]:
    parallel = "neox" in adapt(model).name
    return [site for site in SITES if not (parallel and site == "resid_mid")]


def steered(model: Any, recipe: Any, **how: Any) -> Tensor:
    with torch.no_grad(), caa.steer(model, recipe, positions="all", **how):
        return model(torch.tensor([IDS]), return_type="logits")[0]


def assert_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=2e-4, rtol=0)


HF_NAMES = {"gpt2": ("attn", "mlp"), "gpt_neox": ("attention", "mlp")} | {
    style: ("post_attention_layernorm", "post_feedforward_layernorm") for style in ("gemma2", "gemma3")
}
"""Hugging Face's modules whose output is added to the stream; where a style is not here, ``self_attn`` and ``mlp``."""


@pytest.fixture(scope="module")
def hugging_face(tiny_path: Callable[[str], Path]) -> Callable[[str], Any]:
    return cache(lambda style: tiny_models.load_hugging_face(tiny_path(style)))


def hugging_face_logits(hf: Any, style: str, site: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A block of Hugging Face's model, changed by PyTorch's own hooks."""
    block = next(module for module in hf.modules() if isinstance(module, torch.nn.ModuleList))[LAYER]
    attention, mlp = (getattr(block, name) for name in HF_NAMES.get(style, ("self_attn", "mlp")))
    came_in: list[Tensor] = []

    def before(module: Any, args: Any, keywords: Any) -> Any:
        resid = args[0] if args else keywords["hidden_states"]
        new = change(resid) if site == "resid_pre" else resid
        came_in.append(new)
        return ((new, *args[1:]), keywords) if args else (args, keywords | {"hidden_states": new})

    def after(module: Any, args: Any, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        new = change(came_in[-1] + first) - came_in[-1] if site == "resid_mid" else change(first)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    target = {"attn_out": attention, "resid_mid": attention, "mlp_out": mlp, "resid_post": block}.get(site)
    handles = [block.register_forward_pre_hook(before, with_kwargs=True)]
    handles += [target.register_forward_hook(after)] if target is not None else []
    try:
        with torch.no_grad():
            return hf(torch.tensor([IDS])).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("case", tiny_models.model_cases(), ids="-".join)
@pytest.mark.parametrize("operation", [Add(), Ablate(), Rotate(40.0)], ids=repr)
def test_every_site_is_hugging_faces(case: Any, operation: Operation, hugging_face: Any, request: Any) -> None:
    kind, style = case
    model, hf, v = request.getfixturevalue(kind)(style), hugging_face(style), vector()
    seen = []
    for site in sites_of(model):
        found = steered(model, Intervention(v, site=site, operation=operation))
        expected = hugging_face_logits(hf, style, site, lambda x: operation(x, v.values))
        assert_alike(found, expected)
        seen.append(found)
    base = plain_logits(model, IDS)
    assert all(not torch.allclose(found, base, atol=1e-2) for found in seen)


def test_adding_obeys_the_laws_of_the_stream(model: Any) -> None:
    v = vector()
    at = {site: steered(model, Intervention(v, site=site)) for site in sites_of(model)}
    below = steered(model, vector(layer=LAYER - 1))
    assert_alike(at["resid_pre"], below)
    assert_alike(at["mlp_out"], at["resid_post"])
    if "resid_mid" in at:
        assert_alike(at["attn_out"], at["resid_mid"])
        assert not torch.allclose(at["resid_mid"], at["resid_post"], atol=1e-2)
    else:
        assert_alike(at["attn_out"], at["resid_post"])


def test_what_is_done_in_the_middle_is_seen_in_the_middle_and_above(model: Any) -> None:
    """Also by those who look at it while it is done, and nothing is carried over into the next pass."""
    if "resid_mid" not in sites_of(model):
        pytest.skip("its attention and its MLP read the same stream")
    v, tokens = vector(), torch.tensor([IDS])
    with torch.no_grad():
        _, before = model.run_with_cache(tokens)
        with caa.steer(model, Intervention(v, site="resid_mid"), positions="all"):
            _, during = model.run_with_cache(tokens)
        _, after = model.run_with_cache(tokens)
    for name, moved in (("attn_out", 0.0), ("resid_mid", 1.0)):
        difference = during[name, LAYER] - before[name, LAYER]
        torch.testing.assert_close(difference, (moved * v.values).expand_as(difference), atol=1e-4, rtol=1e-4)
    total = during["resid_mid", LAYER] + during["mlp_out", LAYER]
    torch.testing.assert_close(total, during["resid_post", LAYER], atol=1e-4, rtol=1e-4)
    assert torch.equal(before["resid_post", LAYER], after["resid_post", LAYER])


def test_a_site_the_model_lacks_is_refused_before_it_runs(model: Any) -> None:
    lacking = [site for site in SITES if site not in sites_of(model)]
    for site in lacking:
        message = (
            rf"has no {site} at layer 1 \(its attention and its MLP read the same stream\): the sites there are res"
        )
        for use in (
            lambda site=site: caa.generate(model, ["a"], steer=Intervention(vector(), site=site)),
            lambda site=site: caa.extract_vectors(model, PAIRS, site=site, layers=[1]),
            lambda site=site: steered(model, Intervention(vector(), site=site)),
        ):
            with pytest.raises(ValueError, match=message):
                use()
    with pytest.raises(
        ValueError, match="'q_out' is not known: give one of resid_pre, attn_out, resid_mid, mlp_out, r"
    ):
        steered(model, Intervention(vector(), site="q_out"))
    with pytest.raises(ValueError, match="the site 'hook_resid_pre' is not known: give one of resid_pre,"):
        caa.extract_vectors(model, PAIRS, site="hook_resid_pre")


def test_vectors_are_read_at_a_site_and_used_where_they_were_read(model: Any, tmp_path: Path) -> None:
    for site in sites_of(model):
        vectors = caa.extract_vectors(model, PAIRS, site=site)
        assert vectors.provenance.hook_point == f"hook_{site}" and vectors[0].site == site
        expected = torch.stack([plain_difference(model, pair, site) for pair in PAIRS]).mean(dim=0)
        assert ((vectors.values - expected).norm(dim=1) <= 1e-5 * expected.norm(dim=1)).all()
        kept = caa.extract_activations(model, PAIRS, site=site, layers=[LAYER])
        torch.testing.assert_close(kept.vectors()[LAYER].values, vectors[LAYER].values, atol=1e-5, rtol=1e-4)
        vectors.save(tmp_path / "v.safetensors")
        again = SteeringVectors.load(tmp_path / "v.safetensors")[LAYER]
        assert again.site == site and again == vectors[LAYER]
        expected = plain_changed(model, IDS, [(LAYER, site, lambda x, v=again: x + v.values)])
        assert_alike(steered(model, again), expected)
        assert_alike(
            steered(model, Intervention(again, site="resid_post")), plain_logits(model, IDS, [(1, again.values)])
        )


def plain_difference(model: Any, pair: caa.ContrastPair, site: str) -> Tensor:
    """Positive minus negative by two full passes, ``[layer, d_model]``."""
    from caa_lens.prompts import format_prompt

    sides: list[Tensor] = []
    for answer in (pair.positive, pair.negative):
        text = format_prompt(model, pair.prompt, answer)
        with torch.no_grad():
            _, cache_ = model.run_with_cache(torch.tensor([text.ids]))
        at = text.position("answer_letter")
        sides.append(torch.stack([cache_[site, layer][0, at] for layer in range(adapt(model).n_layers)]))
    return sides[0] - sides[1]


def test_edited_branches_are_read_at_a_site_before_and_after_they_are_edited(model: Any) -> None:
    """Also in one packed row, where a branch joins behind the block that it is first edited at."""
    adapter, prompts = adapt(model), [[20, 7, 9], [20]]
    first, second, third = (Edit(layer, vector().values) for layer in range(3))
    edits: list[tuple[Edit, ...]] = [(), (first,), (second, third)]
    branches = [Branch(prompt, (60, 61), own) for prompt in (0, 1) for own in edits]
    for site in sites_of(model):
        found: dict[int, Tensor] = {}
        branch_residuals(
            adapter,
            prompts,
            branches,
            [0, 1, 2],
            lambda chunk, rows, to=found: to.update(zip(chunk, rows, strict=True)),
            site=site,
        )
        for index, branch in enumerate(branches):
            ids, start = [*prompts[branch.prompt], *branch.tokens], len(prompts[branch.prompt])
            recipe = [replace(vector(), layer=edit.layer) for edit in branch.edits]
            with torch.no_grad(), caa.steer(model, recipe, positions=start):
                _, cache_ = model.run_with_cache(torch.tensor([ids]))
            expected = torch.stack([cache_[site, layer][0, -1] for layer in range(3)])
            torch.testing.assert_close(found[index], expected, atol=1e-4, rtol=1e-3)


def test_a_vector_of_unknown_origin_is_used_at_the_blocks_output() -> None:
    assert vector().site == "resid_post" and vector(hook_point="hook_mlp_out").site == "mlp_out"


def test_no_hook_is_left_by_any_site_also_after_an_exception(model: Any) -> None:
    for site in sites_of(model):
        with (
            pytest.raises(RuntimeError, match="mine"),
            caa.steer(model, Intervention(vector(), site=site, operation=Ablate())),
        ):
            assert tiny_models.attached_hooks(model)
            raise RuntimeError("mine")
        assert not tiny_models.attached_hooks(model)
