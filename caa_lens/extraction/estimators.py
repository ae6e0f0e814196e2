"""Other ways of making a vector from the same activations, to be compared with the mean difference on the same items.

Every pair gives two activations of a layer, and an estimator makes one direction of them all. The mean difference (CAA)
asks where the two sides lie apart. The median asks the same and is not moved by a few odd pairs. PCA asks along which
line the pairs differ most, and finds the behaviour only where nothing else, such as the answer's letter, makes them
differ more. A logistic probe and LDA ask what tells the sides apart: they turn away from directions in which
activations vary anyway, so that they classify better, and need not be the direction in which the means differ (Haufe et
al. 2014, NeuroImage 87). The mean difference is the default because it is hard to beat for steering (Im & Li, arXiv
2502.02716; AxBench, arXiv 2501.17148).

Only directions are compared: `estimate` gives all of them the mean difference's norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.files.messages import brief
from caa_lens.vectors.vectors import SteeringVectors, random_like

LEAST_SHRINKAGE = 1e-6
"""Of LDA's covariance, which could not be inverted without any."""

Estimator = Callable[[Float[Tensor, "pair d_model"], Float[Tensor, "pair d_model"]], Float[Tensor, " d_model"]]
"""A layer's positive and negative activations -> a direction in float64, of any length but 0."""


def mean_difference(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, " d_model"]:
    """Mean over pairs of positive minus negative (CAA, arXiv 2312.06681, section 3)."""
    return _differences(positive, negative).mean(0)


def median_difference(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, " d_model"]:
    """Median over pairs of positive minus negative, of each coordinate by itself; of two middle values their mean.

    It depends on the basis, unlike the other estimators: a rotated residual stream has another median.
    """
    ordered = _differences(positive, negative).sort(0).values
    n = len(ordered)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def principal_direction(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, " d_model"]:
    """First principal direction of the pairs' differences, each taken with both signs (RepE, LAT).

    RepE (arXiv 2310.01405, section 3.1) takes the sign of each difference at random, subtracts the mean and does PCA.
    Here each difference is there as ``d`` and as ``-d``: their mean is zero without anything being subtracted, chance
    has no part in it, and the principal direction is the first right singular vector of the uncentred differences.
    Subtracting their mean, as PCA of the differences alone would, takes away just what all pairs have in common. The
    sign, which PCA leaves open, is the one with which the direction points along the mean difference.

    Returns:
        Of norm 1.
    """
    differences = _differences(positive, negative)
    direction = cast("Any", torch.linalg.svd)(differences, full_matrices=False).Vh[0]
    return -direction if float(direction @ differences.mean(0)) < 0 else direction


def logistic_probe(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, " d_model"]:
    """Weights of an L2-regularised logistic regression that tells positive from negative activations.

    Which two belong together is not looked at. Activations are centred on the mean of both sides and divided by one
    number, the root mean square of all that is left, so that the regularisation (scikit-learn's ``C=1``) means the same
    at every layer and for every model. The more pairs there are, the less it does.

    Raises:
        ValueError: All activations are the same.
    """
    from sklearn.linear_model import LogisticRegression  # pyright: ignore[reportUnknownVariableType]

    rows = torch.cat([positive, negative]).double()
    centred = rows - rows.mean(0)
    size = _spread(centred, rows)
    if not size:
        raise ValueError("all activations are the same, so no probe can tell them apart")
    sides = [1] * len(positive) + [0] * len(negative)
    probe = cast("Any", LogisticRegression)(C=1.0, tol=1e-6, max_iter=10_000)  # L2 is its default
    return torch.as_tensor(probe.fit((centred / size).numpy(), sides).coef_[0], dtype=torch.float64)


