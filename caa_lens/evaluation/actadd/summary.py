"""An effect beside its controls: what any frame of these evaluations says, with its interval and its null."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from caa_lens.evaluation.actadd.controls import KINDS
from caa_lens.evaluation.statistics import Estimate, against_nulls, direction, mean_of, newcombe, resampled, wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

GROUPS = ("layer", "at", "coefficient", "text_kind", "k")
"""Columns that tell apart what is summarized row by row, where a frame has them."""

_NUMBERS = ("ratio", "kl", "loss", "logp", "log_odds")
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
        steered and unsteered; others are left out), ``value_unsteered``,
        ``value_steered`` with ``value_steered_low`` and ``value_steered_high``, ``effect`` (their difference) with
        ``effect_low`` and ``effect_high``; and for ``random`` and ``nonsense`` each: ``n_random``, ``random_mean``
        (their mean effect), ``random_low`` and ``random_high`` (2.5 and 97.5 % quantiles of their effects),
        ``beyond_random`` (share of them that go less far in the effect's own direction; a control itself would be
        beyond about half of the others or more, as its direction is its own).

    Raises:
        ValueError: If the frame lacks the value or has no controls, or for no resamplings.

    Source: Wilson (1927); Newcombe (1998, Statistics in Medicine 17:2635, paired shares, method 10).
    """
    import pandas as pd

    if missing := sorted({"kind", "draw", "item", value} - set(frame.columns)):
        raise ValueError(
            f"the frame lacks the columns {', '.join(missing)}: it has {', '.join(map(str, frame.columns))}"
        )
    groups = [name for name in GROUPS if name in frame.columns]
    yes_or_no = value not in _NUMBERS and set(frame[value].dropna()) <= {0, 1}
    rows: list[dict[str, Any]] = []
    parts: Any = frame.groupby(groups, sort=False) if groups else [((), frame)]
    for key, part in parts:
        held = dict(zip(groups, cast("tuple[Any, ...]", key), strict=True))
        table = part.pivot_table(index="item", columns=["kind", "draw"], values=value, aggfunc="mean", dropna=False)
        rows.append(held | _compared(table, yes_or_no, n_bootstrap, seed))
    return pd.DataFrame(rows)


def _compared(table: pd.DataFrame, yes_or_no: bool, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """One row's numbers, of a table of items by ways."""
    import numpy as np

    kinds = list(dict.fromkeys(table.columns.get_level_values("kind")))
    if missing := [kind for kind in ("unsteered", "vector", *KINDS) if kind not in kinds]:
        raise ValueError(
            f"the frame has rows of the kinds {', '.join(kinds)}, and none of {', '.join(missing)}: it needs the "
            f"unsteered model, the addition, and controls of both kinds ({', '.join(KINDS)}), without which no effect "
            "is given"
        )
    unsteered, steered = table["unsteered", -1], table["vector", -1]
    there = unsteered.notna() & steered.notna()
    before, after = unsteered[there].to_numpy(), steered[there].to_numpy()
    yes_or_no = yes_or_no and set(np.unique([before, after])) <= {0.0, 1.0}  # means of several samples are neither
    found: dict[str, Any] = {"n_items": len(before)}
    found |= _effect(before, after, yes_or_no, n_bootstrap, seed)
    for kind in KINDS:
        moved: Any = table[kind].sub(unsteered, axis=0).mean()
        known: list[float] = moved.dropna().tolist()
        found[f"{kind}_mean"] = mean_of(known)
        found |= against_nulls(found["effect"], known, tail=direction(found["effect"])).columns(kind, "beyond")
    return found


def _effect(before: np.ndarray, after: np.ndarray, yes_or_no: bool, n_bootstrap: int, seed: int) -> dict[str, Any]:
    items = resampled(len(before), n_bootstrap, seed)
    was, steered, effect = items.mean(before), items.mean(after), items.mean(after - before)
    if yes_or_no:
        steered = Estimate(steered.value, *wilson(int(after.sum()), len(after)))
        effect = newcombe(before, after)
    return {"value_unsteered": was.value, **steered.columns("value_steered"), **effect.columns("effect")}
