"""What a study found, in numbers that fit a table and in plain sentences.

A vector is said to steer only if the letter-balanced effect's 95 % interval leaves out zero, in the multiplier's
direction, and the effect goes further than 95 % of the random vectors of the same length. The two directions are
judged apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

CLEAR = "steers"
VERDICTS = {
    CLEAR: "the letter-balanced interval leaves out 0, and it goes further than 95 % of the random vectors",
    "no clear effect": "the letter-balanced interval includes 0",
    "like a random vector": "the interval leaves out 0, but the effect is not further than 95 % of the random vectors'",
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
}


def findings(summary: pd.DataFrame, shown: Sequence[float]) -> pd.DataFrame:
    """The rows of a test summary at the multipliers shown, without 0, each with ``verdict`` and ``p_unsteered``."""
    base = summary[summary["multiplier"] == 0].set_index("behavior")["p_matching"]
    rows = summary[summary["multiplier"].isin([multiplier for multiplier in shown if multiplier])].copy()
    rows["p_unsteered"] = rows["behavior"].map(base)
    rows["verdict"] = [verdict(row) for row in rows.to_dict("records")]
    return rows.reset_index(drop=True)


def verdict(row: Mapping[Any, Any]) -> str:
    """One of `VERDICTS`, for a row of a summary with a multiplier other than 0."""
    low, high = float(row["balanced_low"]), float(row["balanced_high"])
    if math.isnan(low):
        return "cannot be balanced"
    if row["multiplier"] < 0:
        low, high = -high, -low
    if low <= 0 <= high:
        return "no clear effect"
    beats = float(row["beats_random"])
    if row["n_random"] and (beats if low > 0 else 1 - beats) < ENOUGH:
        return "like a random vector"
    return CLEAR if low > 0 else "steers the wrong way"


def cells(row: Mapping[Any, Any]) -> dict[str, str]:
    """One row of `findings` as short texts, by the keys of `COLUMNS`."""
    n_random = int(row["n_random"])
    return {
        "behavior": str(row["behavior"]),
        "layer": str(int(row["layer"])),
        "multiplier": f"{row['multiplier']:+g}",
        "p_matching": f"{short(row['p_unsteered'])} → {short(row['p_matching'])}",
        "effect": f"{signed(row['effect'])} [{signed(row['effect_low'])}, {signed(row['effect_high'])}]",
        "balanced": f"{signed(row['effect_balanced'])} [{signed(row['balanced_low'])}, {signed(row['balanced_high'])}]",
        "wrong": f"{100 * row['share_wrong']:.0f} %",
        "mass": short(row["mass"]),
        "random": f"{round(row['beats_random'] * n_random)}/{n_random}" if n_random else "-",
        "verdict": str(row["verdict"]),
    }


def sentences(found: pd.DataFrame) -> dict[str, list[str]]:
    """For each behaviour, what was found in each direction, a sentence each."""
    return {
        str(behavior): [_sentence(row) for row in part.to_dict("records")]
        for behavior, part in found.groupby("behavior", sort=False)
    }


def short(value: float) -> str:
    """A probability with two digits: ``.41``."""
    return "-" if math.isnan(value) else f"{value:.2f}".replace("0.", ".", 1)


def signed(value: float) -> str:
    """A change in probability with its sign and two digits, ``+.14``, or ``0`` where it rounds to that."""
    text = "-" if math.isnan(value) else f"{value:+.2f}".replace("0.", ".", 1)
    return "0" if text in ("+.00", "-.00") else text


def _sentence(row: Mapping[Any, Any]) -> str:
    text, n_random = cells(row), int(row["n_random"])
    beats = f"; it goes further than {text['random'].split('/')[0]} of {n_random} random vectors" if n_random else ""
    return (
        f"At {text['multiplier']} (layer {text['layer']}, {int(row['n_items'])} test items): {text['verdict']}. The "
        f"probability of the matching answer goes from {short(row['p_unsteered'])} to {short(row['p_matching'])}: "
        f"{signed(row['effect'])}, 95 % interval {signed(row['effect_low'])} to {signed(row['effect_high'])}, "
        f"letter-balanced {signed(row['effect_balanced'])}. {text['wrong']} of the items move the wrong way, and the "
        f"two answers hold {text['mass']} of all probability{beats}."
    )
