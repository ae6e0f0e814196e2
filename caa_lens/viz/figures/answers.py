"""What judges say of open-ended answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caa_lens.viz.figures.panels import Panels, doses, items_of, names, one_layer, require, told, whiskers
from caa_lens.viz.theme import line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def scores(summary: pd.DataFrame) -> go.Figure:
    """A judge's mean score of open-ended answers at each multiplier, with its 95 % interval over questions.

    Args:
        summary: As `summarize_scores` of `caa_lens.evaluation` returns it, one layer for each behaviour.

    Raises:
        ValueError: If columns or rows are missing, no answer has a score, or a behaviour has several layers.
    """
    import plotly.graph_objects as go

    made_by = "summarize_scores of caa_lens.evaluation"
    require(made_by, summary, "behavior", "layer", "multiplier", "score", "score_low", "score_high")
    if summary["score"].isna().all():
        raise ValueError("no answer has a score: there is nothing to show")
    every = names(summary)
    layers = {name: one_layer(summary[summary["behavior"] == name], name, "summary") for name in every}
    panels = Panels([f"{name}, layer {layer}" for name, layer in layers.items()], high=190, shared_y=True)
    color, marker = line_style(0)
    for index, name in enumerate(every):
        part = summary[summary["behavior"] == name].sort_values("multiplier")
        line = go.Scatter(
            x=part["multiplier"],
            y=part["score"],
            **whiskers(part["score"], part["score_low"], part["score_high"], color),
            mode="lines+markers",
            marker={"color": color, "symbol": marker, "size": 7},
            line={"color": color},
            name=name,
            showlegend=False,
            hovertext=told(
                part,
                "{behavior}, multiplier {multiplier:+g}",
                "score {score:.2f} [{score_low:.2f}, {score_high:.2f}]",
                "change {score_change:+.2f} [{score_change_low:+.2f}, {score_change_high:+.2f}] over {n_paired} "
                "questions",
                "{n_questions} questions, {n_unscored} answers without a score",
            ),
            hoverinfo="text",
        )
        panels.add(index, line)
        panels.axes(index, {"title_text": "multiplier", **doses(part["multiplier"])}, {"title_text": "score"})
    panels.figure.update_yaxes(range=[-0.3, 10.3], tickvals=[0, 2, 4, 6, 8, 10])
    said = ["mean of a judge's scores, 0 to 10, with 95 % intervals over questions"]
    said += [items_of(summary, "n_questions", "questions")]
    without = int(summary["n_unscored"].sum()) if "n_unscored" in summary.columns else 0
    said += [f"{without} answers without a score are left out"] if without else []
    return panels.finish("Scores of open-ended answers", said)
