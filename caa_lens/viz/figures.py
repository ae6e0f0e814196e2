"""The figures of a CAA study, each from one frame.

Every function takes a tidy frame that some other module made and returns a `plotly.graph_objects.Figure`; the numbers
in the figure are the frame's, unrounded, so that it can be checked and read back. Effects are shown with what could
explain them away: the interval, the letter-balanced value, the range of random vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caa_lens.viz.theme import DIVERGING, INK, NULL_BAND, line_style, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SMALLEST_RANGE = 0.05
"""Colour and effect axes reach at least this far, so that noise about zero does not fill them."""


def sweep_heatmap(summary: pd.DataFrame, chosen: Mapping[str, int] | None = None) -> go.Figure:
    """Letter-balanced effect of every layer and multiplier, one panel a behaviour, all on one colour scale.

    Args:
        summary: As `caa_lens.summarize` returns it: ``behavior, layer, multiplier, effect_balanced``.
        chosen: Behaviour to layer; that layer is framed.
    """
    import plotly.graph_objects as go

    _require(summary, "behavior", "layer", "multiplier", "effect_balanced")
    names = _names(summary)
    panels = _Panels(names, rows_high=_cells_high(summary["layer"].nunique()), top=100)
    figure = panels.figure
    reach = max(SMALLEST_RANGE, float(summary["effect_balanced"].abs().max()))
    for index, name in enumerate(names):
        part = summary[summary["behavior"] == name]
        grid = part.pivot(index="layer", columns="multiplier", values="effect_balanced")
        few = len(grid) <= 12 and len(grid.columns) * panels.columns <= 24
        heat = go.Heatmap(
            z=grid.to_numpy(),
            x=[_signed(float(multiplier)) for multiplier in grid.columns],
            y=[str(layer) for layer in grid.index],
            coloraxis="coloraxis",
            text=[[_short(value) for value in row] for row in grid.to_numpy()] if few else None,
            texttemplate="%{text}" if few else None,
            textfont={"size": 10},
            hovertemplate=f"{name}<br>layer %{{y}}, multiplier %{{x}}<br>effect %{{z:+.3f}}<extra></extra>",
            xgap=1,
            ygap=1,
        )
        row, column = panels.place(index)
        figure.add_trace(heat, row=row, col=column)
        figure.update_xaxes(type="category", row=row, col=column, **panels.bottom_title(index, "multiplier"))
        figure.update_yaxes(type="category", row=row, col=column, **panels.left_title(index, "layer"))
        if chosen and name in chosen and chosen[name] in grid.index:
            at = list(grid.index).index(chosen[name])
            edge = {"color": INK, "width": 2}
            x1 = len(grid.columns) - 0.5
            figure.add_shape(type="rect", x0=-0.5, x1=x1, y0=at - 0.5, y1=at + 0.5, line=edge, row=row, col=column)
    _color_axis(figure, reach, "effect")
    framed = "; framed: the layer chosen on these items" if chosen else ""
    title = "Which layer steers, and how strongly"
    return styled(figure, title, f"letter-balanced change in P(matching answer){framed}", height=panels.height, top=100)


def dose_response(summary: pd.DataFrame) -> go.Figure:
    """Effect against multiplier with its 95 % interval, plain and letter-balanced, over the range of random vectors.

    Args:
        summary: As `caa_lens.summarize` returns it, with one layer for each behaviour.

    Raises:
        ValueError: If a behaviour has several layers.
    """
    import plotly.graph_objects as go

    _require(summary, "behavior", "layer", "multiplier", "effect", "effect_low", "effect_high")
    _require(summary, "effect_balanced", "balanced_low", "balanced_high", "random_low", "random_high")
    names = _names(summary)
    panels = _Panels(names, rows_high=190, top=130, shared_y=True)
    figure = panels.figure
    for index, name in enumerate(names):
        part = summary[summary["behavior"] == name].sort_values("multiplier")
        if part["layer"].nunique() > 1:
            layers = sorted(part["layer"].unique().tolist())
            raise ValueError(f"{name} has the layers {layers}: keep one, such as summary[summary.layer == {layers[0]}]")
        place = dict(zip(("row", "col"), panels.place(index), strict=True))
        x, first = part["multiplier"], index == 0
        if part["random_low"].notna().any():
            low, high = (part[column].fillna(0.0) for column in ("random_low", "random_high"))
            edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": "null"}
            figure.add_trace(go.Scatter(x=x, y=low, showlegend=False, **edge), **place)
            n = int(part["n_random"].max()) if "n_random" in part else 0
            label = f"{n} random vectors, middle 95 %" if n else "random vectors, middle 95 %"
            band = go.Scatter(x=x, y=high, fill="tonexty", fillcolor=NULL_BAND, name=label, showlegend=first, **edge)
            figure.add_trace(band, **place)
        lines = (("effect", "effect", "plain", "dot"), ("effect_balanced", "balanced", "letter-balanced", "solid"))
        for style, (column, bounds, label, dash) in enumerate(lines):
            y = part[column]
            color, marker = line_style(1 - style)
            line = go.Scatter(
                x=x,
                y=y,
                error_y=_whiskers(y, part[f"{bounds}_low"], part[f"{bounds}_high"], color),
                mode="lines+markers",
                marker={"color": color, "symbol": marker, "size": 7},
                line={"color": color, "dash": dash},
                name=label,
                legendgroup=label,
                showlegend=first,
                hovertemplate=f"{name}, {label}<br>multiplier %{{x}}<br>effect %{{y:+.3f}}<extra></extra>",
            )
            figure.add_trace(line, **place)
        ticks = {"tickvals": list(x), "ticktext": [_signed(value) for value in x]}
        figure.update_xaxes(**place, **ticks, **panels.bottom_title(index, "multiplier"))
        figure.update_yaxes(**place, tickformat="+~g", **panels.left_title(index, "effect"))
        panels.rename(index, f"{name}, layer {int(part['layer'].iloc[0])}")
    figure.update_yaxes(range=_effect_range(summary))
    figure.update_layout(legend=_legend_above(panels.height, 76))
    title = "Effect on the test items"
    return styled(figure, title, "change in P(matching answer), with 95 % intervals", height=panels.height, top=130)


def cosine_heatmap(matrix: pd.DataFrame, title: str = "Cosine between behaviours") -> go.Figure:
    """A square matrix of cosines, as `caa_lens.analysis.cosine_matrix` or `cross_layer` returns it."""
    import plotly.graph_objects as go

    names = [str(name) for name in matrix.columns]
    if list(map(str, matrix.index)) != names:
        raise ValueError(f"the matrix has rows {list(matrix.index)} and columns {names}: they must be the same")
    heat = go.Heatmap(
        z=matrix.to_numpy(),
        x=names,
        y=names,
        coloraxis="coloraxis",
        texttemplate="%{z:.2f}" if len(names) <= 12 else None,
        textfont={"size": 11},
        hovertemplate="%{y} and %{x}<br>cosine %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure: Any = go.Figure(heat)
    figure.update_xaxes(type="category", tickangle=-40 if max(map(len, names)) > 4 else 0, showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    _color_axis(figure, 1.0, "cosine")
    height = min(760, 190 + 58 * len(names)) if len(names) <= 12 else 720
    styled(figure, title, height=height, top=70)
    label_room = 30 + 7 * max(map(len, names))
    figure.update_layout(margin={"l": label_room, "b": label_room})
    return figure


def cross_layer(frame: pd.DataFrame) -> go.Figure:
    """Cosine of every layer's vector with every other layer's, one panel a behaviour.

    Args:
        frame: Tidy: ``behavior, layer_a, layer_b, cosine``.
    """
    import plotly.graph_objects as go

    _require(frame, "behavior", "layer_a", "layer_b", "cosine")
    names = _names(frame)
    panels = _Panels(names, rows_high=200, top=100)
    for index, name in enumerate(names):
        part = frame[frame["behavior"] == name]
        grid = part.pivot(index="layer_a", columns="layer_b", values="cosine")
        labels = [str(layer) for layer in grid.columns]
        heat = go.Heatmap(
            z=grid.to_numpy(),
            x=labels,
            y=labels,
            coloraxis="coloraxis",
            texttemplate="%{z:.2f}" if len(labels) * panels.columns <= 24 else None,
            textfont={"size": 10},
            hovertemplate=f"{name}<br>layers %{{y}} and %{{x}}<br>cosine %{{z:.3f}}<extra></extra>",
            xgap=1,
            ygap=1,
        )
        row, column = panels.place(index)
        panels.figure.add_trace(heat, row=row, col=column)
        panels.figure.update_xaxes(type="category", row=row, col=column, **panels.bottom_title(index, "layer"))
        panels.figure.update_yaxes(type="category", row=row, col=column, **panels.left_title(index, "layer"))
    _color_axis(panels.figure, 1.0, "cosine")
    title, subtitle = "Is it the same direction in every layer?", "cosine between one behaviour's vectors at two layers"
    return styled(panels.figure, title, subtitle, height=panels.height, top=100)


def base_versus_chat(frame: pd.DataFrame) -> go.Figure:
    """Cosine of the base model's vector with the chat model's, a line a behaviour.

    Args:
        frame: Tidy: ``behavior, layer, cosine``.
    """
    _require(frame, "behavior", "layer", "cosine")
    figure = _lines(frame, "cosine", lambda _: "solid")
    lowest = float(frame["cosine"].min())
    figure.update_yaxes(title_text="cosine", range=[min(0.0, lowest) - 0.05, 1.05])
    subtitle = "cosine of the two models' vectors at the same layer; 1 is the same direction"
    return styled(figure, "Base against chat model", subtitle, height=420)


def norms(frame: pd.DataFrame) -> go.Figure:
    """Length of every vector, a line a behaviour; dashed for the second model where ``model`` names two.

    Args:
        frame: Tidy: ``behavior, layer, norm``, and optionally ``model``.
    """
    _require(frame, "behavior", "layer", "norm")
    models = list(frame["model"].unique()) if "model" in frame else []
    figure = _lines(frame, "norm", lambda model: "dash" if models.index(model) else "solid")
    lowest = float(frame["norm"].min())
    figure.update_yaxes(title_text="norm", rangemode="tozero")
    if lowest > 0 and float(frame["norm"].max()) / lowest > 30:
        figure.update_yaxes(type="log", title_text="norm (logarithmic)", dtick=1)
    subtitle = f"Euclidean norm; solid: {models[0]}, dashed: {models[1]}" if len(models) == 2 else "Euclidean norm"
    return styled(figure, "Length of the vectors", subtitle, height=420)


def _lines(frame: pd.DataFrame, column: str, dash_of: Any) -> Any:
    """One line for each behaviour (and model) over layers, with the legend at the right."""
    import plotly.graph_objects as go

    figure: Any = go.Figure()
    keys = ["model"] if "model" in frame else []
    for index, name in enumerate(_names(frame)):
        color, marker = line_style(index)
        of_name = frame[frame["behavior"] == name]
        parts = [(key, part) for (key,), part in of_name.groupby(keys, sort=False)] if keys else [("", of_name)]
        for key, part in parts:
            part = part.sort_values("layer")
            suffix = f", {key}" if key else ""
            line = go.Scatter(
                x=part["layer"],
                y=part[column],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=key == parts[0][0],
                line={"color": color, "dash": dash_of(key) if key else "solid"},
                marker={"color": color, "symbol": marker, "size": 8},
                hovertemplate=f"{name}{suffix}<br>layer %{{x}}<br>{column} %{{y:.3f}}<extra></extra>",
            )
            figure.add_trace(line)
    layers = sorted(frame["layer"].unique())
    figure.update_xaxes(title_text="layer", tickvals=layers if len(layers) <= 20 else None)
    figure.update_layout(legend={"font": {"size": 11}})
    return figure


class _Panels:
    """A grid of small plots, one a behaviour, at most three in a row."""

    def __init__(self, names: Sequence[str], *, rows_high: int, top: int, shared_y: bool = False) -> None:
        from plotly import subplots

        if not names:
            raise ValueError("the frame has no rows: there is nothing to show")
        self.names = names
        self.columns = min(3, len(names))
        self.rows = -(-len(names) // self.columns)
        gap = 78
        inner = self.rows * rows_high + (self.rows - 1) * gap
        self.height = inner + top + 60
        make: Any = subplots.make_subplots
        self.figure: Any = make(
            rows=self.rows,
            cols=self.columns,
            subplot_titles=list(names),
            shared_yaxes="all" if shared_y else False,
            horizontal_spacing=0.09 if self.columns > 1 else 0,
            vertical_spacing=gap / inner if self.rows > 1 else 0,
        )
        self.figure.update_annotations(font={"size": 13, "color": INK}, yshift=2)

    def place(self, index: int) -> tuple[int, int]:
        return index // self.columns + 1, index % self.columns + 1

    def rename(self, index: int, title: str) -> None:
        self.figure.layout.annotations[index].text = title

    def bottom_title(self, index: int, text: str) -> dict[str, str]:
        """An axis title for the lowest panel of each column."""
        return {"title_text": text} if index + self.columns >= len(self.names) else {}

    def left_title(self, index: int, text: str) -> dict[str, str]:
        return {"title_text": text} if index % self.columns == 0 else {}


def _color_axis(figure: Any, reach: float, title: str) -> None:
    scale = [list(stop) for stop in DIVERGING]
    bar = {"title": {"text": title}, "thickness": 12, "tickformat": "+~g" if title == "effect" else ".1f"}
    figure.update_layout(coloraxis={"colorscale": scale, "cmin": -reach, "cmax": reach, "colorbar": bar})


def _legend_above(height: int, at: int) -> dict[str, Any]:
    """A horizontal legend ``at`` pixels below the upper edge of the figure, under the title."""
    return {"orientation": "h", "yref": "container", "y": 1 - at / height, "yanchor": "top", "x": 0, "xanchor": "left"}


def _whiskers(value: pd.Series, low: pd.Series, high: pd.Series, color: str) -> dict[str, Any]:
    above, below = high - value, value - low
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1.2, "width": 3, "color": color}


def _effect_range(summary: pd.DataFrame) -> list[float]:
    columns = ["effect_low", "effect_high", "balanced_low", "balanced_high", "random_low", "random_high"]
    low = min(-SMALLEST_RANGE, float(summary[columns].min().min()))
    high = max(SMALLEST_RANGE, float(summary[columns].max().max()))
    room = 0.06 * (high - low)
    return [low - room, high + room]


def _cells_high(n: int) -> int:
    """Height of a panel with so many cells."""
    return max(120, min(320, 24 * n))


def _signed(value: float) -> str:
    return f"{value:+g}" if value else "0"


def _short(effect: float) -> str:
    """An effect in the space of a cell: ``+.12``, or ``0`` where it rounds to that."""
    text = f"{effect:+.2f}".replace("0.", ".", 1)
    return "0" if text in ("+.00", "-.00") else text


def _names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame["behavior"].unique()]


def _require(frame: pd.DataFrame, *columns: str) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        has = ", ".join(map(str, frame.columns))
        raise ValueError(f"the frame lacks the columns {', '.join(missing)}: it has {has}")
    if frame.empty:
        raise ValueError("the frame has no rows: there is nothing to show")
