"""What all figures are built from: small plots in a grid, the texts at the pointer, and the checks of a frame.

A grid grows downwards: every small plot keeps its height however many there are, and the room above is as much as the
title, its second line and the legend need. `told` writes out a frame's rows for the pointer, so that a value that
cannot be seen in a crowded plot can still be read.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from caa_lens.viz.theme import DIVERGING, INK, WIDTH, styled

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SMALLEST_RANGE = 0.05
"""Colour and effect axes reach at least this far, so that noise about zero does not fill them."""

GAP = 78
"""Pixels between two rows of small plots: for tick labels, an axis title and the next row's headings."""

_FIELD = re.compile(r"{(\w+)")
_NAN = re.compile(r"[+-]?\bnan\b")


class Panels:
    """A grid of small plots under headings, filled row by row."""

    def __init__(
        self, headings: Sequence[str], *, high: int, most: int = 3, shared_y: bool = False, gap: int = GAP
    ) -> None:
        """Lay out a plot of ``high`` pixels for each heading, at most so many in a row."""
        from plotly import subplots

        self.headings = headings
        self.columns = min(most, len(headings))
        self.rows = -(-len(headings) // self.columns)
        self.high = self.rows * high + (self.rows - 1) * gap
        make: Any = subplots.make_subplots
        self.figure: Any = make(
            rows=self.rows,
            cols=self.columns,
            subplot_titles=[shortened(heading, 100 // self.columns) for heading in headings],
            shared_yaxes="all" if shared_y else False,
            horizontal_spacing=0.26 / self.columns if self.columns > 1 else 0,
            vertical_spacing=gap / self.high if self.rows > 1 else 0,
        )
        self.figure.update_annotations(font={"size": 13 if self.columns < 4 else 11, "color": INK}, yshift=2)

    def place(self, index: int) -> dict[str, int]:
        """Row and column of a plot, as plotly's functions take them."""
        return {"row": index // self.columns + 1, "col": index % self.columns + 1}

    def add(self, index: int, *traces: Any) -> None:
        """Draw into one plot."""
        for trace in traces:
            self.figure.add_trace(trace, **self.place(index))

    def axes(self, index: int, x: Mapping[str, Any], y: Mapping[str, Any]) -> None:
        """Set both axes of a plot; their titles are shown at the lowest of a column and the first of a row."""
        lowest, first = index + self.columns >= len(self.headings), index % self.columns == 0
        self.figure.update_xaxes(**self.place(index), **_titled(x, lowest))
        self.figure.update_yaxes(**self.place(index), **_titled(y, first))

    def note(self, index: int, text: str, where: Mapping[str, Any]) -> None:
        """A short text inside a plot, on a ground that keeps it readable."""
        look = {"font": {"size": 11}, "showarrow": False, "align": "left", "bgcolor": "rgba(255, 255, 255, 0.75)"}
        self.figure.add_annotation(text=text, **look, **where, **self.place(index))

    def finish(self, title: str, said: Sequence[str], *, bottom: int = 60, left: int = 70) -> go.Figure:
        """The figure in the common look, under a title and what is said of it."""
        return finished(self.figure, title, said, self.high, bottom=bottom, left=left, headed=any(self.headings))


def finished(
    figure: Any,
    title: str,
    said: Sequence[str],
    high: int,
    *,
    bottom: int = 60,
    left: int = 70,
    headed: bool = False,
    beside: bool = False,
) -> go.Figure:
    """Give a figure the common look, with as much room above as title, second line, legend and headings need.

    Args:
        figure: With all its traces.
        title: What is shown.
        said: Of what and of how many, and what whiskers and bands are; put together, wrapped, empty ones left out.
        high: Height of the plots in pixels, without what stands around them.
        bottom: Room below in pixels.
        left: Room at the left.
        headed: Leave room for headings of small plots.
        beside: The legend stands to the right, for lines that end there, and needs no room above.
    """
    lines = textwrap.wrap("; ".join(filter(None, said)), 122)
    at = 52 + 15 * len(lines)
    top = at + (0 if beside else 21 * _legend_rows(figure)) + (30 if headed else 14)
    height = high + top + bottom
    styled(figure, title, "<br>".join(lines), height=height, top=top)
    if not beside:
        y = 1 - at / height
        legend = {"orientation": "h", "yref": "container", "y": y, "yanchor": "top", "x": 0, "xanchor": "left"}
        figure.update_layout(legend=legend)
    figure.update_layout(margin={"b": bottom, "l": left})
    return figure


def require(made_by: str, frame: pd.DataFrame, *columns: str) -> None:
    """Refuse a frame without these columns, or without rows; the message says what returns such a frame."""
    if missing := [column for column in columns if column not in frame.columns]:
        has = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(f"the frame lacks the columns {', '.join(missing)}: it has {has}; give what {made_by} returns")
    if frame.empty:
        raise ValueError(f"the frame has no rows: there is nothing to show; give what {made_by} returns")


def names(frame: pd.DataFrame, column: str = "behavior") -> list[str]:
    """The values of a column, each once, in their order."""
    return [str(name) for name in frame[column].unique()]


def one_layer(part: pd.DataFrame, name: str, called: str) -> int:
    """The layer of a behaviour.

    Raises:
        ValueError: If it has several; the message says how to keep one of the frame that is ``called`` so.
    """
    layers = sorted(part["layer"].unique().tolist())
    if len(layers) > 1:
        has = str(layers) if len(layers) <= 8 else f"[{layers[0]}, {layers[1]}, ..., {layers[-1]}]"
        raise ValueError(f"{name} has the layers {has}: keep one, such as {called}[{called}.layer == {layers[0]}]")
    return int(layers[0])


def told(frame: pd.DataFrame, *lines: str) -> list[str]:
    """A text for each row, from lines such as ``effect {effect:+.3f}``.

    A line that names a column that the frame lacks is left out; a value that is not there is a dash.
    """
    kept = "<br>".join(line for line in lines if set(_FIELD.findall(line)) <= set(map(str, frame.columns)))
    return [_NAN.sub("-", kept.format_map(row)) for row in frame.to_dict("records")]


def laid_out(part: pd.DataFrame, down: str, across: str, value: str) -> pd.DataFrame:
    """A column over two others, both ascending."""
    return part.pivot(index=down, columns=across, values=value)


def heat(values: pd.DataFrame, texts: pd.DataFrame, shown: pd.DataFrame | None) -> Any:
    """Cells on the common colour axis, with the texts at the pointer and those in the cells."""
    import plotly.graph_objects as go

    return go.Heatmap(
        z=values.to_numpy(),
        x=[str(column) for column in values.columns],
        y=[str(row) for row in values.index],
        coloraxis="coloraxis",
        text=None if shown is None else shown.fillna("").to_numpy().tolist(),
        texttemplate=None if shown is None else "%{text}",
        textfont={"size": 10},
        hovertext=texts.fillna("").to_numpy().tolist(),
        hoverinfo="text",
        xgap=1,
        ygap=1,
    )


def framed(figure: Any, place: Mapping[str, int], x: tuple[float, float], y: tuple[float, float]) -> None:
    """A rectangle around cells."""
    figure.add_shape(type="rect", x0=x[0], x1=x[1], y0=y[0], y1=y[1], line={"color": INK, "width": 2}, **place)


def color_axis(figure: Any, reach: float, title: str) -> None:
    """The diverging scale, as far to both sides of zero."""
    scale = [list(stop) for stop in DIVERGING]
    bar = {"title": {"text": title}, "thickness": 12, "tickformat": ".1f" if title == "cosine" else "+~g"}
    figure.update_layout(coloraxis={"colorscale": scale, "cmin": -reach, "cmax": reach, "colorbar": bar})


def whiskers(value: pd.Series, low: pd.Series, high: pd.Series, color: str, *, axis: str = "y") -> dict[str, Any]:
    """An interval as plotly takes it, under the name of its axis."""
    bar = {"type": "data", "array": high - value, "arrayminus": value - low, "thickness": 1.2, "width": 3}
    return {f"error_{axis}": bar | {"color": color}}


def reaching(frame: pd.DataFrame, columns: Iterable[str]) -> list[float]:
    """A range for an axis of effects that holds these columns and zero, and not only noise."""
    held = frame[[column for column in columns if column in frame.columns]]
    low, high = min(-SMALLEST_RANGE, float(held.min().min())), max(SMALLEST_RANGE, float(held.max().max()))
    room = 0.06 * (high - low)
    return [low - room, high + room]


def doses(multipliers: Iterable[float]) -> dict[str, Any]:
    """Ticks of an axis of multipliers, each with its sign; fewer where they would stand too close."""
    values = sorted(set(multipliers))
    span = values[-1] - values[0]
    kept: list[float] = []
    for value in sorted(values, key=lambda each: (each != 0, each not in (values[0], values[-1]), abs(each))):
        if all(abs(value - other) >= 0.09 * span for other in kept):
            kept.append(value)
    return {"tickvals": sorted(kept), "ticktext": [signed(value) for value in sorted(kept)]}


def items_of(frame: pd.DataFrame, column: str = "n_items", what: str = "items") -> str:
    """``50 items`` or ``40 to 50 items``; nothing where the frame does not say."""
    if column not in frame.columns:
        return ""
    low, high = int(frame[column].min()), int(frame[column].max())
    return f"{low} {what}" if low == high else f"{low} to {high} {what}"


def signed(value: float) -> str:
    """A multiplier with its sign."""
    return f"{value:+g}" if value else "0"


def short(effect: float) -> str:
    """An effect in the space of a cell: ``+.12``, ``0`` where it rounds to that, nothing where there is none."""
    if math.isnan(effect):
        return ""
    text = f"{effect:+.2f}".replace("0.", ".", 1)
    return "0" if text in ("+.00", "-.00") else text


def shortened(text: str, most: int) -> str:
    """A heading that fits over its plot."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _titled(axis: Mapping[str, Any], shown: bool) -> dict[str, Any]:
    return {key: value for key, value in axis.items() if shown or key != "title_text"}


def _legend_rows(figure: Any) -> int:
    """So many rows will the legend have, which plotly lays out in columns as wide as the longest name."""
    wide = [45 + 6.5 * len(each.name) for each in figure.data if each.showlegend is not False and each.name]
    if len(wide) < 2 and not any(each.showlegend for each in figure.data):
        return 0
    room = WIDTH - 90
    return 1 if sum(wide) <= room else math.ceil(len(wide) / max(1, int(room // max(wide))))
