"""An effect beside its controls: what any frame of these evaluations says, with its interval and its null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from caa_lens.evaluation.actadd.controls import KINDS
from caa_lens.evaluation.items import wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

GROUPS = ("layer", "at", "coefficient", "kind", "k")
"""Columns that tell apart what is summarized row by row, where a frame has them."""

_NUMBERS = ("ratio", "kl", "loss", "logp", "odds")
"""Values that are no yes and no, also where all are 0 or 1: without an addition every ratio is 1 and every KL 0."""


def beside_controls(frame: pd.DataFrame, value: str, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The steered mean of a value, its change from the unsteered one, and the changes that controls make.

    Items are what is independent: a text, a fact, a prompt with all its samples, or the samples of a single prompt. An
    item's rows are averaged first. Intervals are 95 % ones over the same items steered and unsteered: by bootstrap; or,
    where every item is a yes or a no, Wilson's for a share and Newcombe's for the change of a paired share, which do
    not shrink to nothing where all items agree. With one item a bootstrap's are of no width and say nothing. The effect
    of a control is over the items that have a value with it and unsteered: where a score is missing for many texts, as
    a control makes nonsense of them, that is few.

    Args:
        frame: As `perplexity_ratio`, `topic_words`, `sentiment_shift`, `completion_loss`, `knowledge_kept`,
            `word_odds` and `sweep_additions` return it.
        value: The column, such as ``"ratio"``, ``"hit"``, ``"score"`` or ``"loss"``.
        n_bootstrap: Resamplings.
        seed: Of them.

    Returns:
        One row for each combination of the columns `GROUPS` that the frame has, with these; ``n_items`` (with a value
        steered and unsteered; others are left out), ``unsteered``, ``steered`` with ``low`` and ``high``, ``effect``
        (their difference) with ``effect_low`` and ``effect_high``; and for ``random`` and ``nonsense`` each:
        ``n_random``, ``random`` (their mean effect), ``random_low`` and ``random_high`` (2.5 and 97.5 % quantiles of
        their effects), ``beats_random`` (share of them that go less far in the effect's direction; a control itself
        would beat about half of the others or more, as its direction is its own).

    Raises:
        ValueError: If the frame lacks the value or has no controls, or for no resamplings.

    Source: Wilson (1927); Newcombe (1998, Statistics in Medicine 17:2635, paired shares, method 10).
    """
    import pandas as pd

    if n_bootstrap < 1:
        raise ValueError(
            f"n_bootstrap is {n_bootstrap}: an interval needs at least 1 resampling, 1000 or more are good"
        )
    if missing := sorted({"way", "item", value} - set(frame.columns)):
        raise ValueError(
            f"the frame lacks the columns {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}"
        )
    groups = [name for name in GROUPS if name in frame.columns]
    yes_or_no = value not in _NUMBERS and set(frame[value].dropna()) <= {0, 1}
    rows: list[dict[str, Any]] = []
    parts: Any = frame.groupby(groups, sort=False) if groups else [((), frame)]
    for key, part in parts:
        held = dict(zip(groups, cast("tuple[Any, ...]", key), strict=True))
        table = part.pivot_table(index="item", columns="way", values=value, aggfunc="mean", dropna=False)
        rows.append(held | _compared(table, yes_or_no, n_bootstrap, seed))
    return pd.DataFrame(rows)


def _compared(table: pd.DataFrame, yes_or_no: bool, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """One row's numbers, of a table of items by ways."""
    import numpy as np

    of_kind = {kind: [way for way in table.columns if str(way).startswith(f"{kind}-")] for kind in KINDS}
    if not {"unsteered", "steered"} <= set(table.columns) or not all(of_kind.values()):
        raise ValueError(
            f"the frame has the ways {', '.join(map(str, table.columns[:8]))}: it needs unsteered, steered, and "
            f"controls of both kinds ({', '.join(f'{kind}-0' for kind in KINDS)}), without which no effect is given"
        )
    both = table[["unsteered", "steered"]].dropna()
    before, after = both["unsteered"].to_numpy(), both["steered"].to_numpy()
    yes_or_no = yes_or_no and set(np.unique([before, after])) <= {0.0, 1.0}  # means of several samples are neither
    found: dict[str, Any] = {"n_items": len(both)}
    found |= _effect(before, after, yes_or_no, n_bootstrap, np.random.default_rng(seed))
    for kind, ways in of_kind.items():
        moved = [(table[way] - table["unsteered"]).mean() for way in ways]
        found |= _against(kind, np.array([each for each in moved if each == each]), found["effect"])
    return found


def _effect(
    before: np.ndarray, after: np.ndarray, yes_or_no: bool, n_bootstrap: int, generator: np.random.Generator
) -> dict[str, Any]:
    import numpy as np

    names = ("unsteered", "steered", "low", "high", "effect", "effect_low", "effect_high")
    n = len(before)
    if not n:
        return dict.fromkeys(names, float("nan"))
    share, was = float(after.mean()), float(before.mean())
    effect = share - was
    if yes_or_no:
        (low, high), (was_low, was_high) = wilson(int(after.sum()), n), wilson(int(before.sum()), n)
        phi = _correlation(before, after)
        below, above = _joined(share - low, was_high - was, phi), _joined(high - share, was - was_low, phi)
        ends = effect - below, effect + above
    else:
        draws = generator.integers(0, n, (n_bootstrap, n))
        low, high = np.quantile(after[draws].mean(axis=1), [0.025, 0.975])
        ends = np.quantile((after - before)[draws].mean(axis=1), [0.025, 0.975])
    return dict(zip(names, map(float, (was, share, low, high, effect, *ends)), strict=True))


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Phi of the same items' yes and no; a positive one corrected for continuity, 0 where one side is all the same."""
    n, was, now = len(before), float(before.sum()), float(after.sum())
    spread = (was * (n - was) * now * (n - now)) ** 0.5
    product = n * float((before * after).sum()) - was * now  # of the diagonals of their table, one less the other
    return (max(product - n / 2, 0.0) if product > 0 else product) / spread if spread else 0.0


def _joined(one: float, other: float, phi: float) -> float:
    """The distance from a change to an end of its interval, from those of its two shares."""
    return max(one**2 + other**2 - 2 * phi * one * other, 0.0) ** 0.5


def _against(kind: str, null: np.ndarray, effect: float) -> dict[str, float]:
    import numpy as np

    if not len(null) or effect != effect:
        return {f"n_{kind}": len(null)} | dict.fromkeys(
            (kind, f"{kind}_low", f"{kind}_high", f"beats_{kind}"), float("nan")
        )
    low, high = np.quantile(null, [0.025, 0.975])
    beaten = (null * np.sign(effect) < abs(effect)).mean()
    numbers = (float(null.mean()), float(low), float(high), float(beaten))
    return {f"n_{kind}": len(null)} | dict(
        zip((kind, f"{kind}_low", f"{kind}_high", f"beats_{kind}"), numbers, strict=True)
    )
