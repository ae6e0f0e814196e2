"""What a vector made for one behaviour does to every other behaviour's items.

A vector can move sycophancy because it makes the model agree with anything. So each vector is swept over the items of
all behaviours, and its effect elsewhere is put beside its effect at home. `crossed` lays out one `caa_lens.sweep` that
runs each item's prompt once for all vectors, each of them at a layer of its own; `entanglement` reads its frame.

    layers = {"sycophancy": 2, "refusal": 3}
    frame = caa.sweep(model, **crossed(vectors, items, layers), multipliers=(1.0,))
    table = entanglement(frame, layers)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from caa_lens.datasets.contrast import Pairs, as_dataset
from caa_lens.evaluation.choices import check_swept, summarize
from caa_lens.vectors.vectors import SteeringVectors, Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd


def crossed(vectors: Mapping[str, Vectors], items: Mapping[str, Pairs], layers: Mapping[str, int]) -> dict[str, Any]:
    """The arguments of one `caa_lens.sweep` of every vector over every behaviour's items.

    Each vector keeps its own layer and is zero at the other vectors' layers, where it costs the sweep next to nothing.
    The vectors of other behaviours are ``compared``, and nothing has random vectors.

    Args:
        vectors: By behaviour.
        items: By behaviour, each with a vector among ``vectors``; items that no vector was made from.
        layers: The layer of each vector, such as `choose_layer` gives.

    Raises:
        ValueError: For no items, names that do not match, a vector without a layer, or a layer that it lacks.
    """
    if not items:
        raise ValueError("no items were given: at least one behaviour is needed")
    if missing := sorted(set(items) - set(vectors)):
        raise ValueError(f"there are items for {missing} and vectors for {sorted(vectors)}: each items need a vector")
    if set(layers) != set(vectors):
        raise ValueError(f"layers are given for {sorted(layers)} and vectors for {sorted(vectors)}: give one for each")
    used = tuple(sorted(set(layers.values())))
    placed = {name: _placed(as_vectors(mine), name, layers[name], used) for name, mine in vectors.items()}
    return {
        "vectors": {name: placed[name] for name in items},
        "items": {name: as_dataset(each) for name, each in items.items()},
        "compared": {name: {key: other for key, other in placed.items() if key != name} for name in items},
        "n_nulls": 0,
    }


def entanglement(
    frame: pd.DataFrame, layers: Mapping[str, int], *, n_bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The letter-balanced effect of every vector on every behaviour.

    Args:
        frame: Of the sweep that `crossed` lays out.
        layers: The layer of each vector, as given to `crossed`.
        n_bootstrap: As for `summarize`.
        seed: As for `summarize`.

    Returns:
        One row for each vector x behavior x multiplier other than 0, with ``vector``, ``behavior`` (whose items),
        ``layer``, ``multiplier``, ``n_items``, ``effect``, ``effect_balanced`` with its 95 % interval ``balanced_low``
        to ``balanced_high`` (all as `summarize` defines them), and ``share_of_own``: the balanced effect divided by
        that of the same vector, at the same multiplier, on its own behaviour; 1 there. NaN where the own effect's
        interval holds 0, since nothing is a share of nothing, or where the vector's own items were not swept.

    Raises:
        ValueError: If the frame lacks a vector or its layer, and as `summarize`.

    Source: SteeringSafety (arXiv 2509.13450).
    """
    import numpy as np

    check_swept(frame)
    at = frame["vector"].map(layers)
    if missing := sorted(name for name in layers if not ((frame["vector"] == name) & (frame["layer"] == at)).any()):
        raise ValueError(
            f"the frame has no vector {missing[0]!r} at layer {layers[missing[0]]}: give the frame of "
            "sweep(model, **crossed(...)) and the same layers"
        )
    here = frame[(frame["layer"] == at) | (frame["multiplier"] == 0)]
    table = summarize(here, n_bootstrap=n_bootstrap, seed=seed).query("multiplier != 0")
    columns = ["vector", "behavior", "layer", "multiplier", "n_items", "effect"]
    order = table["vector"].map({name: place for place, name in enumerate(layers)}).sort_values(kind="stable").index
    effects = table.loc[order, [*columns, "effect_balanced", "balanced_low", "balanced_high"]].reset_index(drop=True)
    own = effects[effects["vector"] == effects["behavior"]]
    measured = own[(own["balanced_low"] > 0) | (own["balanced_high"] < 0)]
    of_own = {(row["vector"], row["multiplier"]): row["effect_balanced"] for row in measured.to_dict("records")}
    keys = zip(effects["vector"], effects["multiplier"], strict=True)
    return effects.assign(share_of_own=effects["effect_balanced"] / [of_own.get(key, np.nan) for key in keys])


def _placed(vectors: SteeringVectors, name: str, layer: int, used: tuple[int, ...]) -> SteeringVectors:
    """One layer of them, at that layer, and zero at the other layers in use."""
    values = torch.zeros(len(used), vectors.d_model)
    values[used.index(layer)] = vectors[layer].values
    return SteeringVectors(values, used, vectors.provenance.then(f"layer {layer} only"), name)
