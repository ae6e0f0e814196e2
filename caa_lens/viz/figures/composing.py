"""Vectors beside one another, and what a broad skill costs: does it still work, and what does the rest pay?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import (
    Panels,
    color_axis,
    doses,
    framed,
    heat,
    items_of,
    laid_out,
    names,
    require,
    short,
    told,
    whiskers,
)
from caa_lens.viz.theme import NULL_BANDS, NULL_EDGE, line_style

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_KINDS = (("target", "lost_target"), ("other", "lost_other"))
_SMALLEST = 0.25
"""Colours of log odds reach at least this far."""


def interference(frame: pd.DataFrame) -> go.Figure:
    """What every vector does to every behaviour's items alone, then together, and how far that is from their sum.

    A behaviour's own vector is framed. Bold changes have an interval that leaves out zero; an interference that is
    bold and starred is also larger than that with all but 5 % of the random vectors in the others' place.

    Args:
        frame: As `caa_lens.protocols.composition.effects` returns it.

    Raises:
        ValueError: If columns or rows are missing.
    """
    columns = (
        "behavior",
        "vector",
        "log_odds_change",
        "log_odds_change_low",
        "log_odds_change_high",
        "outsizes_random",
    )
    require("caa_lens.protocols.composition.effects", frame, *columns, "outsizes_random")
    across, down = names(frame, "vector"), names(frame)
    longest = max(map(len, [*across, *down]))
    turned = 8 * longest > 640 / len(across)
    label_room = 24 + 4 * longest if turned else 30
    panels = Panels([""], high=max(90, 34 * len(down)), most=1)
    texts = told(
        frame,
        "items of {behavior}: {vector}",
        "change of log odds {log_odds_change:+.2f} [{log_odds_change_low:+.2f}, {log_odds_change_high:+.2f}]",
        "of p(matching) {effect_even:+.3f} [{effect_even_low:+.3f}, {effect_even_high:+.3f}]",
        "random vectors {random_low:+.2f} to {random_high:+.2f}, larger than {outsizes_random:.0%} of them",
        "mass {mass:.2f}, outside of the choices {share_outside:.0%}",
        "{n_items} items",
    )
    clear = (frame["log_odds_change_low"] > 0) | (frame["log_odds_change_high"] < 0)
    starred = clear & (frame["vector"] == "interference") & (frame["outsizes_random"] >= 0.95)
    cells = frame["log_odds_change"].map(short).where(~starred, frame["log_odds_change"].map(short) + " *")
    shown = frame.assign(text=texts, shown=cells.where(~clear, "<b>" + cells + "</b>"))
    values, hover, written = (
        laid_out(shown, "behavior", "vector", each).reindex(index=down, columns=across)
        for each in ("log_odds_change", "text", "shown")
    )
    panels.add(0, heat(values, hover, written if len(across) <= 12 else None))
    category = {"type": "category", "showgrid": False}
    panels.axes(
        0,
        {**category, "title_text": "what is added", "tickangle": -40 if turned else 0},
        {**category, "title_text": "items of", "autorange": "reversed"},
    )
    for row, name in enumerate(down):
        if name in across:
            at = across.index(name)
            framed(panels.figure, panels.place(0), (at - 0.5, at + 0.5), (row - 0.5, row + 0.5))
    color_axis(panels.figure, max(_SMALLEST, float(frame["log_odds_change"].abs().max())), "log odds")
    subtitle = ["letter-balanced change of log odds; framed: a behaviour's own vector", items_of(frame)]
    subtitle += ["bold: the 95 % interval leaves out 0; *: beyond random vectors in the others' place"]
    title = "Each vector alone, all together, and the difference from their sum"
    return panels.finish(title, subtitle, bottom=40 + label_room, left=50 + 7 * longest)


def alignment_tax(table: pd.DataFrame) -> go.Figure:
    """What each coefficient takes from target and other text, and how far apart the two are beside permuted vectors.

    Args:
        table: As `caa_lens.protocols.broad_skills.alignment_tax` returns it.

    Raises:
        ValueError: If columns or rows are missing.
    """
    import plotly.graph_objects as go

    columns = ("coefficient", "lost_target", "lost_other", "apart", "apart_low", "apart_high")
    require(
        "caa_lens.protocols.broad_skills.alignment_tax", table, *columns, "permuted_low", "permuted_high", "n_permuted"
    )
    table = table.sort_values("coefficient")
    x = table["coefficient"]
    panels = Panels(["Lost of each kind of text", "Target's loss minus the other's"], high=230, most=2)
    texts = told(
        table,
        "coefficient {coefficient:+g}, layer {layer}",
        "lost: target {lost_target:.1%}, other {lost_other:.1%}, tax {tax:.2f}",
        "apart {apart:+.3f} [{apart_low:+.3f}, {apart_high:+.3f}]",
        "{n_permuted} permuted {permuted_low:+.3f} to {permuted_high:+.3f}, beyond {beats_permuted:.0%} of them",
    )
    hover: dict[str, Any] = {"hovertext": texts, "hoverinfo": "text", "mode": "lines+markers"}
    for style, (label, column) in enumerate(_KINDS):
        color, marker = line_style(style)
        look = {"marker": {"color": color, "symbol": marker, "size": 7}, "line": {"color": color}}
        panels.add(0, go.Scatter(x=x, y=table[column], name=f"{label} text", **look, **hover))
    fill, _ = NULL_BANDS[0]
    edge = {"line": {"color": NULL_EDGE, "width": 0.5}, "mode": "lines", "hoverinfo": "skip"}
    count = f"{int(table['n_permuted'].max())} vectors with permuted dimensions"
    panels.add(
        1,
        go.Scatter(x=x, y=table["permuted_low"], showlegend=False, **edge),
        go.Scatter(x=x, y=table["permuted_high"], fill="tonexty", fillcolor=fill, name=count, **edge),
    )
    color, marker = line_style(2)
    panels.add(
        1,
        go.Scatter(
            x=x,
            y=table["apart"],
            name="the vector",
            marker={"color": color, "symbol": marker, "size": 7},
            line={"color": color},
            **whiskers(table["apart"], table["apart_low"], table["apart_high"], color),
            **hover,
        ),
    )
    for index in range(2):
        panels.axes(index, {"title_text": "coefficient", **doses(x)}, {})
        panels.figure.update_yaxes(tickformat="+~%" if index else "~%", **panels.place(index))
    subtitle = ["shares of the unsteered top-1 accuracy; 95 % intervals over documents", "band: 95 % of the controls"]
    return panels.finish("Alignment tax", subtitle)
