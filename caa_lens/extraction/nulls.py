"""What any vector would have done: nulls that a vector's effect is compared with.

Each kind keeps one thing of the vector and destroys another. A *random* vector keeps the norm. A *permuted* one keeps
every coordinate's value too, and with it the few huge coordinates that transformers have, but puts them elsewhere. A
*shuffled* one is made from the same activations with the labels positive and negative exchanged in a random half of
the pairs: what the same recipe finds where there is nothing to find, such as the style of the answers. All have the
norm of the vector they are compared with, layer by layer, so that a multiplier means the same for all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.files.messages import brief
from caa_lens.vectors.provenance import seeded_generator
from caa_lens.vectors.vectors import SteeringVectors, Vectors, as_vectors, random_like

KINDS = ("random", "permuted", "shuffled")


def null_vectors(
    vectors: Vectors,
    n: int,
    *,
    kind: str = "random",
    seed: int = 0,
    activations: ContrastActivations | None = None,
) -> tuple[SteeringVectors, ...]:
    """So many nulls of one kind, which `caa_lens.sweep` takes as ``nulls={kind: ...}``.

    Args:
        vectors: What they are compared with.
        n: How many.
        kind: ``random``, ``permuted`` or ``shuffled``.
        seed: Of the drawing; every name, layer and index draws apart.
        activations: What the vectors were made from; needed for ``shuffled``.

    Raises:
        ValueError: For an unknown kind, a negative number, or shuffled nulls without activations of the same layers.
    """
    vectors = as_vectors(vectors)
    if kind not in KINDS:
        raise ValueError(f"there are no nulls of the kind {brief(kind)}: give one of {', '.join(KINDS)}")
    if kind == "random":
        return tuple(random_like(vectors, n, seed))
    if n < 0:
        raise ValueError(f"the number of nulls must be 0 or more, got {n}")
    if kind == "permuted":
        return tuple(_named(vectors, kind, index, seed, _permuted(vectors, index, seed)) for index in range(n))
    if activations is None or activations.layers != vectors.layers:
        have = "no activations were given" if activations is None else f"activations of layers {activations.layers}"
        raise ValueError(
            f"shuffled nulls are made from what the vectors of layers {vectors.layers} were made from, and {have}: "
            "give activations=extract_activations(...) of the same pairs and layers"
        )
    differences = activations.positive.double() - activations.negative.double()
    norms = vectors.values.double().norm(dim=1, keepdim=True)
    found: list[SteeringVectors] = []
    for index in range(n):
        means = (_half_negated(len(differences), vectors.name, index, seed)[:, None, None] * differences).mean(dim=0)
        length = means.norm(dim=1, keepdim=True)
        if bool((length == 0).any()):
            raise ValueError(
                f"the differences of {vectors.name!r} cancel when labels are shuffled ({len(differences)} pairs): "
                "give more pairs"
            )
        found.append(_named(vectors, kind, index, seed, means * (norms / length)))
    return tuple(found)


def _permuted(vectors: SteeringVectors, index: int, seed: int) -> Tensor:
    def of_layer(layer: int) -> Tensor:
        order = torch.randperm(vectors.d_model, generator=seeded_generator(f"{seed}/{vectors.name}/{layer}/{index}"))
        return vectors[layer].values.double()[order]

    return torch.stack([of_layer(layer) for layer in vectors.layers])


def _half_negated(n: int, name: str, index: int, seed: int) -> Tensor:
    """Signs of the pairs: as many minus as plus, but for one where their number is odd."""
    signs = torch.ones(n, dtype=torch.float64)
    signs[torch.randperm(n, generator=seeded_generator(f"{seed}/{name}/-1/{index}"))[: (n + 1) // 2]] = -1
    return signs


def _named(vectors: SteeringVectors, kind: str, index: int, seed: int, values: Tensor) -> SteeringVectors:
    made = replace(vectors.provenance, method=kind, seed=seed, operations=(f"norms of {vectors.name}",))
    return SteeringVectors(values.float(), vectors.layers, made, f"{kind}-{index}")
