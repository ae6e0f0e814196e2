"""Run a prompt once, continue it many ways.

In CAA everything before the last prompt token is the same for every cell of a sweep, and everything before the answer's
letter is the same for both halves of a contrast pair: steering starts, and reading happens, only after it. So a prompt
is run once, its keys and values (its KV cache) are kept, and only the few tokens that differ are run for each *branch*.
Every token of a branch is steered with the branch's own edits; no token of a prompt is.

There are two ways to run branches. Where the model takes a mask of our own, they are *packed*: one row a prompt, the
branches behind one another, none seeing another (`caa_lens.engine.packing`). Elsewhere they are *forked*: one row a
branch, on a copy of the prompt's keys and values. Prompts of different lengths are padded on the left and branches on
the right, where causal attention cannot see the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from caa_lens.engine.edits import points_of
from caa_lens.engine.hooking import EndOfReading, Hooks, Reading, RowPass, hooked
from caa_lens.engine.memory import (
    fork_bytes,
    logits_at_once,
    most_tokens,
    prompt_bytes,
    release_freed_memory,
    working_bytes,
)
from caa_lens.engine.packing import Branch, pack
from caa_lens.models.adapters import Adapter, Prefix, TokenIds, left_padded, right_padded

PACKED_TOKENS = 256
"""Branches of one prompt are packed up to so many tokens: each looks at all of them, seen or not."""

INLINE_TOKENS = 16
"""Up to so many tokens of branches are run in one pass with their prompt: a pass of their own would cost more."""

RELEASE_EVERY = 8
"""Batches between two times that freed memory is handed back: pages that are used again at once cost time."""


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
        receive: Gets indices and logits ``[branch, d_vocab]``, in the model's dtype.
        batch_size: Prompts run at once; None chooses by their length and the free memory.
    """
    with hooked(adapter, points_of(branch.edits for branch in branches)) as hooks:
        run = _Run(adapter, hooks, prompts, branches, ())
        for batch in _batches(adapter, prompts, branches, batch_size, alike=True):
            for chunk, logits in run.chunks(batch):
                receive(chunk, logits)


def branch_answers(
    adapter: Adapter,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branch],
    answers: Tensor,
    *,
    likeliest: bool = False,
    batch_size: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Tensor, Tensor]:
    """How likely each of a prompt's two answers is after every branch.

    Args:
        adapter: The model.
        prompts: As for `branch_logits`.
        branches: As for `branch_logits`.
        answers: Token ids ``[prompt, 2]``.
        likeliest: Whether to look which token is the likeliest, which takes another pass over the logits.
        batch_size: As for `branch_logits`.
        progress: Told how many branches are done since the last time.

    Returns:
        Natural log-probabilities ``[branch, 2]`` over the whole vocabulary, float64 on the CPU, as they come out: where
        logits overflow, they are not finite. And ``[branch]``, whether the likeliest token is neither answer's; False
        where nobody asked.
    """
    of_branch = torch.tensor([branch.prompt for branch in branches], dtype=torch.long)
    logp = torch.empty(len(branches), 2, dtype=torch.float64)
    neither = torch.zeros(len(branches), dtype=torch.bool)

    def receive(chunk: list[int], logits: Tensor) -> None:
        rows = torch.tensor(chunk)
        wanted = answers[of_branch[rows]].to(logits.device)
        for part, own, ids in zip(rows.split(256), logits.split(256), wanted.split(256), strict=True):
            own = own.float()  # a part at a time: a copy of all logits would take more memory than the model
            logp[part] = (own.gather(1, ids) - own.logsumexp(dim=-1, keepdim=True)).double().cpu()
            if likeliest:
                neither[part] = (own.argmax(dim=-1, keepdim=True) != ids).all(dim=1).cpu()
        progress(len(chunk))

    branch_logits(adapter, prompts, branches, receive, batch_size=batch_size)
    return logp, neither


def branch_residuals(
    adapter: Adapter,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branch],
    layers: Sequence[int],
    receive: Receive,
    *,
    site: str = "resid_post",
    batch_size: int | None = None,
) -> None:
    """A site of the given layers at the last token of every branch, ``[branch, layer, d_model]`` float32.

    The pass ends after the highest layer: no final norm, no unembedding. Arguments as in `branch_logits`.
    """
    points = {(layer, site) for layer in layers}.union(points_of(branch.edits for branch in branches))
    with hooked(adapter, points) as hooks:
        run = _Run(adapter, hooks, prompts, branches, layers, site)
        for batch in _batches(adapter, prompts, branches, batch_size, alike=False):
            for chunk, residuals in run.chunks(batch):
                receive(chunk, residuals)


