"""What a vector does to the answers, and what stands beside it: intervals, nulls, letters, other ways of steering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import (
    SMALLEST_RANGE,
    Panels,
    color_axis,
    doses,
    framed,
    heat,
    items_of,
    laid_out,
    names,
    one_layer,
    reaching,
    require,
    short,
    shortened,
    signed,
    told,
    whiskers,
)
from caa_lens.viz.theme import NULL_BANDS, NULL_EDGE, line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_LINES = (
    ("effect", "effect", "plain", "dot", 1),
    ("effect_balanced", "balanced", "letter-balanced", "solid", 0),
    ("effect_asked_twice", "asked_twice", "asked both ways", "dash", 2),
)
"""Column, name of its interval, label, dash and style of every line of `dose_response`."""


def sweep_heatmap(summary: pd.DataFrame, chosen: Mapping[str, int] | None = None) -> go.Figure:
    """Letter-balanced effect of every layer and multiplier, one panel a behaviour, all on one colour scale.

    Where letters cannot be balanced, the panel shows the plain effect and says so, as `caa_lens.choose_layer` takes it.

    Args:
        summary: As `caa_lens.summarize` returns it.
        chosen: Behaviour to layer; that layer is framed.

    Raises:
        ValueError: If columns or rows are missing.
    """
    require("caa_lens.summarize", summary, "behavior", "layer", "multiplier", "effect", "effect_balanced")
    every = names(summary)
    panels = Panels(every, high=max(120, min(320, 24 * summary["layer"].nunique())))
    reach = SMALLEST_RANGE
    for index, name in enumerate(every):
        part = summary[summary["behavior"] == name]
        column = "effect_balanced"
        if part[column].isna().all():
            column = "effect"
            panels.figure.layout.annotations[index].text = f"{shortened(name, 22)} (not balanced)"
        texts = told(
            part,
            "{behavior}, layer {layer}, multiplier {multiplier:+g}",
            "letter-balanced effect {effect_balanced:+.3f} [{balanced_low:+.3f}, {balanced_high:+.3f}]",
            "plain effect {effect:+.3f} [{effect_low:+.3f}, {effect_high:+.3f}]",
            "p_matching {p_matching:.3f}",
            "mass {mass:.2f}",
            "{n_items} items",
            "{share_wrong:.0%} moved the wrong way",
        )
        values = laid_out(part, "layer", "multiplier", column).rename(columns=signed)
        hover = laid_out(part.assign(text=texts), "layer", "multiplier", "text")
        few = len(values) <= 12 and len(values.columns) * panels.columns <= 24
        panels.add(index, heat(values, hover, values.map(short) if few else None))
        category = {"type": "category", "showgrid": False}
        panels.axes(index, {**category, "title_text": "multiplier"}, {**category, "title_text": "layer"})
        reach = max(reach, float(values.abs().max().max()))
        if chosen and chosen.get(name) in values.index:
            at = list(values.index).index(chosen[name])
            framed(panels.figure, panels.place(index), (-0.5, len(values.columns) - 0.5), (at - 0.5, at + 0.5))
    color_axis(panels.figure, reach, "effect")
    subtitle = ["letter-balanced change in P(matching answer)", items_of(summary)]
    subtitle += ["framed: the layer chosen on these items"] if chosen else []
    return panels.finish("Effect by layer and multiplier", subtitle)


def dose_response(summary: pd.DataFrame) -> go.Figure:
    """Effect against multiplier with its 95 % interval, plain and letter-balanced, over what null vectors do.

    Every kind of null in the frame has its band, the middle 95 % of their balanced effects. An assessment's table also
    has the effect of asking every item both ways.

    Args:
        summary: As `caa_lens.summarize` or `caa_lens.assess` returns it, one layer for each
            behaviour.

    Raises:
        ValueError: If columns or rows are missing, or a behaviour has several layers.
    """
    import plotly.graph_objects as go

    columns = ("effect", "effect_low", "effect_high", "effect_balanced", "balanced_low", "balanced_high")
    require("caa_lens.summarize", summary, "behavior", "layer", "multiplier", *columns)
    every = names(summary)
    layers = {name: one_layer(summary[summary["behavior"] == name], name, "summary") for name in every}
    panels = Panels([f"{name}, layer {layer}" for name, layer in layers.items()], high=190, shared_y=True)
    kinds = [kind for kind in _kinds(summary) if summary[f"{kind}_low"].notna().any()]
    lines = [line for line in _LINES if line[0] in summary.columns and summary[line[0]].notna().any()]
    for index, name in enumerate(every):
        part = summary[summary["behavior"] == name].sort_values("multiplier")
        x = part["multiplier"]
        for style, kind in enumerate(kinds):
            n = int(summary[f"n_{kind}"].max())
            panels.add(index, *_band(part, kind, f"{n} {kind} vectors", style, first=index == 0))
        for column, bounds, label, dash, style in lines:
            color, marker = line_style(style)
            size = 11 if style else 7
            marker += "-open" if style else ""  # so that equal effects do not hide one another
            low, high = f"{bounds}_low", f"{bounds}_high"
            texts = told(
                part,
                f"{{behavior}}, {label}, multiplier {{multiplier:+g}}",
                f"effect {{{column}:+.3f}} [{{{low}:+.3f}}, {{{high}:+.3f}}]",
                "p_matching {p_matching:.3f}",
                "mass {mass:.2f}",
                "{n_items} items",
                "{share_wrong:.0%} moved the wrong way",
                *(f"{kind} vectors: {{{kind}_low:+.3f}} to {{{kind}_high:+.3f}}" for kind in kinds),
                *(f"beats {{beats_{kind}:.0%}} of {{n_{kind}}} {kind} vectors" for kind in kinds),
            )
            line = go.Scatter(
                x=x,
                y=part[column],
                **whiskers(part[column], part[low], part[high], color),
                mode="lines+markers",
                marker={"color": color, "symbol": marker, "size": size, "line": {"width": 1.5}},
                line={"color": color, "dash": dash},
                name=label,
                legendgroup=label,
                showlegend=index == 0,
                hovertext=texts,
                hoverinfo="text",
            )
            panels.add(index, line)
        panels.axes(index, {"title_text": "multiplier", **doses(x)}, {"title_text": "effect", "tickformat": "+~g"})
    edges = [edge for _, bounds, *_ in lines for edge in (f"{bounds}_low", f"{bounds}_high")]
    edges += [f"{kind}_{edge}" for kind in kinds for edge in ("low", "high")]
    panels.figure.update_yaxes(range=reaching(summary, [line[0] for line in lines] + edges))
    subtitle = ["change in P(matching answer) with 95 % intervals over items", items_of(summary)]
    subtitle += ["in grey: the middle 95 % of null vectors of the same norm"] if kinds else []
    return panels.finish("Effect at each multiplier", subtitle)


def entanglement(frame: pd.DataFrame) -> go.Figure:
    """What every vector does to every behaviour's items, one panel a multiplier; a vector's own behaviour is framed.

    Bold effects have an interval that leaves out zero.

    Args:
        frame: As `caa_lens.evaluation.entanglement.entanglement` returns it.

    Raises:
        ValueError: If columns or rows are missing.
    """
    columns = ("vector", "behavior", "multiplier", "effect", "effect_balanced", "balanced_low", "balanced_high")
    require("caa_lens.evaluation.entanglement.entanglement", frame, *columns)
    multipliers = sorted(frame["multiplier"].unique().tolist())
    column = "effect_balanced" if frame["effect_balanced"].notna().any() else "effect"
    longest = max(map(len, [*names(frame), *names(frame, "vector")]))
    most = 2 if frame["behavior"].nunique() <= 5 else 1
    turned = 8 * longest > 640 / (min(most, len(multipliers)) * frame["behavior"].nunique())
    label_room = 24 + 4 * longest if turned else 30
    high = max(90, 30 * frame["vector"].nunique())
    panels = Panels([f"multiplier {signed(each)}" for each in multipliers], high=high, most=most, gap=64 + label_room)
    texts = told(
        frame,
        "vector of {vector} (layer {layer}) on items of {behavior}, multiplier {multiplier:+g}",
        "letter-balanced effect {effect_balanced:+.3f} [{balanced_low:+.3f}, {balanced_high:+.3f}]",
        "plain effect {effect:+.3f}",
        "{share_of_own:.2f} of its effect at home",
        "{n_items} items",
    )
    clear = (frame["balanced_low"] > 0) | (frame["balanced_high"] < 0)
    cells = frame[column].map(short)
    frame = frame.assign(text=texts, shown=cells.where(~clear, "<b>" + cells + "</b>"))
    for index, multiplier in enumerate(multipliers):
        part = frame[frame["multiplier"] == multiplier]
        values, hover, shown = (
            laid_out(part, "vector", "behavior", each).reindex(index=names(frame, "vector"), columns=names(frame))
            for each in (column, "text", "shown")
        )
        panels.add(index, heat(values, hover, shown if len(values.columns) * most <= 16 else None))
        category = {"type": "category", "showgrid": False}
        panels.axes(
            index,
            {**category, "title_text": "behavior (whose items)", "tickangle": -40 if turned else 0},
            {
                **category,
                "title_text": "vector",
                "autorange": "reversed",
                "showticklabels": index % panels.columns == 0,
            },
        )
        for row, name in enumerate(values.index):
            if name in values.columns:
                at = list(values.columns).index(name)
                framed(panels.figure, panels.place(index), (at - 0.5, at + 0.5), (row - 0.5, row + 0.5))
    color_axis(panels.figure, max(SMALLEST_RANGE, float(frame[column].abs().max())), "effect")
    balanced = column == "effect_balanced"
    said = "letter-balanced" if balanced else "plain (letters cannot be balanced)"
    subtitle = [f"{said} change in P(matching answer)", items_of(frame), "framed: a vector's own behaviour"]
    subtitle += ["bold: the 95 % interval leaves out 0"] if balanced else []
    title = "Effect of every vector on every behaviour"
    return panels.finish(title, subtitle, bottom=40 + label_room, left=50 + 7 * longest)


def baselines(frame: pd.DataFrame) -> go.Figure:
    """Steering beside its alternatives: a dot and its 95 % interval for each baseline at each multiplier.

    Grey under a dot are random vectors added to the same baseline.

    Args:
        frame: As `caa_lens.protocols.baselines.compare` returns it: ``baseline``, where there is one its ``direction``,
            ``multiplier, p_matching, effect, effect_low, effect_high``, and for several ``behavior``.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    needed = ("baseline", "multiplier", "p_matching", "effect", "effect_low", "effect_high")
    require("caa_lens.protocols.baselines.compare", frame, *needed)
    way = frame["baseline"].astype(str)
    if "direction" in frame.columns:
        way = (way + " " + frame["direction"].fillna("").astype(str)).str.strip()
    frame = frame.assign(way=way, behavior=frame["behavior"] if "behavior" in frame.columns else "")
    every, ways, multipliers = names(frame), names(frame, "way"), sorted(frame["multiplier"].unique().tolist())
    panels = Panels(every, high=max(110, (8 + 11 * len(multipliers)) * len(ways)), most=2)
    apart = 0.7 / len(multipliers)
    with_nulls = {"n_random", "random_low", "random_high"} <= set(frame.columns) and frame["random_low"].notna().any()
    for index, name in enumerate(every):
        of_name = frame[frame["behavior"] == name]
        for style, multiplier in enumerate(multipliers):
            part = of_name[of_name["multiplier"] == multiplier]
            color, marker = line_style(style)
            y = [ways.index(each) + (style - (len(multipliers) - 1) / 2) * apart for each in part["way"]]
            dots = go.Scatter(
                x=part["effect"],
                y=y,
                **whiskers(part["effect"], part["effect_low"], part["effect_high"], color, axis="x"),
                mode="markers",
                marker={"color": color, "symbol": marker, "size": 8},
                name=f"multiplier {signed(multiplier)}",
                legendgroup=str(multiplier),
                showlegend=index == 0,
                hovertext=told(
                    part,
                    "{way}, multiplier {multiplier:+g}",
                    "effect {effect:+.3f} [{effect_low:+.3f}, {effect_high:+.3f}]",
                    "letter-balanced {effect_balanced:+.3f} [{balanced_low:+.3f}, {balanced_high:+.3f}]",
                    "p_matching {p_matching:.3f}",
                    "mass {mass:.2f}",
                    "added by steering {added:+.3f} [{added_low:+.3f}, {added_high:+.3f}]",
                    "{n_random} random vectors: {random_low:+.3f} to {random_high:+.3f}, beats {beats_random:.0%}",
                    "{n_items} items",
                ),
                hoverinfo="text",
            )
            nulls = _ranges(part, y, shown=index == 0 and style == 0) if with_nulls else []
            panels.add(index, *nulls, dots)
        rows = {"tickvals": list(range(len(ways))), "ticktext": ways, "range": [len(ways) - 0.5, -0.5]}
        edges = ["effect_low", "effect_high", "random_low", "random_high"]
        panels.axes(
            index,
            {"title_text": "effect", "tickformat": "+~g", "range": reaching(frame, edges), "zeroline": True},
            {**rows, "zeroline": False, "showticklabels": index % panels.columns == 0},
        )
    said = ["change in P(matching answer) against the plain unsteered model, with 95 % intervals over items"]
    said += [items_of(frame), "grey: the middle 95 % of random vectors on the same baseline" if with_nulls else ""]
    return panels.finish("Steering beside its alternatives", said, left=30 + 7 * max(map(len, ways)))


