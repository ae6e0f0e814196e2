"""Which layer and how much: chosen on one set of items, reported on another, compared at equal damage.

The best of forty cells looks better than it is, because luck chose it too. So `choose` takes the summary of a dev
split, `selected` puts what the same cell does on a test split beside it, and the difference is the optimism of the
choice. The layer and multiplier are then fixed: one operating point for all that is reported (FaithSteer, arXiv
2603.18329). A choice can be held to conditions: a vector that takes the probability away from both answers, or that
changes unrelated text, has an effect that nobody wants.

Methods and layers cannot be compared at the same multiplier, since a longer vector does more of everything. `at_budget`
finds for each of them the multiplier at which it changes neutral text by the same KL, and compares the effects there
(the steering-lite library's comparison); random vectors get the same chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from caa_lens.datasets.contrast import Pairs, as_dataset, check_apart
from caa_lens.evaluation.choices import sharing_nulls, summarize
from caa_lens.evaluation.side_effects import at_equal_damage, side_effects
from caa_lens.files.messages import brief
from caa_lens.models.adapters import HookedModel
from caa_lens.models.loading import check_layers
from caa_lens.prompts import PromptFormat, PromptOptions, format_prompt
from caa_lens.sweeps import sweep
from caa_lens.vectors.vectors import Vectors, as_vectors, random_like

if TYPE_CHECKING:
    import pandas as pd

CELL = ["behavior", "layer", "multiplier"]
FROM_DEV = ("effect", "effect_balanced", "mass")


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where a behaviour's vector is added, and how much of it."""

    layer: int
    multiplier: float


