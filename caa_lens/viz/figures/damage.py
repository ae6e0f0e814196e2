"""What steering costs: how far it moves the model on other text, and what an effect is worth at the same damage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import Panels, doses, finished, items_of, reaching, require, signed, told, whiskers
from caa_lens.viz.theme import SEQUENTIAL, line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_MEASURES = (
    ("kl_mean", "KL, mean over tokens", "nats per token", ".2g"),
    ("kl_p95", "KL, 95 % of tokens are below", "nats per token", ".2g"),
    ("kl_max", "KL, the largest of a token", "nats per token", ".2g"),
    ("nll_change", "Loss of the text", "change, nats per token", "+.2g"),
    ("top1_agreement", "Same likeliest token", "share of tokens", ".2f"),
)
"""Column, heading, axis and format of every panel of `side_effects`; the largest KL only where there is no quantile."""

_POSSIBLE = {"top1_agreement": (0.0, 1.0), "nll_change": (-math.inf, math.inf)} | dict.fromkeys(
    ("kl_mean", "kl_p95", "kl_max"), (0.0, math.inf)
)
"""Intervals end where a measure does."""

_CANDIDATE = ("vector", "layer")
"""What a line is one of."""


def side_effects(frame: pd.DataFrame) -> go.Figure:
    """What steering does to unrelated text at each multiplier: KL, loss, and how often the likeliest token stays.

    The frame of `caa_lens.protocols.selection.damage` can be drawn as it is. That of `caa_lens.evaluation.side_effects`
    names its recipes and not what is in them, so it needs ``multiplier``, and for lines ``vector`` or ``layer``
    or both::

        steps = (-2, -1, 0, 1, 2)
        frame = side_effects(model, {str(step): vectors[4] * step for step in steps}, texts)
        figures.side_effects(frame.assign(vector="mine", layer=4, multiplier=frame["vector"].astype(float)))

    Args:
        frame: As said; with one row a text, their means and intervals are shown.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    if "kl_mean" not in frame.columns:
        frame = frame.rename(columns={"kl": "kl_mean"})
    made_by = "caa_lens.protocols.selection.damage, or side_effects of caa_lens.evaluation with a column multiplier,"
    require(made_by, frame, "multiplier", "kl_mean", "nll_unsteered", "nll_steered", "top1_agreement")
    frame = frame.assign(nll_change=frame["nll_steered"] - frame["nll_unsteered"])
    left_out = "kl_max" if "kl_p95" in frame.columns else "kl_p95"
    measures = [each for each in _MEASURES if each[0] in frame.columns and each[0] != left_out]
    keys = [key for key in _CANDIDATE if key in frame.columns and frame[key].nunique() > 1]
    table = _over_texts(frame, keys, [column for column, *_ in measures])
    panels = Panels([heading for _, heading, *_ in measures], high=190, most=2)
    groups = _candidates(table, keys)
    styles = _styles(len(groups), by_layer=keys == ["layer"])
    with_intervals = len(groups) <= 7 and int(table["n_texts"].min()) > 1
    for index, (column, heading, axis, form) in enumerate(measures):
        low, high = f"{column}_low", f"{column}_high"
        between = f" [{{{low}:{form}}}, {{{high}:{form}}}]" if int(table["n_texts"].max()) > 1 else ""
        for style, (label, part) in enumerate(groups):
            color, marker = styles[style]
            line = go.Scatter(
                x=part["multiplier"],
                y=part[column],
                **(whiskers(part[column], part[low], part[high], color) if with_intervals else {}),
                mode="lines+markers",
                marker={"color": color, "symbol": marker, "size": 6},
                line={"color": color},
                name=label,
                legendgroup=label,
                showlegend=index == 0 and bool(label),
                hovertext=told(
                    part,
                    "vector {vector}",
                    "layer {layer}",
                    "multiplier {multiplier:+g}",
                    f"{heading}: {{{column}:{form}}}{between}",
                    "{n_texts} texts" if "document" in frame.columns else "",
                    "{n_tokens} tokens" if "n_tokens" in frame.columns else "",
                ),
                hoverinfo="text",
            )
            panels.add(index, line)
        panels.axes(index, {"title_text": "multiplier", **doses(table["multiplier"])}, {})
        panels.figure.update_yaxes(title={"text": axis, "standoff": 4}, **panels.place(index))
        if column.startswith("kl"):
            panels.figure.update_yaxes(rangemode="tozero", **panels.place(index))
    said = ["steered against unsteered on unrelated text"]
    if "document" in frame.columns:
        said += [
            f"means over {items_of(table, 'n_texts', 'texts')}",
            "95 % intervals (normal)" if with_intervals else "",
        ]
    said += [items_of(table, "n_tokens", "tokens") if "n_tokens" in frame.columns else ""]
    return panels.finish("Side effects on unrelated text", said)


