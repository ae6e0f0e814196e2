"""Rows decoded together, forked from one prompt or let go half way, equal each row on its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
import torch
from plain import plain_logits
from torch import Tensor

from caa_lens.engine.decoding import Sampler, decoding
from caa_lens.engine.edits import Edit
from caa_lens.models.adapters import Adapter, adapt

PROMPTS = [[20, 7, 9, 30, 12], [20, 40], [20], [20, *range(41, 56)]]
"""Ragged, one of a single token, one longer than the sliding windows."""
PARENTS = [0, 0, 1, 3, 2, 3, 0, 2]
FED = [[60, 61, 62, 63, 64, 65, 66, 67], [70, 71, 72, 73, 74, 75, 76, 77], [80, 81, 82, 83, 84, 85, 86, 87]]
"""What each row is fed at each step, after its prompt's last token."""


def edits_of(adapter: Adapter) -> list[list[Edit]]:
    """None, one, one at each end, and two at one layer."""
    torch.manual_seed(5)
    last = adapter.n_layers - 1
    kinds: list[list[int]] = [[0], [], [last], [1, 1], [last, 0], [1], [1], []]
    return [[Edit(layer, torch.randn(adapter.d_model)) for layer in layers] for layers in kinds]


def last_tokens(parents: Sequence[int] = PARENTS) -> Tensor:
    return torch.tensor([PROMPTS[parent][-1] for parent in parents])


def assert_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_forked_from_one_prompt_equal_each_row_alone(model: Any, use_cache: bool) -> None:
    adapter = adapt(model)
    edits = edits_of(adapter)
    with decoding(adapter, PROMPTS, edits, parents=PARENTS, use_cache=use_cache) as decoder:
        steps = torch.stack([decoder.step(tokens) for tokens in (last_tokens(), torch.tensor(FED[0]))])
    for row, parent in enumerate(PARENTS):
        with decoding(adapter, [PROMPTS[parent]], [edits[row]], use_cache=use_cache) as decoder:
            alone = torch.cat([decoder.step(last_tokens([parent])), decoder.step(torch.tensor([FED[0][row]]))])
        assert_alike(steps[:, row], alone)


@pytest.mark.parametrize("use_cache", [True, False])
def test_decoding_goes_on_with_the_rows_that_are_kept(model: Any, use_cache: bool) -> None:
    """Some in another order, one of them twice; then one alone."""
    adapter = adapt(model)
    edits = edits_of(adapter)
    kept, again = [6, 2, 0, 3, 6], [3]
    with decoding(adapter, PROMPTS, edits, parents=PARENTS, use_cache=use_cache) as decoder:
        decoder.step(last_tokens())
        decoder.step(torch.tensor(FED[0]))
        decoder.keep(kept)
        fewer = decoder.step(torch.tensor(FED[1][: len(kept)]))
        decoder.keep(again)
        one = decoder.step(torch.tensor([FED[2][0]]))
    assert len(fewer) == len(kept) and len(one) == 1
    for at, row in enumerate(kept):
        prompt = PROMPTS[PARENTS[row]]
        text = [*prompt, FED[0][row], FED[1][at], FED[2][0]]
        expected = plain_logits(model, text, edits[row], start=len(prompt) - 1)
        assert_alike(fewer[at], expected[-2])
        if [at] == again:
            assert_alike(one[0], expected[-1])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("style", ["llama", "gemma2", "gpt2"])
def test_rows_that_end_at_different_steps_are_cut_where_they_end(
    style: str, temperature: float, use_cache: bool, bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at tokens that an endless run made, every row is that run up to the first of them."""
    adapter = adapt(bridge(style))
    edits, n_rows, n_new = edits_of(adapter), len(PARENTS), 10
    sizes: list[int] = []

    def run(stops: list[int]) -> list[list[int]]:
        sampler = Sampler(temperature, 0.95, range(n_rows))
        with decoding(adapter, PROMPTS, edits, parents=PARENTS, use_cache=use_cache) as decoder:
            step = decoder.step
            monkeypatch.setattr(decoder, "step", lambda tokens: sizes.append(len(tokens)) or step(tokens))
            return decoder.run(last_tokens(), sampler, n_new, torch.tensor(stops, dtype=torch.long))

    endless = run([])
    assert [len(row) for row in endless] == [n_new] * n_rows and sizes == [n_rows] * n_new
    sizes.clear()

    def ends_at(stops: Sequence[int]) -> list[int]:
        return [next((at for at, token in enumerate(row) if token in stops), n_new) for row in endless]

    pairs = combinations(sorted({token for row in endless for token in row}), 2)
    stops = max(pairs, key=lambda pair: len(set(ends_at(pair))))
    ends = ends_at(stops)
    assert len(set(ends)) > 2, "the test is about rows of different lengths"
    assert run(list(stops)) == [row[:end] for row, end in zip(endless, ends, strict=True)]
    assert len(sizes) == min(n_new, max(ends) + 1), "it is over with the last row"
    for step, size in enumerate(sizes):
        going = sum(end >= step for end in ends)
        assert going <= size and (size == n_rows or size <= n_rows // 2) and size < 2 * going, (
            "rows that ended are let go"
        )


def test_every_row_may_end_at_the_first_step(bridge: Any) -> None:
    adapter = adapt(bridge("llama"))
    with decoding(adapter, PROMPTS, edits_of(adapter), parents=PARENTS) as decoder:
        stops = torch.arange(int(adapter.cfg.d_vocab))
        assert decoder.run(last_tokens(), Sampler(0.0, 1.0, [0] * len(PARENTS)), 5, stops) == [[]] * len(PARENTS)


def test_each_prompt_is_run_once_however_many_rows_continue_it(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapt(bridge("llama"))
    prefill, shapes = adapter.prefill, []
    monkeypatch.setattr(adapter, "prefill", lambda ids, mask: shapes.append(tuple(ids.shape)) or prefill(ids, mask))
    with decoding(adapter, PROMPTS, edits_of(adapter), parents=PARENTS) as decoder:
        assert len(decoder.step(last_tokens())) == len(PARENTS)
    assert shapes == [(len(PROMPTS), len(PROMPTS[3]) - 1)]


def test_a_row_draws_the_same_numbers_whoever_is_beside_it() -> None:
    logits = torch.randn(3, 50)
    together = Sampler(1.0, 0.9, [4, 5, 6])
    alone = Sampler(1.0, 0.9, [4, 5, 6])
    first = together.pick(logits, [0, 1, 2])
    assert first.tolist() == [int(alone.pick(logits[row : row + 1], [row])) for row in (0, 1, 2)]
    second = together.pick(logits[[2, 0]], [2, 0])
    assert second.tolist() == [int(alone.pick(logits[row : row + 1], [row])) for row in (2, 0)]