def _ranges(part: pd.DataFrame, y: list[float], *, shown: bool) -> list[Any]:
    """Thick grey lines from the low to the high end of what random vectors do."""
    import plotly.graph_objects as go

    ends: list[float | None] = []
    heights: list[float | None] = []
    for low, high, height in zip(part["random_low"], part["random_high"], y, strict=True):
        ends += [low, high, None]
        heights += [height, height, None]
    look: dict[str, Any] = {"color": NULL_BANDS[0][0], "width": 9}
    return [
        go.Scatter(
            x=ends,
            y=heights,
            mode="lines",
            line=look,
            name=f"{int(part['n_random'].max())} random vectors",
            legendgroup="null",
            showlegend=shown,
            hoverinfo="skip",
        )
    ]


def _kinds(summary: pd.DataFrame) -> list[str]:
    """The kinds of null vectors that the summary has columns for."""
    columns = set(map(str, summary.columns))
    kinds = [name.removeprefix("beats_") for name in summary.columns if str(name).startswith("beats_")]
    return [kind for kind in kinds if {f"n_{kind}", f"{kind}_low", f"{kind}_high"} <= columns]


def _band(part: pd.DataFrame, kind: str, label: str, style: int, *, first: bool) -> list[Any]:
    """What the nulls of one kind do, between two lines; nothing at multiplier 0, where there are none."""
    import plotly.graph_objects as go

    fill, dash = NULL_BANDS[style % len(NULL_BANDS)]
    at_zero = part["multiplier"] == 0
    low, high = (part[f"{kind}_{edge}"].mask(at_zero, 0.0) for edge in ("low", "high"))
    edge: dict[str, Any] = {
        "mode": "lines",
        "line": {"width": 1 if dash else 0, "dash": dash or "solid", "color": NULL_EDGE},
    }
    edge |= {"hoverinfo": "skip", "legendgroup": kind}
    lower = go.Scatter(x=part["multiplier"], y=low, showlegend=False, **edge)
    upper = go.Scatter(
        x=part["multiplier"], y=high, fill="tonexty", fillcolor=fill, name=label, showlegend=first, **edge
    )
    return [lower, upper]
