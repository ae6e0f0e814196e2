"""One look for every figure: colours that colour-blind readers can tell apart, and room for long titles.

Signed quantities (effects, cosines) use a blue-white-red scale that is centred on zero, so that white always means
"nothing". Lines use the Okabe-Ito palette and, where there are more than a few, a marker each: colour is never alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 800

# Okabe & Ito (2008), without the yellow, which is hard to see on white.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
DIVERGING = (
    (0.0, "#8c2d04"),
    (0.25, "#e08b5a"),
    (0.5, "#ffffff"),
    (0.75, "#6aaed6"),
    (1.0, "#08519c"),
)
SEQUENTIAL = ("#00224e", "#575d6d", "#c9b03c")
"""For many lines in an order: dark blue to ochre, also darker to lighter."""
INK = "#222222"
GRID = "#e6e6e6"
NULL_BANDS = (
    ("rgba(120, 120, 120, 0.25)", ""),
    ("rgba(120, 120, 120, 0.05)", "dash"),
    ("rgba(120, 120, 120, 0.05)", "dot"),
)
"""Filling and edge of the bands of null vectors: greys, since they are what an effect is seen against."""
NULL_EDGE = "#777777"
AGAINST = "rgba(213, 94, 0, 0.14)"
"""Ground under what moved the wrong way."""


def line_style(index: int) -> tuple[str, str]:
    """Colour and marker of the line with this index; pairs repeat only after 49 lines."""
    n = len(OKABE_ITO)
    return OKABE_ITO[index % n], MARKERS[(index + index // n) % n]


def styled(figure: go.Figure, title: str, subtitle: str = "", *, height: int, top: int = 90) -> go.Figure:
    """Give a finished figure the common look; ``top`` is the room above the plot in pixels, for title and legend."""
    layout: Any = figure
    layout.update_layout(
        title={
            "text": title,
            "subtitle": {"text": subtitle, "font": {"size": 12, "color": "#555555"}},
            "x": 0.01,
            "xanchor": "left",
            "y": 1 - 24 / height,
            "yanchor": "top",
            "font": {"size": 17},
        },
        font={"family": "system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif", "size": 12, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        width=WIDTH,
        height=height,
        margin={"l": 70, "r": 20, "t": top, "b": 60},
        hoverlabel={"font": {"size": 12}},
    )
    axis = {"gridcolor": GRID, "linecolor": "#999999", "ticks": "outside", "tickcolor": GRID}
    layout.update_xaxes(zeroline=False, **axis)
    layout.update_yaxes(zerolinecolor="#999999", zerolinewidth=1, **axis)
    return figure
