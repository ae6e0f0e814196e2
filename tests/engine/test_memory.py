"""Sizes follow the free memory, are never nothing, and are estimated from above."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from caa_lens.engine import memory
from caa_lens.engine.branching import branch_logits
from caa_lens.engine.edits import Edit
from caa_lens.engine.packing import Branch
from caa_lens.models.adapters import adapt

CPU = torch.device("cpu")
GIB = 1 << 30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`free(n)` leaves so many bytes free, on the CPU and on the GPU."""

    def leave(n_bytes: int) -> None:
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=n_bytes))
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (n_bytes, 80 * GIB))
        monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 0)
        monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 0)

    return leave


@pytest.mark.parametrize(
    ("n_bytes", "expected"), [(0, 0), (1000, 250), (2 * GIB, GIB // 2), (4 * GIB, GIB), (64 * GIB, GIB)]
)
def test_a_job_takes_a_quarter_of_the_free_memory_and_on_a_cpu_never_more_than_its_limit(
    n_bytes: int, expected: int, free: Callable[[int], None]
) -> None:
    assert memory.WORKING_BYTES == GIB
    free(n_bytes)
    assert memory.working_bytes(CPU) == expected
    assert memory.working_bytes(torch.device("cuda")) == n_bytes // 4


def test_what_torch_holds_without_using_it_is_free(
    free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    free(1000)
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 500)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 100)
    assert memory.working_bytes(torch.device("cuda")) == 350


def test_the_limit_is_what_the_module_says(free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    free(4000)
    monkeypatch.setattr("caa_lens.engine.memory.WORKING_BYTES", 300)
    assert memory.working_bytes(CPU) == 300


@pytest.mark.parametrize("length", [1, 20, 512, 10**7])
def test_one_row_is_run_however_little_is_free(model: Any, length: int, free: Callable[[int], None]) -> None:
    adapter = adapt(model)
    free(0)
    assert memory.rows_at_once(adapter, length) == 1
    free(64 * GIB)
    assert 1 <= memory.rows_at_once(adapter, length) <= 32
    assert memory.rows_at_once(adapter, 1) == 32


def test_rows_get_fewer_as_texts_get_longer_and_fit(bridge: Any, free: Callable[[int], None]) -> None:
    adapter = adapt(bridge("llama"))
    free(1 << 22)
    rows = [memory.rows_at_once(adapter, length) for length in (1, 8, 32, 128, 512)]
    assert rows == sorted(rows, reverse=True) and rows[-1] < rows[0]
    for length, n_rows in zip((1, 8, 32, 128, 512), rows, strict=True):
        assert n_rows * memory.fork_bytes(adapter, length) <= memory.working_bytes(CPU) or n_rows == 1


def test_branches_are_run_with_no_memory_at_all(model: Any, free: Callable[[int], None]) -> None:
    adapter = adapt(model)
    branches = [Branch(prompt, (5, 6), ()) for prompt in (0, 1, 1, 0)]
    found: list[int] = []
    free(0)
    branch_logits(adapter, [[20, 7], []], branches, lambda chunk, logits: found.extend(chunk))
    assert sorted(found) == [0, 1, 2, 3]


def test_estimates_grow_with_length(model: Any) -> None:
    adapter = adapt(model)
    lengths = (1, 2, 7, 30, 200, 512)

    def grows(sizes: list[int]) -> bool:
        return all(0 < one < other for one, other in zip(sizes, sizes[1:], strict=False))

    assert grows([memory.fork_bytes(adapter, length) for length in lengths])
    assert grows([memory.prompt_bytes(adapter, length, 1) for length in lengths])
    assert grows([memory.prompt_bytes(adapter, 10, length) for length in lengths[3:]])
    assert memory.prompt_bytes(adapter, 0, 1) > 0 and memory.fork_bytes(adapter, 0) > 0
    assert memory.logit_bytes(adapter) >= 2 * 4 * int(adapter.cfg.d_vocab), "the logits and their log-probabilities"


@pytest.mark.parametrize("style", ["llama", "gpt2", "gpt_neox", "gemma2", "qwen3"])
def test_keys_and_values_are_counted_as_they_are(style: str, bridge: Any) -> None:
    adapter = adapt(bridge(style))
    with torch.no_grad():
        cache = adapter.prefill(torch.full((1, 7), 9), torch.ones(1, 7, dtype=torch.long)).cache
    real = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert real == 7 * adapter.bytes_per_position
    assert real < memory.prompt_bytes(adapter, 7, 1) and real < memory.fork_bytes(adapter, 7)


def test_more_tokens_are_run_together_on_a_gpu() -> None:
    assert 0 < memory.most_tokens(CPU) < memory.most_tokens(torch.device("cuda"))


def test_freed_memory_is_given_back_without_a_word_on_any_system(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.release_freed_memory(CPU)
    memory.release_freed_memory(torch.device("meta"))
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)
    memory.release_freed_memory(CPU)


def test_a_packed_pass_keeps_nothing_of_its_prompts(model: Any) -> None:
    """No cycle holds a batch's keys and values until the garbage collector comes by."""
    import gc

    adapter = adapt(model)
    shift = torch.ones(adapter.d_model)
    branches = [Branch(row, (1 + column,), (Edit(1, shift),)) for row in range(2) for column in range(20)]

    def run() -> None:
        branch_logits(adapter, [(1, 2, 3), (1, 2)], branches, lambda chunk, logits: None)

    run()  # what is made once may stay
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run()
        gc.collect()
        left = [type(each) for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not [kind for kind in left if issubclass(kind, torch.Tensor)]
