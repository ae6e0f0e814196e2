"""Effects on two-choice questions, each beside what could explain it away.

The CAA paper reports the mean of ``p(matching) / (p(A) + p(B))``. That number also rises when a vector merely makes the
model prefer one letter and the matching answers happen to carry it, when the two answers lose their probability to
everything else, and when some random vector of that length would have done the same. So each effect stands beside its
letter-balanced value, a bootstrap interval over items, the share of items that moved the wrong way, the letter drift,
the mass, and the range of norm-matched random vectors. A layer is chosen on one set of items and reported on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from caa_lens.evaluation.statistics import Resampled, against_nulls, balanced, direction, resampled
from caa_lens.sweeps import OWN_KINDS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CELL = ["layer", "multiplier"]
SWEPT = ("behavior", "vector", "kind", "draw", "layer", "multiplier", "item", "letter", "logp_matching", "logp_other")
"""Columns of a sweep by which its rows are told apart, and what is read of each."""


def check_swept(frame: pd.DataFrame, *more: str) -> None:
    """Refuse a frame that is not one of `caa_lens.sweep`, with a ValueError."""
    if missing := sorted({*SWEPT, *more} - set(frame.columns)):
        raise ValueError(f"this is not a sweep's frame: it lacks the columns {', '.join(missing)}")


def summarize(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row for each behavior x vector x layer x multiplier of a `caa_lens.sweep`.

    Args:
        frame: As `sweep` returns it.
        n_bootstrap: Resamplings of the items for the intervals; each resampling keeps the number of A and B items.
        seed: Of the resampling.

    Returns:
        A frame with these columns. Probabilities are of the two answers only, except ``mass``.
        ``vector``: the behaviour's own, or one that was compared with it; these have no rows at multiplier 0.
        ``p_matching``: mean over items; ``effect``: that minus the same at multiplier 0, with its 95 % interval
        ``effect_low`` to ``effect_high``.
        ``effect_balanced``, ``balanced_low``, ``balanced_high``: the mean over items whose matching letter is A and the
        mean over those where it is B, averaged (``n_balanced`` items: those of other letters are not in it). The plain
        effect where no answer is a letter; NaN where all matching letters are the same, which no average can balance.
        ``share_wrong``: items whose log odds moved against the multiplier's sign.
        ``p_a``, ``letter_drift``: mean share of A, and that minus the same at 0 (NaN without letters).
        ``mass``: mean of p(matching) + p(other) over the whole vocabulary.
        ``n_random``, ``random_low``, ``random_high``: the 2.5 and 97.5 % quantiles of the balanced effects of the
        vector's random nulls in the same cell; ``beats_random``: the share of them that the effect exceeds in the
        multiplier's direction. NaN where there are none. The same columns for every other kind of null in the frame:
        ``n_shuffled``, ``beats_shuffled`` and so on.

    Raises:
        ValueError: If the frame is not a sweep's, has no rows at multiplier 0, or does not have the same items in every
            cell.
    """
    import pandas as pd

    check_swept(frame, "p_matching", "p_a", "mass")
    rows: list[dict[str, Any]] = []
    for behavior, part in frame.groupby("behavior", sort=False):
        no_null = part["kind"].isin(OWN_KINDS)
        own = part[part["kind"] == "vector"]
        if not (own["multiplier"] == 0).any():
            raise ValueError(f"the sweep of {behavior} has no rows at multiplier 0, against which effects are measured")
        base = own[(own["multiplier"] == 0) & (own["layer"] == own["layer"].min())].sort_values("item")
        if base["item"].duplicated().any():
            raise ValueError(f"the sweep of {behavior} has items more than once: were two sweeps put together?")
        items = resampled(base["letter"].fillna("").astype(str).to_numpy(), n_bootstrap, seed)
        kinds = dict.fromkeys(["random", *part.loc[~no_null, "kind"]])
        for vector, of_vector in part.groupby("vector", sort=False):
            nulls = {kind: _null_effects(of_vector[of_vector["kind"] == kind], base, items) for kind in kinds}
            for (layer, multiplier), cell in _cells(of_vector[of_vector["kind"].isin(OWN_KINDS)]):
                moved = _moved(cell, base)
                even = items.balanced(moved)
                row: dict[str, Any] = {
                    "behavior": behavior,
                    "vector": vector,
                    "layer": layer,
                    "multiplier": multiplier,
                    "n_items": len(cell),
                    "p_matching": cell["p_matching"].mean(),
                    **items.mean(moved).columns("effect"),
                    **even.columns("effect_balanced", "balanced"),
                    "n_balanced": sum(map(len, items.halves)),
                    "share_wrong": _share_wrong(cell, base, multiplier),
                    "p_a": cell["p_a"].mean(),
                    "letter_drift": cell["p_a"].mean() - base["p_a"].mean(),
                    "mass": cell["mass"].mean(),
                }
                for kind, effects in nulls.items():
                    there = effects.get((layer, multiplier), [])
                    row |= against_nulls(even.value, there, tail=direction(multiplier)).columns(kind)
                rows.append(row)
    return pd.DataFrame(rows)


