"""Is this vector real? One call that asks everything a sceptic would, and says the answer in words.

A vector is made on one set of pairs, its layer is chosen on a second, and all figures are taken on a third. There its
effect stands beside its interval and three kinds of null; letters are balanced in two ways, by averaging over items
whose matching letter is A and items where it is B, and by asking every item twice with its choices exchanged; and
beside the mean stands how many items go along. `verdict` puts the table into sentences, each with its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from caa_lens.datasets.contrast import ContrastDataset, Pairs, as_dataset, check_apart
from caa_lens.evaluation.choices import choose_layer, summarize
from caa_lens.evaluation.items import steerability_summary, swapped
from caa_lens.evaluation.reliability import directional_agreement, separability, split_half
from caa_lens.evaluation.statistics import Estimate, resampled
from caa_lens.extraction.extraction import ContrastActivations, extract_activations
from caa_lens.extraction.nulls import KINDS, null_vectors
from caa_lens.files.messages import brief
from caa_lens.models.adapters import HookedModel
from caa_lens.prompts import PromptFormat, PromptOptions
from caa_lens.sweeps import sweep

if TYPE_CHECKING:
    import pandas as pd

OF_SLOPES = (
    *("slope", "slope_low", "slope_high", "slope_balanced", "slope_balanced_low", "slope_balanced_high"),
    *("share_anti", "slope_positive", "slope_negative"),
)
"""What an assessment takes from `steerability_summary`."""

OF_READING = ("agreement", "reliability", "reliability_low", "d_prime", "share_ordered")
"""What it takes from the activations that the vector was read from."""


def assess(
    model: HookedModel,
    train: Pairs,
    dev: Pairs,
    test: Pairs,
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    n_nulls: int = 20,
    seed: int = 0,
    read: str | int = "answer_letter",
    site: str = "resid_post",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Make a vector on ``train``, choose its layer on ``dev``, and measure it on ``test`` against its nulls.

    ``assess(model, *pairs.split(seed=0))`` does all of it for one dataset.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        train: What the vector is made from; a dataset, or a list of contrast pairs or triples, as the other two.
        dev: What the layer is chosen on, by `choose_layer`.
        test: What is reported.
        layers: To choose from; None for all.
        multipliers: At least one that is not 0; positive and negative ones are reported apart.
        n_nulls: So many nulls of each kind in `caa_lens.extraction.nulls.KINDS`.
        seed: Of the nulls and of all resampling.
        read: Where vectors are read, see `extract_vectors`; for answers that are no letters, ``"answer_end"``.
        site: Where in each block the vector is read and added; see `extract_vectors`.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show progress bars.

    Returns:
        One row for each multiplier that is not 0, with the columns of `summarize` (nulls of every kind among them), and
        ``effect_asked_twice`` with ``asked_twice_low`` and ``asked_twice_high``: the effect when every item is asked a
        second time with its choices exchanged, NaN where items have no two choices in their text. The same for every
        row, as they belong to the layer: ``slope`` (mean change of an item's log odds per unit of the multiplier),
        ``slope_low``, ``slope_high``, the same letter-balanced as ``slope_balanced``, ``slope_balanced_low`` and
        ``slope_balanced_high``, ``share_anti`` (items whose slope is negative), ``slope_positive`` and
        ``slope_negative`` (each side of 0 alone); ``agreement`` (mean cosine of a training pair's difference with the
        vector), ``reliability`` (mean cosine of the vectors of two halves of the training pairs) with
        ``reliability_low``; ``d_prime`` and ``share_ordered`` of the test pairs' activations along the vector. Sources
        in `caa_lens.evaluation`.

    Raises:
        ValueError: For sets that share a question, or as `extract_activations` and `sweep` say; before the model runs.
    """
    train, dev, test = as_dataset(train), as_dataset(dev), as_dataset(test)
    _check(train, dev, test, multipliers)
    _check_nulls(n_nulls)
    bar = _bars(progress, train.name.partition("/")[0])
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    activations = extract_activations(
        model, train, layers=layers, read=read, site=site, progress=bar("extracting"), **options
    )
    vectors = activations.vectors()
    shown = bar("choosing the layer of")
    on_dev = sweep(model, vectors, dev, multipliers=multipliers, n_nulls=0, progress=shown, **options)
    layer = choose_layer(summarize(on_dev, n_bootstrap=1, seed=seed))
    there = _at_layer(activations, layer)
    measured = measure(
        model, there, test, multipliers=multipliers, n_nulls=n_nulls, seed=seed, read=read, progress=progress, **options
    )
    return tabulate(measured, seed=seed)


