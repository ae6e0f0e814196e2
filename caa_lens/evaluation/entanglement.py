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
from caa_lens.evaluation.choices import summarize
from caa_lens.vectors.vectors import SteeringVectors, Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd

OWN = "behavior"  # what a sweep's frame calls a behaviour's own vector


def crossed(vectors: Mapping[str, Vectors], items: Mapping[str, Pairs], layers: Mapping[str, int]) -> dict[str, Any]:
    """The arguments of one `caa_lens.sweep` of every vector over every behaviour's items.

    Each vector keeps its own layer and is zero at the other vectors' layers, where it costs the sweep next to nothing.
    The vectors of other behaviours go in as ``nulls``: for these items, they should be.

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
    if OWN in vectors:
        raise ValueError(f"a behaviour is named {OWN!r}, as a sweep's frame names every own vector: rename it")
    used = tuple(sorted(set(layers.values())))
    placed = {name: _placed(as_vectors(mine), name, layers[name], used) for name, mine in vectors.items()}
    return {
        "vectors": {name: placed[name] for name in items},
        "items": {name: as_dataset(each) for name, each in items.items()},
        "nulls": {name: [other for key, other in placed.items() if key != name] for name in items},
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
    import pandas as pd

    if missing := sorted({"behavior", "vector", "layer", "multiplier"} - set(frame.columns)):
        raise ValueError(f"this is not a sweep's frame: it lacks the columns {', '.join(missing)}")
    parts: list[pd.DataFrame] = []
    for name, layer in layers.items():
        here = frame[frame["layer"] == layer]
        is_own = here["vector"] == OWN
        steered = here[(here["vector"] == name) | (is_own & (here["behavior"] == name) & (here["multiplier"] != 0))]
        if steered.empty:
            raise ValueError(
                f"the frame has no vector {name!r} at layer {layer}: give the frame of sweep(model, **crossed(...)) "
                "and the same layers"
            )
        together = pd.concat([here[is_own & (here["multiplier"] == 0)], steered.assign(vector=OWN)])
        table = summarize(together, n_bootstrap=n_bootstrap, seed=seed).query("multiplier != 0")
        parts.append(table.assign(vector=name))
    columns = ["vector", "behavior", "layer", "multiplier", "n_items", "effect"]
    effects = pd.concat(parts, ignore_index=True)[[*columns, "effect_balanced", "balanced_low", "balanced_high"]]
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
