"""Run a prompt once, continue it many ways.

In CAA everything before the last prompt token is the same for every cell of a sweep, and everything before the answer's
letter is the same for both halves of a contrast pair: steering starts, and reading happens, only after it. So a prompt
is run once, its keys and values are kept, and only the few tokens that differ are run for each *branch*, on a copy of
that cache. Every token of a branch is steered with the branch's own edits; no token of a prompt is.

Prompts of different lengths are padded on the left and branches on the right, where causal attention cannot see the
padding. One hook per block serves all rows at once, from a table of which row gets which vector. This is the only
module that knows of caches; `Decoder` continues branches token by token, with a cache or (the slow, obvious path)
without.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caa_lens.adapters import Adapter

TokenIds = Sequence[int]
Edit = tuple[int, Tensor]
"""A layer, and the ``[d_model]`` vector added to its ``hook_resid_post``."""

CACHE_BYTES = 1 << 30
"""The keys and values of one chunk of branches stay under this, so memory does not grow with the number of branches."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation of one prompt.

    Attributes:
        prompt: Index of the prompt it continues.
        tokens: The ids that follow the prompt; at least one.
        edits: What is added, at every one of these tokens.
    """

    prompt: int
    tokens: tuple[int, ...]
    edits: tuple[Edit, ...] = ()


class _EndOfReading(Exception):  # noqa: N818 -- not an error: it leaves the forward pass once the last layer is read
    pass


@dataclass(slots=True)
class _Pass:
    """What the hooks do in the forward pass under way; changed between passes, never by a hook."""

    edits: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict[int, tuple[Tensor, Tensor]])
    start: int = 0
    read: dict[int, int] = field(default_factory=dict[int, int])
    last: Tensor | None = None
    out: Tensor | None = None

    def apply(self, layer: int, resid: Tensor, hook: Any = None) -> Tensor | None:
        edit = self.edits.get(layer)
        if edit is not None:
            rows, delta = (part.to(resid.device) for part in edit)
            resid = resid.clone()
            resid[rows, self.start :] += delta.to(resid.dtype).unsqueeze(1)
        if self.out is not None and self.last is not None and layer in self.read:
            row = torch.arange(len(resid), device=resid.device)
            self.out[:, self.read[layer]] = resid[row, self.last.to(resid.device)].to(self.out)
            if layer == max(self.read):
                raise _EndOfReading
        return resid if edit is not None else None


@contextmanager
def _hooked(adapter: Adapter, layers: Sequence[int]) -> Generator[_Pass]:
    """Put one hook on each block for a whole job (adding hooks can cost more than a small model's forward pass)."""
    state = _Pass()
    hooks = [(adapter.hook_name(layer), partial(state.apply, layer)) for layer in layers]
    with torch.no_grad(), adapter.model.hooks(fwd_hooks=hooks):
        yield state


def left_padded(
    adapter: Adapter, sequences: Sequence[TokenIds]
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Token ids and mask of sequences of different lengths, padded on the left to the longest."""
    width = max(len(ids) for ids in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        if sequence:
            ids[row, width - len(sequence) :] = torch.tensor(list(sequence))
            mask[row, width - len(sequence) :] = 1
    return ids.to(adapter.device), mask.to(adapter.device)


def check_context(adapter: Adapter, lengths: Sequence[int]) -> None:
    """Refuse sequences that the model cannot hold, before anything runs.

    Raises:
        ValueError: With the first such item, its length and the model's.
    """
    for item, length in enumerate(lengths):
        if length > adapter.n_ctx:
            raise ValueError(
                f"item {item} needs {length} tokens and {adapter.name} holds {adapter.n_ctx}: shorten it "
                "or leave it out"
            )


def check_batch_size(batch_size: int | None) -> int | None:
    """Return it, or refuse one below 1 with a ValueError."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, or None to choose it by the prompts' length; got {batch_size}")
    return batch_size


Receive = Callable[[list[int], Tensor], object]
"""Called with the indices of some branches and their results, one row each; together every branch once."""


def branch_logits(
    adapter: Adapter,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branch],
    receive: Receive,
    *,
    batch_size: int | None = None,
) -> None:
    """Logits after the last token of every branch.

    Results are handed over rather than yielded: a generator that is left half way would leave its hooks on the model.

    Args:
        adapter: The model.
        prompts: Token ids of each prompt, without any token that is to be steered; may be empty.
        branches: In any order.
        receive: Gets indices and logits ``[branch, d_vocab]``, float32.
        batch_size: Prompts run at once; None chooses by their length.
    """
    layers = sorted({layer for branch in branches for layer, _ in branch.edits})
    with _hooked(adapter, layers) as state:
        for batch in _batches(adapter, prompts, branches, batch_size):
            for chunk, logits in _chunks(adapter, state, prompts, branches, batch, ()):
                receive(chunk, logits.float())


def branch_residuals(
    adapter: Adapter,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branch],
    layers: Sequence[int],
    receive: Receive,
    *,
    batch_size: int | None = None,
) -> None:
    """``hook_resid_post`` of the given layers at the last token of every branch, ``[branch, layer, d_model]`` float32.

    The pass ends after the highest layer: no final norm, no unembedding. Arguments as in `branch_logits`.
    """
    hooked = sorted(set(layers) | {layer for branch in branches for layer, _ in branch.edits})
    with _hooked(adapter, hooked) as state:
        for batch in _batches(adapter, prompts, branches, batch_size):
            for chunk, residuals in _chunks(adapter, state, prompts, branches, batch, layers):
                receive(chunk, residuals)