def _batches(
    adapter: Adapter,
    prompts: Sequence[TokenIds],
    branches: Sequence[Branch],
    batch_size: int | None,
    *,
    alike: bool,
) -> Iterator[dict[int, list[int]]]:
    """Prompts of similar length together, each with the indices of its branches.

    Where ``alike``, the branches of a batch are equally long: logits are made for the same columns of every row.
    """
    size_given = check_batch_size(batch_size)
    longest, n_new = [0] * len(prompts), [0] * len(prompts)
    of_prompt: dict[int, list[int]] = {}
    for index, branch in enumerate(branches):
        of_prompt.setdefault(branch.prompt, []).append(index)
        n_new[branch.prompt] += len(branch.tokens)
        longest[branch.prompt] = max(longest[branch.prompt], len(branch.tokens))
    check_context(adapter, [len(ids) + new if new else 0 for ids, new in zip(prompts, longest, strict=True)])
    room, n_batches = working_bytes(adapter.device), 0
    for width in sorted({longest[prompt] for prompt in of_prompt}) if alike else [None]:
        order = [prompt for prompt in of_prompt if width in (None, longest[prompt])]
        order.sort(key=lambda prompt: len(prompts[prompt]), reverse=True)
        most_new = min(PACKED_TOKENS, max((n_new[prompt] for prompt in order), default=0))
        while order:
            n_prompt = len(prompts[order[0]])
            fitting = room // prompt_bytes(adapter, n_prompt, most_new)
            size = size_given or max(1, min(most_tokens(adapter.device) // max(1, n_prompt), fitting))
            batch, order = order[:size], order[size:]
            yield {prompt: of_prompt[prompt] for prompt in batch}
            n_batches += 1
            if n_batches % RELEASE_EVERY == 0:
                release_freed_memory(adapter.device)


class _Run:
    """A job's branches, run batch by batch: packed where the model can and all edits are plain, else forked."""

    def __init__(
        self,
        adapter: Adapter,
        hooks: Hooks,
        prompts: Sequence[TokenIds],
        branches: Sequence[Branch],
        read: Sequence[int],
        site: str = "resid_post",
    ) -> None:
        self._adapter, self._hooks, self._prompts, self._branches = adapter, hooks, prompts, branches
        self._read, self._site = read, site
        self._plain = all(edit.is_plain for branch in branches for edit in branch.edits)

    def chunks(self, batch: dict[int, list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Run one batch of prompts and their branches."""
        adapter, hooks, branches, read = self._adapter, self._hooks, self._branches, self._read
        hooks.at = hooks.before = None
        ids, mask = left_padded(adapter, [self._prompts[prompt] for prompt in batch])
        longest = mask.shape[1] + max(len(branches[index].tokens) for mine in batch.values() for index in mine)
        if not (self._plain and adapter.packs(longest)):
            yield from self._forked(adapter.prefill(ids, mask), batch)
            return
        most_branches = PACKED_TOKENS  # more than fit where no logits are made
        if not read:
            most_branches = max(1, logits_at_once(adapter) // len(batch))
        chunks = list(_columns(branches, batch, PACKED_TOKENS, most_branches))
        most_new = max(sum(len(branches[index].tokens) for index in mine) for mine in batch.values())
        inline = len(chunks) == 1 and most_new <= INLINE_TOKENS
        prompt = Prefix(mask, None) if inline else adapter.prefill(ids, mask)
        for chunk in chunks:
            indices = [index for mine in chunk for index in mine]
            rows = [row for row, mine in enumerate(chunk) for _ in mine]
            members = [branches[index] for index in indices]
            job = pack(adapter, prompt, members, rows, read, ids if inline else None, self._site)
            hooks.at, hooks.before = job.at, job.before
            try:
                result = job.of_branches(adapter.extend_packed(prompt, job.ids, job.mask, job.positions, job.keep))
            except EndOfReading as end:
                result = end.residuals
            yield indices, result

    def _forked(self, prefix: Prefix, batch: dict[int, list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """One row a branch, each on a copy of its prompt's keys and values."""
        adapter, hooks, branches = self._adapter, self._hooks, self._branches
        row_of = {prompt: row for row, prompt in enumerate(batch)}
        todo = [index for of_prompt in batch.values() for index in of_prompt]
        todo.sort(key=lambda index: len(branches[index].tokens))
        width = prefix.mask.shape[1] + len(branches[todo[-1]].tokens)
        rows = max(1, min(512, working_bytes(adapter.device) // fork_bytes(adapter, width)))
        for at in range(0, len(todo), rows):
            chunk = todo[at : at + rows]
            members = [branches[index] for index in chunk]
            parents = torch.tensor([row_of[branch.prompt] for branch in members], device=adapter.device)
            ids = right_padded(adapter, [branch.tokens for branch in members])
            last = torch.tensor([len(branch.tokens) - 1 for branch in members], device=adapter.device)
            reading = Reading(adapter, self._read, torch.arange(len(chunk), device=adapter.device), self._site)
            hooks.at, hooks.before = RowPass(adapter, [branch.edits for branch in members], reading, last).at, None
            try:
                result = adapter.extend(adapter.fork(prefix, parents), ids, last)
            except EndOfReading as end:
                result = end.residuals
            yield chunk, result


def _columns(
    branches: Sequence[Branch], batch: dict[int, list[int]], most_tokens: int, most_branches: int
) -> Iterator[list[list[int]]]:
    """For some branches at a time, their indices by row; low layers first, so that what starts high is together."""
    left = [sorted(mine, key=lambda index: branches[index].start) for mine in batch.values()]
    while any(left):
        chunk: list[list[int]] = []
        for row, mine in enumerate(left):
            n_tokens = n_branches = 0
            while n_branches < min(len(mine), most_branches):
                n_tokens += len(branches[mine[n_branches]].tokens)
                if n_branches and n_tokens > most_tokens:
                    break
                n_branches += 1
            chunk.append(mine[:n_branches])
            left[row] = mine[n_branches:]
        yield chunk
