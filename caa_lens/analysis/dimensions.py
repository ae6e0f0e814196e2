"""The few huge coordinates of a residual stream, and comparing without them.

Large models keep a handful of dimensions in which activations are hundreds of times larger than elsewhere. What is left
of them in a difference of means can outweigh all the rest: of a Llama-2-7b vector between code and text at layer 5, two
dimensions (1415 and 2533) hold 93 % of the squared norm, and without them its cosine with another vector changes sign
(van der Weij et al., arXiv 2403.05767, on broad skills). So a cosine close to 1 or -1 is worth a second look:

>>> import torch
>>> from caa_lens.vectors import Provenance, SteeringVectors
>>> toy = SteeringVectors(torch.tensor([[3.0, 0.0, 4.0]]), (0,), Provenance.unknown("toy"), "kind")
>>> massive_dimensions(toy, k=1)[["layer", "dimension", "share"]].round(2).to_dict("records")
[{'layer': 0, 'dimension': 2, 'share': 0.64}]
>>> without_dimensions(toy, [2]).values
tensor([[3., 0., 0.]])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.files.messages import brief
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors, Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd

Values = Vectors | ContrastActivations
T = TypeVar("T", SteeringVector, SteeringVectors, ContrastActivations)


def massive_dimensions(values: Values | Mapping[str, Values], k: int = 5) -> pd.DataFrame:
    """The dimensions that hold most of the squared norm, of vectors or of the activations that they are made from.

    Args:
        values: `SteeringVectors` or one `SteeringVector`, `ContrastActivations`, or several of these by name. Of
            activations it is the mean over both sides of all pairs: what is huge in the stream need not be so in a
            difference.
        k: So many dimensions at each layer, largest first.

    Returns:
        Tidy: `behavior`, `layer`, `rank` (from 1), `dimension`, `value` (the coordinate; for activations the mean one),
        `share` (its part of the squared norm) and `cumulative` (the part of this and all larger ones). Shares of a zero
        vector are NaN. Were all dimensions alike, each would hold 1 / d_model.

    Raises:
        ValueError: `k` is less than 1 or more than d_model.
    """
    import pandas as pd

    named = dict(values) if isinstance(values, Mapping) else {values.name: values}
    rows: list[tuple[str, int, int, int, float, float, float]] = []
    for behavior, each in named.items():
        layers = each.layers if isinstance(each, ContrastActivations) else as_vectors(each).layers
        for layer, (own, squares) in zip(layers, _coordinates(each), strict=True):
            if not 1 <= k <= len(squares):
                raise ValueError(f"k is {k}: give 1 to {len(squares)}, the d_model of {brief(behavior)}")
            shares = squares / squares.sum()
            top = squares.sort(descending=True, stable=True).indices[:k]
            columns = (top, own[top], shares[top], shares[top].cumsum(dim=0))
            found = zip(*(column.tolist() for column in columns), strict=True)
            rows += [(behavior, layer, rank, *of_one) for rank, of_one in enumerate(found, start=1)]
    return pd.DataFrame(rows, columns=["behavior", "layer", "rank", "dimension", "value", "share", "cumulative"])


def without_dimensions(values: T, dims: Sequence[int]) -> T:
    """The same vectors, or the same pairs' activations, with these dimensions set to 0.

    Everything that compares vectors can then be repeated without them; `d_model` stays, so they can still be steered
    with. What was done is noted in the provenance.

    Args:
        values: `SteeringVectors`, one `SteeringVector`, or `ContrastActivations`.
        dims: Indices along d_model, such as ``[1415, 2533]`` for Llama-2-7b.

    Raises:
        ValueError: a dimension that is not there, or none.
    """
    d_model = (values.positive if isinstance(values, ContrastActivations) else values.values).shape[-1]
    outside = [dim for dim in dims if not 0 <= dim < d_model]
    if outside or not dims:
        raise ValueError(
            f"dimensions {brief(list(dims))}: give one or more of 0 to {d_model - 1}, the d_model of this model"
        )
    kept = torch.ones(d_model)
    kept[list(dims)] = 0
    provenance = values.provenance.then(f"without dimensions {', '.join(str(dim) for dim in sorted(set(dims)))}")
    if not isinstance(values, ContrastActivations):
        return replace(values, values=values.values * kept, provenance=provenance)
    return replace(values, positive=values.positive * kept, negative=values.negative * kept, provenance=provenance)


def _coordinates(values: Values) -> Iterator[tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]]:
    """Layer by layer, the coordinates and their squares, in float64."""
    if not isinstance(values, ContrastActivations):
        yield from ((row, row.square()) for row in as_vectors(values).values.double())
        return
    for column in range(len(values.layers)):
        rows = torch.cat([values.positive[:, column], values.negative[:, column]]).double()
        yield rows.mean(dim=0), rows.square().mean(dim=0)
