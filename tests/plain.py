"""The slow, obvious way to do what caa_lens does fast: one sequence, one forward pass, no padding, no cache.

Every fast path is tested against these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def plain_logits(model: Any, ids: Sequence[int], edits: Sequence[tuple[int, Tensor]] = (), start: int = 0) -> Tensor:
    """Logits ``[pos, d_vocab]``, each edit added at its layer from token ``start`` on."""
    hooks = _adding(edits, start)
    with torch.no_grad():
        return model.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hooks, return_type="logits")[0].float()


def _adding(edits: Sequence[tuple[int, Tensor]], start: int) -> list[tuple[str, Any]]:
    def add(delta: Tensor) -> Any:
        def hook(resid: Tensor, hook: Any) -> Tensor:
            return torch.cat([resid[:, :start], resid[:, start:] + delta.to(resid)], dim=1)

        return hook

    return [(f"blocks.{layer}.hook_resid_post", add(delta)) for layer, delta in edits]


def plain_residuals(model: Any, ids: Sequence[int], edits: Sequence[tuple[int, Tensor]] = (), start: int = 0) -> Tensor:
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


def plain_greedy(
    model: Any, ids: Sequence[int], edits: Sequence[tuple[int, Tensor]], n_tokens: int, stop: set[int]
) -> list[int]:
    """Greedy continuation, the whole text run again for every token, steered from the last prompt token on."""
    text, start = list(ids), len(ids) - 1
    for _ in range(n_tokens):
        token = int(plain_logits(model, text, edits, start)[-1].argmax())
        if token in stop:
            break
        text.append(token)
    return text[len(ids) :]