def sharing_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of a sweep in which the nulls of the behaviour's own vector are also those of each compared one.

    For vectors of the same norms, whose nulls are the same and were run once.
    """
    import pandas as pd

    is_null = ~frame["kind"].isin(OWN_KINDS)
    others = frame.loc[frame["kind"] == "compared", ["behavior", "vector"]].drop_duplicates()
    shared = [
        frame[is_null & (frame["behavior"] == behavior)].assign(vector=vector)
        for behavior, vector in others.itertuples(index=False)
    ]
    return pd.concat([frame, *shared], ignore_index=True)


def choose_layer(summary: pd.DataFrame) -> int:
    """The layer with the largest letter-balanced swing, of a summary of one behaviour.

    The swing is the balanced effect (the plain one where letters cannot be balanced) at the largest multiplier minus
    that at the smallest one (which may be 0). Call it on the summary of a dev split, and report that layer on another.

    Raises:
        ValueError: If this is not a summary, is one of several behaviours or vectors, or has one multiplier only.
    """
    found = choose_layers(summary)
    if len(found) != 1:
        raise ValueError(f"the summary is of {list(found)}: evaluation.choices.choose_layers() gives each its own")
    return next(iter(found.values()))


def choose_layers(summary: pd.DataFrame) -> dict[str, int]:
    """The layer of each behaviour, as `choose_layer` chooses it.

    Raises:
        ValueError: If this is not a summary, a behaviour has several vectors in it, or there is one multiplier only.
    """
    if "effect_balanced" not in summary.columns:
        raise ValueError("choose_layer takes the frame of summarize(), not that of sweep()")
    if summary["multiplier"].nunique() < 2:
        raise ValueError("there is one multiplier only: a layer is chosen by how far two multipliers are apart")
    summary = summary.assign(effect_balanced=summary["effect_balanced"].fillna(summary["effect"]))
    chosen: dict[str, int] = {}
    for behavior, part in summary.groupby("behavior", sort=False):
        if part.duplicated(CELL).any():
            raise ValueError(
                f"the summary of {behavior} has several vectors: keep one, as summary[summary.vector == x]"
            )
        by_layer = part.pivot(index="layer", columns="multiplier", values="effect_balanced")
        swing = by_layer[by_layer.columns.max()] - by_layer[by_layer.columns.min()]
        chosen[str(behavior)] = int(str(swing.idxmax()))
    return chosen


def _cells(part: pd.DataFrame) -> Iterator[tuple[tuple[int, float], pd.DataFrame]]:
    """The rows of each layer and multiplier, in the order of the items."""
    for key, cell in part.groupby(CELL, sort=True):
        layer, multiplier = cast("tuple[int, float]", key)
        yield (int(layer), float(multiplier)), cell.sort_values("item")


def _moved(cell: pd.DataFrame, base: pd.DataFrame) -> np.ndarray:
    """The change of each item's p(matching), the same items on both sides."""
    if cell["item"].tolist() != base["item"].tolist():
        raise ValueError("a cell of the sweep has other items than multiplier 0: was the frame cut or put together?")
    return cell["p_matching"].to_numpy() - base["p_matching"].to_numpy()


def _share_wrong(cell: pd.DataFrame, base: pd.DataFrame, multiplier: float) -> float:
    if multiplier == 0:
        return float("nan")
    odds, before = (part["logp_matching"].to_numpy() - part["logp_other"].to_numpy() for part in (cell, base))
    return float(((odds - before) * multiplier < 0).mean())


def _null_effects(part: pd.DataFrame, base: pd.DataFrame, items: Resampled) -> Mapping[tuple[int, float], list[float]]:
    """Balanced effects of the nulls of one kind, by layer and multiplier."""
    found: dict[tuple[int, float], list[float]] = {}
    for _, of_one in part.groupby("draw", sort=False):
        for cell, rows in _cells(of_one):
            moved = _moved(rows, base)
            found.setdefault(cell, []).append(balanced(moved, items.halves))
    return found
