"""Each behaviour's vector alone, all of them together, and what is left when the one is taken from the other.

If vectors did not meet, what they do together would be the sum of what each does alone. That is a statement about log
odds: each vector adds its evidence, and a probability, which ends at 1, cannot be added up. So what is *expected* is
the sum of the changes in log odds that the vectors make alone on the same item, and *interference* is the change that
they make together minus that sum, item by item. It is negative both where vectors work against each other and where two
that do the same thing have nothing left to add. The change in probability stands beside it, for that is what is used.

Any other vectors of that length interfere too, by moving the stream out of the range that the model knows. So random
ones take the place of the others, with their norms, layers and multipliers, and the interference of those is the null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from caa_lens.datasets.contrast import Pairs
from caa_lens.evaluation.statistics import against_nulls
from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Intervention, Recipe, as_interventions
from caa_lens.models.adapters import HookedModel
from caa_lens.prompts import PromptFormat
from caa_lens.protocols.composition.asking import UNSTEERED, Way, ask, changes, compared, items_of
from caa_lens.vectors.vectors import SteeringVector, random_like

if TYPE_CHECKING:
    import pandas as pd

TOGETHER, EXPECTED, INTERFERENCE = "together", "expected", "interference"
OTHERS = "random_others"
_RESERVED = {UNSTEERED, TOGETHER, EXPECTED, INTERFERENCE}


def sweep_together(
    model: HookedModel,
    parts: Mapping[str, SteeringVector | Intervention],
    items: Mapping[str, Pairs],
    *,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Ask every behaviour's items under each vector alone and under all together, and under random ones.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        parts: By behaviour, its vector and how much of it, as in ``{"refusal": vectors[13] * 1.5}``. Parts of different
            layers are simultaneous steering; those of one layer add up there, as one `combined` vector does.
        items: By behaviour, under the same names; items that no vector was made from.
        n_nulls: So many random vectors for each part, of its norm and at its layer.
        seed: Of the random vectors.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show progress bars, under this text where it is one.

    Returns:
        The rows of `ask`, of which ``kind`` is ``unsteered``; ``vector``, that one alone; ``together``; ``random``, a
        random vector in the place of the one that is named (``draw`` numbers them); and ``random_others``, the named
        behaviour's own vector with random ones in the place of all others.

    Raises:
        ValueError: Before the model runs: for fewer than two parts, names that do not match, a part that is named like
            a row of `effects`, no random vectors, a part that adds nothing, and as `ask`.
    """
    import pandas as pd

    found = {name: as_interventions(part)[0] for name, part in parts.items()}
    _check(found, items, n_nulls)
    randoms = {name: random_parts(part, name, n_nulls, seed) for name, part in found.items()}
    frames: list[pd.DataFrame] = []
    for name, asked in items.items():
        ways: dict[Way, Recipe] = {Way(part): each for part, each in found.items()}
        ways[Way(TOGETHER, TOGETHER)] = [*found.values()]
        for draw in range(n_nulls):
            drawn = {part: randoms[part][draw] for part in found}
            ways |= {Way(part, "random", draw): each for part, each in drawn.items()}
            others = [each for part, each in drawn.items() if part != name]
            ways[Way(name, OTHERS, draw)] = [found[name], *others]
        shown = f"{progress if isinstance(progress, str) else 'asking'} {name}" if progress else False
        frame = ask(
            model, ways, asked, prompt_format=prompt_format, system=system, batch_size=batch_size, progress=shown
        )
        frames.append(frame.assign(behavior=name))
    return pd.concat(frames, ignore_index=True)


