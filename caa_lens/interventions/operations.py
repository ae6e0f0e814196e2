"""What can be done to an activation with a direction: five small functions, and a value that names each.

CAA adds its vector. Other questions need other operations: without the direction at all (*ablate*), with a given amount
of it (*set the projection*), with no more and no less than this (*clamp*), or turned towards it at the same length
(*rotate*). All are functions of plain tensors; only the direction of the vector matters to the last four, and
*projection* is the dot product with the vector at unit length, in units of the activations.

One law holds for all: the multiplier is how much of the operation is done. 0 leaves the activations bit for bit as they
are, 1 is the whole operation, and what is between is on the way. Half precision is widened to float32 for the
computation, so that what is left of an ablated direction is the rounding of the result and nothing more.

>>> import torch
>>> east = torch.tensor([1.0, 0.0])
>>> ablate(torch.tensor([3.0, 4.0]), east), clamp(torch.tensor([3.0, 4.0]), east, high=1.0)
(tensor([0., 4.]), tensor([1., 4.]))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.files.messages import brief

Amount = float | Tensor
"""How much of an operation is done: a number, or a tensor ``[..., 1]`` with one for each activation."""


def add(
    activations: Float[Tensor, "*batch d_model"], vector: Float[Tensor, "*#batch d_model"], multiplier: Amount = 1.0
) -> Float[Tensor, "*batch d_model"]:
    """``activations + multiplier * vector``, CAA's (section 3); the sum is rounded in the activations' dtype."""
    return _unless_zero(multiplier, activations, activations + (vector * multiplier).to(activations))


def ablate(
    activations: Float[Tensor, "*batch d_model"], vector: Float[Tensor, "*#batch d_model"], multiplier: Amount = 1.0
) -> Float[Tensor, "*batch d_model"]:
    """Project the direction out: afterwards the projection is ``1 - multiplier`` of what it was.

    Source: directional ablation, Arditi et al. (arXiv 2406.11717, section 2.4).
    """
    return set_projection(activations, vector, 0.0, multiplier)


def set_projection(
    activations: Float[Tensor, "*batch d_model"],
    vector: Float[Tensor, "*#batch d_model"],
    value: float,
    multiplier: Amount = 1.0,
) -> Float[Tensor, "*batch d_model"]:
    """Give every activation the same projection ``value``; the rest of it stays."""
    wide, unit = _wide(activations), _unit(activations, vector)
    gap = value - (wide * unit).sum(dim=-1, keepdim=True)
    return _unless_zero(multiplier, activations, wide + multiplier * gap * unit)


def clamp(
    activations: Float[Tensor, "*batch d_model"],
    vector: Float[Tensor, "*#batch d_model"],
    low: float = -math.inf,
    high: float = math.inf,
    multiplier: Amount = 1.0,
) -> Float[Tensor, "*batch d_model"]:
    """Bring projections outside ``low`` to ``high`` to the nearer of the two; those inside are not touched."""
    wide, unit = _wide(activations), _unit(activations, vector)
    along = (wide * unit).sum(dim=-1, keepdim=True)
    gap = along.clamp(low, high) - along
    return torch.where(gap == 0, activations, _unless_zero(multiplier, activations, wide + multiplier * gap * unit))


def rotate(
    activations: Float[Tensor, "*batch d_model"],
    vector: Float[Tensor, "*#batch d_model"],
    degrees: float,
    multiplier: Amount = 1.0,
) -> Float[Tensor, "*batch d_model"]:
    """Turn every activation towards the vector, in the plane of the two, at the same length.

    It turns by ``multiplier * degrees``, at most onto the vector; away from it, at most onto its opposite, where that
    is negative. An activation that lies along the vector has no such plane and stays.
    """
    wide, unit = _wide(activations), _unit(activations, vector)
    along = (wide * unit).sum(dim=-1, keepdim=True)
    across = wide - along * unit
    aside, length = (part.norm(dim=-1, keepdim=True) for part in (across, wide))
    angle = torch.atan2(aside, along)
    turned = (angle - multiplier * math.radians(degrees)).clamp(0.0, math.pi)
    rotated = length * (turned.cos() * unit + turned.sin() * across / aside)
    no_plane = (aside <= 1e-6 * length) | (unit == 0).all(dim=-1, keepdim=True)
    return torch.where(no_plane, activations, _unless_zero(multiplier, activations, rotated))


def _wide(activations: Tensor) -> Tensor:
    return activations.float() if activations.dtype in (torch.float16, torch.bfloat16) else activations


def _unit(activations: Tensor, vector: Tensor) -> Tensor:
    """The direction, normalized in float32 or better; zero, which then changes nothing, where the vector is zero."""
    wide = vector.to(_wide(activations))
    return wide / wide.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(wide.dtype).tiny)


def _unless_zero(multiplier: Amount, activations: Tensor, changed: Tensor) -> Tensor:
    if isinstance(multiplier, Tensor):
        return torch.where(multiplier == 0, activations, changed.to(activations))
    return changed.to(activations) if multiplier else activations


@dataclass(frozen=True, slots=True)
class Add:
    """`add`."""

    def __call__(self, activations: Tensor, vector: Tensor, multiplier: Amount = 1.0) -> Tensor:
        """The activations afterwards."""
        return add(activations, vector, multiplier)


@dataclass(frozen=True, slots=True)
class Ablate:
    """`ablate`."""

    def __call__(self, activations: Tensor, vector: Tensor, multiplier: Amount = 1.0) -> Tensor:
        """The activations afterwards."""
        return ablate(activations, vector, multiplier)


@dataclass(frozen=True, slots=True)
class SetProjection:
    """`set_projection` to a value, in units of the activations."""

    value: float

    def __post_init__(self) -> None:
        """Check the value."""
        if not math.isfinite(self.value):
            raise ValueError(f"SetProjection({self.value}): the value is a finite number, in units of the activations")

    def __call__(self, activations: Tensor, vector: Tensor, multiplier: Amount = 1.0) -> Tensor:
        """The activations afterwards."""
        return set_projection(activations, vector, self.value, multiplier)


@dataclass(frozen=True, slots=True)
class Clamp:
    """`clamp` the projection; one of the bounds may be left open."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        """Check the bounds."""
        if not (self.low <= self.high and any(map(math.isfinite, (self.low, self.high)))):
            raise ValueError(
                f"Clamp(low={self.low}, high={self.high}): low is at most high, and at least one of them is a finite "
                "number, in units of the activations"
            )

    def __call__(self, activations: Tensor, vector: Tensor, multiplier: Amount = 1.0) -> Tensor:
        """The activations afterwards."""
        return clamp(activations, vector, self.low, self.high, multiplier)


@dataclass(frozen=True, slots=True)
class Rotate:
    """`rotate` towards the vector, by an angle in degrees."""

    degrees: float

    def __post_init__(self) -> None:
        """Check the angle."""
        if not 0 < self.degrees <= 180:
            raise ValueError(
                f"Rotate({self.degrees}): the angle is above 0 and at most 180 degrees; a negative multiplier turns "
                "away"
            )

    def __call__(self, activations: Tensor, vector: Tensor, multiplier: Amount = 1.0) -> Tensor:
        """The activations afterwards."""
        return rotate(activations, vector, self.degrees, multiplier)


Operation = Add | Ablate | SetProjection | Clamp | Rotate


def parse_operation(text: str) -> Operation:
    """An operation as the command line names it: ``add``, ``ablate``, ``set:3.5``, ``clamp:-1:1``, ``rotate:30``.

    A bound of ``clamp`` may be left out, as in ``clamp::1``.

    Raises:
        ValueError: For anything else.
    """
    name, *numbers = text.split(":")
    try:
        if name == "clamp" and len(numbers) == 2:
            return Clamp(float(numbers[0] or -math.inf), float(numbers[1] or math.inf))
        values = [float(number) for number in numbers]
        known = {("add", 0): Add, ("ablate", 0): Ablate, ("set", 1): SetProjection, ("rotate", 1): Rotate}
        if (name, len(values)) in known:
            return known[name, len(values)](*values)
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
    raise ValueError(
        f"operation {brief(text)} cannot be read: give add, ablate, set:VALUE, clamp:LOW:HIGH or rotate:DEGREES, such "
        "as set:3.5, clamp:-1:1 or rotate:30"
    )