@dataclass(frozen=True, slots=True)
class Measured:
    """What an assessment rests on, as frames that can be kept in files and put together for several behaviours.

    Attributes:
        items: The sweep of the test items at the chosen layer, nulls of every kind included.
        asked_twice: The same without nulls, over all items and then over all items with their choices exchanged; no
            rows where items have no two choices in their text.
        reading: One row a behaviour: ``behavior``, and the columns ``agreement`` to ``share_ordered`` of `assess`.
    """

    items: pd.DataFrame
    asked_twice: pd.DataFrame
    reading: pd.DataFrame


def measure(
    model: HookedModel,
    activations: ContrastActivations,
    test: Pairs,
    *,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    n_nulls: int = 20,
    seed: int = 0,
    read: str | int = "answer_letter",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Measured:
    """Everything that `assess` needs of the model, once there is a layer.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        activations: Of the training pairs, at one layer; their mean difference is what is assessed.
        test: As the other arguments, see `assess`.
        multipliers: At least one that is not 0.
        n_nulls: So many nulls of each kind.
        seed: Of the nulls.
        read: Where the activations were read, and those of ``test`` are.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show progress bars.

    Raises:
        ValueError: For activations of several layers, and as `sweep`.
    """
    import pandas as pd

    test = as_dataset(test)
    _check_nulls(n_nulls)
    if len(activations.layers) != 1:
        raise ValueError(
            f"the activations are of layers {brief(list(activations.layers))}: give those of the one layer that is "
            "assessed, extract_activations(..., layers=[layer])"
        )
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    layers, bar = activations.layers, _bars(progress, activations.name)
    site = activations.provenance.site
    held_out = extract_activations(model, test, layers=layers, read=read, site=site, progress=bar("reading"), **options)
    vector = activations.vectors()
    nulls = {kind: null_vectors(vector, n_nulls, kind=kind, seed=seed, activations=activations) for kind in KINDS}
    items = sweep(
        model, vector, test, layers=layers, multipliers=multipliers, n_nulls=0, nulls=nulls, progress=bar("measuring"),
        **options,
    )  # fmt: skip
    both_ways = _asked_twice(test)
    if both_ways is None:
        twice = items.iloc[:0]
    else:
        shown = bar("asking again of")
        twice = sweep(
            model, vector, both_ways, layers=layers, multipliers=multipliers, n_nulls=0, progress=shown, **options
        )
    halves, along = split_half(activations, seed=seed).iloc[0], separability(activations, held_out).iloc[0]
    reading = {
        "behavior": vector.name,
        "agreement": directional_agreement(activations).iloc[0]["with_mean"],
        "reliability": halves["cosine"],
        "reliability_low": halves["cosine_low"],
        "d_prime": along["d_prime"],
        "share_ordered": along["share_ordered"],
    }
    return Measured(items, twice, pd.DataFrame([reading]))


def tabulate(measured: Measured, *, seed: int = 0) -> pd.DataFrame:
    """The table of `assess`, from what was measured; of several behaviours one below the other.

    Args:
        measured: Of one behaviour, or of several with their frames put together.
        seed: Of the bootstrap.
    """
    import pandas as pd

    tables: list[pd.DataFrame] = []
    for name, frame in measured.items.groupby("behavior", sort=False):
        table = summarize(frame, seed=seed)
        table = table[table["multiplier"] != 0].reset_index(drop=True)
        table[["effect_asked_twice", "asked_twice_low", "asked_twice_high"]] = float("nan")
        twice = measured.asked_twice[measured.asked_twice["behavior"] == name]
        if len(twice):
            found = _effects_of_items(twice, frame["item"].nunique(), seed)
            for place, multiplier in enumerate(table["multiplier"]):
                table.loc[place, ["effect_asked_twice", "asked_twice_low", "asked_twice_high"]] = [*found[multiplier]]
        steerable = steerability_summary(frame, seed=seed).iloc[0]
        for column in OF_SLOPES:
            table[column] = steerable[column]
        [reading] = measured.reading[measured.reading["behavior"] == name].to_dict("records")
        for column in OF_READING:
            table[column] = reading[column]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def describe_assessment(table: pd.DataFrame) -> list[str]:
    """An assessment in sentences, each with the numbers behind it; the doubts as plainly as the rest.

    Args:
        table: As `assess` returns it.
    """
    said: list[str] = []
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]
    for row in rows:
        at = f"At {row['multiplier']:+g}"
        low, high = row["effect_low"], row["effect_high"]
        clear = "" if low > 0 or high < 0 else ", an interval that contains 0"
        said.append(
            f"{at} on layer {row['layer']} the matching answer's share moves by {row['effect']:+.2f} "
            f"[{low:+.2f}, {high:+.2f}] over {row['n_items']} items{clear}."
        )
        if row["effect"] * row["multiplier"] < 0:
            said.append(f"{at} that is the wrong way.")
        said += _about_letters(at, row) + _about_nulls(at, row)
        said.append(f"{at}, {row['share_wrong']:.0%} of items move the wrong way; the mass is {row['mass']:.2f}.")
    first = rows[0]
    low, high = first["slope_balanced_low"], first["slope_balanced_high"]
    evenly = f" ({first['slope_balanced']:.2f} [{low:.2f}, {high:.2f}] with letters balanced)" if low == low else ""
    said.append(
        f"An item's log odds change by {first['slope']:.2f} [{first['slope_low']:.2f}, {first['slope_high']:.2f}] per "
        f"unit of the multiplier{evenly}; {first['share_anti']:.0%} of items have a negative slope."
    )
    said.append(
        f"Vectors of two halves of the training pairs have cosine {first['reliability']:.2f} (2.5 % of splits are "
        f"below {first['reliability_low']:.2f}); one pair's difference has cosine {first['agreement']:.2f} with the "
        f"vector; held out, {first['share_ordered']:.0%} of pairs are in order along it (d' {first['d_prime']:.1f})."
    )
    return said