def tradeoff(frame: pd.DataFrame) -> go.Figure:
    """Effect against damage: what each candidate reaches at which KL, a line a candidate over its multipliers.

    Further from zero at the same KL is better. Positive and negative multipliers have a line each. Effects are
    letter-balanced where the frame has them so::

        cells = ["behavior", "layer", "multiplier"]
        figures.tradeoff(summary.merge(damage(model, vectors, texts, multipliers), on=cells))

    Args:
        frame: One row for each candidate x multiplier: ``multiplier, kl, effect, effect_low, effect_high``, and
            ``vector`` or ``layer`` or both, which tell candidates apart; `caa_lens.protocols.selection.at_budget`
            returns such a frame too. Rows without an effect or a KL are left out.

    Raises:
        ValueError: If columns or rows are missing, or a KL is negative.
    """
    import plotly.graph_objects as go

    made_by = (
        "caa_lens.protocols.selection.at_budget, or caa_lens.summarize with the column kl of "
        "caa_lens.protocols.selection.damage,"
    )
    require(made_by, frame, "multiplier", "kl", "effect", "effect_low", "effect_high")
    if (frame["kl"] < 0).any():
        raise ValueError(f"the frame has a KL of {frame['kl'].min():g}: a KL is 0 or more")
    balanced = "effect_balanced" in frame.columns and bool(frame["effect_balanced"].notna().any())
    effect = "effect_balanced" if balanced else "effect"
    low, high = (f"{'balanced' if balanced else 'effect'}_{edge}" for edge in ("low", "high"))
    steered = frame[(frame["multiplier"] != 0) & frame[effect].notna() & frame["kl"].notna()]
    if steered.empty:
        raise ValueError("the frame has no row with an effect and a KL at a multiplier other than 0")
    keys = [key for key in _CANDIDATE if key in steered.columns and steered[key].nunique() > 1]
    groups = _candidates(steered, keys)
    styles = _styles(len(groups), by_layer=keys == ["layer"])
    labelled = len(groups) <= 7
    figure: Any = go.Figure()
    for style, (label, of_candidate) in enumerate(groups):
        color, marker = styles[style]
        shown = False
        for side, dash in ((1, "solid"), (-1, "dot")):
            part = of_candidate[of_candidate["multiplier"] * side > 0].sort_values("multiplier", key=abs)
            if part.empty:
                continue
            line = go.Scatter(
                x=part["kl"],
                y=part[effect],
                **(whiskers(part[effect], part[low], part[high], color) if labelled else {}),
                mode="lines+markers+text" if labelled else "lines+markers",
                text=[signed(round(multiplier, 2)) for multiplier in part["multiplier"]],
                textposition="top right" if side > 0 else "bottom right",
                textfont={"size": 10, "color": color},
                marker={"color": color, "symbol": marker, "size": 8 if labelled else 5},
                line={"color": color, "dash": dash, "width": 1.5},
                name=label,
                legendgroup=label,
                showlegend=bool(label) and not shown,
                hovertext=told(
                    part,
                    "vector {vector}",
                    "layer {layer}",
                    "multiplier {multiplier:+.3g}",
                    f"effect {{{effect}:+.3f}} [{{{low}:+.3f}}, {{{high}:+.3f}}]",
                    "KL {kl:.3g} nats per token",
                    "{n_items} items",
                ),
                hoverinfo="text",
            )
            shown = True
            figure.add_trace(line)
    decades = steered["kl"].min() > 0 and float(steered["kl"].max() / steered["kl"].min()) > 30
    scale = {"type": "log", "dtick": 1} if decades else {"rangemode": "tozero"}
    figure.update_xaxes(title_text=f"KL, nats per token{' (logarithmic)' if decades else ''}", **scale)
    figure.update_yaxes(title_text="effect", tickformat="+~g", range=reaching(steered, [low, high, effect]))
    said = [f"{'letter-balanced' if balanced else 'plain'} change in P(matching answer) over KL on unrelated text"]
    said += ["95 % intervals over items; labels are multipliers" if labelled else "", items_of(steered)]
    return finished(figure, "Effect against damage", said, 330)


def _over_texts(frame: pd.DataFrame, keys: list[str], measures: list[str]) -> pd.DataFrame:
    """Mean and 95 % interval over texts of every measure, for each line and multiplier."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for _, cell in frame.groupby([*keys, "multiplier"], sort=True):
        row: dict[str, Any] = {key: cell[key].iloc[0] for key in (*_CANDIDATE, "multiplier") if key in cell.columns}
        row["n_texts"] = len(cell)
        row["n_tokens"] = int(cell["n_tokens"].sum()) if "n_tokens" in cell.columns else 0
        for column in measures:
            mean, error = float(cell[column].mean()), float(str(cell[column].sem()))
            least, most = _POSSIBLE[column]
            low, high = max(least, mean - 1.96 * error), min(most, mean + 1.96 * error)
            row |= {column: mean, f"{column}_low": low, f"{column}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _candidates(frame: pd.DataFrame, keys: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each candidate under its label, in the order of the frame."""
    if not keys:
        return [("", frame)]
    found: list[tuple[str, pd.DataFrame]] = []
    for _, part in frame.groupby(keys, sort=False):
        values = {key: part[key].iloc[0] for key in keys}
        said = (f"layer {value}" if key == "layer" else str(value) for key, value in values.items())
        found.append((", ".join(said), part))
    return found


def _styles(n: int, *, by_layer: bool) -> list[tuple[str, str]]:
    """Colours that ascend with the layer where there are many of them, else the palette's."""
    if by_layer and n > 7:
        from plotly import colors

        sampled: Any = colors.sample_colorscale(list(SEQUENTIAL), [index / (n - 1) for index in range(n)])
        return [(str(color), "circle") for color in sampled]
    return [line_style(index) for index in range(n)]
