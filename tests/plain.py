"""The slow, obvious way to do what caa_lens does fast: one sequence, one forward pass, no padding, no cache.

Every fast path is tested against these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caa_lens.datasets.contrast import ContrastPair
from caa_lens.engine.edits import Edit


def assert_close_by_norm(found: Any, expected: Any, rtol: float) -> None:
    """Each vector along the last axis is the expected one up to ``rtol`` of the expected one's norm.

    Element by element a tolerance means nothing where an element is near zero: how far it may be off depends on the
    vector, and on the order in which a processor adds. An expected vector of zeros is held to the largest norm.
    """
    found, expected = (torch.from_numpy(np.array(np.asarray(each), dtype=np.float64)) for each in (found, expected))
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    norms = expected.norm(dim=-1)
    off = (found - expected).norm(dim=-1) / torch.where(norms > 0, norms, norms.max().clamp(min=1e-30))
    assert (off <= rtol).all(), f"off by {off.max():.2e} of the norm, and {rtol:.0e} is allowed"


Plain = Edit | tuple[int, Tensor]
"""A vector that is added to a block's output."""

QUESTIONS = [
    "Is it so?\n (A) yes\n (B) no",
    "one two three four five six seven eight nine ten?\n (A) this one\n (B) or rather that one",
    "a?\n (A) b\n (B) c",
]
PAIRS = [ContrastPair(question, "(A)", "(B)") for question in QUESTIONS]
PAIRS[1] = PAIRS[1].swapped()


def plain_logits(model: Any, ids: Sequence[int], edits: Sequence[Plain] = (), start: int = 0) -> Tensor:
    """Logits ``[pos, d_vocab]``, each edit added at its layer from token ``start`` on."""
    hooks = _adding(edits, start)
    with torch.no_grad():
        return model.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hooks, return_type="logits")[0].float()


def _adding(edits: Sequence[Plain], start: int) -> list[tuple[str, Any]]:
    def add(delta: Tensor) -> Any:
        def hook(resid: Tensor, hook: Any) -> Tensor:
            return torch.cat([resid[:, :start], resid[:, start:] + delta.to(resid)], dim=1)

        return hook

    pairs = [(edit.layer, edit.vector) if isinstance(edit, Edit) else edit for edit in edits]
    return [(f"blocks.{layer}.hook_resid_post", add(delta)) for layer, delta in pairs]


def plain_residuals(model: Any, ids: Sequence[int], edits: Sequence[Plain] = (), start: int = 0) -> Tensor:
    """``hook_resid_post`` of every layer and position, ``[layer, pos, d_model]``, edits included."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(resid: Tensor, hook: Any) -> None:
            seen[layer] = resid[0].detach().float().clone()

        return hook

    hooks = _adding(edits, start)
    hooks += [(f"blocks.{layer}.hook_resid_post", keep(layer)) for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        model.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hooks, return_type="logits")
    return torch.stack([seen[layer] for layer in range(model.cfg.n_layers)])


def plain_greedy(model: Any, ids: Sequence[int], edits: Sequence[Plain], n_tokens: int, stop: set[int]) -> list[int]:
    """Greedy continuation, the whole text run again for every token, steered from the last prompt token on."""
    text, start = list(ids), len(ids) - 1
    for _ in range(n_tokens):
        token = int(plain_logits(model, text, edits, start)[-1].argmax())
        if token in stop:
            break
        text.append(token)
    return text[len(ids) :]


Change = tuple[int, str, Callable[[Tensor], Tensor]]
"""A layer, a site, and what is done to its ``[batch, pos, d_model]`` activations."""


def plain_changed(model: Any, ids: Sequence[int], changes: Sequence[Change]) -> Tensor:
    """Logits ``[pos, d_vocab]`` with anything done anywhere, by hooks on names that mean the same on both classes.

    What is done between attention and MLP is done to the attention's output, which is the stream less what came in.
    """
    came_in: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda resid, hook: came_in.update({layer: resid})

    def at(layer: int, site: str, change: Callable[[Tensor], Tensor]) -> Any:
        if site == "resid_mid":
            return lambda out, hook: change(came_in[layer] + out) - came_in[layer]
        return lambda activations, hook: change(activations)

    # A block's input is kept as it is after everything that is done to it.
    hooks = [(f"blocks.{layer}.hook_{site}", at(layer, site, f)) for layer, site, f in changes if site == "resid_pre"]
    hooks += [(f"blocks.{layer}.hook_resid_pre", keep(layer)) for layer, site, _ in changes if site == "resid_mid"]
    for layer, site, change in changes:
        if site != "resid_pre":
            name = "attn_out" if site == "resid_mid" else site
            hooks.append((f"blocks.{layer}.hook_{name}", at(layer, site, change)))
    with torch.no_grad():
        return model.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hooks, return_type="logits")[0].float()