def whitened_difference(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, " d_model"]:
    """Linear discriminant analysis: the inverse covariance within the sides, times the mean difference.

    The covariance is pooled: each side is centred on its own mean. It is shrunk towards a multiple of the identity by
    the share of Ledoit and Wolf (2004, J. Multivariate Analysis 88), at least ``LEAST_SHRINKAGE``, so that it can be
    inverted with fewer pairs than ``d_model``. In mass-mean probing (Marks & Tegmark, arXiv 2310.06824) this is the
    probe for data that are distributed like the training data, and the mean difference the one to intervene with. Which
    two activations belong together is not looked at: what the two sides of a pair share, their question, is part of
    the covariance.

    Raises:
        ValueError: The activations of each side are all the same, as with one pair: there is no covariance.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage  # pyright: ignore[reportUnknownVariableType]

    sides = [side.double() for side in (positive, negative)]
    within = torch.cat([side - side.mean(0) for side in sides])
    size = _spread(within, torch.cat(sides))
    if not size:
        raise ValueError(
            f"LDA divides by the spread within each side, and {len(positive)} pair(s) have none here: give two or more "
            'pairs that differ, or take method="mean difference"'
        )
    within = within / size  # the mean variance is 1, so the target of the shrinkage is the identity
    share = LEAST_SHRINKAGE
    if within.shape[1] > 1:  # a single variance has nothing to be shrunk to, and scikit-learn warns
        share = max(share, float(cast("Any", ledoit_wolf_shrinkage)(within.numpy(), assume_centered=True)))
    # The inverse by its eigenvectors: those with a variance, and all that is orthogonal to them, where only the
    # identity's share is left. No matrix of d_model x d_model is made.
    _, singular, axes = cast("Any", torch.linalg.svd)(within, full_matrices=False)
    difference = mean_difference(*sides)
    along = axes @ difference
    rest = difference - along @ axes
    return (along / ((1 - share) * singular.square() / len(within) + share)) @ axes + rest / share


ESTIMATORS: dict[str, Estimator] = {
    "mean difference": mean_difference,
    "median": median_difference,
    "pca": principal_direction,
    "logistic": logistic_probe,
    "lda": whitened_difference,
}
"""The estimators that look at the activations, by the name that `estimate` takes."""


def estimate(activations: ContrastActivations, method: str = "mean difference", *, seed: int = 0) -> SteeringVectors:
    """Make a steering vector for every layer by another estimator than the mean difference.

    All have the norm of that layer's mean difference, so that a multiplier means the same for all and only their
    directions are compared; ``"mean difference"`` itself is `ContrastActivations.vectors`, unchanged. Computed in
    float64; the vectors are float32, ``[layer, d_model]``, in the units of the residual stream.

    Args:
        activations: What `extract_activations` returns.
        method: One of ``ESTIMATORS``, or ``"random"``: a direction uniform on the sphere, for which no pair was looked
            at (`random_like`).
        seed: Of ``"random"``; the others use no chance.

    Returns:
        Vectors named after the behaviour. Their provenance has the method, for ``"random"`` the seed, and for
        ``"logistic"`` and ``"lda"`` scikit-learn's version.

    Raises:
        ValueError: For an unknown method, no pairs, a layer at which the estimator finds no direction (LDA with one
            pair), or, but for the mean difference, one at which that is zero and so has no norm to give.

    Example:
        >>> import torch
        >>> from caa_lens.vectors import Provenance
        >>> positive, negative = torch.tensor([[[3.0, 1.0]], [[5.0, -1.0]]]), torch.zeros(2, 1, 2)
        >>> activations = ContrastActivations(positive, negative, (4,), (0, 1), Provenance.unknown("toy"), "kind")
        >>> estimate(activations, "median")[4].values
        tensor([4., 0.])
    """
    if method != "random" and method not in ESTIMATORS:
        raise ValueError(f"there is no estimator {brief(method)}: choose one of {', '.join([*ESTIMATORS, 'random'])}")
    if not len(activations.positive):
        raise ValueError(f"the activations {activations.name!r} are of no pairs: at least one is needed")
    mean = activations.vectors()
    if method == "mean difference":
        return mean
    if method == "random":
        return replace(random_like(mean, 1, seed)[0], name=mean.name)
    rows: list[Tensor] = []
    for column, layer in enumerate(mean.layers):
        positive, negative = activations.positive[:, column], activations.negative[:, column]
        size = mean.values[column].double().square().sum().sqrt()
        where = f"{method!r} of {mean.name!r} at layer {layer}"
        if not float(size):
            raise ValueError(f"{where}: the mean difference is zero there, so there is no norm to give a vector")
        try:
            direction = ESTIMATORS[method](positive, negative)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        length = direction.square().sum().sqrt()
        if not float(length):
            raise ValueError(f"{where} is zero, which is no direction: give more pairs, or take another method")
        rows.append(direction * (size / length))
    versions = mean.provenance.versions
    if method in ("logistic", "lda"):
        versions = {**versions, "scikit-learn": version("scikit-learn")}
    provenance = replace(mean.provenance, method=method, versions=versions).then("norms of the mean difference")
    return SteeringVectors(torch.stack(rows), mean.layers, provenance, mean.name)


def _differences(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, "pair d_model"]:
    return positive.double() - negative.double()


def _spread(centred: Float[Tensor, "row d_model"], rows: Float[Tensor, "row d_model"]) -> float:
    """Root mean square of the centred rows; 0 where it is what rounding left of equal ones."""
    spread, size = (float(each.square().mean().sqrt()) for each in (centred, rows))
    return spread if spread > 1e-12 * size else 0.0