def _batches(
    adapter: Adapter, prompts: Sequence[TokenIds], branches: Sequence[Branch], batch_size: int | None
) -> Iterator[dict[int, list[int]]]:
    """Prompts of similar length together, each with the indices of its branches."""
    size_given = check_batch_size(batch_size)
    lengths = [0] * len(prompts)
    for branch in branches:
        lengths[branch.prompt] = max(lengths[branch.prompt], len(prompts[branch.prompt]) + len(branch.tokens))
    check_context(adapter, lengths)
    of_prompt: dict[int, list[int]] = {}
    for index, branch in enumerate(branches):
        of_prompt.setdefault(branch.prompt, []).append(index)
    order = sorted(of_prompt, key=lambda prompt: len(prompts[prompt]), reverse=True)
    while order:
        size = size_given or max(1, min(64, 8192 // max(1, len(prompts[order[0]]))))
        batch, order = order[:size], order[size:]
        yield {prompt: of_prompt[prompt] for prompt in batch}


def _chunks(
    adapter: Adapter,
    state: _Pass,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branch],
    batch: dict[int, list[int]],
    read: Sequence[int],
) -> Iterator[tuple[list[int], Tensor]]:
    """Run one batch of prompts, then their branches in chunks that the cache limit allows."""
    state.edits, state.out = {}, None
    prefix = adapter.prefill(*left_padded(adapter, [prompts[prompt] for prompt in batch]))
    row_of = {prompt: row for row, prompt in enumerate(batch)}
    todo = sorted((index for of_prompt in batch.values() for index in of_prompt), key=lambda i: len(branches[i].tokens))
    width = prefix.mask.shape[1] + len(branches[todo[-1]].tokens)
    rows = max(1, min(512, CACHE_BYTES // (adapter.bytes_per_position * width)))
    for at in range(0, len(todo), rows):
        chunk = todo[at : at + rows]
        members = [branches[index] for index in chunk]
        parents = torch.tensor([row_of[branch.prompt] for branch in members], device=adapter.device)
        ids, last = _right_padded(adapter, [branch.tokens for branch in members])
        state.edits = _edit_table(adapter, [branch.edits for branch in members])
        if not read:
            yield chunk, adapter.extend(adapter.fork(prefix, parents), ids, last)
            continue
        state.read, state.last = {layer: column for column, layer in enumerate(read)}, last
        state.out = torch.empty(len(chunk), len(read), adapter.d_model, device=adapter.device)
        with suppress(_EndOfReading):
            adapter.extend(adapter.fork(prefix, parents), ids, last)
        yield chunk, state.out


def _right_padded(adapter: Adapter, sequences: Sequence[TokenIds]) -> tuple[Tensor, Tensor]:
    width = max(len(tokens) for tokens in sequences)
    ids = torch.tensor([[*tokens, *[tokens[-1]] * (width - len(tokens))] for tokens in sequences])
    last = torch.tensor([len(tokens) - 1 for tokens in sequences])
    return ids.to(adapter.device), last.to(adapter.device)


def _edit_table(adapter: Adapter, edits: Sequence[Sequence[Edit]]) -> dict[int, tuple[Tensor, Tensor]]:
    """Per layer: the rows that are edited, and the sum of what each of them gets, ``[row, d_model]``."""
    summed: dict[int, dict[int, Tensor]] = {}
    for row, of_row in enumerate(edits):
        for layer, delta in of_row:
            at_layer = summed.setdefault(layer, {})
            at_layer[row] = at_layer[row] + delta if row in at_layer else delta
    return {
        layer: (torch.tensor(list(rows), device=adapter.device), torch.stack(list(rows.values())).to(adapter.device))
        for layer, rows in summed.items()
    }


class Decoder:
    """A batch of prompts being continued one token at a time, each row with its own edits.

    The first `step` takes the last prompt token of each row, which is the first that is steered.
    """

    def __init__(self, adapter: Adapter, state: _Pass, prompts: Sequence[TokenIds], use_cache: bool) -> None:
        """Run every prompt but for its last token; use `decoding` rather than this."""
        self._adapter, self._use_cache, self._state = adapter, use_cache, state
        self._ids, self._mask = left_padded(adapter, [ids[:-1] for ids in prompts])
        state.start = 0 if use_cache else self._ids.shape[1]
        edits, state.edits = state.edits, {}
        self._prefix = adapter.prefill(self._ids, self._mask) if use_cache else None
        state.edits = edits

    def step(self, tokens: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_vocab"]:
        """Feed one token to each row and return the logits that follow it, in float32."""
        new = tokens.to(self._adapter.device).unsqueeze(1)
        last = torch.zeros(len(new), dtype=torch.long, device=self._adapter.device)
        if self._prefix is not None:
            return self._adapter.extend(self._prefix, new, last).float()
        self._ids = torch.cat([self._ids, new], dim=1)
        self._mask = torch.cat([self._mask, torch.ones_like(new)], dim=1)
        return self._adapter.forward(self._ids, self._mask, last + self._ids.shape[1] - 1).float()


@contextmanager
def decoding(
    adapter: Adapter, prompts: Sequence[TokenIds], edits: Sequence[Sequence[Edit]], *, use_cache: bool = True
) -> Generator[Decoder]:
    """Hold a batch of prompts open for decoding; the hooks leave with the ``with`` block."""
    layers = sorted({layer for of_row in edits for layer, _ in of_row})
    with _hooked(adapter, layers) as state:
        state.edits = _edit_table(adapter, edits)
        yield Decoder(adapter, state, prompts, use_cache)
