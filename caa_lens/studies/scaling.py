"""The same study on models of several sizes: at which depth a vector works best, and how much is left in large ones.

On Llama 2 of 7, 13 and 70 billion parameters, refusal vectors are reported to work best in early to middle layers, to
work less the larger the model, and to work more against the behaviour than for it (arXiv 2507.11771, its abstract; its
settings were not at hand). Three bundled settings files ask that again, and `by_depth` lays finished runs beside each
other. Layers of models of different depth are compared by their relative depth: 0 is the first block and 1 the last.

    caa-lens study --settings refusal-scaling-7b --folder runs/7b
    caa-lens scaling runs/7b runs/13b --out depths.csv --figure depths.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.studies.result import StudyResult, read_study

if TYPE_CHECKING:
    import pandas as pd

_SIZE = re.compile(r"(?<![x\d.])(\d+(?:\.\d+)?)([kmbt])(?![a-z0-9])", re.IGNORECASE)
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_EFFECTS = (("positive", 1), ("negative", -1))


def by_depth(
    folders: Sequence[str | Path],
    *,
    multiplier: float = 1.0,
    n_layers: Mapping[str, int] | None = None,
    n_parameters: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """The effects of finished studies by layer, in both directions.

    Args:
        folders: Run folders of `run_study`, each of another model or other behaviours.
        multiplier: Above 0; the negative direction is the same size below 0. Every run must have swept both.
        n_layers: By model, without its organisation or folder, for runs that swept some layers only; others are known
            by their vectors.
        n_parameters: By model; otherwise what the model's name says, such as 7e9 for ``Llama-2-7b-chat-hf``.

    Returns:
        One row for each run, behaviour and layer, the smallest model first: ``run`` (its folder), ``model``,
        ``behavior``, ``n_layers``, ``n_parameters`` (nominal; NaN where nobody says), ``layer``, ``depth`` (relative, 0
        to 1), ``n_items`` (dev items), ``multiplier``, and for both directions ``positive`` and ``negative``: the
        letter-balanced change in P(matching answer) on the *dev* items, with its 95 % interval, ``_low`` and ``_high``
        (the plain effect where letters cannot be balanced). ``best``: the layer that the study chose on these very
        items, whose dev effect is therefore flattered. There, and NaN elsewhere, are ``test_positive`` and
        ``test_negative`` with intervals: the same on the test items, ``n_test`` of them.

    Raises:
        FileNotFoundError: If a folder is not there.
        ValueError: For no folders, a study that is not finished, two runs of one model and behaviour, a multiplier that
            a run did not sweep, a run of some layers whose model's depth is not given, or a model in ``n_layers`` or
            ``n_parameters`` that no run is of.
    """
    import pandas as pd

    if not folders:
        raise ValueError("no run folders were given: give those of finished studies")
    if not (math.isfinite(multiplier) and multiplier > 0):
        raise ValueError(f"multiplier {multiplier}: give a size above 0; both directions are looked at")
    rows: list[dict[str, Any]] = []
    for folder in folders:
        rows += _of_run(read_study(folder), multiplier, n_layers or {}, n_parameters or {})
    frame = pd.DataFrame(rows)
    for option, given in (("n_layers", n_layers), ("n_parameters", n_parameters)):
        if unknown := sorted(set(given or ()) - set(frame["model"])):
            raise ValueError(f"{option} names {unknown[0]}, and the runs are of {', '.join(frame['model'].unique())}")
    twice = frame[frame.duplicated(["model", "behavior", "layer"])]
    if len(twice):
        model, behavior = twice.iloc[0][["model", "behavior"]]
        raise ValueError(f"two runs are of {behavior} on {model}: give each once")
    return frame.sort_values(
        ["n_parameters", "n_layers", "model", "behavior", "layer"], kind="stable", ignore_index=True
    )


def parameters_in(name: str) -> float:
    """How many parameters a model's name says it has; NaN where it says nothing.

    Example:
        >>> parameters_in("meta-llama/Llama-2-7b-chat-hf"), parameters_in("Qwen2.5-0.5B"), parameters_in("gpt2-xl")
        (7000000000.0, 500000000.0, nan)
    """
    found = _SIZE.search(Path(name).name)
    return float(found[1]) * _UNITS[found[2].lower()] if found else math.nan


def _of_run(
    result: StudyResult, multiplier: float, n_layers: Mapping[str, int], n_parameters: Mapping[str, float]
) -> list[dict[str, Any]]:
    settings = result.settings
    model = Path(settings.model).name
    if missing := {multiplier, -multiplier} - set(settings.multipliers):
        swept = ", ".join(f"{each:g}" for each in settings.multipliers)
        raise ValueError(f"the study in {result.folder} swept the multipliers {swept}, not {max(missing, key=abs):g}")
    studied = next(iter(result.vectors.values())).layers
    depth = n_layers.get(model, len(studied) if settings.layers is None else None)
    if depth is None or depth <= max(studied):
        raise ValueError(
            f"the study in {result.folder} has layers {studied[0]} to {studied[-1]} of {model}, whose depth is "
            f"{'not known' if depth is None else depth}: give n_layers={{{model!r}: ...}}"
        )
    dev, test = result.tables["dev_summary"], result.tables["summary"]
    rows: list[dict[str, Any]] = []
    for behavior in result.vectors:
        for layer in studied:
            row: dict[str, Any] = {"run": str(result.folder), "model": model, "behavior": behavior}
            row |= {"n_layers": depth, "n_parameters": n_parameters.get(model, parameters_in(model)), "layer": layer}
            row |= {"depth": layer / max(1, depth - 1), "multiplier": multiplier}
            row |= {"best": layer == result.layers[behavior]}
            for prefix, table, count in (("", dev, "n_items"), ("test_", test, "n_test")):
                cells = table[(table["behavior"] == behavior) & (table["layer"] == layer)].set_index("multiplier")
                row[count] = int(cells["n_items"].iloc[0]) if len(cells) else math.nan
                for direction, sign in _EFFECTS:
                    row |= _effect(f"{prefix}{direction}", cells, sign * multiplier)
            rows.append(row)
    return rows


def _effect(name: str, cells: pd.DataFrame, multiplier: float) -> dict[str, float]:
    """An effect with its interval: letter-balanced, plain where that is not to be had, NaN where nothing is."""
    names = (name, f"{name}_low", f"{name}_high")
    if multiplier not in cells.index:
        return dict.fromkeys(names, math.nan)
    cell: Any = cells.loc[multiplier]
    balanced = ("effect_balanced", "balanced_low", "balanced_high")
    columns = (
        balanced if cell["effect_balanced"] == cell["effect_balanced"] else ("effect", "effect_low", "effect_high")
    )
    return {new: float(cell[old]) for new, old in zip(names, columns, strict=True)}
