"""Many branches of a prompt as one row of tokens, each of them starting at its own layer.

After a prompt come the tokens of all its branches, one branch behind the other. An additive block-diagonal (tree)
attention mask lets each token see the prompt and its own branch, and explicit positions let each branch begin right
after the prompt, so the row gives what separate forward passes would, and the prompt's KV cache is never copied per
branch.

Below the layer it is first edited at, a branch is no different from the unedited one with the same tokens. So only
unedited tokens enter the model; a branch's tokens are put behind the others, edited, when the block it starts at is
done. Cells spread evenly over the layers then cost half. Blocks are handed the part of the mask and of the positions
that belongs to the tokens they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from caa_lens.engine.edits import Edit
from caa_lens.engine.hooking import DeltaTable, Reading
from caa_lens.models.adapters import Adapter, Prefix
from caa_lens.models.sites import Point


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

    @property
    def start(self) -> int:
        """The lowest layer that is edited; -1 where none is."""
        return min((edit.layer for edit in self.edits), default=-1)


@dataclass(slots=True)
class _Group:
    """The tokens that join the row after one block: where they are copied from, and what is added to them."""

    source: Tensor
    delta: Tensor
    table: Tensor

    def tokens(self, resid: Tensor) -> Tensor:
        """``[row, new, d_model]``."""
        source = self.source.to(resid.device).unsqueeze(-1).expand(-1, -1, resid.shape[-1])
        return resid.gather(1, source) + self.table.to(resid)[self.delta.to(resid.device)]


@dataclass(slots=True)
class PackedPass:
    """One forward pass over packed rows: its inputs, and what its hooks do.

    Attributes:
        ids: ``[row, column]``.
        mask: Additive, ``[row, 1, column, prompt + column]``.
        positions: ``[row, column]``.
        keep: The columns with the last token of some branch; on the CPU, from where they index any device.
        rows: The row of each branch.
        kept: Each branch's place in ``keep``.
        widths: How many columns have joined before each block.
        starts: The layer each branch is first edited at; -1 for an unedited one.
        own_column: Where each branch's last token is, once it has joined.
        base_column: Where the same token of the unedited branch is.
        reading: What is read.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    keep: Tensor
    rows: Tensor
    kept: Tensor
    widths: list[int]
    groups: dict[int, _Group]
    later: dict[int, tuple[Tensor, Tensor, Tensor]]
    starts: Tensor
    own_column: Tensor
    base_column: Tensor
    reading: Reading

    def at(self, point: Point, resid: Tensor) -> Tensor | None:
        """Edit what is there, read, and let the branches that start here join: all edits are of block outputs."""
        layer, site = point
        if site != "resid_post":
            if layer in self.reading.layers and site == self.reading.site:
                self.reading.read(layer, resid, torch.where(self.starts < layer, self.own_column, self.base_column))
            return None
        changed = False
        if layer in self.later:
            rows, columns, deltas = (part.to(resid.device) for part in self.later[layer])
            resid = resid.index_put((rows, columns), deltas.to(resid), accumulate=True)
            changed = True
        if layer in self.groups:
            resid = torch.cat([resid, self.groups[layer].tokens(resid)], dim=1)
            changed = True
        if layer in self.reading.layers and site == self.reading.site:
            self.reading.read(layer, resid, torch.where(self.starts <= layer, self.own_column, self.base_column))
        return resid if changed else None

    def before(
        self, layer: int, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hand a block the part of its arguments that belongs to the columns that have joined."""
        width, total, keys = self.widths[layer], self.ids.shape[1], self.mask.shape[-1]
        if width == total:
            return args, keywords

        def cut(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(cut(part) for part in value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
            if not isinstance(value, Tensor):
                return value
            if value.ndim == 4 and value.shape[-2:] == (total, keys):
                return value[:, :, :width, : keys - total + width]
            if value.ndim in (2, 3) and value.shape[1] == total:
                return value[:, :width]
            return value

        return cut(args), {name: cut(value) for name, value in keywords.items()}

    def of_branches(self, logits: Tensor) -> Tensor:
        """``[branch, d_vocab]`` from ``[row, kept, d_vocab]``; not a copy where rows are alike and in order."""
        flat, wanted = logits.flatten(0, 1), self.rows.to(logits.device) * logits.shape[1] + self.kept.to(logits.device)
        in_order = len(wanted) == len(flat) and bool((wanted == torch.arange(len(flat), device=flat.device)).all())
        return flat if in_order else flat[wanted]


def pack(
    adapter: Adapter,
    prompt: Prefix,
    members: Sequence[Branch],
    rows: Sequence[int],
    read: Sequence[int],
    prompt_ids: Int[Tensor, "row pos"] | None = None,
    site: str = "resid_post",
) -> PackedPass:
    """Lay out one pass.

    Args:
        adapter: The model.
        prompt: The prompts' mask, and their cache where they have been run.
        members: The branches, all of whose edits are plain.
        rows: The row of each branch's prompt.
        read: The layers that are read, at each branch's last token; the pass ends after the highest.
        prompt_ids: The prompts' tokens where they are to be run in this same pass, in front of the branches.
        site: Where in the block is read.
    """
    n_rows, n_prompt = prompt.mask.shape
    starts = [branch.start for branch in members]
    slots, width_of = _slots(members, rows, starts)
    first_column = 0 if prompt_ids is None else n_prompt
    begin, n_new = {}, 0
    for start in sorted(width_of):
        begin[start], n_new = first_column + n_new, n_new + width_of[start]

    shape = (n_rows, n_new)
    ids, owner, offset = np.zeros(shape, np.int64), np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    for number, (row, start, at, tokens) in enumerate(slots.places):
        first = begin[start] - first_column + at
        columns = slice(first, first + len(tokens))
        ids[row, columns], owner[row, columns], offset[row, columns] = tokens, number, range(len(tokens))
    last = [len(branch.tokens) - 1 for branch in members]
    own = [begin[start] + at + end for start, at, end in zip(starts, slots.own, last, strict=True)]
    base = [first_column + at + end for at, end in zip(slots.base, last, strict=True)]
    groups, later = _edits(adapter, members, rows, slots, begin, width_of, n_rows)
    keep, kept = np.unique(own, return_inverse=True)

    device = adapter.device
    new_ids, positions = torch.from_numpy(ids).to(device), torch.from_numpy(offset).to(device)
    positions += prompt.mask.sum(dim=1, keepdim=True)
    seen = _seen(torch.from_numpy(owner).to(device), prompt.mask, with_prompt=prompt_ids is not None)
    if prompt_ids is not None:
        new_ids = torch.cat([prompt_ids, new_ids], dim=1)
        positions = torch.cat([(prompt.mask.cumsum(dim=1) - 1).clamp(min=0), positions], dim=1)
    mask = torch.zeros(seen.shape, device=device, dtype=adapter.dtype)
    mask.masked_fill_(~seen, torch.finfo(adapter.dtype).min)
    at_rows = torch.tensor(rows, device=device)
    return PackedPass(
        ids=new_ids,
        mask=mask.unsqueeze(1),
        positions=positions,
        keep=torch.from_numpy(keep),
        rows=at_rows,
        kept=torch.from_numpy(kept),
        widths=[
            first_column + sum(width for start, width in width_of.items() if start < layer)
            for layer in range(adapter.n_layers)
        ],
        groups=groups,
        later=later,
        starts=torch.tensor(starts, device=device),
        own_column=torch.tensor(own, device=device),
        base_column=torch.tensor(base, device=device),
        reading=Reading(adapter, read, at_rows, site),
    )


def _seen(
    owner: Int[Tensor, "row new"], prompt_mask: Int[Tensor, "row pos"], *, with_prompt: bool
) -> Bool[Tensor, "row query key"]:
    """What each token sees: the prompt, and what comes before it in its own branch."""
    prompt = prompt_mask.bool().unsqueeze(1)
    own = (owner.unsqueeze(2) == owner.unsqueeze(1)).tril()
    seen = torch.cat([prompt.expand(-1, owner.shape[1], -1), own], dim=2)
    if not with_prompt:
        return seen
    # Padding sees itself: a row that saw nothing would be NaN where the mask's minimum overflows to minus infinity.
    n_prompt = prompt.shape[2]
    causal = prompt.expand(-1, n_prompt, -1).tril() | torch.eye(n_prompt, dtype=torch.bool, device=prompt.device)
    return torch.cat([torch.cat([causal, causal.new_zeros(*causal.shape[:2], owner.shape[1])], dim=2), seen], dim=1)


@dataclass(slots=True)
class _Slots:
    """Where tokens go: ``(row, start, place in the group, tokens)``, and each branch's own and unedited place."""

    places: list[tuple[int, int, int, tuple[int, ...]]]
    own: list[int]
    base: list[int]


def _slots(members: Sequence[Branch], rows: Sequence[int], starts: Sequence[int]) -> tuple[_Slots, dict[int, int]]:
    """Give each branch a place in its group; unedited tokens are shared by the branches of a row that have them."""
    slots = _Slots([], [], [])
    used: dict[tuple[int, int], int] = {}
    base_of: dict[tuple[int, tuple[int, ...]], int] = {}

    def place(row: int, start: int, tokens: tuple[int, ...]) -> int:
        at = used.get((row, start), 0)
        used[row, start] = at + len(tokens)
        slots.places.append((row, start, at, tokens))
        return at

    for branch, row, start in zip(members, rows, starts, strict=True):
        key = (row, branch.tokens)
        if key not in base_of:
            base_of[key] = place(row, -1, branch.tokens)
        slots.base.append(base_of[key])
        slots.own.append(base_of[key] if start < 0 else place(row, start, branch.tokens))
    widths: dict[int, int] = {}
    for (_, start), used_by_row in used.items():
        widths[start] = max(widths.get(start, 0), used_by_row)
    return slots, widths


def _edits(
    adapter: Adapter,
    members: Sequence[Branch],
    rows: Sequence[int],
    slots: _Slots,
    begin: dict[int, int],
    widths: dict[int, int],
    n_rows: int,
) -> tuple[dict[int, _Group], dict[int, tuple[Tensor, Tensor, Tensor]]]:
    """What joins after each block, and what is added, further up, to columns that have joined already."""
    tables: dict[int, DeltaTable] = {}
    source = {start: np.zeros((n_rows, width), dtype=np.int64) for start, width in widths.items() if start >= 0}
    delta = {start: np.zeros_like(columns) for start, columns in source.items()}
    further: dict[int, list[tuple[int, int, int]]] = {}
    for branch, row, base, own in zip(members, rows, slots.base, slots.own, strict=True):
        for layer in dict.fromkeys(edit.layer for edit in branch.edits):
            table = tables.setdefault(layer, DeltaTable(adapter))
            which = table.row([edit.vector for edit in branch.edits if edit.layer == layer])
            if layer == branch.start:
                columns = slice(own, own + len(branch.tokens))
                source[layer][row, columns] = np.arange(begin[-1] + base, begin[-1] + base + len(branch.tokens))
                delta[layer][row, columns] = which
            else:
                first = begin[branch.start] + own
                further.setdefault(layer, []).extend((row, first + i, which) for i in range(len(branch.tokens)))
    groups = {
        start: _Group(torch.from_numpy(source[start]), torch.from_numpy(delta[start]), tables[start].stacked())
        for start in source
    }
    later: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    for layer, entries in further.items():
        at_row, at_column, which = torch.tensor(entries).unbind(dim=1)
        later[layer] = (at_row, at_column, tables[layer].stacked()[which.to(adapter.device)])
    return groups, later