def damage(
    model: HookedModel,
    vectors: Vectors,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 1.0),
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """How far each layer and multiplier changes what the model says along neutral text.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: A behaviour's vectors.
        texts: Neutral running text; see `side_effects`, which measures it.
        layers: None for all that the vectors have.
        multipliers: Any numbers.
        batch_size: Rows run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each layer x multiplier, with ``behavior``, ``layer``, ``multiplier``, ``n_tokens``, and over all
        counted tokens of all texts: ``kl`` (the mean of KL(steered || unsteered), in nats), ``kl_max``,
        ``nll_unsteered``, ``nll_steered`` and ``top1_agreement``.

    Raises:
        ValueError: As `side_effects`, before the model runs.
    """
    import pandas as pd

    vectors = as_vectors(vectors)
    used = vectors.layers if layers is None else check_layers(model, layers)
    cells = [(layer, float(multiplier)) for layer in used for multiplier in multipliers]
    recipes = {f"layer {layer} x {multiplier:g}": vectors[layer] * multiplier for layer, multiplier in cells}
    if len(recipes) < len(cells):
        raise ValueError(f"multipliers {brief(list(multipliers))}: give each once")
    frame = side_effects(model, recipes, texts, batch_size=batch_size, progress=progress)
    means = {"kl": "kl_mean", **{name: name for name in ("nll_unsteered", "nll_steered", "top1_agreement")}}
    rows: list[dict[str, Any]] = []
    for (_, part), (layer, multiplier) in zip(frame.groupby("vector", sort=False), cells, strict=True):
        row: dict[str, Any] = {"behavior": vectors.name, "layer": layer, "multiplier": multiplier}
        row |= {"n_tokens": int(part["n_tokens"].sum()), "kl_max": float(part["kl_max"].max())}
        row |= {name: float(np.average(part[old], weights=part["n_tokens"])) for name, old in means.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def choose(
    summary: pd.DataFrame,
    *,
    sign: int = 1,
    min_mass: float = 0.0,
    max_kl: float | None = None,
    damage: pd.DataFrame | None = None,
) -> dict[str, OperatingPoint]:
    """The layer and multiplier of each behaviour with the largest letter-balanced effect, among those permitted.

    Args:
        summary: `summarize` of a sweep over dev items, on which nothing is reported.
        sign: 1 looks among positive multipliers for the largest effect, -1 among negative ones for the most negative:
            the two directions are not symmetric, and each has its own point.
        min_mass: Cells in which the two answers keep less probability than this are passed over.
        max_kl: Cells that change neutral text by more than this are passed over; in nats a token, the mean.
        damage: What `damage` measured in the same cells; needed for ``max_kl``.

    Returns:
        The operating point of each behaviour; of equal effects the one nearest to multiplier 0. Where letters cannot
        be balanced the plain effect decides.

    Raises:
        ValueError: If this is no summary, has no multiplier of this sign, a cell lacks its damage, or no cell of a
            behaviour is permitted; the message says how near the nearest came.
    """
    if missing := sorted({*CELL, *FROM_DEV} - set(summary.columns)):
        raise ValueError(f"this is not the frame of summarize(): it lacks the columns {', '.join(missing)}")
    check_conditions(sign, min_mass, max_kl, measured=damage is not None)
    cells = summary[summary["multiplier"] * sign > 0]
    if cells.empty:
        raise ValueError(f"the summary has no multiplier {'above' if sign > 0 else 'below'} 0: there is none to choose")
    if damage is not None:
        cells = cells.merge(damage[[*CELL, "kl"]], on=CELL, how="left", indicator=True)
        if unmeasured := int((cells["_merge"] != "both").sum()):
            raise ValueError(
                f"{unmeasured} of {len(cells)} cells of the summary have no row in the damage: measure all"
            )
    chosen: dict[str, OperatingPoint] = {}
    for behavior, part in cells.groupby("behavior", sort=False):
        permitted = part[part["mass"] >= min_mass]
        if max_kl is not None:
            permitted = permitted[permitted["kl"] <= max_kl]  # a KL that is NaN, of logits that overflowed, is not
        if permitted.empty:
            least = f", its least KL {part['kl'].min():.3g}" if max_kl is not None else ""
            raise ValueError(
                f"no layer and multiplier of {behavior} is permitted: its largest mass is {part['mass'].max():.3g}"
                f"{least}; give smaller multipliers, or weaker conditions"
            )
        along = permitted["effect_balanced"].fillna(permitted["effect"]) * sign
        nearest = permitted["multiplier"].abs()
        best = permitted.assign(along=along, nearest=nearest).sort_values(
            ["along", "nearest", "layer"], ascending=[False, True, True]
        )
        row = best.iloc[0]
        chosen[str(behavior)] = OperatingPoint(int(row["layer"]), float(row["multiplier"]))
    return chosen


def selected(
    dev_summary: pd.DataFrame, test_summary: pd.DataFrame, chosen: Mapping[str, OperatingPoint]
) -> pd.DataFrame:
    """What was chosen on dev, on test: the number to report, and how much better it looked where it was chosen.

    Args:
        dev_summary: What `choose` was given.
        test_summary: `summarize` of a sweep over other items that has the chosen cells.
        chosen: As `choose` returns it.

    Returns:
        One row for each behaviour: the row of ``test_summary`` at its operating point, with ``effect_dev``,
        ``effect_balanced_dev`` and ``mass_dev``, and ``optimism``: how much further the balanced effect (the plain one
        where letters cannot be balanced) went on dev than on test, in the multiplier's direction.

    Raises:
        ValueError: If a summary lacks a chosen cell.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for behavior, point in chosen.items():
        dev, test = (
            _cell(summary, behavior, point, where) for summary, where in ((dev_summary, "dev"), (test_summary, "test"))
        )
        column = "effect" if np.isnan([dev["effect_balanced"], test["effect_balanced"]]).any() else "effect_balanced"
        row = {**test, **{f"{name}_dev": dev[name] for name in FROM_DEV}}
        rows.append({**row, "optimism": (dev[column] - test[column]) * np.sign(point.multiplier)})
    return pd.DataFrame(rows)


def select(
    model: HookedModel,
    vectors: Vectors,
    dev: Pairs,
    test: Pairs,
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    sign: int = 1,
    min_mass: float = 0.0,
    max_kl: float | None = None,
    texts: Sequence[str] = (),
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Choose a layer and multiplier on ``dev`` and measure that one cell on ``test``.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: A behaviour's vectors, made from neither.
        dev: What the point is chosen on.
        test: What is reported, other questions.
        layers: To choose from; None for all that the vectors have.
        multipliers: To choose from, without their sign.
        sign: See `choose`.
        min_mass: See `choose`.
        max_kl: See `choose`; needs ``texts``.
        texts: Neutral running text, on which the KL is measured; the table has ``kl`` where they are given.
        n_nulls: Random vectors of the same norm, on the test items.
        seed: Of the random vectors and of all resampling.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show progress bars.

    Returns:
        One row, as `selected` returns it.

    Raises:
        ValueError: Before the model runs, for sets that share a question, and as `choose` and `sweep` say.
    """
    check_conditions(sign, min_mass, max_kl, measured=bool(texts), multipliers=multipliers)
    vectors, dev, test = as_vectors(vectors), as_dataset(dev), as_dataset(test)
    check_apart({"dev": dev, "test": test})
    name = vectors.name
    steps = [sign * float(multiplier) for multiplier in multipliers]
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}

    def bar(text: str) -> str | bool:
        return f"{text} {name}" if progress else False

    measured: pd.DataFrame | None = None
    if texts:
        shown = bar("damage of")
        measured = damage(
            model, vectors, texts, layers=layers, multipliers=steps, batch_size=batch_size, progress=shown
        )
    shown = bar("choosing for")
    swept = sweep(model, vectors, dev, layers=layers, multipliers=steps, n_nulls=0, progress=shown, **options)
    on_dev = summarize(swept, n_bootstrap=1)
    chosen = choose(on_dev, sign=sign, min_mass=min_mass, max_kl=max_kl, damage=measured)
    [point] = chosen.values()
    frame = sweep(
        model, vectors, test, layers=[point.layer], multipliers=[point.multiplier], n_nulls=n_nulls, seed=seed,
        progress=bar("measuring"), **options,
    )  # fmt: skip
    table = selected(on_dev, summarize(frame, seed=seed), chosen)
    return table if measured is None else table.merge(measured[[*CELL, "kl"]], on=CELL)


