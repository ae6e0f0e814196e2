"""The slow, obvious ways that the fast ones are compared with: plain Hugging Face forward passes.

They are written to be as fast as they can be while staying plain: sorted by length, no gradients, no logits that are
not asked for, PyTorch's own attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load(folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The model as anyone would load it, which is with PyTorch's scaled-dot-product attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


def batches(texts: Sequence[Sequence[int]], tokens: int, device: str = "cpu") -> list[tuple[Tensor, Tensor]]:
    """Ids and masks, sorted by length, right-padded, of at most so many tokens a batch (one text at least)."""
    order, found = sorted(texts, key=len, reverse=True), []
    while order:
        size = max(1, tokens // len(order[0]))
        batch, order = order[:size], order[size:]
        ids = torch.zeros(len(batch), len(batch[0]), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(batch):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(list(text)), 1
        found.append((ids.to(device), mask.to(device)))
    return found


@torch.no_grad()
def prompt_pass(model: Any, prepared: Sequence[tuple[Tensor, Tensor]]) -> None:
    """The floor: every text once through the blocks, without logits and without a cache."""
    for ids, mask in prepared:
        model.model(ids, attention_mask=mask, use_cache=False)
    _wait()


@torch.no_grad()
def batched_cell(model: Any, prepared: Sequence[tuple[Tensor, Tensor]], layer: int, delta: Tensor) -> None:
    """One cell of a sweep as batched full passes, steered from the last two tokens on, logits of the last only."""
    for ids, mask in prepared:
        with _steered(model, layer, delta, mask.sum(dim=1) - 2):
            hidden = model.model(ids, attention_mask=mask, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1]
            model.lm_head(last).log_softmax(dim=-1)
    _wait()


@torch.no_grad()
def cell_one_by_one(model: Any, texts: Sequence[Sequence[int]], layer: int, delta: Tensor, device: str = "cpu") -> None:
    """One cell as in the CAA repository: a text at a time, the logits of all its tokens."""
    for text in texts:
        ids = torch.tensor([list(text)], device=device)
        with _steered(model, layer, delta, torch.tensor([len(text) - 2])):
            model(ids, use_cache=False).logits[0, -1].softmax(dim=-1)
    _wait()


@contextmanager
def _steered(model: Any, layer: int, delta: Tensor, start: Tensor) -> Any:
    def add(module: Any, args: Any, output: Any) -> Any:
        resid = output[0] if isinstance(output, tuple) else output
        pos = torch.arange(resid.shape[1], device=resid.device)
        where = (pos >= start.to(resid.device).unsqueeze(1)).unsqueeze(2)
        steered = resid + where * delta.to(resid)
        return (steered, *output[1:]) if isinstance(output, tuple) else steered

    handle = model.model.layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
