"""What contrast pairs look like inside: principal components, and where along the layers their classes separate.

The CAA paper shows the activations of a behaviour's pairs on their first two principal components, coloured by
behaviour and marked by letter (arXiv 2312.06681, section 3): where the colours come apart, a vector means something;
where only the letters do, it means A or B. A picture can deceive, so `separation` says the same in figures, on pairs
that the direction was not made from, for the behaviour and for the letter side by side.

Activations do not know their letters. Give the dataset they were extracted from, and they are looked up in it; that it
is the same dataset is checked by its hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caa_lens.datasets.contrast import Pairs, as_dataset
from caa_lens.extraction.extraction import ContrastActivations
from caa_lens.files.messages import brief
from caa_lens.vectors.vectors import Vectors, as_vectors, describe_layers

if TYPE_CHECKING:
    import pandas as pd

Activations = ContrastActivations | Mapping[str, ContrastActivations]
Datasets = Pairs | Mapping[str, Pairs]


def pca(
    activations: Activations,
    pairs: Datasets | None = None,
    *,
    layers: Sequence[int] | None = None,
    n_components: int = 2,
) -> pd.DataFrame:
    """Every pair's two activations on the principal components of all of them, layer by layer (CAA, section 3).

    Several behaviours' activations are put together, so that they can be seen against one another. Each layer is
    centred and has components of its own, computed in float64; a component's sign is such that its largest coordinate
    (the first of equal ones) is positive. Nothing is scaled: a few huge dimensions can fill the first component, and
    `without_dimensions` takes them out.

    Args:
        activations: As `extract_activations` returns them; one behaviour's, or several by name.
        pairs: What they were extracted from, under the same names, for the letters.
        layers: None for all that all of them have.
        n_components: How many.

    Returns:
        Tidy, one row for each `layer`, `behavior`, `pair` (its index in the dataset) and `side` (``matching`` or
        ``other``): `letter` (the answer's; ``""`` where it has none or no pairs were given), `pc1`, `pc2` and so on
        (in the stream's units), and `explained_1` and so on (each component's part of the variance at that layer;
        NaN where nothing varies).

    Raises:
        ValueError: no activations, layers that they lack, more components than they can have, different d_model, or
            pairs that they were not extracted from.
    """
    import pandas as pd

    named = _by_name(activations)
    letters = _letters(named, pairs)
    asked = _layers(named, layers)
    most = min(sum(2 * len(each.positive) for each in named.values()), _d_model(named))
    if not 1 <= n_components <= most:
        raise ValueError(f"n_components is {n_components}: give 1 to {most}, which these activations can have")
    labels = [
        (behavior, pair, side, letter)
        for behavior, each in named.items()
        for side, of_side in zip(("matching", "other"), letters[behavior], strict=True)
        for pair, letter in zip(each.pair_ids, of_side, strict=True)
    ]
    frames: list[pd.DataFrame] = []
    for layer in asked:
        stacked = torch.cat([_both_sides(each, layer).flatten(0, 1) for each in named.values()])
        scores, explained = _components(stacked, n_components)
        frame = pd.DataFrame(labels, columns=["behavior", "pair", "side", "letter"])
        frame["layer"] = layer
        for number in range(n_components):
            frame[f"pc{number + 1}"] = scores[:, number].tolist()
        for number in range(n_components):
            frame[f"explained_{number + 1}"] = float(explained[number])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def separation(
    activations: Activations, pairs: Datasets | None = None, *, folds: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Where along the layers the classes separate, and whether it is only the letter.

    Pairs are divided into folds, both sides of a pair in the same one. The direction is the mean difference of all
    other folds, and each activation of the fold is called by the side of the halfway point it projects on. The same is
    done for the letter, with the activations of answer (A) minus those of answer (B).

    Args:
        activations: As `extract_activations` returns them; one behaviour's, or several by name.
        pairs: What they were extracted from, under the same names; without them the columns about letters are NaN.
        folds: How many; fewer pairs than this are held out one by one.
        seed: Of the division.

    Returns:
        One row for each `behavior` and `layer`, with `n_pairs` and, all held out:
        `accuracy` (share of activations called right, matching or other; 0.5 is chance) and `d_prime` (difference of
        the two sides' mean projections over their pooled standard deviation);
        `accuracy_balanced`: the accuracy within pairs whose matching letter is A and within those where it is B,
        averaged: 0.5 where the direction is nothing but the letter. NaN where all matching letters are the same;
        `letter_accuracy` and `letter_d_prime`, the same for A against B;
        `letter_cosine`: of the behaviour's mean difference with the letter's, over all pairs.
        `d_prime` is NaN where projections do not vary; figures of a direction that is zero are NaN.

    Raises:
        ValueError: no activations, fewer than two pairs, fewer than two folds, or pairs that they were not extracted
            from.
    """
    import pandas as pd

    if folds < 2:
        raise ValueError(f"folds is {folds}: at least 2 are needed, so that something is held out")
    named = _by_name(activations)
    letters = _letters(named, pairs)
    rows: list[dict[str, Any]] = []
    for behavior, each in named.items():
        n_pairs = len(each.positive)
        if n_pairs < 2:
            raise ValueError(
                f"{brief(behavior)} has {n_pairs} pair: at least 2 are needed, so that something is held out"
            )
        generator = torch.Generator().manual_seed(seed)
        fold_of = torch.empty(n_pairs, dtype=torch.long)
        fold_of[torch.randperm(n_pairs, generator=generator)] = torch.arange(n_pairs) % min(folds, n_pairs)
        a_matches = torch.tensor([pair == ("A", "B") for pair in zip(*letters[behavior], strict=True)])
        b_matches = torch.tensor([pair == ("B", "A") for pair in zip(*letters[behavior], strict=True)])
        lettered = a_matches | b_matches
        for layer in each.layers:
            sides = _both_sides(each, layer)
            right, d_prime = _held_out(sides, fold_of)
            # The letter's classes are the same activations, sorted by letter: A first, then B.
            by_letter = torch.where(a_matches[None, :, None], sides, sides.flip(0))[:, lettered]
            letter_right, letter_d = _held_out(by_letter, fold_of[lettered])
            groups = [right[:, group] for group in (a_matches, b_matches)]
            both = all(group.numel() for group in groups)
            rows.append(
                {
                    "behavior": behavior,
                    "layer": layer,
                    "n_pairs": n_pairs,
                    "accuracy": float(right.mean()),
                    "accuracy_balanced": sum(float(group.mean()) for group in groups) / 2 if both else float("nan"),
                    "d_prime": d_prime,
                    "letter_accuracy": float(letter_right.mean()),
                    "letter_d_prime": letter_d,
                    "letter_cosine": _cosine(_difference(sides), _difference(by_letter)),
                }
            )
    return pd.DataFrame(rows)


def relative_norms(vectors: Vectors, activations: ContrastActivations) -> pd.DataFrame:
    """How long a vector is beside the stream it is added to, at each layer that both have.

    A multiplier means little by itself: at an early layer a vector may be as long as the stream, at a late one a tenth
    of it. ActAdd (arXiv 2308.10248) reports the same ratio.

    Returns:
        `behavior`, `layer`, `norm` (the vector's), `stream_norm` (median over both sides of all pairs, at the position
        that was read) and `relative` (the one over the other).

    Raises:
        ValueError: no layer in common, or another d_model.
    """
    import pandas as pd

    vectors = as_vectors(vectors)
    shared = [layer for layer in vectors.layers if layer in activations.layers]
    if not shared or vectors.d_model != activations.positive.shape[-1]:
        raise ValueError(
            f"the vectors have layers {describe_layers(vectors.layers)} and d_model {vectors.d_model}, the activations "
            f"layers {describe_layers(activations.layers)} and d_model {activations.positive.shape[-1]}: give both "
            "from the same model, with a layer in common"
        )
    rows: list[tuple[str, int, float, float, float]] = []
    for layer in shared:
        norm, stream = vectors[layer].norm(), float(_both_sides(activations, layer).norm(dim=-1).median())
        rows.append((vectors.name, layer, norm, stream, norm / stream if stream else float("nan")))
    return pd.DataFrame(rows, columns=["behavior", "layer", "norm", "stream_norm", "relative"])


def _by_name(activations: Activations) -> dict[str, ContrastActivations]:
    if isinstance(activations, ContrastActivations):
        named = {activations.name: activations}
    else:
        named = dict(activations)
    if not named or not all(len(each.positive) for each in named.values()):
        raise ValueError("there are no activations: give those of at least one pair of each behaviour")
    return named


def _letters(
    named: Mapping[str, ContrastActivations], pairs: Datasets | None
) -> dict[str, tuple[list[str], list[str]]]:
    """For each behaviour, the letter of every pair's matching answer and of its other one."""
    if pairs is None:
        return {behavior: ([""] * len(each.pair_ids), [""] * len(each.pair_ids)) for behavior, each in named.items()}
    given = pairs if isinstance(pairs, Mapping) else {next(iter(named)): pairs}
    datasets = {name: as_dataset(each) for name, each in given.items()}
    if set(datasets) != set(named):
        raise ValueError(
            f"activations are named {brief(sorted(named))} and pairs {brief(sorted(datasets))}: give both under the "
            "same names"
        )
    found: dict[str, tuple[list[str], list[str]]] = {}
    for behavior, each in named.items():
        dataset = datasets[behavior]
        if dataset.hash != each.provenance.dataset_hash:
            raise ValueError(
                f"the activations of {brief(behavior)} were not extracted from these pairs: they come from "
                f"{each.provenance.dataset} ({each.provenance.n_pairs} pairs), and {dataset.name} has {len(dataset)}"
            )
        own = [dataset[index] for index in each.pair_ids]
        found[behavior] = ([pair.letter or "" for pair in own], [pair.swapped().letter or "" for pair in own])
    return found


def _layers(named: Mapping[str, ContrastActivations], layers: Sequence[int] | None) -> list[int]:
    every = list(named.values())
    if len({each.positive.shape[-1] for each in every}) > 1:
        has = ", ".join(f"{behavior!r} has {each.positive.shape[-1]}" for behavior, each in named.items())
        raise ValueError(f"the activations have different d_model: {has}")
    shared = sorted(set(every[0].layers).intersection(*(each.layers for each in every)))
    missing = sorted(set(layers or ()) - set(shared))
    if missing or not shared or (layers is not None and not len(layers)):
        raise ValueError(
            f"layers {list(layers) if layers is not None else 'None'}: all of these activations have "
            f"{describe_layers(shared) if shared else 'no layer in common'}"
        )
    return shared if layers is None else sorted(set(layers))


def _d_model(named: Mapping[str, ContrastActivations]) -> int:
    return next(iter(named.values())).positive.shape[-1]


def _both_sides(activations: ContrastActivations, layer: int) -> Float[Tensor, "side pair d_model"]:
    """One layer at a time in float64: all of them would take twice the memory of the activations."""
    column = activations.layers.index(layer)
    return torch.stack([activations.positive[:, column], activations.negative[:, column]]).double()


def _components(rows: Float[Tensor, "row d_model"], n: int) -> tuple[Float[Tensor, "row n"], Float[Tensor, " n"]]:
    """Scores on the first n principal components, and each one's part of the variance."""
    centered = rows - rows.mean(dim=0)
    left, values, right = torch.linalg.svd(centered, full_matrices=False)
    largest = right[:n].abs().round(decimals=9).argmax(dim=1, keepdim=True)
    signs = right[:n].gather(1, largest)[:, 0].sign()
    return left[:, :n] * values[:n] * signs, values[:n].square() / values.square().sum()


def _held_out(
    sides: Float[Tensor, "side pair d_model"], fold_of: Int[Tensor, " pair"]
) -> tuple[Float[Tensor, "side pair"], float]:
    """Which activations a direction made without their fold calls right (1 or 0), and d' over all folds."""
    projected = torch.full(sides.shape[:2], float("nan"), dtype=torch.float64)
    for fold in fold_of.unique():
        inside: Bool[Tensor, " pair"] = fold_of == fold
        train = sides[:, ~inside]
        direction = _difference(train)
        if train.shape[1] and bool(direction.any()):
            halfway = train.mean(dim=(0, 1))
            projected[:, inside] = (sides[:, inside] - halfway) @ (direction / direction.norm())
    right = torch.stack([projected[0] > 0, projected[1] < 0]).double()
    right[projected.isnan()] = float("nan")
    spread = float(projected.var(dim=1).mean().sqrt()) if projected.shape[1] > 1 else 0.0
    apart = float(projected[0].mean() - projected[1].mean())
    varies = spread > 1e-12 * float(projected.abs().max()) if projected.numel() else False
    return right, apart / spread if varies else float("nan")


def _difference(sides: Float[Tensor, "side pair d_model"]) -> Float[Tensor, " d_model"]:
    return (sides[0] - sides[1]).mean(dim=0)


def _cosine(one: Tensor, other: Tensor) -> float:
    return float((one @ other) / (one.norm() * other.norm()))
