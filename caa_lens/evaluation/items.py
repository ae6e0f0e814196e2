"""Item by item: how far each question goes along with a vector, and the same questions asked the other way round.

A mean effect of +0.2 can be fifty items that each moved a little, or thirty that moved far and twenty that moved the
wrong way. So each item gets a line through its log odds over the multipliers, and the line's slope is the item's
steerability (Tan et al., arXiv 2407.12404, where steerability is defined: the least-squares slope of the logit
difference on the multiplier); an item with a negative slope is anti-steerable. Much of the spread between items is that
they like one letter better than the other (same paper, on spurious factors). `swapped` asks every question with its
choices exchanged, so that a sweep over both ways of asking is balanced item by item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from caa_lens.datasets.contrast import ContrastDataset, ContrastPair, Pairs, as_dataset
from caa_lens.evaluation.choices import check_swept
from caa_lens.evaluation.statistics import NOTHING, Estimate, Resampled, resampled, wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_SLOPES = ("slope", "slope_positive", "slope_negative")
_CHOICE = re.compile(r"^[ \t]*\(([A-Z])\)[ \t]*", re.MULTILINE)


def steerability(frame: pd.DataFrame) -> pd.DataFrame:
    """The line through each item's log odds (logit difference) ``m = logp_matching - logp_other`` over the multipliers.

    Args:
        frame: As `caa_lens.sweep` returns it; only the behaviour's own vector is looked at.

    Returns:
        One row for each behavior x layer x item, with ``letter`` and, in nats (per unit of the multiplier for slopes):
        ``slope``: least squares, over all multipliers (Tan et al., arXiv 2407.12404, definition of steerability);
        ``intercept``: the line at multiplier 0; ``residual``: root mean square of what the line leaves, over the
        multipliers, so 0 where there are only two.
        ``spearman``: rank correlation of m with the multiplier, of equal values their mean rank; NaN where m is the
        same at all multipliers.
        ``slope_positive``, ``slope_negative``: the slope over the multipliers of at least 0 and of at most 0, as the
        two directions are not symmetric (arXiv 2507.11771); NaN where there are fewer than two. Both are positive for
        an item that goes along.
        All are NaN for an item with a probability of 0, whose log odds are not finite.

    Raises:
        ValueError: If the frame is not a sweep's, or a layer has one multiplier only, an item twice, or other items at
            some of its multipliers.
    """
    import pandas as pd

    parts = [_lines(behavior, layer, part) for behavior, layer, part in _own_cells(frame)]
    return pd.concat(parts, ignore_index=True)


def steerability_summary(frame: pd.DataFrame, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How steerable a behaviour's items are, and how many of them go the other way.

    Args:
        frame: As `caa_lens.sweep` returns it.
        n_bootstrap: Resamplings of the items for the intervals of mean slopes.
        seed: Of the resampling.

    Returns:
        One row for each behavior x layer; intervals are of 95 %.
        ``n_items``: items with a slope (see `steerability` for those without), of which the others speak.
        ``slope``, ``slope_low``, ``slope_high``: the mean of the items' slopes, in nats per unit of the multiplier,
        with its bootstrap interval over items; ``slope_sd``: the slopes' standard deviation (NaN for one item).
        ``slope_balanced``, ``slope_balanced_low``, ``slope_balanced_high``: the mean over items whose matching letter
        is A and the mean over those where it is B, averaged. A vector that makes the model prefer a letter, and does
        nothing else, has 0 there. The plain mean where no answer is a letter; NaN where all letters are the same.
        ``share_anti``, ``anti_low``, ``anti_high``: the share of items with a negative slope (anti-steerable: Tan et
        al., arXiv 2407.12404), with its Wilson interval.
        ``spearman``: the mean over the items that have one.
        ``slope_positive``, ``slope_positive_low``, ``slope_positive_high``, ``share_anti_positive`` and the same for
        ``negative``: over the multipliers of one side of 0 alone; NaN where that side has fewer than two.

    Raises:
        ValueError: As `steerability`, or for no resamplings.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for (behavior, layer), items in steerability(frame).groupby(["behavior", "layer"], sort=False):
        items = items[items["slope"].notna()]
        n = len(items)
        drawn = resampled(n, n_bootstrap, seed)
        by_letter = resampled(items["letter"].fillna("").astype(str).to_numpy(), n_bootstrap, seed)
        slopes = {name: items[name].to_numpy(dtype=float) for name in _SLOPES}
        row: dict[str, Any] = {"behavior": behavior, "layer": layer, "n_items": n}
        row |= drawn.mean(slopes["slope"]).columns("slope")
        row |= by_letter.balanced(slopes["slope"]).columns("slope_balanced")
        row["slope_sd"] = items["slope"].std()
        row["share_anti"] = _share_below(slopes["slope"])
        row["anti_low"], row["anti_high"] = wilson(int((items["slope"] < 0).sum()), n)
        row["spearman"] = items["spearman"].mean()
        for name in _SLOPES[1:]:
            row |= _mean_slope(slopes[name], drawn).columns(name)
            row[f"share_anti_{name.removeprefix('slope_')}"] = _share_below(slopes[name])
        rows.append(row)
    return pd.DataFrame(rows)


def swapped(items: Pairs) -> ContrastDataset:
    r"""The same items with their two choices exchanged, in the question's text and in the answers.

    Where the question was ``... (A) yes (B) no`` and the matching answer ``(A)``, it is ``... (A) no (B) yes`` and
    ``(B)``. Averaging an item over both ways of asking leaves no room for a preference for a letter. (To exchange
    positive and negative, and leave the question as it is, there is `ContrastPair.swapped`.) In a question with more
    than two choices, the two that are the answers change places. Choices that speak of each other, such as "both of the
    above", are not rewritten. Swapping twice gives the items back.

    Args:
        items: Questions in CAA's layout: they end in their choices, each beginning a line of its own with its letter in
            brackets, in the order of the alphabet. Answers are two of these letters.

    Returns:
        As many items, in the same order, under the same name.

    Raises:
        ValueError: For the first item that is not so.

    Example:
        >>> question = "Is it so? (A) or (B)?\n\nChoices:\n (A) Yes\n (B) No"
        >>> pair = swapped(ContrastDataset.from_pairs([(question, "(A)", "(B)")]))[0]
        >>> pair.prompt.splitlines()[-2:], pair.positive
        ([' (A) No', ' (B) Yes'], '(B)')
    """
    items = as_dataset(items)
    pairs = [_exchanged(pair, f"item {index} of {items.name!r}") for index, pair in enumerate(items)]
    found = ContrastDataset.from_pairs(pairs, items.name)
    return replace(found, origin=f"{items.origin}, choices exchanged")


def _own_cells(frame: pd.DataFrame) -> Iterator[tuple[Any, Any, pd.DataFrame]]:
    """The rows of the behaviours' own vectors: behaviour, layer, and the rows of all multipliers there."""
    check_swept(frame)
    if frame.empty:
        raise ValueError("the sweep's frame is empty: there are no items to look at")
    for behavior, of_behavior in frame.groupby("behavior", sort=False):
        own = of_behavior[of_behavior["kind"] == "vector"]
        if own.empty:
            raise ValueError(f"the sweep of {behavior} has no rows of its own vector, which are of the kind 'vector'")
        for layer, part in own.groupby("layer", sort=True):
            yield behavior, layer, part


