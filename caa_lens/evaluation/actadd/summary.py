"""An effect beside its controls: what any frame of these evaluations says, with its interval and its null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from caa_lens.evaluation.actadd.controls import KINDS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

GROUPS = ("layer", "at", "coefficient", "kind", "k")
"""Columns that tell apart what is summarized row by row, where a frame has them."""

_Z = 1.959964


def beside_controls(frame: pd.DataFrame, value: str, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The steered mean of a value, its change from the unsteered one, and the changes that controls make.

    Items are what is independent: a text, a fact, a prompt with all its samples, or the samples of a single prompt. An
    item's rows are averaged first. Intervals are 95 % ones: by bootstrap over the items, the same items steered and
    unsteered; where every item is a yes or a no, Wilson's for a share and Newcombe's for the change, which do not
    shrink to nothing where all items agree.

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
        ValueError: If the frame lacks the value, has no controls, or has another set of items in some way.

    Source: Wilson (1927); Newcombe (1998, Statistics in Medicine 17, method 10).
    """
    import pandas as pd

    if missing := sorted({"way", "item", value} - set(frame.columns)):
        raise ValueError(
            f"the frame lacks the columns {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}"
        )
    groups = [name for name in GROUPS if name in frame.columns]
    rows: list[dict[str, Any]] = []
    parts: Any = frame.groupby(groups, sort=False) if groups else [((), frame)]
    for key, part in parts:
        held = dict(zip(groups, cast("tuple[Any, ...]", key), strict=True))
        table = part.pivot_table(index="item", columns="way", values=value, aggfunc="mean", dropna=False)
        rows.append(held | _compared(table, n_bootstrap, seed))
    return pd.DataFrame(rows)


def _compared(table: pd.DataFrame, n_bootstrap: int, seed: int) -> dict[str, Any]:
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
    found = {"n_items": len(both)} | _effect(before, after, n_bootstrap, np.random.default_rng(seed))
    for kind, ways in of_kind.items():
        moved = [(table[way] - table["unsteered"]).mean() for way in ways]
        found |= _against(kind, np.array([each for each in moved if each == each]), found["effect"])
    return found


def _effect(before: np.ndarray, after: np.ndarray, n_bootstrap: int, generator: np.random.Generator) -> dict[str, Any]:
    import numpy as np

    names = ("unsteered", "steered", "low", "high", "effect", "effect_low", "effect_high")
    n = len(before)
    if not n:
        return dict.fromkeys(names, float("nan"))
    share, was = float(after.mean()), float(before.mean())
    if set(np.unique([before, after])) <= {0.0, 1.0}:
        (low, high), (was_low, was_high) = _wilson(share, n), _wilson(was, n)
        below, above = np.hypot(share - low, was_high - was), np.hypot(high - share, was - was_low)
        ends = share - was - below, share - was + above
    else:
        draws = generator.integers(0, n, (n_bootstrap, n))
        low, high = np.quantile(after[draws].mean(axis=1), [0.025, 0.975])
        ends = np.quantile((after - before)[draws].mean(axis=1), [0.025, 0.975])
    numbers = (was, share, low, high, share - was, *ends)
    return dict(zip(names, map(float, numbers), strict=True))


def _wilson(share: float, n: int) -> tuple[float, float]:
    spread = _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


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