def effects(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What every vector does to every behaviour's items, alone, together, and beyond what was to be expected.

    Args:
        frame: As `sweep_together` returns it.
        n_bootstrap: As for `compared`.
        seed: As for `compared`.

    Returns:
        One row for each behavior x vector, where ``vector`` is a part alone, ``together``, ``expected`` (the sum of all
        parts' changes in log odds) or ``interference`` (together minus expected). The columns are those of `compared`,
        of which ``effect_even``, ``mass`` and ``share_outside`` are NaN for what was not measured but computed;
        intervals are over items, each paired with itself. ``n_random``, ``random_low`` and ``random_high`` are the 2.5
        and 97.5 % quantiles of the random vectors' change in log odds, for ``interference`` of the interference of the
        own vector with random others, and ``outsizes_random`` the share of them that is smaller in size; NaN for the
        other two rows.

    Raises:
        ValueError: If the frame is not one of `sweep_together`, and as `compared`.
    """
    import numpy as np
    import pandas as pd

    if "kind" in frame.columns and OTHERS not in set(frame["kind"]):
        raise ValueError(f"this is not a frame of sweep_together(): it has no rows of the kind {OTHERS!r}")
    values_of = changes(frame)
    measured = compared(frame[frame["draw"] < 0], n_bootstrap=n_bootstrap, seed=seed)
    rows: list[dict[str, Any]] = []
    for behavior, values in values_of.items():
        odds = {Way(*cast("Any", way)): column.to_numpy() for way, column in values["log_odds"].items()}
        part = frame[frame["behavior"] == behavior]
        items_there = items_of(part, n_bootstrap, seed)
        parts = part.loc[part["kind"] == "vector", "vector"].drop_duplicates().tolist()
        draws = range(int(part["draw"].max()) + 1)
        expected = np.sum([odds[Way(name)] for name in parts], axis=0)
        computed = {EXPECTED: expected, INTERFERENCE: odds[Way(TOGETHER, TOGETHER)] - expected}
        nulls = {name: [odds[Way(name, "random", draw)] for draw in draws] for name in parts}
        nulls[INTERFERENCE] = [
            odds[Way(behavior, OTHERS, draw)]
            - odds[Way(behavior)]
            - sum(nulls[name][draw] for name in parts if name != behavior)
            for draw in draws
        ]
        there = measured[measured["behavior"] == behavior].drop(columns=["behavior", "kind", "draw"])
        seen: Any = there.set_index("vector").to_dict("index")
        for name in (*parts, TOGETHER, EXPECTED, INTERFERENCE):
            if name in computed:
                row: dict[str, Any] = dict.fromkeys(seen[TOGETHER], float("nan")) | {"n_items": len(expected)}
                row |= items_there.balanced_or_plain(computed[name]).columns("log_odds_change")
            else:
                row = dict(seen[name])
            null = [items_there.balanced_or_plain(each).value for each in nulls.get(name, ())]
            row |= against_nulls(row["log_odds_change"], null, tail="two-sided").columns("random", "outsizes")
            rows.append({"behavior": behavior, "vector": name, **row})
    return pd.DataFrame(rows)


def interference(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row a behaviour: does its vector still work among the others?

    Args:
        frame: As `sweep_together` returns it.
        n_bootstrap: As for `compared`.
        seed: As for `compared`.

    Returns:
        ``behavior``, ``n_items``; in log odds: ``alone`` (the own vector's change), ``others`` (the sum of the other
        vectors' changes, each alone), ``expected`` (both), ``together``, and ``interference`` (together minus expected)
        with its 95 % interval ``interference_low`` to ``interference_high``, its null ``random_low`` to ``random_high``
        and ``outsizes_random``, all as in `effects`; in probability: ``effect_alone``, ``effect_together``, and
        ``effect_change`` with ``effect_change_low`` and ``effect_change_high``: what the others' presence adds to the
        effect of the own vector, or takes from it; and ``mass`` and ``outside``, each ``_unsteered``, ``_alone`` and
        ``_together``.

    Raises:
        ValueError: As `effects`.
    """
    import pandas as pd

    table = effects(frame, n_bootstrap=n_bootstrap, seed=seed)
    unsteered = frame[frame["kind"] == UNSTEERED].groupby("behavior")[["mass", "outside"]].mean()
    rows: list[dict[str, Any]] = []
    for behavior, values in changes(frame).items():
        row_of = table[table["behavior"] == behavior].set_index("vector").to_dict("index")
        own, all_of, beyond = row_of[behavior], row_of[TOGETHER], row_of[INTERFERENCE]
        items_there = items_of(frame[frame["behavior"] == behavior], n_bootstrap, seed)
        p = values["p_matching"]
        change = (p[tuple(Way(TOGETHER, TOGETHER))] - p[tuple(Way(behavior))]).to_numpy()
        expected = row_of[EXPECTED]["log_odds_change"]
        row: dict[str, Any] = {"behavior": behavior, "n_items": own["n_items"], "alone": own["log_odds_change"]}
        row |= {"others": expected - own["log_odds_change"], "expected": expected}
        row |= {"together": all_of["log_odds_change"], "interference": beyond["log_odds_change"]}
        row |= {f"interference_{end}": beyond[f"log_odds_change_{end}"] for end in ("low", "high")}
        row |= {name: beyond[name] for name in ("n_random", "random_low", "random_high", "outsizes_random")}
        row |= {"effect_alone": own["effect_even"], "effect_together": all_of["effect_even"]}
        row |= items_there.balanced_or_plain(change).columns("effect_change")
        for name, share in (("mass", "mass"), ("outside", "share_outside")):
            row |= {f"{name}_unsteered": float(unsteered[name][behavior])}
            row |= {f"{name}_alone": own[share], f"{name}_together": all_of[share]}
        rows.append(row)
    return pd.DataFrame(rows)


def random_parts(part: Intervention, name: str, n: int, seed: int) -> list[Intervention]:
    """So many interventions like this one, each with a random vector of the same norm in its place."""
    named = replace(part.vector.as_set(), name=name)
    return [replace(part, vector=each[part.layer]) for each in random_like(named, n, seed)]


def _check(parts: Mapping[str, Intervention], items: Mapping[str, Pairs], n_nulls: int) -> None:
    if len(parts) < 2:
        raise ValueError(f"parts are {brief(list(parts))}: give the vectors of two or more behaviours")
    if set(parts) != set(items):
        raise ValueError(
            f"parts are named {brief(sorted(parts))} and items {brief(sorted(items))}: give both under the same names"
        )
    if taken := [name for name in parts if name in _RESERVED]:
        raise ValueError(f"a behaviour is named {brief(taken[0])}, as a row of the results is: rename it")
    if n_nulls < 1:
        raise ValueError(f"n_nulls is {n_nulls}: no interference is given without its null, so give 1 or more, as 20")
    if nothing := [name for name, part in parts.items() if not part.multiplier or not part.vector.norm()]:
        raise ValueError(f"the part of {nothing[0]} adds nothing: give vectors and multipliers that are not 0")
