"""One hook per block for a whole job, and what it does changed from pass to pass.

Adding hooks can cost more than a small model's forward pass, so a sweep adds them once. Each hook looks up what the
pass under way wants of it: an edit, a reading, or nothing. They leave with the job, also after an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from caa_lens.adapters import Adapter

Edit = tuple[int, Tensor]
"""A layer, and the ``[d_model]`` vector added to its ``hook_resid_post``."""


class EndOfReading(Exception):
    """Not an error: it leaves a pass once the highest layer is read, and carries what was read."""

    def __init__(self, residuals: Tensor) -> None:
        """``[branch, layer, d_model]``, float32."""
        super().__init__()
        self.residuals = residuals


class Reading:
    """What one pass reads of the residual stream, one position a branch."""

    def __init__(self, adapter: Adapter, layers: Sequence[int], rows: Tensor) -> None:
        """Nothing at all where ``layers`` is empty; ``rows`` is each branch's row of the batch."""
        self.layers, self.rows = {layer: column for column, layer in enumerate(layers)}, rows
        self.residuals = torch.empty(len(rows) if layers else 0, len(layers), adapter.d_model, device=adapter.device)

    def read(self, layer: int, resid: Tensor, positions: Tensor) -> None:
        """Keep this layer's stream at each branch's position, and leave the pass after the highest layer."""
        if layer in self.layers:
            values = resid[self.rows.to(resid.device), positions.to(resid.device)]
            self.residuals[:, self.layers[layer]] = values.to(self.residuals)
            if layer == max(self.layers):
                raise EndOfReading(self.residuals)


@dataclass(slots=True)
class Hooks:
    """What the hooks of a job do now; set between passes, never by a hook.

    Attributes:
        at: Given a layer and its ``[batch, pos, d_model]`` residual stream, returns the new one, or None to leave it.
        before: Given a layer, the arguments that its block was called with; returns those it is to be called with.
    """

    at: Callable[[int, Tensor], Tensor | None] | None = None
    before: Callable[[int, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]] | None = None

    def after_block(self, layer: int, resid: Tensor, hook: Any = None) -> Tensor | None:
        """The hook on a block's output."""
        return self.at(layer, resid) if self.at is not None else None

    def before_block(self, layer: int, module: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The hook on a block's input."""
        return self.before(layer, args, keywords) if self.before is not None else None


@contextmanager
def hooked(adapter: Adapter, layers: Sequence[int]) -> Generator[Hooks]:
    """Hold hooks on the outputs of these layers, and on the inputs of all blocks, without gradients."""
    hooks = Hooks()
    outputs = [(adapter.hook_name(layer), partial(hooks.after_block, layer)) for layer in layers]
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
    """A pass whose every row is one branch: its edits hold at all its positions from ``start`` on."""

    def __init__(
        self,
        adapter: Adapter,
        edits: Sequence[Sequence[Edit]],
        reading: Reading | None = None,
        last: Tensor | None = None,
        start: int = 0,
    ) -> None:
        """``last`` is the position of each row that is read."""
        self.start, self._reading, self._last = start, reading, last
        self._deltas: dict[int, Tensor] = {}
        for layer in sorted({layer for of_row in edits for layer, _ in of_row}):
            table = DeltaTable(adapter)
            rows = [table.row([delta for at, delta in of_row if at == layer]) for of_row in edits]
            self._deltas[layer] = table.stacked()[rows].unsqueeze(1)

    def at(self, layer: int, resid: Tensor) -> Tensor | None:
        """Edit and read one layer."""
        edited = None
        if layer in self._deltas:
            delta = self._deltas[layer].to(resid)
            if self.start:
                edited = torch.cat([resid[:, : self.start], resid[:, self.start :] + delta], dim=1)
            else:
                edited = resid + delta
        if self._reading is not None and self._last is not None:
            self._reading.read(layer, resid if edited is None else edited, self._last)
        return edited
