"""One hook per point for a whole job, and what it does changed from pass to pass.

Adding hooks can cost more than a small model's forward pass, so a job adds them once. Each hook looks up what the pass
under way wants of it: an edit, a reading, or nothing. They leave with the job, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caa_lens.engine.edits import Changes, Edit, PromptEdit, changes_of, points_of
from caa_lens.models.adapters import Adapter
from caa_lens.models.sites import Point, place_of, site_hooks


class EndOfReading(Exception):
    """Not an error: it leaves a pass once the highest layer is read, and carries what was read."""

    def __init__(self, residuals: Tensor) -> None:
        """``[branch, layer, d_model]``, float32."""
        super().__init__()
        self.residuals = residuals


class Reading:
    """What one pass reads of the residual stream, one position a branch."""

    def __init__(self, adapter: Adapter, layers: Sequence[int], rows: Tensor, site: str = "resid_post") -> None:
        """Nothing at all where ``layers`` is empty; ``rows`` is each branch's row of the batch."""
        self.layers, self.rows, self.site = {layer: column for column, layer in enumerate(layers)}, rows, site
        self.residuals = torch.empty(len(rows) if layers else 0, len(layers), adapter.d_model, device=adapter.device)

    def read(self, layer: int, resid: Tensor, positions: Tensor) -> None:
        """Keep this layer's activation at each branch's position, and leave the pass after the highest layer."""
        if layer in self.layers:
            values = resid[self.rows.to(resid.device), positions.to(resid.device)]
            self.residuals[:, self.layers[layer]] = values.to(self.residuals)
            if layer == max(self.layers):
                raise EndOfReading(self.residuals)


@dataclass(slots=True)
class Hooks:
    """What the hooks of a job do now; set between passes, never by a hook.

    Attributes:
        at: Given a point and its ``[batch, pos, d_model]`` activations, returns the new ones, or None to leave them.
        before: Given a layer, the arguments that its block was called with; returns those it is to be called with.
    """

    at: Callable[[Point, Tensor], Tensor | None] | None = None
    before: Callable[[int, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None

    def at_point(self, point: Point, activations: Tensor) -> Tensor | None:
        """The hook on a point's activations."""
        return self.at(point, activations) if self.at is not None else None

    def before_block(self, layer: int, module: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The hook on a block's input."""
        return self.before(layer, args, keywords) if self.before is not None else None


@contextmanager
def hooked(adapter: Adapter, points: Iterable[Point]) -> Generator[Hooks]:
    """Hold hooks on these points, and on the inputs of all blocks, without gradients."""
    hooks = Hooks()
    outputs = [
        hook
        for point in sorted(set(points), key=place_of)
        for hook in site_hooks(adapter, point, partial(hooks.at_point, point))
    ]
    with torch.no_grad(), adapter.model.hooks(fwd_hooks=outputs):
        handles = [
            block.register_forward_pre_hook(partial(hooks.before_block, layer), with_kwargs=True)
            for layer, block in enumerate(adapter.blocks)
        ]
        try:
            yield hooks
        finally:
            for handle in handles:
                handle.remove()


class DeltaTable:
    """Sums of edits, each kept once however many branches share it."""

    def __init__(self, adapter: Adapter) -> None:
        """Row 0 adds nothing."""
        self._adapter = adapter
        self._rows: dict[tuple[int, ...], int] = {(): 0}
        self._sums = [torch.zeros(adapter.d_model)]

    def row(self, deltas: Sequence[Tensor]) -> int:
        """The row that adds these vectors together; the caller keeps them alive until the table is stacked."""
        key = tuple(id(delta) for delta in deltas)
        if key not in self._rows:
            self._rows[key] = len(self._sums)
            self._sums.append(torch.stack([delta.float().cpu() for delta in deltas]).sum(dim=0))
        return self._rows[key]

    def stacked(self) -> Tensor:
        """``[row, d_model]``, on the model's device and in its dtype."""
        return torch.stack(self._sums).to(self._adapter.device, self._adapter.dtype)


class RowPass:
    """A pass whose every row is one branch: its edits hold at all its positions from ``start`` on.

    Attributes:
        start: The column of the first steered token, or one for each row.
        offset: The column of the pass's first position: a step of decoding with a cache is far down the row.
    """

    def __init__(
        self,
        adapter: Adapter,
        edits: Sequence[Sequence[Edit]],
        reading: Reading | None = None,
        last: Tensor | None = None,
        start: int | Tensor = 0,
        additions: Sequence[Sequence[PromptEdit]] = (),
        offset: int = 0,
    ) -> None:
        """``last`` is the position of each row that is read; ``additions`` are those of each row's prompt."""
        self.start, self.offset, self._reading, self._last = start, offset, reading, last
        self._deltas: dict[Point, Tensor] = {}
        self._changes: dict[Point, list[Changes]] = {}
        for point in points_of(edits):
            here = [[edit for edit in of_row if edit.point == point] for of_row in edits]
            if all(edit.is_constant for of_row in here for edit in of_row):
                table = DeltaTable(adapter)
                rows = [table.row([edit.vector for edit in of_row]) for of_row in here]
                self._deltas[point] = table.stacked()[rows].unsqueeze(1)
            else:
                self._changes[point] = changes_of(here, adapter.device)
        self._additions: dict[Point, list[tuple[int, PromptEdit]]] = {}
        for row, of_row in enumerate(additions):
            for addition in of_row:
                self._additions.setdefault(addition.point, []).append((row, addition))

    def at(self, point: Point, activations: Tensor) -> Tensor | None:
        """Edit and read one point."""
        edited = None
        if point in self._additions:
            edited = _added(self._additions[point], activations, self.offset)
        if point in self._deltas:
            edited = self._with_delta(self._deltas[point], activations if edited is None else edited)
        elif point in self._changes:
            edited = activations if edited is None else edited
            for change in self._changes[point]:
                edited = change(edited, self._steered(edited))
        if self._reading is not None and self._last is not None and point[1] == self._reading.site:
            self._reading.read(point[0], activations if edited is None else edited, self._last)
        return edited

    def _with_delta(self, delta: Tensor, activations: Tensor) -> Tensor:
        delta = delta.to(activations)
        if isinstance(self.start, Tensor):
            steered = (self._steered(activations) >= 0).unsqueeze(2)
            return torch.where(steered, activations + delta, activations)
        start = self.start - self.offset
        if start <= 0:
            return activations + delta
        return torch.cat([activations[:, :start], activations[:, start:] + delta], dim=1)

    def _steered(self, activations: Tensor) -> Tensor:
        """The number of each position among the steered ones, ``[row or 1, pos]``; below 0 for those before."""
        columns = torch.arange(self.offset, self.offset + activations.shape[1], device=activations.device)
        return columns - torch.as_tensor(self.start, device=activations.device).reshape(-1, 1)


def _added(additions: Sequence[tuple[int, PromptEdit]], activations: Tensor, offset: int) -> Tensor | None:
    """The activations with what is added to these rows; None where this pass has none of the positions."""
    edited = None
    for row, addition in additions:
        first = max(0, addition.column - offset)
        after = min(activations.shape[1], addition.column + len(addition.values) - offset)
        if first < after:
            edited = activations.clone() if edited is None else edited
            skipped = first + offset - addition.column
            edited[row, first:after] += addition.values[skipped : skipped + after - first].to(edited)
    return edited
