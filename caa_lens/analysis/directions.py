"""Comparing vectors: across behaviours, across layers, across models.

Each function turns `SteeringVectors` into numbers, or into a DataFrame that plots and prints as it is. Cosines are
accumulated in float64; the cosine of a zero vector is NaN. Published values to compare with (CAA, sections 7 to 9,
Llama-2-7b): base and chat agree at layer 0 (.96 to .99), less in the middle (.81 to .93 at layer 11) and little at the
end (.30 to .47 at layer 31). A few huge coordinates can decide a cosine: `caa_lens.analysis.dimensions`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.files.messages import brief
from caa_lens.vectors.vectors import SteeringVectors, Vectors, as_vectors, describe_layers

if TYPE_CHECKING:
    import pandas as pd


def cosine(a: Vectors, b: Vectors) -> Float[Tensor, " layer"]:
    """Cosine of `a` and `b` at each layer that both have, lowest first.

    Raises:
        ValueError: no layer in common, or another d_model.
    """
    a, b = as_vectors(a), as_vectors(b)
    layers = _shared_layers(a, b)
    rows_a, rows_b = _rows(a, layers), _rows(b, layers)
    return ((rows_a * rows_b).sum(-1) / (rows_a.norm(dim=-1) * rows_b.norm(dim=-1))).float()


def compare(a: Vectors, b: Vectors) -> pd.DataFrame:
    """How alike two sets of vectors are, layer by layer, e.g. a base model's and its chat model's (CAA, section 7).

    Returns:
        One row per layer that both have: `layer`, `cosine`, `norm_a`, `norm_b`.

    Raises:
        ValueError: no layer in common, or another d_model.
    """
    import pandas as pd

    a, b = as_vectors(a), as_vectors(b)
    layers = _shared_layers(a, b)
    columns = {
        "cosine": cosine(a, b),
        "norm_a": _rows(a, layers).norm(dim=-1),
        "norm_b": _rows(b, layers).norm(dim=-1),
    }
    return pd.DataFrame({"layer": layers, **{name: column.tolist() for name, column in columns.items()}})


def subspace_overlap(a: Mapping[str, Vectors], b: Mapping[str, Vectors]) -> pd.DataFrame:
    """How alike the spans of two sets of behaviours' vectors are, layer by layer.

    Two models can keep the same behaviours in the same subspace and yet mix them differently: cosines behaviour by
    behaviour would not show that, principal angles do. The k-th is the smallest angle between a direction in one span
    and a direction in the other that are perpendicular to those of the angles before. Lengths do not matter.

    Args:
        a: One model's vectors by behaviour, such as the base model's.
        b: Another's, such as the chat model's; the behaviours may be others.

    Returns:
        One row for each `layer` that all have and each angle: `angle` (from 1), `cosine` (largest first) and `degrees`;
        and, the same for all rows of a layer, `rank_a` and `rank_b` (dimensions of the spans), `overlap` (mean squared
        cosine: 1 where the smaller span lies in the other, 0 where they are perpendicular) and `chance` (what the
        overlap of random spans of these ranks is on average, max(rank_a, rank_b) / d_model). A layer at which one
        side's vectors are all zero has no rows.

    Raises:
        ValueError: no vectors, no layer in common, or different d_model.
    """
    import pandas as pd

    if not a or not b:
        raise ValueError("there are no vectors to compare")
    spans = _sets(a), _sets(b)
    layers = _shared_layers(*(each for span in spans for each in span.values()))
    rows: list[dict[str, float]] = []
    for layer in layers:
        one, other = (_basis(torch.stack([each[layer].values for each in side.values()])) for side in spans)
        cosines = torch.linalg.svdvals(one.T @ other).clamp(max=1.0)
        ranks = one.shape[1], other.shape[1]
        whole: dict[str, float] = {
            "rank_a": ranks[0],
            "rank_b": ranks[1],
            "overlap": float(cosines.square().mean()) if len(cosines) else float("nan"),
            "chance": max(ranks) / one.shape[0],
        }
        for angle, value in enumerate(cosines, start=1):
            degrees = float(value.acos().rad2deg())
            rows.append({"layer": layer, "angle": angle, "cosine": float(value), "degrees": degrees, **whole})
    columns = ["layer", "angle", "cosine", "degrees", "rank_a", "rank_b", "overlap", "chance"]
    return pd.DataFrame(rows, columns=columns)


def cosine_matrix(vectors: Mapping[str, Vectors], layer: int) -> pd.DataFrame:
    """Cosine of every behaviour with every other at one layer: square, behaviours on both axes (CAA, section 8).

    Raises:
        ValueError: no vectors, a layer that is not in all of them, or different d_model.
    """
    import pandas as pd

    sets = _sets(vectors)
    _require_same_width(sets.values())
    names = list(sets)
    rows = torch.stack([sets[name][layer].values for name in names])
    return pd.DataFrame(_table(rows, rows).tolist(), index=names, columns=names)


def behavior_cosines(vectors: Mapping[str, Vectors]) -> pd.DataFrame:
    """Cosine of every behaviour with every other, at every layer that all have; each pair in both orders.

    Returns:
        Tidy: `layer`, `behavior_a`, `behavior_b`, `cosine`.

    Raises:
        ValueError: no vectors, no layer in common, or different d_model.
    """
    import pandas as pd

    layers = _shared_layers(*_sets(vectors).values())
    matrices = [cosine_matrix(vectors, layer) for layer in layers]
    rows = [
        (layer, a, b, value)
        for layer, matrix in zip(layers, matrices, strict=True)
        for a, row in zip(vectors, matrix.to_numpy().tolist(), strict=True)
        for b, value in zip(vectors, row, strict=True)
    ]
    return pd.DataFrame(rows, columns=["layer", "behavior_a", "behavior_b", "cosine"])


def cross_layer(
    vectors: Vectors | Mapping[str, Vectors],
    other: Vectors | Mapping[str, Vectors] | None = None,
) -> pd.DataFrame:
    """Cosine of every layer's vector with every other's (CAA, section 9).

    Args:
        vectors: One behaviour's vectors, or several by name.
        other: What to compare with, of the same kind, such as the chat model's beside the base model's; None for
            ``vectors`` themselves.

    Returns:
        For one behaviour a table with the layers of ``vectors`` down and those of ``other`` across. For several, tidy:
        `behavior`, `layer_a` (of ``vectors``), `layer_b` (of ``other``), `cosine`.

    Raises:
        ValueError: ``other`` is not of the same kind, has other behaviours, or another d_model.
    """
    import pandas as pd

    other = vectors if other is None else other
    if not isinstance(vectors, Mapping) and not isinstance(other, Mapping):
        one, two = as_vectors(vectors), as_vectors(other)
        _require_same_width([one, two])
        table = _table(one.values, two.values).tolist()
        return pd.DataFrame(table, index=list(one.layers), columns=list(two.layers))
    if not isinstance(vectors, Mapping) or not isinstance(other, Mapping):
        raise ValueError("one behaviour's vectors were given beside a mapping: give both of one kind")
    if set(vectors) != set(other):
        raise ValueError(
            f"vectors are of {brief(sorted(vectors))} and the others of {brief(sorted(other))}: give the same "
            "behaviours"
        )
    rows = [
        (name, layer_a, layer_b, float(value))
        for name in vectors
        for layer_b, column in cross_layer(vectors[name], other[name]).items()
        for layer_a, value in column.items()
    ]
    return pd.DataFrame(rows, columns=["behavior", "layer_a", "layer_b", "cosine"])


def norms(vectors: Vectors | Mapping[str, Vectors]) -> pd.DataFrame:
    """Euclidean norm of every vector; `caa_lens.analysis.relative_norms` sets it beside the stream's.

    Returns:
        Tidy: `behavior`, `layer`, `norm`. The behaviour is the mapping's key, or the name of a single one.
    """
    import pandas as pd

    named = vectors if isinstance(vectors, Mapping) else {vectors.name: vectors}
    rows = [(behavior, vector.layer, vector.norm()) for behavior, each in _sets(named).items() for vector in each]
    return pd.DataFrame(rows, columns=["behavior", "layer", "norm"])


def _sets(vectors: Mapping[str, Vectors]) -> dict[str, SteeringVectors]:
    return {name: as_vectors(each) for name, each in vectors.items()}


def _table(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosine of every row of one with every row of the other; a zero row gives 0/0, which is NaN."""
    down, across = rows.double(), columns.double()
    return down @ across.T / down.norm(dim=-1).outer(across.norm(dim=-1))


