"""What each technique gains: the same job with it and without it, beside what counting multiply-adds predicts.

    python tests/benchmarks/bench_techniques.py

The count takes a block's weights once per token and the unembedding once per logit row; it knows nothing of memory
traffic, of dispatch, or of attention's scores, and where the measured gain differs, those are why.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import subjects
import torch
from bench_speed import prompt_ids
from measure import ROUNDS, interleaved

import caa_lens as caa
from caa_lens.engine import branching
from caa_lens.engine.branching import branch_logits, branch_residuals
from caa_lens.engine.edits import Edit
from caa_lens.engine.packing import Branch
from caa_lens.models.adapters import adapt

N_ITEMS, N_PAIRS, N_STEPS = 24, 48, 6


def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One row a technique."""
    with tempfile.TemporaryDirectory() as scratch:
        model: Any = caa.load_model(subjects.write_model(Path(scratch) / "small"))
        return _sweep_rows(model, rounds) + _extraction_rows(model, rounds)


def _sweep_rows(model: Any, rounds: int) -> list[dict[str, Any]]:
    adapter = adapt(model)
    texts = prompt_ids(model, subjects.pairs(N_ITEMS, "test"))
    prompts, ends = [text[:-3] for text in texts], [text[-3:-1] for text in texts]
    layers, zero = range(adapter.n_layers), torch.zeros(adapter.d_model)
    deltas = [Edit(layer, torch.randn(adapter.d_model)) for layer in layers for _ in range(N_STEPS)]
    cells = [(), *[(delta,) for delta in deltas]]
    # An edit by nothing at layer 0 makes a branch join there, so that it runs through every block.
    from_0 = [(), *[(Edit(0, zero), delta) for delta in deltas]]
    own = [Branch(item, end, edits) for item, end in enumerate(ends) for edits in cells]
    whole = [Branch(item, end, edits) for item, end in enumerate(ends) for edits in from_0]
    branches_only = {"read": [adapter.n_layers - 1]}

    def logits(branches: Sequence[Branch]) -> None:
        branch_logits(adapter, prompts, branches, lambda chunk, rows: rows.logsumexp(dim=-1))

    def forked() -> None:
        with _forking(adapter):
            logits(own)

    jobs = {
        "all": lambda: logits(own),
        "cells run through every block": lambda: logits(whole),
        "forked caches": forked,
        "no logits": lambda: branch_residuals(adapter, prompts, own, branches_only["read"], lambda chunk, rows: None),
        "a pass per cell": lambda: branch_residuals(
            adapter,
            [prompt + end[:-1] for prompt, end in zip(prompts, ends, strict=True)],
            [Branch(item, end[-1:]) for item, end in enumerate(ends)],
            branches_only["read"],
            lambda chunk, rows: None,
        ),
    }
    times = interleaved(jobs, rounds)
    n_prompt, unembed = fmean(len(prompt) for prompt in prompts), _unembedding_in_tokens(adapter)
    n_cells, share = len(cells), fmean((adapter.n_layers - 1 - layer) / adapter.n_layers for layer in layers)
    cost = n_prompt + 2 + 2 * (n_cells - 1) * share + n_cells * unembed
    cost_whole = n_prompt + 2 * n_cells + n_cells * unembed
    title = f"sweep, {len(layers)} layers x {N_STEPS} multipliers"
    return [
        _row(f"{title}: prompt run once, not per cell", n_cells * (n_prompt + 2 + unembed) / cost,
             n_cells * times.ratio("a pass per cell", "all"), "one pass without logits timed, times cells"),
        _row(f"{title}: each cell starts at its own layer", cost_whole / cost,
             times.ratio("cells run through every block", "all"), ""),
        _row(f"{title}: block mask, not forked caches", cost_whole / cost, times.ratio("forked caches", "all"),
             "forks run through every block too"),
        _row(f"{title}: leaving out all logits (not done: `mass` needs them)", cost / (cost - n_cells * unembed),
             times.ratio("all", "no logits"), ""),
    ]  # fmt: skip


def _extraction_rows(model: Any, rounds: int) -> list[dict[str, Any]]:
    adapter = adapt(model)
    texts = prompt_ids(model, subjects.pairs(N_PAIRS))
    layers = list(range(adapter.n_layers))
    prompts, letters = [text[:-1] for text in texts], (texts[0][-1], texts[0][-1] + 1)
    two = [Branch(item, (letter,)) for item in range(N_PAIRS) for letter in letters]
    sides = [Branch(side, (letters[side % 2],)) for side in range(2 * N_PAIRS)]

    def read(prompts: Sequence[Sequence[int]], branches: Sequence[Branch], batch_size: int | None = None) -> None:
        branch_residuals(adapter, prompts, branches, layers, lambda chunk, rows: None, batch_size=batch_size)

    def unsorted() -> None:
        for at in range(0, N_PAIRS, 8):
            read(prompts[at : at + 8], [Branch(i, (letter,)) for i in range(8) for letter in letters], 8)

    def own_pass() -> None:
        with mock.patch.object(branching, "INLINE_TOKENS", 0):
            read(prompts, two)

    jobs = {
        "all": lambda: read(prompts, two),
        "sorted by 8": lambda: read(prompts, two, 8),
        "unsorted by 8": unsorted,
        "both sides whole": lambda: read([prompt for prompt in prompts for _ in letters], sides),
        "own pass": own_pass,
    }
    times = interleaved(jobs, rounds)
    lengths = [len(prompt) for prompt in prompts]
    total = sum(lengths)
    padded = sum(8 * max(lengths[at : at + 8]) for at in range(0, N_PAIRS, 8))
    in_order = sorted(lengths, reverse=True)
    padded_sorted = sum(8 * max(in_order[at : at + 8]) for at in range(0, N_PAIRS, 8))
    return [
        _row("extraction: two answers as branches of one prompt", 2 * (total + N_PAIRS) / (total + 2 * N_PAIRS),
             times.ratio("both sides whole", "all"), ""),
        _row("extraction: batches of 8 sorted by length", padded / padded_sorted,
             times.ratio("unsorted by 8", "sorted by 8"), ""),
        _row("extraction: answers in the prompt's own pass", 1.0, times.ratio("own pass", "all"),
             "the same arithmetic, one pass over the weights fewer"),
    ]  # fmt: skip


def _unembedding_in_tokens(adapter: Any) -> float:
    """One row of logits, in passes of one token through all blocks."""
    size = subjects.SIZES["small"]
    d_model, d_mlp = size["hidden_size"], size["intermediate_size"]
    return subjects.D_VOCAB * d_model / (adapter.n_layers * (4 * d_model**2 + 3 * d_model * d_mlp))


@contextlib.contextmanager
def _forking(adapter: Any) -> Iterator[None]:
    with mock.patch.object(type(adapter), "packs", lambda self, length: False):
        yield


def _row(job: str, predicted: float, measured: float, remark: str) -> dict[str, Any]:
    return {"job": job, "predicted": predicted, "measured": measured, "remark": remark}


def main() -> None:
    """Print the rows."""
    for each in run():
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
