"""Models of several sizes beside each other: what is left of an effect, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caa_lens.viz.figures.panels import Panels, items_of, names, reaching, require, told, whiskers
from caa_lens.viz.theme import line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def scaling(frame: pd.DataFrame) -> go.Figure:
    """Effect against relative depth, a line for each model, one panel for each behaviour and direction.

    The large marker is the layer that the study chose on these items.

    Args:
        frame: As `caa_lens.studies.scaling.by_depth` returns it.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    sides = {"positive": 1, "negative": -1}
    bounds = [f"{side}{end}" for side in sides for end in ("", "_low", "_high")]
    require(
        "caa_lens.studies.scaling.by_depth", frame, "behavior", "model", "layer", "depth", "multiplier", "best", *bounds
    )
    every, models, size = names(frame), names(frame, "model"), float(frame["multiplier"].iloc[0])
    headings = [f"{name}, {sign * size:+g}" for name in every for sign in sides.values()]
    panels = Panels(headings, high=220, most=2, shared_y=True)
    for index, (name, side) in enumerate((name, side) for name in every for side in sides):
        for style, model in enumerate(models):
            part = frame[(frame["behavior"] == name) & (frame["model"] == model)].sort_values("depth")
            color, marker = line_style(style)
            texts = told(
                part,
                f"{{model}}, layer {{layer}} of {{n_layers}}, multiplier {sides[side] * size:+g}",
                f"effect {{{side}:+.3f}} [{{{side}_low:+.3f}}, {{{side}_high:+.3f}}] on dev items",
                f"on test items {{test_{side}:+.3f}} [{{test_{side}_low:+.3f}}, {{test_{side}_high:+.3f}}]",
                "{n_items} items",
            )
            line = go.Scatter(
                x=part["depth"],
                y=part[side],
                **whiskers(part[side], part[f"{side}_low"], part[f"{side}_high"], color),
                mode="lines+markers",
                marker={"color": color, "symbol": marker, "size": [13 if best else 6 for best in part["best"]]},
                line={"color": color},
                name=model,
                legendgroup=model,
                showlegend=index == 0,
                hovertext=texts,
                hoverinfo="text",
            )
            panels.add(index, line)
        panels.axes(
            index,
            {"title_text": "relative depth", "range": [-0.04, 1.04]},
            {"title_text": "effect", "tickformat": "+~g"},
        )
    panels.figure.update_yaxes(range=reaching(frame, bounds))
    said = ["change in P(matching answer) on dev items with 95 % intervals", items_of(frame)]
    return panels.finish("Effect by relative depth", [*said, "large: the layer chosen on these items"])
