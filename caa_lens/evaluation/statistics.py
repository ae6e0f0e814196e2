"""How sure a number is: intervals over items, ranges of nulls, tests of shares. Plain numbers in, plain numbers out.

Every interval in this package is of 95 %, and every one of them is made here. Items are what is independent, so items
are resampled, each with all that belongs to it (its value steered and unsteered, both ways of asking it): `resampled`
draws them once for everything that is compared. Where items have matching letters, each letter is drawn from its own
items, so that a resampling has as many of A and of B as there are, and a *balanced* mean is that of the letters' means.
What a null does is put beside an effect by `against_nulls`, which is told in which direction the effect counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

if TYPE_CHECKING:
    import numpy as np

Tail = Literal["greater", "less", "two-sided"]
"""Where an effect counts: above its nulls, below them, or by its size whatever its direction."""

ENDS = (0.025, 0.975)
"""Of an interval of 95 %."""

_Z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


class Estimate(NamedTuple):
    """A number with its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def columns(self, name: str, prefix: str | None = None) -> dict[str, float]:
        """The three as columns ``name``, ``prefix_low`` and ``prefix_high``; the prefix is the name where not given."""
        prefix = name if prefix is None else prefix
        return {name: self.value, f"{prefix}_low": self.low, f"{prefix}_high": self.high}


NOTHING = Estimate(math.nan, math.nan, math.nan)


class Null(NamedTuple):
    """An effect beside its nulls.

    Attributes:
        n: How many nulls there are.
        low: Their 2.5 % quantile, NaN where there are none.
        high: Their 97.5 % quantile.
        beaten: The share of them that the effect goes beyond in the direction asked for; equal ones are not beaten. NaN
            without nulls, or where the effect or a null is NaN.
        p: (1 + nulls that go as far or further) / (1 + n), which is valid for any number of nulls; NaN as ``beaten``.
    """

    n: int
    low: float
    high: float
    beaten: float
    p: float

    def columns(self, kind: str, share: str = "beats") -> dict[str, Any]:
        """``n_kind``, ``kind_low``, ``kind_high``, and ``beaten`` under a name that says what it means."""
        return {f"n_{kind}": self.n, f"{kind}_low": self.low, f"{kind}_high": self.high, f"{share}_{kind}": self.beaten}


def quantile_interval(values: Any) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles; NaN for no values, or where one is NaN."""
    import numpy as np

    values = np.asarray(values, dtype=float)
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, ENDS)
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Resampled:
    """Items, grouped by letter, and bootstrap draws of them; the same draws serve all that is compared.

    Attributes:
        halves: Places of the items whose means a balanced mean averages: of A and of B, or all of them where no item
            has a letter; none where only one of the two letters is there, which nothing can balance.
        draws: All items drawn again, ``[n_bootstrap, item]``.
        draws_of_halves: The same of each of ``halves``.
    """

    halves: tuple[np.ndarray, ...]
    draws: np.ndarray
    draws_of_halves: tuple[np.ndarray, ...]

    def mean(self, values: np.ndarray) -> Estimate:
        """The mean of values ``[item]`` with its bootstrap interval."""
        if not len(values):
            return NOTHING
        return Estimate(float(values.mean()), *quantile_interval(values[self.draws].mean(axis=-1)))

    def balanced(self, values: np.ndarray) -> Estimate:
        """The mean of the letters' means; NaN where letters cannot be balanced."""
        if not self.halves or not len(values):
            return NOTHING
        return Estimate(balanced(values, self.halves), *quantile_interval(_balanced(values, self.draws_of_halves)))

    def balanced_or_plain(self, values: np.ndarray) -> Estimate:
        """The balanced mean, or the plain one where letters cannot be balanced."""
        return self.balanced(values) if self.halves else self.mean(values)

    def mean_of_known(self, values: np.ndarray) -> Estimate:
        """The mean of the values that are finite; resamplings without any are left out."""
        import numpy as np

        there = np.isfinite(values)
        if not there.any():
            return NOTHING
        filled = np.where(there, values, 0.0)
        counts = there[self.draws].sum(axis=1)
        means = filled[self.draws].sum(axis=1)[counts > 0] / counts[counts > 0]
        return Estimate(float(filled.sum() / there.sum()), *quantile_interval(means))

    def ratio(self, part: np.ndarray, whole: np.ndarray) -> Estimate:
        """The sum of one over the sum of the other, both ``[item]``, as of right tokens among all."""
        drawn = part[self.draws].sum(axis=1) / whole[self.draws].sum(axis=1)
        return Estimate(float(part.sum() / whole.sum()), *quantile_interval(drawn))


