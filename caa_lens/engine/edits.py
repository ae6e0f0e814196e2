"""What the engine does to activations: a recipe, checked against a model and taken apart.

An `Edit` holds for the steered tokens of one row, a `PromptEdit` for places in its prompt. Most edits are *plain*, a
vector added to a block's output, and those are what `caa_lens.engine.packing` can lay out in one row; the others run
one row a branch. What several rows do at one point is gathered by operation, so that it costs one call and not one a
row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caa_lens.interventions.interventions import Condition
from caa_lens.interventions.operations import Add, Operation
from caa_lens.interventions.schedules import Schedule, factor
from caa_lens.models.sites import Point, place_of


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One thing that is done to a row's steered tokens.

    Attributes:
        layer: The block.
        vector: ``[d_model]``. Where it is added and there is no schedule, the multiplier is in it already.
        site: Where in the block.
        operation: What is done with the vector.
        multiplier: How much of it.
        schedule: How much at the k-th steered token.
        when: On which prompts; who takes conditional edits settles them before a row is run.
    """

    layer: int
    vector: Tensor
    site: str = "resid_post"
    operation: Operation = Add()
    multiplier: float = 1.0
    schedule: Schedule | None = None
    when: Condition | None = None

    @property
    def point(self) -> Point:
        """Layer and site."""
        return self.layer, self.site

    @property
    def is_constant(self) -> bool:
        """Whether it is the vector, added to every steered token."""
        return self.schedule is None and isinstance(self.operation, Add)

    @property
    def is_plain(self) -> bool:
        """Whether it is the vector, added to every steered token at the block's output."""
        return self.is_constant and self.site == "resid_post"


@dataclass(frozen=True, slots=True, eq=False)
class PromptEdit:
    """Values ``[pos, d_model]`` that are added at ``hook_resid_pre`` from a column of the row on."""

    layer: int
    column: int
    values: Tensor

    @property
    def point(self) -> Point:
        """Layer and site."""
        return self.layer, "resid_pre"


def points_of(edits: Iterable[Iterable[Edit | PromptEdit]]) -> list[Point]:
    """The points of all rows' edits, in the order in which a pass comes to them."""
    return sorted({edit.point for of_row in edits for edit in of_row}, key=place_of)


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """One operation on some rows, each with its own vector, multiplier and schedule.

    Attributes:
        operation: What is done.
        rows: Which rows ``[n]``; None for all, alike.
        vectors: ``[n, 1, d_model]``.
        multipliers: ``[n, 1]``.
        schedules: One for each; empty where there are none.
    """

    operation: Operation
    rows: Tensor | None
    vectors: Tensor
    multipliers: Tensor
    schedules: tuple[Schedule | None, ...]

    def __call__(self, activations: Tensor, steered: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The activations ``[row, pos, d_model]`` afterwards.

        Args:
            activations: Of the whole batch.
            steered: The number of each position among its row's steered ones, below 0 where it is not steered,
                ``[row or 1, pos]``.
            allowed: Rows that are steered at all.
        """
        device, number = activations.device, steered.expand(len(activations), -1)
        if allowed is not None:
            number = torch.where(allowed.to(device).unsqueeze(1), number, -1)
        rows = None if self.rows is None else self.rows.to(device)
        if rows is not None:
            number = number[rows]
        amount = (self.multipliers.to(device) * self._factors(number)).unsqueeze(2)
        amount = torch.where(number.unsqueeze(2) < 0, 0.0, amount)
        vectors = self.vectors.to(device)
        if rows is None:
            return self.operation(activations, vectors, amount)
        changed = activations.clone()
        changed[rows] = self.operation(activations[rows], vectors, amount)
        return changed

    def _factors(self, number: Tensor) -> Tensor | float:
        if not self.schedules:
            return 1.0
        most = int(number.max()) + 1
        tables = [[factor(schedule, k) for k in range(most)] or [0.0] for schedule in self.schedules]
        return torch.tensor(tables, device=number.device).expand(len(number), -1).gather(1, number.clamp(min=0))


def changes_of(edits: Sequence[Sequence[Edit]], device: torch.device, *, alike: bool = False) -> list[Changes]:
    """What rows do at one point, their first edits, their second ones, and so on; each kind of operation together.

    Where ``alike``, there is one row's list of edits, and it is all rows'.
    """
    found: list[Changes] = []
    for place in range(max(map(len, edits), default=0)):
        by_operation: dict[Operation, list[tuple[int, Edit]]] = {}
        for row, of_row in enumerate(edits):
            if place < len(of_row):
                by_operation.setdefault(of_row[place].operation, []).append((row, of_row[place]))
        for operation, members in by_operation.items():
            each = [edit for _, edit in members]
            scheduled = any(edit.schedule is not None for edit in each)
            found.append(
                Changes(
                    operation=operation,
                    rows=None if alike else torch.tensor([row for row, _ in members], device=device),
                    vectors=torch.stack([edit.vector.float() for edit in each]).unsqueeze(1).to(device),
                    multipliers=torch.tensor([[edit.multiplier] for edit in each], device=device),
                    schedules=tuple(edit.schedule for edit in each) if scheduled else (),
                )
            )
    return found
