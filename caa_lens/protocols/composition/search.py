"""How much of each vector, and at which layer each: tried on dev items, reported on others.

Everything that is tried is an *evaluation*: one way of adding the vectors, asked of all dev items of the behaviours in
it. Their number is known before the first is run, and a search that needs more than it may have is refused with the
number. Coefficients range over three orders of magnitude (arXiv 2403.05767 tries 0.5 to 300), and at the upper end no
model answers the question any more. So a candidate under which too many items are answered with something else, or the
two answers keep too little probability, is out, however good the share of the matching answer among the two looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from caa_lens.datasets.contrast import ContrastDataset, Pairs, as_dataset, check_apart
from caa_lens.evaluation.statistics import against_nulls, direction
from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Intervention, Recipe
from caa_lens.models.adapters import HookedModel
from caa_lens.models.loading import check_layers
from caa_lens.prompts import PromptFormat, PromptOptions
from caa_lens.protocols.composition.asking import Way, ask, compared
from caa_lens.protocols.composition.evaluations import Evaluations, Parts
from caa_lens.protocols.composition.interference import random_parts
from caa_lens.vectors.vectors import SteeringVector, Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd

How = Literal["every", "greedy"]

COEFFICIENTS = tuple(float(f"{0.5 * 600 ** (step / 11):.3g}") for step in range(12))
"""From 0.5 to 300, each 1.8 times the one before."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        parts: The chosen vectors and how much of each, by behaviour: a recipe is ``list(found.parts.values())``.
        tried: All evaluations on the dev items, a row for each behaviour in each: ``candidate``, ``behavior``,
            ``layer``, ``multiplier``, ``effect_even`` (letter-balanced change of p(matching)), ``mass``,
            ``share_outside``, ``permitted`` (whether the candidate meets the conditions on all its behaviours) and
            ``objective`` (what is made as large as possible).
        table: The chosen one on the test items, a row for each behaviour: ``layer``, ``multiplier``, ``n_items``,
            ``effect_even`` with its 95 % interval ``effect_even_low`` to ``effect_even_high``, ``mass``,
            ``share_outside``, ``effect_even_dev``,
            ``optimism`` (how much further the effect went on dev, in the multiplier's direction), and ``n_random``,
            ``random_low``, ``random_high``, ``beats_random``: random vectors in the place of all that is added, the
            quantiles of their effect and the share of them that the effect exceeds in the multiplier's direction. Where
            vectors were added together, also ``effect_alone``, of the behaviour's own part.
    """

    parts: Parts
    tried: pd.DataFrame
    table: pd.DataFrame


def n_assignments(n_behaviors: int, n_layers: int, how: How = "every") -> int:
    """How many evaluations `search_layers` needs.

    >>> n_assignments(5, 7), n_assignments(5, 7, "greedy")
    (2520, 25)
    """
    if how == "every":
        return math.perm(n_layers, n_behaviors)
    return sum(n_layers - placed for placed in range(n_behaviors))


def search_coefficients(
    model: HookedModel,
    vectors: Mapping[str, SteeringVector],
    dev: Mapping[str, Pairs],
    test: Mapping[str, Pairs],
    *,
    coefficients: Sequence[float] = COEFFICIENTS,
    sign: int = 1,
    jointly: bool = False,
    max_outside: float = 0.1,
    min_mass: float = 0.0,
    max_evaluations: int = 1000,
    cells: Path | None = None,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Found:
    """Choose how much of each vector on dev items, and report it on test items (arXiv 2403.05767, grid search).

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: By behaviour, at the layer where each is to be added.
        dev: By behaviour, what the coefficients are chosen on.
        test: By behaviour, what is reported; other questions.
        coefficients: To choose from, above 0.
        sign: 1 steers along the vectors, -1 against them.
        jointly: False chooses each behaviour's coefficient with its vector alone, in one evaluation a behaviour and
            coefficient; True tries every combination, all vectors added together.
        max_outside: Candidates under which more than this share of a behaviour's items is answered with neither of the
            two answers are out. Items whose answers are no letters, which the unsteered model too may answer with
            something else, need a larger share; `ask` says which.
        min_mass: Candidates under which the two answers keep less probability than this, on average over a behaviour's
            items, are out.
        max_evaluations: A search that needs more is refused.
        cells: A .json file for the evaluations, to go on from after a stop; None keeps them in memory.
        n_nulls: So many random vectors beside the chosen ones, on the test items.
        seed: Of the random vectors and of all resampling.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar over the evaluations, with their number.

    Returns:
        The permitted candidate with the largest score, the mean over its behaviours of the effect in the multiplier's
        direction; of equal ones the first.

    Raises:
        ValueError: Before the model runs: for names that do not match, sets that share a question, coefficients or
            conditions out of range, more evaluations than allowed, or a file of another search. After the search: if no
            candidate is permitted; the message says how near the nearest came.
    """
    dev, test = _datasets(dev), _datasets(test)
    _check(vectors, dev, test, max_outside, min_mass, n_nulls)
    if sign not in (-1, 1) or not coefficients or not all(0 < each < math.inf for each in coefficients):
        raise ValueError(
            f"coefficients {brief(list(coefficients))}, sign {sign}: give numbers above 0, and a sign of 1 or -1"
        )
    grid = {name: [Intervention(vector, sign * each) for each in coefficients] for name, vector in vectors.items()}
    n, size = len(grid), len(coefficients)
    _check_size(
        size**n if jointly else size * n,
        max_evaluations,
        f"{size} coefficients of {n} behaviours{', jointly' if jointly else ''}",
        "fewer coefficients" + (f", or jointly=False ({size * n} evaluations)" if jointly else ""),
    )
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    search = Evaluations(model, vectors, dev, cells, (max_outside, min_mass), options)
    if jointly:
        candidates = [[dict(zip(grid, choice, strict=True)) for choice in product(*grid.values())]]
    else:
        candidates = [[{name: part} for part in of_one] for name, of_one in grid.items()]
    with _bar(progress, sum(map(len, candidates))) as bar:
        chosen = [search.best(of_one, bar) for of_one in candidates]
    return _found(model, chosen, search, test, n_nulls, seed, options)


def search_layers(
    model: HookedModel,
    vectors: Mapping[str, Vectors],
    dev: Mapping[str, Pairs],
    test: Mapping[str, Pairs],
    *,
    coefficients: float | Mapping[str, float] = 1.0,
    layers: Sequence[int] | None = None,
    how: How = "every",
    max_outside: float = 0.1,
    min_mass: float = 0.0,
    max_evaluations: int = 1000,
    cells: Path | None = None,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Found:
    """Give each behaviour's vector a layer of its own, for the largest effects together on dev items.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: By behaviour.
        dev: By behaviour, what the layers are chosen on.
        test: By behaviour, what is reported; other questions.
        coefficients: How much of each vector; one number for all, or one for each. Negative ones steer against it.
        layers: To choose from; None for those that all vectors have.
        how: ``"every"`` tries all assignments of behaviours to layers; ``"greedy"`` places one behaviour after another,
            in their order, each at the best layer that is still free. `n_assignments` says how many evaluations either
            needs.
        max_outside: See `search_coefficients`.
        min_mass: See `search_coefficients`.
        max_evaluations: A search that needs more is refused.
        cells: See `search_coefficients`.
        n_nulls: See `search_coefficients`.
        seed: See `search_coefficients`.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar over the evaluations, with their number.

    Returns:
        As `search_coefficients`; of the greedy search, ``tried`` has the assignments of each step.

    Raises:
        ValueError: As `search_coefficients`, and for fewer layers than behaviours, or a layer that vectors lack.
    """
    vectors = {name: as_vectors(each) for name, each in vectors.items()}
    dev, test = _datasets(dev), _datasets(test)
    _check(vectors, dev, test, max_outside, min_mass, n_nulls)
    if how not in ("every", "greedy"):
        raise ValueError(f"how is {brief(how)}: give 'every' or 'greedy'")
    amounts = dict(coefficients) if isinstance(coefficients, Mapping) else dict.fromkeys(vectors, float(coefficients))
    if set(amounts) != set(vectors) or not all(each and math.isfinite(each) for each in amounts.values()):
        raise ValueError(
            f"coefficients are {brief(amounts)} and vectors {brief(list(vectors))}: give each a number that is not 0"
        )
    first, *others = vectors.values()
    if layers is None:
        wanted = tuple(layer for layer in first.layers if all(layer in each.layers for each in others))
    else:
        wanted = check_layers(model, layers)
    n = len(vectors)
    if len(wanted) < n:
        raise ValueError(
            f"there are {n} behaviours and {len(wanted)} layers, {brief(list(wanted))}: give each one of its own"
        )
    grid = {
        name: {layer: Intervention(each[layer], amounts[name]) for layer in wanted} for name, each in vectors.items()
    }
    instead = f", or how='greedy' ({n_assignments(n, len(wanted), 'greedy')} evaluations)" if how == "every" else ""
    total = n_assignments(n, len(wanted), how)
    _check_size(total, max_evaluations, f"{n} behaviours over {len(wanted)} layers", f"fewer layers{instead}")
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    search = Evaluations(model, vectors, dev, cells, (max_outside, min_mass), options)
    with _bar(progress, total) as bar:
        if how == "every":
            every = permutations(wanted, n)
            best = search.best(
                [{name: grid[name][at] for name, at in zip(grid, places, strict=True)} for places in every], bar
            )
        else:
            best = dict[str, Intervention]()
            for name, of_layers in grid.items():
                taken = {part.layer for part in best.values()}
                best = search.best([{**best, name: part} for at, part in of_layers.items() if at not in taken], bar)
    return _found(model, [best], search, test, n_nulls, seed, options)


def _found(
    model: HookedModel,
    chosen: Sequence[Parts],
    search: Evaluations,
    test: Mapping[str, ContrastDataset],
    n_nulls: int,
    seed: int,
    options: PromptOptions,
) -> Found:
    """The chosen ones on the test items, each beside random vectors in its place."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for parts in chosen:
        randoms = {name: random_parts(part, name, n_nulls, seed) for name, part in parts.items()}
        for name, part in parts.items():
            ways: dict[Way, Recipe] = {Way("chosen"): [*parts.values()], Way("alone"): part}
            ways |= {
                Way("chosen", "random", draw): [of_one[draw] for of_one in randoms.values()] for draw in range(n_nulls)
            }
            table = compared(ask(model, ways, test[name], **options), seed=seed)
            measured = table[table["kind"] == "vector"].set_index("vector")
            own, null = measured.to_dict("index")["chosen"], table.loc[table["kind"] == "random", "effect_even"]
            dev, sign = search.effect(parts, name), math.copysign(1, part.multiplier)
            row: dict[str, Any] = {"behavior": name, "layer": part.layer, "multiplier": part.multiplier}
            row |= {"n_items": int(own["n_items"])}
            row |= {key: own[key] for key in ("effect_even", "effect_even_low", "effect_even_high")}
            row |= {key: own[key] for key in ("mass", "share_outside")}
            row |= {"effect_even_dev": dev, "optimism": (dev - own["effect_even"]) * sign}
            row |= against_nulls(own["effect_even"], null, tail=direction(part.multiplier)).columns("random")
            rows.append(row | ({"effect_alone": measured.loc["alone", "effect_even"]} if len(parts) > 1 else {}))
    return Found({name: part for parts in chosen for name, part in parts.items()}, search.tried(), pd.DataFrame(rows))


def _datasets(items: Mapping[str, Pairs]) -> dict[str, ContrastDataset]:
    return {name: as_dataset(each) for name, each in items.items()}


def _check(
    vectors: Mapping[str, Any],
    dev: Mapping[str, ContrastDataset],
    test: Mapping[str, ContrastDataset],
    max_outside: float,
    min_mass: float,
    n_nulls: int,
) -> None:
    if not vectors or not set(vectors) == set(dev) == set(test):
        raise ValueError(
            f"vectors are named {brief(sorted(vectors))}, dev items {brief(sorted(dev))} and test items "
            f"{brief(sorted(test))}: give all "
            "under the same names"
        )
    for name in vectors:
        check_apart({f"dev of {name}": dev[name], f"test of {name}": test[name]})
    if not 0 <= max_outside <= 1 or not 0 <= min_mass <= 1 or n_nulls < 1:
        raise ValueError(
            f"max_outside {max_outside}, min_mass {min_mass}, n_nulls {n_nulls}: the first two are from 0 to 1, and "
            "no effect is given without its null, so n_nulls is 1 or more"
        )


def _check_size(needed: int, allowed: int, what: str, instead: str) -> None:
    if needed > allowed:
        raise ValueError(
            f"this search needs {needed} evaluations ({what}), each of all dev items, and max_evaluations is "
            f"{allowed}: give max_evaluations={needed}, {instead}"
        )


def _bar(progress: bool, total: int) -> tqdm[Any]:
    return tqdm(total=total, desc=f"searching, {total} evaluations", unit="evaluation", disable=not progress)
