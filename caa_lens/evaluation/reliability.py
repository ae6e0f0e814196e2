"""How good a vector can be, from the activations it is made of: no model runs.

A mean difference exists for any pairs, also for those that have nothing in common. Three questions tell beforehand
whether it means something. Do the pairs point the same way, each with the mean and with one another? Would other pairs
have given the same vector? And does it tell positive from negative activations that it was not made from? Behaviours
whose differences agree and whose sides are apart along the vector are those that steering works on (Braun et al., arXiv
2505.22637, on directional agreement and on separability). All sums are in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.evaluation.statistics import quantile_interval
from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.vectors.vectors import describe_layers

if TYPE_CHECKING:
    import pandas as pd


def directional_agreement(activations: ContrastActivations) -> pd.DataFrame:
    """How far the pairs' differences, positive minus negative, point the same way (Braun et al., arXiv 2505.22637).

    Args:
        activations: As `extract_activations` returns them.

    Returns:
        One row for each ``layer``, with ``n_pairs`` and, as cosines:
        ``with_mean``: of a pair's difference with the mean difference, averaged over pairs. Each pair is part of that
        mean: n differences that have nothing in common still give about ``n ** -0.5``, and one pair gives 1.
        ``between_pairs``: of two different pairs' differences, averaged over all of them; about 0 where they have
        nothing in common. NaN for one pair.
        Both are NaN at a layer where a pair's difference is zero, which has no direction; ``with_mean`` also where the
        mean difference is zero.

    Raises:
        ValueError: If there are no pairs.
    """
    import pandas as pd

    n = _count(activations)
    rows: list[dict[str, Any]] = []
    for column, layer in enumerate(activations.layers):
        differences = _differences(activations, column)
        unit = differences / _norms(differences)[:, None]
        total = differences.sum(dim=0)
        # The squared length of the sum of all is the sum of all products, those of each with itself among them.
        products = unit.sum(dim=0).square().sum() - unit.square().sum()
        rows.append(
            {
                "layer": layer,
                "n_pairs": n,
                "with_mean": float((unit @ total).mean() / _norms(total)),
                "between_pairs": float(products) / (n * (n - 1)) if n > 1 else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def split_half(activations: ContrastActivations, n_splits: int = 100, seed: int = 0) -> pd.DataFrame:
    """Would other pairs have given the same vector? The cosine between the vectors of two random halves of the pairs.

    Each half has half as many pairs as the vector itself, which is therefore more reliable than these say.

    Args:
        activations: As `extract_activations` returns them.
        n_splits: How often the pairs are divided; all layers see the same divisions. Of an odd number of pairs, the
            second half has one more.
        seed: Of the divisions.

    Returns:
        One row for each ``layer``, with ``n_pairs``, ``cosine`` (mean over the splits), and ``cosine_low`` and
        ``cosine_high`` (2.5 and 97.5 % quantiles over the splits). NaN for one pair, or where a half's mean difference
        is zero.

    Raises:
        ValueError: If there are no pairs, or for no splits.
    """
    import pandas as pd

    n = _count(activations)
    if n_splits < 1:
        raise ValueError(f"n_splits is {n_splits}: at least 1 split is needed, 100 or more are good")
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(n_splits, n, dtype=torch.float64)
    for split in range(n_splits):
        first[split, torch.randperm(n, generator=generator)[: n // 2]] = 1
    rows: list[dict[str, Any]] = []
    for column, layer in enumerate(activations.layers):
        differences = _differences(activations, column)
        one, other = (
            first @ differences,
            (1 - first) @ differences,
        )  # sums: a cosine does not see by what they are divided
        cosines = (one * other).sum(dim=-1) / (_norms(one) * _norms(other))
        low, high = quantile_interval(cosines.numpy())
        rows.append(
            {"layer": layer, "n_pairs": n, "cosine": float(cosines.mean()), "cosine_low": low, "cosine_high": high}
        )
    return pd.DataFrame(rows)


def separability(train: ContrastActivations, held_out: ContrastActivations) -> pd.DataFrame:
    """How well the vector of some pairs tells apart the two sides of others (Braun et al., arXiv 2505.22637).

    The held-out activations are projected on the training pairs' mean difference, whose length does not matter.

    Args:
        train: What the vector is made from.
        held_out: Other pairs' activations at the same layers.

    Returns:
        One row for each ``layer``, with ``n_pairs`` (held out), ``d_prime``: the mean projection of the positive
        activations minus that of the negative ones, divided by their pooled standard deviation (the root of the mean of
        both variances, each with n - 1); and ``share_ordered``: the share of pairs whose positive activation projects
        further than its negative one (equal ones do not count). Both are NaN where the training pairs' mean difference
        is zero; ``d_prime`` also for one pair, or where projections do not vary.

    Raises:
        ValueError: If either has no pairs, or they are of other layers or another d_model.
    """
    import pandas as pd

    _count(train)
    n = _count(held_out)
    for what, mine, theirs in (
        ("layer", describe_layers(train.layers), describe_layers(held_out.layers)),
        ("d_model", train.positive.shape[-1], held_out.positive.shape[-1]),
    ):
        if mine != theirs:
            raise ValueError(
                f"the training pairs' activations have {what} {mine} and the held-out ones {what} {theirs}: extract "
                "both from the same model at the same layers"
            )
    rows: list[dict[str, Any]] = []
    for column, layer in enumerate(train.layers):
        direction = _differences(train, column).sum(dim=0)
        d_prime = share = float("nan")
        if bool(direction.any()):
            direction = direction / _norms(direction)
            positive, negative = (
                side[:, column].double() @ direction for side in (held_out.positive, held_out.negative)
            )
            share = float((_differences(held_out, column) @ direction > 0).double().mean())
            spread = _pooled_deviation(positive, negative)
            d_prime = float(positive.mean() - negative.mean()) / spread if spread else float("nan")
        rows.append({"layer": layer, "n_pairs": n, "d_prime": d_prime, "share_ordered": share})
    return pd.DataFrame(rows)


def _count(activations: ContrastActivations) -> int:
    if not len(activations.positive):
        raise ValueError(f"the activations {activations.name!r} are of no pairs: at least one is needed")
    return len(activations.positive)


def _differences(activations: ContrastActivations, column: int) -> Float[Tensor, "pair d_model"]:
    """One layer at a time: all of them in float64 would take twice the memory of the activations."""
    return activations.positive[:, column].double() - activations.negative[:, column].double()


def _norms(tensor: Tensor) -> Tensor:
    return tensor.square().sum(dim=-1).sqrt()


def _pooled_deviation(one: Float[Tensor, " pair"], other: Float[Tensor, " pair"]) -> float:
    """0 for one pair, or where all that varies is what rounding left of equal projections."""
    if len(one) < 2:
        return 0.0
    spread = float(((one.var() + other.var()) / 2).sqrt())
    size = float(torch.cat([one, other]).abs().max())
    return spread if spread > 1e-12 * size else 0.0
