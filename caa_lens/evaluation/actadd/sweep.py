"""One measure of an addition at several layers, coefficients and places in the prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from tqdm.auto import tqdm

from caa_lens.interventions.prompt_additions import At, PromptAddition
from caa_lens.models.adapters import HookedModel
from caa_lens.models.loading import check_layers

if TYPE_CHECKING:
    import pandas as pd

Measure = Callable[[PromptAddition], "pd.DataFrame"]
"""Takes an addition and gives the frame of any of these evaluations."""


def sweep_additions(
    model: HookedModel,
    make: Callable[[int], PromptAddition],
    measure: Measure,
    *,
    layers: Sequence[int] | None = None,
    coefficients: Sequence[float] = (1.0, 2.0, 5.0),
    at: Sequence[At] = ("front",),
    progress: bool | str = False,
) -> pd.DataFrame:
    """Make an addition at each layer, and measure it with each coefficient at each place.

    The prompts are read once a layer; random controls are the same for all coefficients and places of a layer. Before
    the first cell the progress bar says how many there are; every cell costs what one call of ``measure`` does.

    Args:
        model: What ``make`` and ``measure`` use; here it says which layers there are.
        make: Takes a layer and gives the addition, such as ``lambda layer: addition(model, "Love", "Hate",
            layer=layer)``. Its own coefficient and place are replaced.
        measure: Takes an addition and gives a frame, such as ``lambda love: topic_words(continuations(model, love,
            prompts), ["love"])``.
        layers: ActAdd's, each the block whose input is added to; None for all.
        coefficients: Any finite numbers.
        at: Of ``front``, ``middle`` and ``back``; `perplexity_ratio` takes ``front`` only.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The frames below each other, with ``layer``, ``at`` and ``coefficient`` in front. `beside_controls` gives one
        row for each cell.

    Raises:
        ValueError: Before the model runs: for layers that it does not have, and coefficients or places that are none,
            are unknown or are given twice.

    Source: sweeps over layer, coefficient and place, ActAdd (arXiv 2308.10248). The best cell of many is better than it
    will be on other prompts: choose on some, report on others.
    """
    import pandas as pd

    wanted = check_layers(model, layers)
    steps = [float(each) for each in coefficients]
    if not steps or len(set(steps)) < len(steps) or not all(map(math.isfinite, steps)):
        raise ValueError(f"coefficients {list(coefficients)}: give finite numbers, each once")
    if not at or len(set(at)) < len(at) or not set(at) <= set(get_args(At)):
        raise ValueError(f"at {list(at)}: give some of {', '.join(get_args(At))}, each once")
    cells: list[pd.DataFrame] = []
    name = progress if isinstance(progress, str) else "additions"
    with tqdm(total=len(wanted) * len(at) * len(steps), desc=name, unit="cell", disable=not progress) as bar:
        for layer in wanted:
            made = make(layer)
            for place in at:
                for step in steps:
                    frame = measure(replace(made, at=place, coefficient=step))
                    for column, held in (("coefficient", step), ("at", place), ("layer", layer)):
                        frame.insert(0, column, held)
                    cells.append(frame)
                    bar.update(1)
    return pd.concat(cells, ignore_index=True)
