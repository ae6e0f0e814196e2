"""Where a vector still works: at other layers, on another model, under other prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from caa_lens.viz.figures.panels import (
    SMALLEST_RANGE,
    Panels,
    color_axis,
    framed,
    heat,
    items_of,
    laid_out,
    names,
    require,
    short,
    signed,
    told,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def transfer(frame: pd.DataFrame) -> go.Figure:
    """The effect of every vector everywhere it was used, one panel a multiplier; where it was made is framed.

    Bold effects have an interval that leaves out zero and go beyond 95 % of the random vectors in the same cell.

    Args:
        frame: Of one behaviour, as `caa_lens.protocols.transfer.across_layers`, `across_models` or `across_prompts`
            returns it.

    Raises:
        ValueError: If columns or rows are missing, or there are several behaviours.
    """
    made_by = "caa_lens.protocols.transfer.across_layers, across_models or across_prompts"
    columns = ("behavior", "multiplier", "effect", "effect_balanced", "balanced_low", "balanced_high", "beats_random")
    require(made_by, frame, *columns)
    if len(names(frame)) > 1:
        raise ValueError(f"the frame has the behaviours {', '.join(names(frame))}: give those of one")
    frame, made, used = _placed(frame)
    column = "effect_balanced" if frame["effect_balanced"].notna().any() else "effect"
    cells = frame[column].map(short)
    clear = ((frame["balanced_low"] > 0) | (frame["balanced_high"] < 0)) & (frame["beats_random"] >= 0.95)
    texts = told(
        frame,
        f"{made} {{made}}, {used} {{used}}, multiplier {{multiplier:+g}}",
        "letter-balanced effect {effect_balanced:+.3f} [{balanced_low:+.3f}, {balanced_high:+.3f}]",
        "plain effect {effect:+.3f}",
        "{n_random} random vectors: {random_low:+.3f} to {random_high:+.3f}, beats {beats_random:.0%}",
        "cosine {cosine:.2f}",
        "norm {norm:.3g}",
        "rank correlation over items {item_correlation:.2f}",
        "{n_items} items",
    )
    frame = frame.assign(text=texts, shown=cells.where(~clear, "<b>" + cells + "</b>"))
    rows, across, every = names(frame, "made"), names(frame, "used"), names(frame, "panel")
    longest, longest_below = max(map(len, rows)), max(map(len, across))
    most = 2 if len(across) <= 8 else 1
    turned = 8 * longest_below > 560 / (min(most, len(every)) * len(across))
    below = 24 + 6 * longest_below if turned else 30
    panels = Panels(every, high=max(110, 30 * len(rows)), most=most, gap=64 + below)
    for index, panel in enumerate(every):
        part = frame[frame["panel"] == panel]
        values, hover, shown = (
            laid_out(part, "made", "used", each).reindex(index=rows, columns=across)
            for each in (column, "text", "shown")
        )
        panels.add(index, heat(values, hover, shown if len(across) * panels.columns <= 18 else None))
        category = {"type": "category", "showgrid": False}
        first = index % panels.columns == 0
        panels.axes(
            index,
            {**category, "title_text": used, "tickangle": -40 if turned else 0},
            {**category, "title_text": made, "autorange": "reversed", "showticklabels": first},
        )
        for row, name in enumerate(rows):
            if name in across:
                at = across.index(name)
                framed(panels.figure, panels.place(index), (at - 0.5, at + 0.5), (row - 0.5, row + 0.5))
    color_axis(panels.figure, max(SMALLEST_RANGE, float(frame[column].abs().max())), "effect")
    balanced = column == "effect_balanced"
    said = [f"{'letter-balanced' if balanced else 'plain (letters cannot be balanced)'} change in P(matching answer)"]
    said += [items_of(frame), "framed: used where it was made" if set(rows) & set(across) else ""]
    said += ["bold: interval without 0, and beyond 95 % of random vectors"] if balanced else []
    title = f"{names(frame)[0]}: where the vector still works"
    return panels.finish(title, said, bottom=40 + below, left=50 + 7 * longest)


def _placed(frame: pd.DataFrame) -> tuple[pd.DataFrame, str, str]:
    """The frame with where each vector was made, where used, and its panel, as text; and what the two axes are."""
    panel = "multiplier " + frame["multiplier"].map(signed)
    if "made_at" in frame.columns:
        made, used, roles = (
            frame["made_at"].astype(str),
            frame["used_at"].astype(str),
            ("made at layer", "used at layer"),
        )
    elif "made_format" in frame.columns:
        kinds = {kind: {*frame[f"made_{kind}"], *frame[f"used_{kind}"]} for kind in ("format", "system")}
        many = [kind for kind, names_of in kinds.items() if len(names_of) > 1]
        parts = many or ["format"]
        made, used = (
            frame[[f"{role}_{kind}" for kind in parts]].astype(str).agg(" / ".join, axis=1) for role in ("made", "used")
        )
        what = " / ".join({"format": "prompt format", "system": "system prompt"}[kind] for kind in parts)
        roles = (f"made under {what}", f"used under {what}")
        if frame["layer"].nunique() > 1:
            panel = "layer " + frame["layer"].astype(str) + ", " + panel
    elif "made_on" in frame.columns:
        made, used, roles = frame["vector"].astype(str), frame["layer"].astype(str), ("vector of", "layer")
    else:
        raise ValueError(
            "the frame says neither made_at, made_format nor made_on: give one that caa_lens.protocols.transfer "
            "returned"
        )
    return frame.assign(made=made, used=used, panel=panel), *roles