def at_budget(
    model: HookedModel,
    vectors: Vectors | Mapping[str, Vectors],
    items: Pairs,
    texts: Sequence[str],
    budget: float,
    *,
    sign: int = 1,
    quantile: float = 0.95,
    largest: float = 64.0,
    tolerance: float = 0.01,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """The effect of every layer and method at the multiplier where each does the same damage.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: A behaviour's vectors, or several by the name of their method, such as
            ``{method: estimate(activations, method) for method in ("mean difference", "lda")}``; of the same layers.
        items: Questions that the vectors were not made from.
        texts: Neutral running text.
        budget: The KL(steered || unsteered) that all are brought to, in nats; see `at_equal_damage`.
        sign: 1 steers along the vectors, -1 against them.
        quantile: Of the KL per token.
        largest: The largest multiplier that is tried, without its sign.
        tolerance: Of the multiplier, as a part of it.
        n_nulls: So many random vectors of each layer, each brought to the same budget by a multiplier of its own.
        seed: Of the random vectors and of all resampling.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Rows run at once.
        progress: Show progress bars, under this text where it is one.

    Returns:
        One row for each vector x layer: ``behavior``, ``vector`` (its name), ``layer``, ``multiplier``, ``added_norm``,
        ``kl``, ``kl_mean`` and ``reached`` as `at_equal_damage` gives them, and the columns of `summarize` at that
        multiplier. The random vectors in these are at their own equal damage; those that did not reach the budget are
        left out. Where a vector did not reach it, its effect is NaN.

    Raises:
        ValueError: Before the model runs: for no vectors, vectors of different layers or ``d_model``, and as
            `at_equal_damage` and `format_prompt`.

    Source: comparison of steering methods at a fixed KL: the steering-lite library.
    """
    given = vectors if isinstance(vectors, Mapping) else {vectors.name: vectors}
    named, items = {name: as_vectors(each) for name, each in given.items()}, as_dataset(items)
    if not named:
        raise ValueError("no vectors were given: at least one is needed, such as {'mean difference': vectors}")
    first, *others = named
    for name in others:
        named[first].require_same_shape(named[name])
    if named[first].name in others:
        raise ValueError(f"a compared vector is named {named[first].name!r}, as the behaviour is: give it another name")
    for pair in items[:1]:
        format_prompt(model, pair.prompt, pair.positive, prompt_format=prompt_format, system=system)
    behavior = named[first].name
    every = {(name, -1): each for name, each in named.items()}
    every |= {(first, draw): null for draw, null in enumerate(random_like(named[first], n_nulls, seed))}
    single = {f"{name}/{draw}/{each.layer}": each for (name, draw), of_layers in every.items() for each in of_layers}
    equal = at_equal_damage(
        model, single, texts, budget, sign=sign, quantile=quantile, largest=largest, tolerance=tolerance,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    equal["vector"] = [name for (name, _), of_layers in every.items() for _ in of_layers]
    equal["draw"] = [draw for (_, draw), of_layers in every.items() for _ in of_layers]
    sizes = torch.from_numpy(equal["multiplier"].abs().fillna(0.0).to_numpy(copy=True)).view(len(every), -1, 1)
    scaled = {
        key: replace(each, values=each.values * size, provenance=each.provenance.then("equal damage"))
        for (key, each), size in zip(every.items(), sizes, strict=True)
    }
    frame = sweep(
        model, scaled[first, -1], items, multipliers=[float(sign)], n_nulls=0,
        nulls={"random": [scaled[first, draw] for draw in range(n_nulls)]},
        compared={name: scaled[name, -1] for name in others},
        prompt_format=prompt_format, system=system, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    beyond = equal[~equal["reached"] & (equal["draw"] >= 0)]
    lost = set(zip(beyond["draw"], beyond["layer"], strict=True))
    frame = sharing_nulls(frame[[cell not in lost for cell in zip(frame["draw"], frame["layer"], strict=True)]])
    effects = summarize(frame, seed=seed)
    effects = effects[effects["multiplier"] != 0].drop(columns="multiplier")
    effects["vector"] = effects["vector"].where(effects["vector"] != behavior, first)
    columns = ["vector", "layer", "multiplier", "added_norm", "kl", "kl_mean", "reached"]
    table = equal.loc[equal["draw"] < 0, columns].merge(effects, on=["vector", "layer"])
    measured = [name for name in effects.columns if effects[name].dtype.kind == "f"]
    table.loc[~table["reached"], measured] = float("nan")
    return table[["behavior", *(name for name in table.columns if name != "behavior")]]


def check_conditions(
    sign: int, min_mass: float, max_kl: float | None, *, measured: bool, multipliers: Sequence[float] = (1.0,)
) -> None:
    """Refuse conditions of a choice that mean nothing.

    Args:
        sign: As for `choose`.
        min_mass: As for `choose`.
        max_kl: As for `choose`.
        measured: Whether there is, or will be, a damage to hold against ``max_kl``.
        multipliers: As for `select`.

    Raises:
        ValueError: For any of them.
    """
    if sign not in (-1, 1) or not 0 <= min_mass <= 1 or (max_kl is not None and not max_kl > 0):
        raise ValueError(
            f"sign {brief(sign)}, min_mass {brief(min_mass)}, max_kl {brief(max_kl)}: sign is 1 or -1, min_mass is "
            "from 0 to 1, max_kl is a positive number of nats"
        )
    if max_kl is not None and not measured:
        raise ValueError(f"max_kl {max_kl} needs the KL on neutral text: give damage=damage(...), or texts to select()")
    if not multipliers or not all(multiplier > 0 for multiplier in multipliers):
        raise ValueError(
            f"multipliers {brief(list(multipliers))}: give numbers above 0; sign=-1 steers against the vector"
        )


def _cell(summary: pd.DataFrame, behavior: str, point: OperatingPoint, where: str) -> dict[str, Any]:
    here = (summary["behavior"] == behavior) & (summary["layer"] == point.layer)
    rows = summary[here & (summary["multiplier"] == point.multiplier)].to_dict("records")
    if len(rows) != 1:
        raise ValueError(
            f"the summary of {where} has {len(rows)} rows of {behavior} at layer {point.layer} and multiplier "
            f"{point.multiplier:g}: sweep that cell there, once"
        )
    return {str(key): value for key, value in rows[0].items()}