def _about_letters(at: str, row: Mapping[str, Any]) -> list[str]:
    balanced, low, high = row["effect_balanced"], row["balanced_low"], row["balanced_high"]
    if balanced != balanced:
        return [f"{at}: all matching letters are the same, so preferring that letter would look like the effect."]
    becomes = _becomes(row["effect"], balanced, low, high)
    said = [f"{at} it {becomes} when letters are balanced: {balanced:+.2f} [{low:+.2f}, {high:+.2f}]."]
    twice = row["effect_asked_twice"]
    if twice == twice:
        low, high = row["asked_twice_low"], row["asked_twice_high"]
        becomes = _becomes(row["effect"], twice, low, high)
        said.append(f"{at} it {becomes} when every item is asked both ways: {twice:+.2f} [{low:+.2f}, {high:+.2f}].")
    return said


def _becomes(effect: float, checked: float, low: float, high: float) -> str:
    """What is left of an effect: nothing, the opposite, less than half, or most of it."""
    if low <= 0 <= high:
        return "vanishes"
    if effect * checked < 0:
        return "turns round"
    return "shrinks" if abs(checked) < abs(effect) / 2 else "stays"


def _about_nulls(at: str, row: Mapping[str, Any]) -> list[str]:
    beaten = [
        f"{round(row[f'beats_{kind}'] * row[f'n_{kind}'])} of {row[f'n_{kind}']} {kind}"
        for kind in KINDS
        if row.get(f"n_{kind}", 0) and row[f"beats_{kind}"] == row[f"beats_{kind}"]
    ]
    return [f"{at} it beats {', '.join(beaten)} vectors of the same norm."] if beaten else []


def _bars(progress: bool, name: str) -> Callable[[str], str | bool]:
    """The text of each stage's progress bar, or False for none."""
    return lambda stage: f"{stage} {name}" if progress else False


def _check(train: ContrastDataset, dev: ContrastDataset, test: ContrastDataset, multipliers: Sequence[float]) -> None:
    if not any(multiplier for multiplier in multipliers):
        raise ValueError(f"multipliers {brief(list(multipliers))}: give at least one that is not 0")
    check_apart({"train": train, "dev": dev, "test": test})


def _check_nulls(n_nulls: int) -> None:
    if n_nulls < 1:
        raise ValueError(f"n_nulls is {n_nulls}: no effect is given without its null, so give 1 or more, as 20")


def _at_layer(activations: ContrastActivations, layer: int) -> ContrastActivations:
    column = [activations.layers.index(layer)]
    return replace(
        activations,
        positive=activations.positive[:, column],
        negative=activations.negative[:, column],
        layers=(layer,),
    )


def _asked_twice(test: ContrastDataset) -> ContrastDataset | None:
    """Every item, then every item with its choices exchanged; None where their text has no two choices."""
    try:
        other = swapped(test)
    except ValueError:
        return None
    return ContrastDataset.from_pairs([*test, *other], name=test.name, allow_empty_prompt=True)


def _effects_of_items(frame: pd.DataFrame, n_items: int, seed: int) -> dict[float, Estimate]:
    """By multiplier: the mean over items of the mean over both ways of asking, with its 95 % bootstrap interval."""
    moved = frame.pivot_table(index="item", columns="multiplier", values="p_matching").sort_index()
    found: dict[float, Estimate] = {}
    items = resampled(n_items, seed=seed)
    for multiplier in moved.columns:
        change = (moved[multiplier] - moved[0.0]).to_numpy().reshape(2, n_items).mean(axis=0)
        found[float(multiplier)] = items.mean(change)
    return found
