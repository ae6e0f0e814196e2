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

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CELL = ["layer", "multiplier"]


def summarize(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row for each behavior x layer x multiplier of a `caa_lens.sweep`.

    Args:
        frame: As `sweep` returns it.
        n_bootstrap: Resamplings of the items for the intervals; each resampling keeps the number of A and B items.
        seed: Of the resampling.

    Returns:
        A frame with these columns. Probabilities are of the two answers only, except ``mass``.
        ``p_matching``: mean over items; ``effect``: that minus the same at multiplier 0, with its 95 % interval
        ``effect_low`` to ``effect_high``.
        ``effect_balanced``, ``balanced_low``, ``balanced_high``: the mean over items whose matching letter is A and the
        mean over those where it is B, averaged (``n_balanced`` items: those of other letters are not in it). The plain
        effect where no answer is a letter; NaN where all matching letters are the same, which no average can balance.
        ``share_wrong``: items whose log odds moved against the multiplier's sign.
        ``p_a``, ``letter_drift``: mean share of A, and that minus the same at 0 (NaN without letters).
        ``mass``: mean of p(matching) + p(other) over the whole vocabulary.
        ``n_random``, ``random_low``, ``random_high``: the 2.5 and 97.5 % quantiles of the random vectors' balanced
        effects in the same cell; ``beats_random``: the share of them that the effect exceeds in the multiplier's
        direction. NaN where there are none. The same columns for every other kind of null in the frame: vectors named
        ``shuffled-0``, ``shuffled-1`` and so on give ``n_shuffled``, ``beats_shuffled``.

    Raises:
        ValueError: If the frame is not a sweep's, has no rows at multiplier 0, or does not have the same items in every
            cell.
    """
    import pandas as pd

    needed = {"behavior", "vector", "item", "letter", "logp_matching", "logp_other", "p_matching", "p_a", "mass", *CELL}
    if missing := sorted(needed - set(frame.columns)):
        raise ValueError(f"this is not a sweep's frame: it lacks the columns {', '.join(missing)}")
    rows: list[dict[str, Any]] = []
    for behavior, part in frame.groupby("behavior", sort=False):
        own = part[part["vector"] == "behavior"]
        if not (own["multiplier"] == 0).any():
            raise ValueError(f"the sweep of {behavior} has no rows at multiplier 0, against which effects are measured")
        base = own[(own["multiplier"] == 0) & (own["layer"] == own["layer"].min())].sort_values("item")
        if base["item"].duplicated().any():
            raise ValueError(f"the sweep of {behavior} has items more than once: were two sweeps put together?")
        items = resampled(base["letter"].fillna("").astype(str).to_numpy(), n_bootstrap, seed)
        kind_of = part["vector"].astype(str).str.rpartition("-")[0]
        kinds = dict.fromkeys(["random", *kind_of[part["vector"] != "behavior"]])
        nulls = {kind: _null_effects(part[kind_of == kind], base, items) for kind in kinds}
        for (layer, multiplier), cell in _cells(own):
            moved = _moved(cell, base)
            even = items.balanced(moved)
            row: dict[str, Any] = {
                "behavior": behavior,
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


def summarize_each(
    frame: pd.DataFrame, names: Mapping[str, str], *, n_bootstrap: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """`summarize` for every vector of a sweep, each put in the place of the behaviour's own.

    A sweep runs other vectors through the same cells as ``nulls``, and not all of them are nulls: they may be what is
    compared. Each of those is summarized here against the unsteered rows that all have in common.

    Args:
        frame: As `sweep` returns it.
        names: The compared vectors: the name each is to have, and its name in the frame's column ``vector``.
        n_bootstrap: As for `summarize`.
        seed: As for `summarize`.

    Returns:
        The rows of `summarize` whose multiplier is not 0, for one vector after another, with its name in front as
        ``vector``. The nulls of the vector ``x`` are those named ``x: random-0`` and so on, without ``x: ``, and those
        that are named after none of the vectors, which are nulls of all.

    Raises:
        ValueError: If the frame lacks one of the vectors, and as `summarize`.
    """
    import pandas as pd

    rows_of: dict[str, pd.DataFrame] = {str(name): part for name, part in frame.groupby("vector", sort=False)}
    if missing := sorted(set(names.values()) - set(rows_of)):
        raise ValueError(f"the frame has no vectors {missing}: it has {list(rows_of)[:8]}")
    if "behavior" not in rows_of:
        raise ValueError("the frame has no rows named 'behavior', whose multiplier 0 effects are measured against")
    unsteered = rows_of["behavior"][rows_of["behavior"]["multiplier"] == 0]
    nulls = {name: rows_of[name] for name in rows_of if name not in (*names.values(), "behavior")}
    owner = {name: next((each for each in names if name.startswith(f"{each}: ")), None) for name in nulls}
    parts: list[pd.DataFrame] = []
    for name, in_frame in names.items():
        steered = rows_of[in_frame]
        mine = {null.removeprefix(f"{name}: "): nulls[null] for null in nulls if owner[null] in (name, None)}
        together = [
            unsteered,
            steered[steered["multiplier"] != 0].assign(vector="behavior"),
            *(rows.assign(vector=null) for null, rows in mine.items()),
        ]
        table = summarize(pd.concat(together, ignore_index=True), n_bootstrap=n_bootstrap, seed=seed)
        table = table[table["multiplier"] != 0]
        table.insert(0, "vector", name)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def choose_layer(summary: pd.DataFrame) -> dict[str, int]:
    """The layer of each behaviour with the largest letter-balanced swing.

    The swing is the balanced effect (the plain one where letters cannot be balanced) at the largest multiplier minus
    that at the smallest one (which may be 0). Call it on the summary of a dev split, and report that layer on another.

    Raises:
        ValueError: If this is not a summary, or it has one multiplier only.
    """
    if "effect_balanced" not in summary.columns:
        raise ValueError("choose_layer takes the frame of summarize(), not that of sweep()")
    if summary["multiplier"].nunique() < 2:
        raise ValueError("there is one multiplier only: a layer is chosen by how far two multipliers are apart")
    summary = summary.assign(effect_balanced=summary["effect_balanced"].fillna(summary["effect"]))
    chosen: dict[str, int] = {}
    for behavior, part in summary.groupby("behavior", sort=False):
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
    for _, of_one in part.groupby("vector", sort=False):
        for cell, rows in _cells(of_one):
            moved = _moved(rows, base)
            found.setdefault(cell, []).append(balanced(moved, items.halves))
    return found
