"""Two ways to add several behaviours' vectors: put into one vector, or side by side at layers of their own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch

from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Intervention, as_interventions
from caa_lens.vectors.provenance import Provenance
from caa_lens.vectors.vectors import SteeringVector


def combined(
    vectors: Mapping[str, SteeringVector], how: Literal["sum", "mean"] | Mapping[str, float] = "sum"
) -> SteeringVector:
    """One vector from several behaviours' vectors at one layer (arXiv 2403.05767: combined steering).

    Adding it is the same as adding its parts at that layer: what is gained is one vector to keep and to sweep.

    Args:
        vectors: By behaviour, all of one layer of one model, such as ``{name: vectors[name][13] for name in names}``.
        how: ``"sum"``, ``"mean"``, or the weight of each behaviour in a sum.

    Returns:
        A vector named after its parts, such as ``refusal + sycophancy``. Its provenance is that of the parts, with
        their datasets' names joined, their pairs counted together, and what was done as the last operation. Summed in
        float64.

    Raises:
        ValueError: For fewer than two vectors, weights that do not name them or are not finite, or vectors of different
            layers, sites, widths or models.
    """
    if len(vectors) < 2:
        raise ValueError(f"vectors of {brief(list(vectors))}: give those of two or more behaviours to combine")
    if isinstance(how, str):
        if how not in ("sum", "mean"):
            raise ValueError(f"how is {brief(how)}: give 'sum', 'mean', or a mapping of weights by behaviour")
        weights = dict.fromkeys(vectors, 1.0 if how == "sum" else 1.0 / len(vectors))
    else:
        weights = {name: float(weight) for name, weight in how.items()}
    if set(weights) != set(vectors) or not all(math.isfinite(weight) for weight in weights.values()):
        raise ValueError(f"weights are {brief(weights)} and vectors {brief(list(vectors))}: give each a finite weight")
    first, *others = vectors.values()
    for other in others:
        first.require_same_shape(other)
    if len({vector.site for vector in vectors.values()}) > 1:
        raise ValueError(
            f"the vectors were read at {', '.join(f'{vector.site} ({name})' for name, vector in vectors.items())}: "
            "give vectors of one site"
        )
    _check_models(vectors)
    total = torch.stack([weights[name] * vector.values.double() for name, vector in vectors.items()]).sum(dim=0)
    told = how if isinstance(how, str) else " + ".join(f"{weights[name]:g} x {name}" for name in vectors)
    return SteeringVector(total.float(), first.layer, _joined(vectors, f"combined: {told}"), " + ".join(vectors))


def simultaneous(parts: Mapping[str, SteeringVector | Intervention]) -> list[Intervention]:
    """Several behaviours' vectors, each at a layer of its own, as a recipe (arXiv 2403.05767: simultaneous steering).

    Args:
        parts: By behaviour; how much of each is its multiplier, as in ``{"refusal": vectors[13] * 1.5}``.

    Raises:
        ValueError: For fewer than two, two of one layer, or vectors of different models.
    """
    if len(parts) < 2:
        raise ValueError(f"parts are {brief(list(parts))}: give those of two or more behaviours")
    found = {name: as_interventions(part)[0] for name, part in parts.items()}
    taken: dict[int, str] = {}
    for name, part in found.items():
        if part.layer in taken:
            raise ValueError(
                f"{taken[part.layer]} and {name} are both at layer {part.layer}: simultaneous() is for a layer each; "
                "combined() puts vectors of one layer into one"
            )
        taken[part.layer] = name
    _check_models({name: part.vector for name, part in found.items()})
    return list(found.values())


def _check_models(vectors: Mapping[str, SteeringVector]) -> None:
    """Refuse vectors of which two say that they come from different models."""
    known = {
        name: vector.provenance for name, vector in vectors.items() if vector.provenance.model_fingerprint != "unknown"
    }
    if len({each.model_fingerprint for each in known.values()}) > 1:
        made_on = ", ".join(f"{name} on {each.model}" for name, each in known.items())
        raise ValueError(f"the vectors were made on different models: {made_on}; give vectors of one")


def _joined(vectors: Mapping[str, SteeringVector], operation: str) -> Provenance:
    """What the parts' provenances have in common; what they do not, one beside the other."""
    parts = [vector.provenance for vector in vectors.values()]
    fields = ("read_position", "prompt_format", "weight_processing", "dtype", "dataset", "method")
    same = {name: " + ".join(dict.fromkeys(str(getattr(part, name)) for part in parts)) for name in fields}
    before = [
        f"{name}: {' '.join(part.operations)}" for name, part in zip(vectors, parts, strict=True) if part.operations
    ]
    return replace(
        parts[0],
        **same,
        dataset_hash=hashlib.sha256(" ".join(part.dataset_hash for part in parts).encode()).hexdigest(),
        dataset_origin=" + ".join(part.dataset_origin for part in parts),
        system_prompt=" + ".join(dict.fromkeys(part.system_prompt or "" for part in parts)) or None,
        n_pairs=sum(part.n_pairs for part in parts),
        seed=parts[0].seed if len({part.seed for part in parts}) == 1 else None,
        operations=(*before, operation),
    )
