"""Branches packed into one row equal full forward passes of their own, and are forked where they would not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import assert_close_by_norm, plain_logits, plain_residuals
from torch import Tensor

import caa_lens as caa
from caa_lens.engine.branching import branch_logits, branch_residuals
from caa_lens.engine.decoding import decoding
from caa_lens.engine.edits import Edit
from caa_lens.engine.hooking import hooked
from caa_lens.engine.packing import Branch, pack
from caa_lens.models.adapters import Adapter, adapt, left_padded

PROMPTS = [[20, 7, 9, 30], [20, 40], [20], []]
"""Ragged, one of a single token, one empty; with the longest branch they fill the sliding windows to the last place."""
LONG = [20, *range(40, 55)]
"""Longer than the sliding windows."""
WINDOWED = ("mistral", "gemma2", "gemma3")

LAYOUTS = {  # PACKED_TOKENS, INLINE_TOKENS, batch_size; and how many packed passes that makes, None where not counted
    "one pass with the prompts": (256, 10**6, None, 1),
    "one pass with each prompt": (256, 10**6, 1, len(PROMPTS)),
    "prompts first": (256, 0, None, 1),
    "several chunks": (7, 10**6, None, None),
    "one branch a chunk": (1, 0, 2, None),
}


def edited_branches(adapter: Adapter, n_prompts: int = len(PROMPTS)) -> list[Branch]:
    """Every kind of branch, unevenly spread over the prompts and not in the order of their layers."""
    torch.manual_seed(3)
    low, middle, last = 0, adapter.n_layers // 2, adapter.n_layers - 1
    branches: list[Branch] = []
    for prompt in range(n_prompts):
        a, b, c = torch.randn(3, adapter.d_model)
        branches += [Branch(prompt, (60, 61, 62), (Edit(layer, a),)) for layer in (last, low, middle)]
        branches.append(Branch(prompt, (63, 64, 65, 66), (Edit(middle, a), Edit(middle, b))))
        if prompt == 1:
            continue
        branches += [Branch(prompt, (60, 61, 62)), Branch(prompt, (67,)), Branch(prompt, (67,))]
        branches.append(Branch(prompt, (68, 69), (Edit(last, c), Edit(low, a), Edit(middle, b), Edit(last, a))))
        branches += [Branch(prompt, (67,), (Edit(layer, c),)) for layer in (low, last) if prompt > 1]
    return branches


def logits_of(
    adapter: Adapter, prompts: Sequence[list[int]], branches: list[Branch], batch_size: int | None = None
) -> Tensor:
    """Log-probabilities in the order of the branches; fails where one is missing or comes twice."""
    found: dict[int, Tensor] = {}

    def receive(chunk: list[int], logits: Tensor) -> None:
        assert len(chunk) == len(logits) == len(set(chunk)) and not set(chunk) & set(found)
        found.update(zip(chunk, logits.float().log_softmax(dim=-1), strict=True))

    branch_logits(adapter, prompts, branches, receive, batch_size=batch_size)
    return torch.stack([found[index] for index in range(len(branches))])


def plainly(model: Any, prompts: Sequence[list[int]], branches: list[Branch]) -> Tensor:
    """The same by one full forward pass a branch."""
    rows = [
        plain_logits(model, [*prompts[branch.prompt], *branch.tokens], branch.edits, len(prompts[branch.prompt]))
        for branch in branches
    ]
    return torch.stack([row[-1].log_softmax(dim=-1) for row in rows])


def assert_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def set_layout(monkeypatch: pytest.MonkeyPatch, layout: str) -> int | None:
    """Make it so, and return its batch size."""
    packed_tokens, inline_tokens, batch_size, _ = LAYOUTS[layout]
    monkeypatch.setattr("caa_lens.engine.branching.PACKED_TOKENS", packed_tokens)
    monkeypatch.setattr("caa_lens.engine.branching.INLINE_TOKENS", inline_tokens)
    return batch_size


def counted(monkeypatch: pytest.MonkeyPatch, adapter: Adapter) -> dict[str, int]:
    """How often each way of running something is taken from now on, on this adapter."""
    counts = {"prefill": 0, "extend_packed": 0, "extend": 0}

    def counting(name: str) -> Callable[..., Any]:
        method = getattr(adapter, name)

        def call(*args: Any) -> Any:
            counts[name] += 1
            return method(*args)

        return call

    for name in counts:
        monkeypatch.setattr(adapter, name, counting(name))
    return counts


@dataclass
class Case:
    """A bridge with its branches and what full passes say of them."""

    style: str
    adapter: Adapter
    branches: list[Branch]
    expected: Tensor


_cases: dict[str, Case] = {}


@pytest.fixture(params=tiny_models.STYLES)
def case(request: pytest.FixtureRequest, bridge: Callable[[str], Any]) -> Case:
    """Every style of TransformerBridge; the adapter is a test's own, the full passes are made once."""
    style, model = request.param, bridge(request.param)
    branches = edited_branches(adapt(model))
    if style not in _cases:
        _cases[style] = Case(style, adapt(model), branches, plainly(model, PROMPTS, branches))
    return Case(style, adapt(model), branches, _cases[style].expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_branches_equal_full_forward_passes(case: Case, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_size, passes = set_layout(monkeypatch, layout), LAYOUTS[layout][-1]
    counts = counted(monkeypatch, case.adapter)
    assert_alike(logits_of(case.adapter, PROMPTS, case.branches, batch_size), case.expected)
    assert counts["extend"] == 0 and (counts["prefill"] == 0) == ("one pass with" in layout)
    assert counts["extend_packed"] == passes if passes else counts["extend_packed"] > 3


def test_packed_and_forked_branches_are_alike(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = logits_of(case.adapter, PROMPTS, case.branches)
    monkeypatch.setattr(case.adapter, "packs", lambda length: False)
    counts = counted(monkeypatch, case.adapter)
    forked = logits_of(case.adapter, PROMPTS, case.branches)
    assert counts["extend_packed"] == 0 and counts["extend"] > 0
    assert_alike(packed, forked)
    assert_alike(forked, case.expected)


@pytest.mark.parametrize("case", ["llama", "gpt2", "gemma2"], indirect=True)
def test_architectures_that_nobody_compared_are_forked(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert case.adapter.packs(tiny_models.SLIDING_WINDOW)
    monkeypatch.setattr("caa_lens.models.adapters.PACKED_MODELS", frozenset())
    assert not case.adapter.packs(tiny_models.SLIDING_WINDOW)
    counts = counted(monkeypatch, case.adapter)
    assert_alike(logits_of(case.adapter, PROMPTS, case.branches), case.expected)
    assert counts["extend_packed"] == 0


def test_only_what_a_sliding_window_holds_is_packed(case: Case) -> None:
    longest = len(PROMPTS[0]) + max(len(branch.tokens) for branch in case.branches)
    assert longest == tiny_models.SLIDING_WINDOW and case.adapter.packs(longest)
    assert case.adapter.packs(longest + 1) == (case.style not in WINDOWED)


@pytest.mark.parametrize("style", WINDOWED)
def test_what_a_sliding_window_cuts_off_is_forked(style: str, bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge(style)
    adapter, prompts = adapt(model), [PROMPTS[0], LONG, [*PROMPTS[0], 31], []]
    branches = edited_branches(adapter, len(prompts))
    expected = plainly(model, prompts, branches)
    counts = counted(monkeypatch, adapter)
    assert_alike(logits_of(adapter, prompts, branches), expected)
    assert (counts["extend"], counts["extend_packed"]) == (1, 0), "all of them, as one is too long"
    for layout in ("one pass with each prompt", "prompts first"):
        set_layout(monkeypatch, layout)
        counts = counted(monkeypatch, adapter)
        assert_alike(logits_of(adapter, prompts, branches, batch_size=1), expected)
        assert counts["extend"] == counts["extend_packed"] == 2, "LONG and one token more than the window; the others"


def test_long_prompts_are_packed_without_a_window(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bridge("qwen2")
    adapter, prompts = adapt(model), [[20, 9], LONG * 3, []]
    branches = edited_branches(adapter, len(prompts))
    counts = counted(monkeypatch, adapter)
    assert_alike(logits_of(adapter, prompts, branches), plainly(model, prompts, branches))
    assert counts["extend"] == 0


def test_prompts_without_branches_and_no_branches_at_all(bridge: Any) -> None:
    model = bridge("llama")
    adapter, delta = adapt(model), torch.randn(32)
    branches = [Branch(2, (5, 6), (Edit(1, delta),)), Branch(0, (7,))]
    assert_alike(logits_of(adapter, PROMPTS, branches), plainly(model, PROMPTS, branches))
    branch_logits(adapter, PROMPTS, [], lambda chunk, logits: pytest.fail("there is nothing to receive"))


def test_edited_branches_are_read_below_at_and_above_their_edits(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapt(model)
    branches, packs = edited_branches(adapter), adapter.packs(tiny_models.SLIDING_WINDOW)
    texts = [
        ([*PROMPTS[branch.prompt], *branch.tokens], branch.edits, len(PROMPTS[branch.prompt])) for branch in branches
    ]
    expected = torch.stack([plain_residuals(model, *text)[:, -1] for text in texts])
    for layout in ("one pass with the prompts", "several chunks"):
        set_layout(monkeypatch, layout)
        for layers in ([0], [1], list(range(adapter.n_layers))[::-1]):
            found = torch.full((len(branches), len(layers), adapter.d_model), torch.nan)
            counts = counted(monkeypatch, adapter)
            branch_residuals(adapter, PROMPTS, branches, layers, found.__setitem__)
            assert ((found - expected[:, layers]).norm(dim=-1) <= 1e-5 * expected[:, layers].norm(dim=-1)).all()
            assert (counts["extend_packed"] > 0, counts["extend"] > 0) == (packs, not packs)


@pytest.mark.parametrize("style", ["llama", "gemma2", "qwen3"])
def test_bfloat16_branches_are_as_exact_as_a_full_bfloat16_pass(
    style: str, tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a float32 pass of the same, rounded weights, in the root mean square of log-probabilities."""
    half: Any = caa.load_model(tiny_path(style), dtype="bfloat16")
    exact: Any = caa.load_model(tiny_path(style))
    with torch.no_grad():
        for parameter in exact.original_model.parameters():
            parameter.copy_(parameter.bfloat16())
    adapter = adapt(half)
    prompts = PROMPTS if style in WINDOWED else [*PROMPTS, LONG]
    branches = edited_branches(adapter, len(prompts))
    expected = plainly(exact, prompts, branches)

    def error(found: Tensor, of: Tensor = expected) -> float:
        return float((found - of).square().mean(dim=-1).sqrt().max())

    # Measured, the worst branch of a full bfloat16 pass is 0.03 to 0.06 off, and all other ways equal that pass to
    # 2e-6; half as much again is left for sums that another processor takes in another order.
    allowed = 1.5 * error(plainly(half, prompts, branches))
    assert 0.005 < allowed < 0.15
    for layout in ("one pass with the prompts", "several chunks"):
        batch_size = set_layout(monkeypatch, layout)
        assert error(logits_of(adapter, prompts, branches, batch_size)) <= allowed
    monkeypatch.setattr(adapter, "packs", lambda length: False)
    assert error(logits_of(adapter, prompts, branches)) <= allowed

    # Decoding: the same branches of one length, steered from the first of their tokens on.
    of_rows = [index for index, branch in enumerate(branches) if len(branch.tokens) == 3]
    rows = [branches[index] for index in of_rows]
    texts = [[*prompts[branch.prompt], branch.tokens[0]] for branch in rows]
    with decoding(adapter, texts, [branch.edits for branch in rows]) as decoder:
        steps = [decoder.step(torch.tensor(tokens)) for tokens in zip(*(row.tokens for row in rows), strict=True)]
    assert error(steps[-1].float().log_softmax(dim=-1), expected[of_rows]) <= allowed


tokens = st.integers(0, 300)
branch_parts = st.tuples(
    st.integers(0, 2),  # prompt
    st.lists(tokens, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=3),  # layer and which vector
)


@settings(max_examples=15, deadline=None)
@given(
    prompts=st.lists(st.lists(tokens, max_size=10), min_size=3, max_size=3),
    parts=st.lists(branch_parts, min_size=1, max_size=8),
    packed_tokens=st.sampled_from([1, 5, 256]),
    inline_tokens=st.sampled_from([0, 16, 256]),
)
def test_any_branches_of_any_prompts_equal_full_forward_passes(
    bridge: Any,
    prompts: list[list[int]],
    parts: list[tuple[int, list[int], list[tuple[int, int]]]],
    packed_tokens: int,
    inline_tokens: int,
) -> None:
    model = bridge("llama")
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(7))
    branches = [
        Branch(prompt, tuple(ids), tuple(Edit(layer, vectors[which]) for layer, which in edits))
        for prompt, ids, edits in parts
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caa_lens.engine.branching.PACKED_TOKENS", packed_tokens)
        patch.setattr("caa_lens.engine.branching.INLINE_TOKENS", inline_tokens)
        found = logits_of(adapt(model), prompts, branches)
    assert_alike(found, plainly(model, prompts, branches))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("job", ["logits", "residuals"])
def test_no_hook_is_left_by_a_job_or_an_exception_in_it(model: Any, job: str, fails: bool) -> None:
    adapter = adapt(model)
    branches, before = edited_branches(adapter), plain_logits(model, LONG)

    def on_blocks() -> list[list[int]]:
        return [list(block._forward_pre_hooks) for block in adapter.blocks]

    def receive(chunk: list[int], result: Tensor) -> None:
        assert tiny_models.attached_hooks(model) and on_blocks() != attached, "the hooks are looked for where they are"
        if fails:
            raise RuntimeError("mine")

    attached = on_blocks()
    with pytest.raises(RuntimeError, match="mine") if fails else nullcontext():
        if job == "logits":
            branch_logits(adapter, PROMPTS, branches, receive)
        else:
            branch_residuals(adapter, PROMPTS, branches, [0, 1], receive)
    assert not tiny_models.attached_hooks(model) and on_blocks() == attached
    assert torch.is_grad_enabled() and torch.equal(plain_logits(model, LONG), before)


def keys_and_values(cache: Any) -> list[Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


@pytest.mark.parametrize("style", ["llama", "gpt2", "gemma2", "mistral"])
def test_a_prefix_stays_as_it_was_whatever_is_run_after_it(style: str, bridge: Any) -> None:
    adapter = adapt(bridge(style))
    members = edited_branches(adapter)
    rows = [branch.prompt for branch in members]
    with hooked(adapter, [(layer, "resid_post") for layer in range(adapter.n_layers)]) as hooks:
        prefix = adapter.prefill(*left_padded(adapter, PROMPTS))
        before = [tensor.clone() for tensor in keys_and_values(prefix.cache)]
        results = []
        for _ in range(2):
            job = pack(adapter, prefix, members, rows, ())
            hooks.at, hooks.before = job.at, job.before
            results.append(adapter.extend_packed(prefix, job.ids, job.mask, job.positions, job.keep))
        hooks.at = hooks.before = None
        fork = adapter.fork(prefix, torch.tensor([2, 0, 0]))
        adapter.extend(fork, torch.tensor([[5, 6], [7, 8], [9, 9]]), torch.tensor([1, 1, 1]))
    after = keys_and_values(prefix.cache)
    assert len(before) == len(after) == 2 * adapter.n_layers
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert torch.equal(results[0], results[1]) and prefix.mask.shape == (len(PROMPTS), len(PROMPTS[0]))


@pytest.mark.parametrize("style", ["llama", "gemma2"])
@pytest.mark.parametrize("prompts", [PROMPTS, [LONG, *PROMPTS]], ids=["short", "beyond the window"])
def test_a_prefill_that_leaves_early_keeps_what_a_full_pass_keeps(
    style: str, prompts: list[list[int]], bridge: Any
) -> None:
    model = bridge(style)
    adapter, seen = adapt(model), []
    ids, mask = left_padded(adapter, prompts)
    hooks = [(adapter.hook_name(layer), lambda resid, hook: seen.append(hook.name)) for layer in range(4)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        cache = adapter.prefill(ids, mask).cache
        assert len(seen) == 3, "the last block is left before its output"
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        _, full = model(
            ids, attention_mask=mask, position_ids=positions, use_cache=True, return_type="logits_and_cache"
        )
    assert cache.get_seq_length() == full.get_seq_length() == ids.shape[1]
    assert [type(layer) for layer in cache.layers] == [type(layer) for layer in full.layers]
    for found, expected in zip(keys_and_values(cache), keys_and_values(full), strict=True):
        assert_close_by_norm(found, expected, rtol=1e-6)
    assert not any("update" in vars(layer) for layer in cache.layers), "the way out must not stay in the cache"


def test_a_config_that_names_another_dtype_than_the_weights_gives_no_nan(tiny_path: Callable[[str], Path]) -> None:
    """`boot_transformers(hf_model=...)` writes float32 into the config whatever the weights are."""
    model: Any = caa.load_model(tiny_path("llama"), dtype="bfloat16")
    prompts = [LONG, [1]]
    found: list[Tensor] = []
    for dtype in (torch.bfloat16, torch.float32):
        model.cfg.dtype = dtype
        rows: list[Tensor] = []
        branch_residuals(
            adapt(model),
            prompts,
            [Branch(0, (5,)), Branch(1, (6,))],
            [0, 3],
            lambda _, got, rows=rows: rows.append(got),
        )
        found.append(torch.cat(rows))
    assert not found[1].isnan().any()
    torch.testing.assert_close(found[0], found[1], atol=1e-2, rtol=1e-2)


def test_the_prefill_of_an_architecture_that_nobody_compared_runs_to_its_end(
    bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a model may have a cache of another kind: it makes its own, and nothing in it is replaced."""
    monkeypatch.setattr("caa_lens.models.adapters.PACKED_MODELS", frozenset())
    model, seen = bridge("llama"), []
    adapter = adapt(model)
    with torch.no_grad(), model.hooks(fwd_hooks=[(adapter.hook_name(3), lambda resid, hook: seen.append(hook.name))]):
        adapter.prefill(*left_padded(adapter, PROMPTS))
    assert len(seen) == 1