def _lines(behavior: Any, layer: Any, part: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    where = f"layer {layer} of the sweep of {behavior}"
    if part.duplicated(["item", "multiplier"]).any():
        raise ValueError(f"{where} has items more than once at a multiplier: were two sweeps put together?")
    part = part.assign(odds=part["logp_matching"] - part["logp_other"])
    table = part.pivot(index="multiplier", columns="item", values="odds").sort_index()
    if table.size != len(part):
        raise ValueError(f"{where} does not have the same items at every multiplier: was the frame cut?")
    multipliers = table.index.to_numpy(dtype=float)
    if len(multipliers) < 2:
        raise ValueError(f"{where} has the multiplier {multipliers[0]:g} only: a slope needs at least two")
    odds = table.to_numpy(dtype=float)
    odds = np.where(np.isfinite(odds).all(axis=0), odds, np.nan)
    slope = _slope(multipliers, odds)
    intercept = odds.mean(axis=0) - slope * multipliers.mean()
    left = odds - intercept - slope * multipliers[:, None]
    letters = part.drop_duplicates("item").set_index("item")["letter"]
    sides = {"positive": multipliers >= 0, "negative": multipliers <= 0}
    return pd.DataFrame(
        {
            "behavior": behavior,
            "layer": layer,
            "item": table.columns.to_numpy(),
            "letter": letters.reindex(table.columns).to_numpy(dtype=object),
            "slope": slope,
            "intercept": intercept,
            "residual": np.sqrt((left**2).mean(axis=0)),
            "spearman": _rank_correlation(odds),
            **{f"slope_{side}": _slope(multipliers[there], odds[there]) for side, there in sides.items()},
        }
    )


def _slope(multipliers: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Least-squares slope of each column of ``odds [multiplier, item]``; NaN where there are fewer than two rows."""
    import numpy as np

    if len(multipliers) < 2:
        return np.full(odds.shape[1], np.nan)
    centred = multipliers - multipliers.mean()
    return (centred[:, None] * odds).sum(axis=0) / (centred**2).sum()


def _rank_correlation(odds: np.ndarray) -> np.ndarray:
    """Spearman's coefficient of each column with the number of its row; NaN where all of a column is the same."""
    import numpy as np
    import pandas as pd

    ranks = pd.DataFrame(odds).rank().to_numpy()
    ranks = ranks - (len(ranks) + 1) / 2
    rows = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    size = np.sqrt((ranks**2).sum(axis=0) * (rows**2).sum())
    found = np.full(odds.shape[1], np.nan)
    return np.divide((rows[:, None] * ranks).sum(axis=0), size, out=found, where=size > 0)


def _mean_slope(slopes: np.ndarray, drawn: Resampled) -> Estimate:
    """NaN where a side of 0 has too few multipliers for slopes."""
    import numpy as np

    return NOTHING if bool(np.isnan(slopes).any()) else drawn.mean(slopes)


def _share_below(slopes: np.ndarray) -> float:
    import numpy as np

    return float((slopes < 0).mean()) if len(slopes) and not bool(np.isnan(slopes).any()) else float("nan")


def _exchanged(pair: ContrastPair, where: str) -> ContrastPair:
    marks = list(_CHOICE.finditer(pair.prompt))
    letters = [mark[1] for mark in marks]
    answers = (pair.letter, pair.swapped().letter)
    if len(letters) < 2 or letters != [chr(ord("A") + place) for place in range(len(letters))]:
        found = (
            f"the lines beginning with {', '.join(f'({letter})' for letter in letters)}" if letters else "no such line"
        )
        raise ValueError(
            f"{where}: its question must end in lines ' (A) ...' and ' (B) ...', the choices to exchange, and has "
            f"{found}: leave it out, or balance letters by averaging (`effect_balanced` of summarize)"
        )
    if None in answers or not set(answers) <= set(letters):
        raise ValueError(
            f"{where}: its answers {pair.positive!r} and {pair.negative!r} must be two of its choices, "
            f"{', '.join(f'({letter})' for letter in letters)}"
        )
    ends = [mark.start() for mark in marks[1:]] + [len(pair.prompt)]
    texts = [pair.prompt[mark.end() : end].rstrip() for mark, end in zip(marks, ends, strict=True)]
    if empty := [letter for letter, text in zip(letters, texts, strict=True) if not text]:
        raise ValueError(f"{where}: its choice ({empty[0]}) is empty, so there is nothing to exchange")
    one, other = (letters.index(str(letter)) for letter in answers)
    moved = texts.copy()
    moved[one], moved[other] = texts[other], texts[one]
    prompt = pair.prompt[: marks[0].start()]
    for mark, end, old, new in zip(marks, ends, texts, moved, strict=True):
        prompt += mark[0] + new + pair.prompt[mark.end() + len(old) : end]
    return ContrastPair(prompt, pair.negative, pair.positive)
