"""Additions to prompts (ActAdd): what they do beside additions that mean nothing, and how long they are."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import Panels, doses, items_of, require, told, whiskers
from caa_lens.viz.theme import NULL_BANDS, NULL_EDGE, line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_BESIDE = "caa_lens.evaluation.actadd.beside_controls"
_KINDS = ("random", "nonsense")


def added_effects(table: pd.DataFrame, *, measure: str = "effect") -> go.Figure:
    """What an addition does at each coefficient, with the range of its controls; a plot for each layer and place.

    Args:
        table: As `caa_lens.evaluation.actadd.beside_controls` returns it for a frame of `sweep_additions`, with one row
            for each layer, place and coefficient: of several kinds of text or several K, keep one.
        measure: What to call the effect, with its unit, such as ``"change of log odds"``.

    Raises:
        ValueError: If columns or rows are missing, or there are several rows for a coefficient.
    """
    import plotly.graph_objects as go

    cell = ["layer", "at", "coefficient"]
    bands = [f"{kind}_{end}" for kind in _KINDS for end in ("low", "high")]
    require(_BESIDE, table, *cell, "effect", "effect_low", "effect_high", *bands)
    if table.duplicated(cell).any():
        raise ValueError(
            "the table has several rows for a layer, place and coefficient: keep one kind of text or one K, such as "
            "table[table.kind == 'related']"
        )
    places = table[["layer", "at"]].drop_duplicates().itertuples(index=False, name=None)
    parts = [(f"layer {layer}, {at}", table[(table["layer"] == layer) & (table["at"] == at)]) for layer, at in places]
    n_places = table["at"].nunique()
    panels = Panels([heading for heading, _ in parts], high=210, most=n_places if n_places > 1 else 3)
    color, marker = line_style(0)
    for index, (_, part) in enumerate(parts):
        part, first = part.sort_values("coefficient"), index == 0
        x = part["coefficient"]
        for (fill, dash), kind in zip(NULL_BANDS, _KINDS, strict=False):
            edge = {"mode": "lines", "hoverinfo": "skip", "legendgroup": kind}
            line = {"color": NULL_EDGE, "width": 0.7, "dash": dash or "solid"}
            panels.add(
                index,
                go.Scatter(x=x, y=part[f"{kind}_low"], line=line, showlegend=False, **edge),
                go.Scatter(
                    x=x,
                    y=part[f"{kind}_high"],
                    line=line,
                    fill="tonexty",
                    fillcolor=fill,
                    name=f"{kind} additions",
                    showlegend=first,
                    **edge,
                ),
            )
        texts = told(
            part,
            "coefficient {coefficient:+g}",
            "unsteered {value_unsteered:.3g}, steered {value_steered:.3g}",
            "effect {effect:+.3g} [{effect_low:+.3g}, {effect_high:+.3g}]",
            "{n_random} random {random_low:+.3g} to {random_high:+.3g}, beyond {beyond_random:.0%} of them",
            "{n_nonsense} nonsense {nonsense_low:+.3g} to {nonsense_high:+.3g}, beyond {beyond_nonsense:.0%} of them",
        )
        effects: Any = go.Scatter(
            x=x,
            y=part["effect"],
            mode="lines+markers",
            name="the addition",
            legendgroup="addition",
            showlegend=first,
            marker={"color": color, "symbol": marker, "size": 7},
            line={"color": color},
            hovertext=texts,
            hoverinfo="text",
            **whiskers(part["effect"], part["effect_low"], part["effect_high"], color),
        )
        panels.add(index, effects)
        panels.axes(index, {"title_text": "coefficient", **doses(x)}, {"title_text": measure})
    said = [items_of(table), "whiskers: 95 % intervals over items", "bands: 95 % of the controls"]
    return panels.finish("Additions, and additions that mean nothing", said)


def added_norms(frame: pd.DataFrame) -> go.Figure:
    """The norm of an addition at each of its positions, beside the stream's of all prompts, and the ratio of the two.

    Args:
        frame: As `caa_lens.evaluation.actadd.norms_along` returns it.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    columns = ("item", "position", "made_from", "norm", "stream_norm", "relative")
    require("caa_lens.evaluation.actadd.norms_along", frame, *columns, "token")
    shown = {
        column: frame[column].map(lambda text: html.escape(str(text), quote=False)) for column in ("made_from", "token")
    }
    frame = frame.assign(**shown)  # a BOS such as <s> would be taken for markup
    position = frame["position"]
    ticks = frame.drop_duplicates("position").sort_values("position")
    panels = Panels(["Norms", "Addition over stream"], high=230, most=2)
    texts = told(
        frame,
        "position {position}, made from {made_from}, added to {token!r}",
        "addition {norm:.3g}, stream {stream_norm:.3g}, ratio {relative:.2f}",
        "prompt {item}",
    )
    drawn = (("stream, each prompt", "stream_norm", 0, 6), ("addition", "norm", 1, 10))
    for name, column, style, size in drawn:
        color, marker = line_style(style)
        look = {"color": color, "symbol": marker, "size": size, "opacity": 0.7}
        panels.add(
            0,
            go.Scatter(
                x=position, y=frame[column], mode="markers", name=name, marker=look, hovertext=texts, hoverinfo="text"
            ),
        )
    color, marker = line_style(2)
    look = {"color": color, "symbol": marker, "size": 6, "opacity": 0.7}
    ratios: Any = {"mode": "markers", "showlegend": False, "hovertext": texts, "hoverinfo": "text"}
    panels.add(1, go.Scatter(x=position, y=frame["relative"], marker=look, **ratios))
    labels = {"tickvals": ticks["position"].tolist(), "ticktext": ticks["made_from"].tolist(), "tickangle": -40}
    for index in range(2):
        panels.axes(index, {"title_text": "made from", **labels}, {"rangemode": "tozero"})
    n_prompts = frame["item"].nunique()
    said = [f"{n_prompts} prompt{'s' * (n_prompts > 1)}", "at the input of the layer, where it is added"]
    return panels.finish("An addition beside the stream", said, bottom=90)
