"""How much of an intervention is done at each token: a factor for the k-th steered one.

Token 0 is the first that is steered: in generation the last token of the prompt, which predicts the first new one.
Token k then predicts new token k, counted from 0. A schedule is a sequence of factors, whose last one holds on, or a
function of k.

>>> [factor(first(2), k) for k in range(4)], [factor(decaying(1), k) for k in range(4)]
([1.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.25, 0.125])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from caa_lens.files.messages import brief

Schedule = Sequence[float] | Callable[[int], float]


def factor(schedule: Schedule | None, k: int) -> float:
    """What the multiplier is times at the k-th steered token; 1 without a schedule.

    Raises:
        ValueError: If a function gives something that is not a finite number.
    """
    if schedule is None:
        return 1.0
    value = float(schedule(k) if callable(schedule) else schedule[min(k, len(schedule) - 1)])
    if not math.isfinite(value):
        raise ValueError(f"the schedule gives {value} for steered token {k}: factors are finite numbers")
    return value


def check_schedule(schedule: Schedule | None) -> Schedule | None:
    """A schedule as a value: sequences become tuples.

    Raises:
        ValueError: For no factors, or one that is not a finite number.
        TypeError: For something that is neither a sequence nor a function.
    """
    if schedule is None or callable(schedule):
        return schedule
    if isinstance(schedule, str) or not isinstance(schedule, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"schedule is {type(schedule).__name__}: give a list of factors, whose last one holds on, or a function of "
            "the steered token's number"
        )
    factors = tuple(float(value) for value in schedule)
    if not factors or not all(math.isfinite(value) for value in factors):
        raise ValueError(f"schedule {brief(list(schedule))}: give at least one factor, all of them finite numbers")
    return factors


def first(n: int) -> Schedule:
    """Steer the first ``n`` tokens and no later one."""
    if n < 1:
        raise ValueError(f"first({n}): at least one token is steered")
    return (1.0,) * n + (0.0,)


def decaying(half_life: float) -> Schedule:
    """Halve what is done with every ``half_life`` tokens."""
    if not 0 < half_life < math.inf:
        raise ValueError(f"decaying({half_life}): the half-life is a positive number of tokens")
    return partial(_halved, half_life)


def _halved(half_life: float, k: int) -> float:
    return 0.5 ** (k / half_life)
