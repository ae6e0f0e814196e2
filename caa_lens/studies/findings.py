"""What a study found, in numbers that fit a table and in plain sentences.

A vector is said to steer only if the letter-balanced effect's 95 % interval leaves out zero, in the multiplier's
direction, and the effect goes further than 95 % of the null vectors of every kind there is: random ones of the same
length, ones with permuted dimensions, and ones made from shuffled labels. The two directions are judged apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caa_lens.extraction.nulls import KINDS

if TYPE_CHECKING:
    import pandas as pd

CLEAR = "steers"
VERDICTS = {
    CLEAR: "the letter-balanced interval leaves out 0, and it goes further than 95 % of the nulls of every kind",
    "no clear effect": "the letter-balanced interval includes 0",
    "like a null vector": "the interval leaves out 0, but the effect is within 95 % of the nulls of some kind",
    "without a null": "the interval leaves out 0, but nothing was measured that any vector of this length would do",
    "steers the wrong way": "as clear as `steers`, on the other side of 0",
    "cannot be balanced": "all matching letters are the same, so a shift towards that letter looks like an effect",
}
ENOUGH = 0.95

COLUMNS = {
    "behavior": "behaviour",
    "layer": "layer",
    "multiplier": "at",
    "p_matching": "P(matching)",
    "effect": "effect [95 %]",
    "balanced": "balanced [95 %]",
    "wrong": "wrong",
    "mass": "mass",
    "random": "random",
    "permuted": "permuted",
    "shuffled": "shuffled",
    "verdict": "finding",
}
"""The table's columns, by the names that `cells` uses."""

MEANINGS = {
    "at": "the multiplier",
    "P(matching)": "mean probability of the behaviour's answer, of the two answers: unsteered, then steered",
    "effect": "change in it, with the 95 % bootstrap interval over items",
    "balanced": "the same, items whose matching letter is A and B counting equally (where answers are letters)",
    "wrong": "share of items that moved against the multiplier's sign",
    "mass": "probability of the two answers among all tokens",
    "random": "norm-matched random vectors that the balanced effect exceeds, in the multiplier's direction",
    "permuted": "the same for vectors with the same entries at other dimensions",
    "shuffled": "the same for vectors made from the same pairs with half of the labels exchanged, at the same norm",
}


def findings(summary: pd.DataFrame, shown: Sequence[float]) -> pd.DataFrame:
    """The rows of a test summary at the multipliers shown, without 0, each with ``verdict`` and ``p_unsteered``."""
    base = summary[summary["multiplier"] == 0].set_index("behavior")["p_matching"]
    rows = summary[summary["multiplier"].isin([multiplier for multiplier in shown if multiplier])].copy()
    rows["p_unsteered"] = rows["behavior"].map(base)
    rows["verdict"] = [verdict_of(row) for row in rows.to_dict("records")]
    return rows.reset_index(drop=True)


def verdict_of(row: Mapping[Any, Any]) -> str:
    """One of `VERDICTS`, for a row of a summary with a multiplier other than 0."""
    low, high = float(row["balanced_low"]), float(row["balanced_high"])
    if math.isnan(low):
        return "cannot be balanced"
    if row["multiplier"] < 0:
        low, high = -high, -low
    if low <= 0 <= high:
        return "no clear effect"
    if not any(row.get(f"n_{kind}", 0) for kind in KINDS):
        return "without a null"
    for kind in KINDS:
        beats = float(row.get(f"beats_{kind}", math.nan))
        if row.get(f"n_{kind}", 0) and (beats if low > 0 else 1 - beats) < ENOUGH:
            return "like a null vector"
    return CLEAR if low > 0 else "steers the wrong way"


def cells(row: Mapping[Any, Any]) -> dict[str, str]:
    """One row of `findings` as short texts, by the keys of `COLUMNS`."""
    return {
        "behavior": str(row["behavior"]),
        "layer": str(int(row["layer"])),
        "multiplier": f"{row['multiplier']:+g}",
        "p_matching": f"{short(row['p_unsteered'])} → {short(row['p_matching'])}",
        "effect": f"{signed(row['effect'])} [{signed(row['effect_low'])}, {signed(row['effect_high'])}]",
        "balanced": f"{signed(row['effect_balanced'])} [{signed(row['balanced_low'])}, {signed(row['balanced_high'])}]",
        "wrong": f"{100 * row['share_wrong']:.0f} %",
        "mass": short(row["mass"]),
        **{kind: _beaten(row, kind) for kind in KINDS},
        "verdict": str(row["verdict"]),
    }


def short(value: float) -> str:
    """A probability with two digits: ``.41``."""
    return "-" if math.isnan(value) else f"{value:.2f}".replace("0.", ".", 1)


def signed(value: float) -> str:
    """A change in probability with its sign and two digits, ``+.14``, or ``0`` where it rounds to that."""
    text = "-" if math.isnan(value) else f"{value:+.2f}".replace("0.", ".", 1)
    return "0" if text in ("+.00", "-.00") else text


def _beaten(row: Mapping[Any, Any], kind: str) -> str:
    n = row.get(f"n_{kind}", 0)
    return f"{round(row[f'beats_{kind}'] * n)}/{int(n)}" if n and not math.isnan(n) else "-"