def _basis(rows: Float[Tensor, "behavior d_model"]) -> Float[Tensor, "d_model rank"]:
    """An orthonormal basis of the rows' span, from unit rows, so that a short vector counts as much as a long one."""
    wide = rows.double()
    norm = wide.norm(dim=-1, keepdim=True)
    left = wide[norm[:, 0] > 0] / norm[norm[:, 0] > 0]
    _, values, directions = torch.linalg.svd(left, full_matrices=False)
    return directions[values > 1e-6].T  # float32 rows that depend on one another leave values of about 1e-7


def _rows(vectors: SteeringVectors, layers: list[int]) -> Tensor:
    return vectors.values[[vectors.layers.index(layer) for layer in layers]].double()


def _shared_layers(*vectors: SteeringVectors) -> list[int]:
    _require_same_width(vectors)
    layers = sorted(set(vectors[0].layers).intersection(*(each.layers for each in vectors)))
    if not layers:
        has = ", ".join(f"{each.name!r} has {describe_layers(each.layers)}" for each in vectors)
        raise ValueError(f"the vectors have no layer in common: {has}")
    return layers


def _require_same_width(vectors: Collection[SteeringVectors]) -> None:
    if not vectors:
        raise ValueError("there are no vectors to compare")
    if len({each.d_model for each in vectors}) > 1:
        has = ", ".join(f"{each.name!r} has {each.d_model}" for each in vectors)
        raise ValueError(f"the vectors have different d_model: {has}")