def resampled(
    items: int | np.ndarray, n_bootstrap: int = 2000, seed: int | Sequence[int] | np.random.Generator = 0
) -> Resampled:
    """Draw items again, with replacement, each letter from its own (Efron 1979; stratified by letter).

    Args:
        items: How many there are; or the matching letter of each, ``""`` (or None) for none.
        n_bootstrap: Resamplings; 1000 or more are good.
        seed: Of the drawing.

    Raises:
        ValueError: For no resamplings.
    """
    import numpy as np

    if n_bootstrap < 1:
        raise ValueError(
            f"n_bootstrap is {n_bootstrap}: an interval needs at least 1 resampling, 1000 or more are good"
        )
    letters = np.full(items, "") if isinstance(items, int) else np.array([each or "" for each in items], dtype=str)
    generator = np.random.default_rng(seed)
    places = {str(letter): np.flatnonzero(letters == letter) for letter in sorted(set(letters.tolist()))}
    drawn = {
        letter: of_one[generator.integers(0, len(of_one), (n_bootstrap, len(of_one)))]
        for letter, of_one in places.items()
    }
    halves = [""] if set(places) == {""} else ["A", "B"] if {"A", "B"} <= set(places) else []
    draws = np.concatenate([*drawn.values()], axis=1) if drawn else np.zeros((n_bootstrap, 0), dtype=int)
    return Resampled(tuple(places[half] for half in halves), draws, tuple(drawn[half] for half in halves))


def balanced(values: np.ndarray, halves: Sequence[np.ndarray]) -> float:
    """The mean over groups of places of the means of values ``[item]`` there; NaN for no groups."""
    return float(_balanced(values, halves)) if halves else math.nan


def against_nulls(effect: float, nulls: Any, *, tail: Tail = "greater") -> Null:
    """An effect beside what nulls did in its place.

    Args:
        effect: What is compared.
        nulls: The same number of each null.
        tail: The direction that was fixed before the effect was seen; of a steered effect, that of the multiplier. A
            direction that is taken from the effect itself makes a null beat half of its like.

    Example:
        >>> against_nulls(3.0, [0.0, 1.0, 2.0, -4.0]).beaten, against_nulls(3.0, [0.0, 1.0, 2.0, -4.0]).p
        (1.0, 0.2)
        >>> against_nulls(3.0, [0.0, 1.0, 2.0, -4.0], tail="two-sided").beaten
        0.75
    """
    import numpy as np

    null = np.asarray(nulls, dtype=float)
    low, high = quantile_interval(null)
    if not len(null) or math.isnan(effect) or bool(np.isnan(null).any()):
        return Null(len(null), low, high, math.nan, math.nan)
    if tail == "two-sided":
        null, effect = np.abs(null), abs(effect)
    elif tail == "less":
        null, effect = -null, -effect
    elif tail != "greater":
        raise ValueError(f"tail is {tail!r}: give 'greater', 'less' or 'two-sided'")
    beaten = float((null < effect).mean())
    return Null(len(null), low, high, beaten, (1 + int((null >= effect).sum())) / (1 + len(null)))


def mean_of(values: Sequence[float]) -> float:
    """The mean; NaN of none."""
    return sum(values) / len(values) if len(values) else math.nan


def direction(multiplier: float) -> Tail:
    """Where an effect of this multiplier counts: above its nulls, or below them for a negative one."""
    return "greater" if multiplier > 0 else "less"


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (1927, J. American Statistical Association 22), which holds for few items."""
    if not n:
        return math.nan, math.nan
    share, spread = hits / n, _Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def newcombe(before: np.ndarray, after: np.ndarray) -> Estimate:
    """The change of a share of the same items, each yes (1) or no (0) before and after, with Newcombe's interval.

    It does not shrink to nothing where all items agree, as a bootstrap does.

    Source: Newcombe (1998, Statistics in Medicine 17:2635, paired shares, method 10).
    """
    n = len(before)
    if not n:
        return NOTHING
    share, was = float(after.mean()), float(before.mean())
    (low, high), (was_low, was_high) = wilson(int(after.sum()), n), wilson(int(before.sum()), n)
    phi = _correlation(before, after)
    below, above = _joined(share - low, was_high - was, phi), _joined(high - share, was - was_low, phi)
    return Estimate(share - was, share - was - below, share - was + above)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p that an item is as likely to be gained as lost (McNemar 1947, with the binomial).

    >>> mcnemar(0, 5), mcnemar(3, 3), mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


def upper_limit(count: int, n: int) -> float:
    """The share at which so few as ``count`` of ``n`` would be seen 2.5 times in 100 (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if count == n else float(cast(Any, beta).ppf(ENDS[1], count + 1, n - count))


def _balanced(values: np.ndarray, halves: Sequence[np.ndarray]) -> Any:
    """Over the last axis, so that draws ``[n_bootstrap, item]`` serve as well as places ``[item]``."""
    import numpy as np

    return np.mean([values[half].mean(axis=-1) for half in halves], axis=0)


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Phi of the same items' yes and no; a positive one corrected for continuity, 0 where one side is all the same."""
    n, was, now = len(before), float(before.sum()), float(after.sum())
    spread = (was * (n - was) * now * (n - now)) ** 0.5
    product = n * float((before * after).sum()) - was * now  # of the diagonals of their table, one less the other
    return (max(product - n / 2, 0.0) if product > 0 else product) / spread if spread else 0.0


def _joined(one: float, other: float, phi: float) -> float:
    """The distance from a change to an end of its interval, from those of its two shares."""
    return max(one**2 + other**2 - 2 * phi * one * other, 0.0) ** 0.5
