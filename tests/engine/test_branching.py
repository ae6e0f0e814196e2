"""Branches of a prompt that was run once equal full forward passes, on every model class and style."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import plain_logits, plain_residuals

from caa_lens.engine.branching import branch_logits, branch_residuals
from caa_lens.engine.decoding import decoding
from caa_lens.engine.edits import Edit
from caa_lens.engine.packing import Branch
from caa_lens.models.adapters import Adapter, adapt

PROMPTS = [[1, 7, 9, 30, 12], [1, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54], [1], []]
"""Ragged, one longer than the sliding windows, one of BOS only, one empty."""


def _branches(d_model: int, n_layers: int) -> list[Branch]:
    torch.manual_seed(3)
    branches: list[Branch] = []
    for prompt in range(len(PROMPTS)):
        for layer in (0, n_layers - 1):
            branches.append(Branch(prompt, (20, 21, 22), (Edit(layer, torch.randn(d_model)),)))
        branches.append(Branch(prompt, (33,), ()))
        twice = (Edit(1, torch.randn(d_model)), Edit(1, torch.randn(d_model)))
        branches.append(Branch(prompt, (25, 26, 27, 28, 29), twice))
    return branches


def _logits(adapter: Adapter, branches: list[Branch], batch_size: int | None = None) -> torch.Tensor:
    """In the order of the branches; fails where one is missing or comes twice."""
    chunks: list[tuple[list[int], torch.Tensor]] = []
    branch_logits(adapter, PROMPTS, branches, lambda *chunk: chunks.append(chunk), batch_size=batch_size)
    order = [index for chunk, _ in chunks for index in chunk]
    assert sorted(order) == list(range(len(branches)))
    return torch.cat([logits for _, logits in chunks])[torch.tensor(order).argsort()]


@pytest.mark.parametrize("batch_size", [None, 1])
def test_branch_logits_equal_full_forward_passes(model: Any, batch_size: int | None) -> None:
    adapter = adapt(model)
    branches = _branches(adapter.d_model, adapter.n_layers)
    for branch, row in zip(branches, _logits(adapter, branches, batch_size), strict=True):
        ids = [*PROMPTS[branch.prompt], *branch.tokens]
        expected = plain_logits(model, ids, branch.edits, start=len(PROMPTS[branch.prompt]))[-1]
        torch.testing.assert_close(row.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=0)


def test_branch_residuals_equal_full_forward_passes(model: Any) -> None:
    adapter = adapt(model)
    layers = [0, adapter.n_layers - 1]
    branches = [Branch(prompt, tokens) for prompt in range(len(PROMPTS)) for tokens in ((5, 6, 7), (8,))]
    found: dict[int, torch.Tensor] = {}
    branch_residuals(
        adapter, PROMPTS, branches, layers, lambda chunk, rows: found.update(zip(chunk, rows, strict=True))
    )
    for index, branch in enumerate(branches):
        expected = plain_residuals(model, [*PROMPTS[branch.prompt], *branch.tokens])[layers, -1]
        assert (found[index] - expected).norm() <= 1e-5 * expected.norm()


def test_a_chunk_limit_does_not_change_results(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapt(bridge("llama"))
    branches = _branches(adapter.d_model, adapter.n_layers)

    whole = _logits(adapter, branches)
    monkeypatch.setattr("caa_lens.engine.memory.WORKING_BYTES", 1)
    torch.testing.assert_close(_logits(adapter, branches), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("use_cache", [True, False])
def test_decoding_steers_from_the_last_prompt_token(model: Any, use_cache: bool) -> None:
    adapter = adapt(model)
    prompts = [prompt for prompt in PROMPTS if prompt]
    torch.manual_seed(5)
    edits = [[Edit(1, torch.randn(adapter.d_model))], [], [Edit(0, torch.randn(adapter.d_model))]]
    with decoding(adapter, prompts, edits, use_cache=use_cache) as decoder:
        first = decoder.step(torch.tensor([prompt[-1] for prompt in prompts]))
        second = decoder.step(torch.tensor([60, 61, 62]))
    for row, prompt in enumerate(prompts):
        expected = plain_logits(model, [*prompt, 60 + row], edits[row], start=len(prompt) - 1)
        torch.testing.assert_close(first[row], expected[-2], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(second[row], expected[-1], atol=2e-4, rtol=1e-4)


def test_a_prompt_longer_than_the_context_is_refused_before_the_model_runs(bridge: Any) -> None:
    adapter = adapt(bridge("llama"))
    too_long = [[1] * adapter.n_ctx]
    with pytest.raises(
        ValueError, match=rf"item 0 needs {adapter.n_ctx + 1} tokens and .* holds {adapter.n_ctx}: shorten"
    ):
        branch_logits(adapter, too_long, [Branch(0, (5,))], lambda chunk, logits: None)
