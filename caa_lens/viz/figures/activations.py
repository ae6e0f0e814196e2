"""What contrast pairs look like inside the model: principal components, and where their sides come apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import Panels, items_of, names, require, told
from caa_lens.viz.theme import NULL_EDGE, line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SYMBOLS = {"A": "circle", "B": "square"}
_ACCURACIES = (
    ("accuracy", "d_prime", "matching or other", 0),
    ("accuracy_balanced", "", "the same, letters balanced", 2),
    ("letter_accuracy", "letter_d_prime", "A or B", 1),
)
"""Column, column of its d', label and style of every line of `separation`."""


def pca(frame: pd.DataFrame) -> go.Figure:
    """Every activation on the first two principal components, one panel a layer.

    Several behaviours have a colour each, and the matching side is filled. A single behaviour needs no colour of its
    own: there the colour is the side. Circles are answers (A), squares (B), diamonds have no letter.

    Args:
        frame: As `caa_lens.analysis.pca` returns it, of two components or more.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    columns = ("behavior", "pair", "side", "letter", "layer", "pc1", "pc2", "explained_1", "explained_2")
    require("caa_lens.analysis.pca", frame, *columns)
    layers, behaviors = sorted(frame["layer"].unique().tolist()), names(frame)
    alone = len(behaviors) == 1
    many = len(layers) > 12
    high = 380 if len(layers) == 1 else 140 if many else 210
    panels = Panels([f"layer {layer}" for layer in layers], high=high, most=4 if many else 3, gap=62)
    frame = frame.assign(letter=frame["letter"].fillna("").astype(str))
    named = sorted(frame["letter"].unique())
    small = 5 if len(frame) / len(layers) > 400 else 7
    for index, layer in enumerate(layers):
        part = frame[frame["layer"] == layer]
        for (behavior, side, letter), group in part.groupby(["behavior", "side", "letter"], sort=False):
            color = line_style(int(side != "matching") if alone else behaviors.index(str(behavior)))[0]
            symbol = _SYMBOLS.get(str(letter), "diamond") + ("" if alone or side == "matching" else "-open")
            dots = go.Scatter(
                x=group["pc1"],
                y=group["pc2"],
                mode="markers",
                marker={"color": color, "symbol": symbol, "size": small, "opacity": 0.75},
                name=f"{behavior}, {side} {letter}".strip(),
                showlegend=False,
                hovertext=told(
                    group,
                    "{behavior}, pair {pair}, {side} answer {letter}",
                    "layer {layer}",
                    "first {pc1:.3g}, second {pc2:.3g}",
                ),
                hoverinfo="text",
            )
            panels.add(index, dots)
        explained = part.iloc[0]
        place = panels.place(index)
        titles = [f"pc{number} ({explained[f'explained_{number}']:.0%})" for number in (1, 2)]
        panels.figure.update_xaxes(title={"text": titles[0], "standoff": 2}, showticklabels=len(layers) == 1, **place)
        panels.figure.update_yaxes(title={"text": titles[1], "standoff": 2}, showticklabels=len(layers) == 1, **place)
    for label, color, symbol in _marks(behaviors, named):
        mark: dict[str, Any] = {"color": color, "symbol": symbol, "size": 8}
        key = go.Scatter(x=[None], y=[None], mode="markers", marker=mark, name=label, showlegend=True, hoverinfo="skip")
        panels.add(0, key)
    n_pairs = frame.groupby("behavior")["pair"].nunique()
    counted = items_of(n_pairs.to_frame("n"), "n", "pairs")
    said = [
        counted if alone else f"{counted} of each behaviour",
        "in brackets: the component's part of the layer's variance",
    ]
    title = f"Principal components of the activations{f' of {behaviors[0]}' if alone else ''}"
    return panels.finish(title, said)


def separation(frame: pd.DataFrame) -> go.Figure:
    """How well the sides of held-out pairs are told apart at each layer, beside the letters; 0.5 is chance.

    Args:
        frame: As `caa_lens.analysis.separation` returns it.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    require("caa_lens.analysis.separation", frame, "behavior", "layer", "accuracy", "d_prime")
    every = names(frame)
    panels = Panels(every, high=190, shared_y=True)
    lines = [line for line in _ACCURACIES if line[0] in frame.columns and frame[line[0]].notna().any()]
    layers = sorted(frame["layer"].unique().tolist())
    for index, name in enumerate(every):
        part = frame[frame["behavior"] == name].sort_values("layer")
        for column, d_prime, label, style in lines:
            color, marker = line_style(style)
            size = 7 if len(layers) <= 16 else 4
            # Ringed, so that the balanced accuracy does not hide an equal one.
            ringed = column == "accuracy"
            shape = {"symbol": f"{marker}-open" if ringed else marker, "size": size + 4 * ringed}
            line = go.Scatter(
                x=part["layer"],
                y=part[column],
                mode="lines+markers",
                marker={"color": color, **shape},
                line={"color": color},
                name=label,
                legendgroup=label,
                showlegend=index == 0,
                hovertext=told(
                    part,
                    f"{{behavior}}, layer {{layer}}: {label}",
                    f"accuracy {{{column}:.3f}}",
                    f"d' {{{d_prime}:.2f}}" if d_prime else "",
                    "cosine of behaviour and letter {letter_cosine:+.2f}",
                    "{n_pairs} pairs",
                ),
                hoverinfo="text",
            )
            panels.add(index, line)
        chance: dict[str, Any] = {"y": 0.5, "line": {"color": NULL_EDGE, "width": 1, "dash": "dot"}}
        panels.figure.add_hline(**chance, **panels.place(index))
        ticks = {"tickvals": layers} if len(layers) <= 12 else {}
        panels.axes(index, {"title_text": "layer", **ticks}, {"title_text": "accuracy"})
    lowest = float(frame[[line[0] for line in lines]].min().min())
    panels.figure.update_yaxes(range=[min(0.45, lowest - 0.03), 1.03])
    said = ["share of held-out activations on the right side of the mean difference of the other pairs"]
    said += [items_of(frame, "n_pairs", "pairs"), "dotted: chance"]
    return panels.finish("Where the two sides of a pair come apart", said)


def _marks(behaviors: list[str], letters: list[str]) -> list[tuple[str, str, str]]:
    """Label, colour and symbol of what the legend explains: colours first, then what fills and shapes mean."""
    if len(behaviors) == 1:
        colors = [("matching answer", line_style(0)[0], "circle"), ("other answer", line_style(1)[0], "circle")]
        filled: list[tuple[str, str, str]] = []
    else:
        colors = [(name, line_style(index)[0], "circle") for index, name in enumerate(behaviors)]
        filled = [("matching", NULL_EDGE, "circle"), ("other", NULL_EDGE, "circle-open")]
    if len(letters) < 2:
        return colors + filled
    shapes = [(letter, _SYMBOLS.get(letter, "diamond")) for letter in letters]
    return colors + filled + [(f"answer ({each})" if each else "no letter", NULL_EDGE, mark) for each, mark in shapes]
