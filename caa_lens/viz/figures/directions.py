"""Vectors compared: across behaviours, across layers, across models, and by their length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import Panels, color_axis, finished, heat, laid_out, names, require, told
from caa_lens.viz.theme import line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def cosine_heatmap(matrix: pd.DataFrame, title: str = "Cosine between behaviours") -> go.Figure:
    """A square matrix of cosines, as `caa_lens.analysis.cosine_matrix` or `cross_layer` (of one behaviour) returns it.

    Raises:
        ValueError: If rows and columns are not the same.
    """
    import plotly.graph_objects as go

    every = [str(name) for name in matrix.columns]
    if list(map(str, matrix.index)) != every:
        raise ValueError(f"the matrix has rows {list(matrix.index)} and columns {every}: they must be the same")
    if not every:
        raise ValueError("the matrix has no rows: there is nothing to show")
    texts = matrix.apply(
        lambda column: [f"{row} and {column.name}<br>cosine {value:.3f}" for row, value in column.items()]
    )
    few = len(every) <= 12
    figure: Any = go.Figure(heat(matrix, texts, matrix.map(_two_digits) if few else None))
    longest = max(map(len, every))
    figure.update_xaxes(type="category", tickangle=-40 if longest > 4 else 0, showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    color_axis(figure, 1.0, "cosine")
    left, bottom = 30 + 7 * longest, 30 + 5 * longest
    high = max(110, min(680, 46 * len(every))) if few else 600
    return finished(figure, title, ["1 is the same direction, 0 is none in common"], high, bottom=bottom, left=left)


def cross_layer(frame: pd.DataFrame, models: tuple[str, str] | None = None) -> go.Figure:
    """Cosine of every layer's vector with every other layer's, one panel a behaviour.

    Args:
        frame: Tidy: ``behavior, layer_a, layer_b, cosine``, as `caa_lens.analysis.cross_layer` of several behaviours
            returns it.
        models: What ``layer_a`` and ``layer_b`` are layers of, as in ``("base", "chat")``, where it is not the same.

    Raises:
        ValueError: If columns or rows are missing.
    """
    require("caa_lens.analysis.cross_layer of a mapping", frame, "behavior", "layer_a", "layer_b", "cosine")
    every = names(frame)
    panels = Panels(every, high=200 if len(every) > 1 else 360)
    for index, name in enumerate(every):
        part = frame[frame["behavior"] == name]
        texts = told(part, "{behavior}, layers {layer_a} and {layer_b}", "cosine {cosine:.3f}")
        values = laid_out(part, "layer_a", "layer_b", "cosine")
        hover = laid_out(part.assign(text=texts), "layer_a", "layer_b", "text")
        few = len(values) * panels.columns <= 24
        panels.add(index, heat(values, hover, values.map(_two_digits) if few else None))
        category = {"type": "category", "showgrid": False}
        titles = [f"layer of {model}" for model in models] if models else ["layer", "layer"]
        panels.axes(index, {**category, "title_text": titles[1]}, {**category, "title_text": titles[0]})
    color_axis(panels.figure, 1.0, "cosine")
    said = ["cosine of one behaviour's vectors at two layers; 1 is the same direction"]
    return panels.finish(f"Cosine between layers{' of {} and {}'.format(*models) if models else ''}", said)


def base_versus_chat(frame: pd.DataFrame) -> go.Figure:
    """Cosine of the base model's vector with the chat model's, a line a behaviour.

    Args:
        frame: Tidy: ``behavior, layer, cosine``, such as `caa_lens.analysis.compare` of each behaviour.

    Raises:
        ValueError: If columns or rows are missing.
    """
    made_by = "caa_lens.analysis.compare (stacked, with a column behavior)"
    require(made_by, frame, "behavior", "layer", "cosine")
    figure = _over_layers(frame, "cosine")
    lowest = float(frame["cosine"].min())
    figure.update_yaxes(title_text="cosine", range=[min(0.0, lowest) - 0.05, 1.05])
    said = ["at the same layer; 1 is the same direction"]
    return finished(figure, "Cosine of the base and the chat model's vectors", said, 270, beside=True)


def norms(frame: pd.DataFrame) -> go.Figure:
    """Length of every vector, a line a behaviour; dashed for the second model where ``model`` names two.

    Args:
        frame: Tidy: ``behavior, layer, norm``, as `caa_lens.analysis.norms` returns it, and optionally ``model``.

    Raises:
        ValueError: If columns or rows are missing, or there are more than two models.
    """
    require("caa_lens.analysis.norms", frame, "behavior", "layer", "norm")
    models = names(frame, "model") if "model" in frame.columns else []
    if len(models) > 2:
        raise ValueError(f"the frame has the models {', '.join(models)}: give two at most")
    figure = _over_layers(frame, "norm")
    lowest = float(frame["norm"].min())
    figure.update_yaxes(title_text="norm", rangemode="tozero")
    if lowest > 0 and float(frame["norm"].max()) / lowest > 30:
        figure.update_yaxes(type="log", title_text="norm (logarithmic)", dtick=1)
    said = ["Euclidean norm", f"solid: {models[0]}, dashed: {models[1]}" if len(models) == 2 else ""]
    return finished(figure, "Length of the vectors", said, 270, beside=True)


def _over_layers(frame: pd.DataFrame, column: str) -> Any:
    """One line for each behaviour (and model, the second dashed) over layers, with the legend at the right."""
    import plotly.graph_objects as go

    figure: Any = go.Figure()
    models = names(frame, "model") if "model" in frame.columns else [""]
    for index, name in enumerate(names(frame)):
        color, marker = line_style(index)
        of_name = frame[frame["behavior"] == name]
        shown = False
        for dash, model in zip(("solid", "dash"), models, strict=False):
            part = (of_name[of_name["model"] == model] if model else of_name).sort_values("layer")
            if part.empty:
                continue
            line = go.Scatter(
                x=part["layer"],
                y=part[column],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=not shown,
                line={"color": color, "dash": dash},
                marker={"color": color, "symbol": marker, "size": 8},
                hovertext=told(
                    part, f"{name}{', ' if model else ''}{model}, layer {{layer}}", f"{column} {{{column}:.3f}}"
                ),
                hoverinfo="text",
            )
            shown = True
            figure.add_trace(line)
    layers = sorted(frame["layer"].unique())
    figure.update_xaxes(title_text="layer", tickvals=layers if len(layers) <= 20 else None)
    figure.update_layout(legend={"font": {"size": 11}})
    return figure


def _two_digits(cosine: float) -> str:
    return f"{round(cosine, 2) + 0.0:.2f}"  # + 0.0: no -0.00
