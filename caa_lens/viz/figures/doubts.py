"""What can be behind a mean effect: single items that go the other way, a liking for a letter, any vector at all.

`letter_balance` and `null_distribution` take the frame of a sweep, item by item, since a summary no longer has what
they show; they average it as `caa_lens.summarize` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caa_lens.viz.figures.panels import (
    Panels,
    doses,
    items_of,
    names,
    one_layer,
    reaching,
    require,
    shortened,
    signed,
    told,
    whiskers,
)
from caa_lens.viz.theme import AGAINST, NULL_EDGE, line_style

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go

_SWEPT = ("behavior", "vector", "kind", "draw", "layer", "multiplier", "item", "letter", "p_matching")
_NO_NULLS = "has no null vectors: give sweep n_nulls, or nulls={kind: null_vectors(...)}"


def item_slopes(items: pd.DataFrame) -> go.Figure:
    """Every item's slope, sorted, with the share of those that go against the vector; the matching letter is the mark.

    Where the marks of one letter are all below zero and those of the other above, the vector moves the letter and not
    the behaviour.

    Args:
        items: As `caa_lens.evaluation.items.steerability` returns it, one layer for each behaviour.

    Raises:
        ValueError: If columns or rows are missing, or a behaviour has several layers.
    """
    import plotly.graph_objects as go

    require("caa_lens.evaluation.items.steerability", items, "behavior", "layer", "item", "letter", "slope")
    every = names(items)
    layers = {name: one_layer(items[items["behavior"] == name], name, "items") for name in every}
    panels = Panels([f"{name}, layer {layer}" for name, layer in layers.items()], high=200, shared_y=True)
    has_slope = items[items["slope"].notna()]
    if has_slope.empty:
        raise ValueError("all slopes are NaN, of items with a probability of 0: there is nothing to show")
    letters = sorted(has_slope["letter"].fillna("").astype(str).unique())
    begun: set[str] = set()
    for index, name in enumerate(every):
        part = has_slope[has_slope["behavior"] == name].sort_values("slope")
        part = part.assign(place=range(1, len(part) + 1), letter=part["letter"].fillna("").astype(str))
        for style, letter in enumerate(letters):
            of_letter = part[part["letter"] == letter]
            color, marker = line_style(style)
            label = f"matching letter {letter}" if letter else "no letter"
            dots = go.Scatter(
                x=of_letter["place"],
                y=of_letter["slope"],
                mode="markers",
                marker={"color": color, "symbol": marker, "size": 6 if len(part) <= 100 else 4},
                name=label,
                legendgroup=label,
                showlegend=label not in begun and len(of_letter) > 0,
                hovertext=told(
                    of_letter,
                    f"{{behavior}}, item {{item}}, {label}",
                    "slope {slope:+.3f} nats per unit of the multiplier",
                    "at multiplier 0 {intercept:+.3f}, left over {residual:.3f}",
                    "up to 0 {slope_negative:+.3f}, from 0 {slope_positive:+.3f}",
                    "rank correlation {spearman:+.2f}",
                ),
                hoverinfo="text",
            )
            begun |= {label} if len(of_letter) else set()
            panels.add(index, dots)
        against, n = int((part["slope"] < 0).sum()), len(part)
        if against:
            edges: dict[str, Any] = {"x0": 0.5, "x1": against + 0.5, "fillcolor": AGAINST, "line_width": 0}
            panels.figure.add_vrect(**edges, layer="below", **panels.place(index))
        without = int((items["behavior"] == name).sum()) - n
        text = f"{against} of {n} below 0" + (f"<br>{without} without a slope" if without else "")
        inside = {"xref": "x domain", "yref": "y domain", "x": 0.03, "y": 0.98, "xanchor": "left", "yanchor": "top"}
        panels.note(index, text, inside)
        panels.axes(
            index, {"title_text": "items, sorted", "range": [0, n + 1], "showgrid": False}, {"title_text": "slope"}
        )
    panels.figure.update_yaxes(range=reaching(has_slope, ["slope"]), tickformat="+~g")
    said = ["change of each item's log odds per unit of the multiplier, in nats", "shaded: items with a slope below 0"]
    return panels.finish("Slope of every item", said)


def letter_balance(frame: pd.DataFrame) -> go.Figure:
    """Effect on items by their matching letter, and the drift of the share of A.

    A vector that means the behaviour moves all letters' items alike. One that means "A" moves the items whose matching
    letter is A up, the others down, and the share of A with the first.

    Args:
        frame: As `caa_lens.sweep` returns it, one layer for each behaviour.

    Raises:
        ValueError: If columns or rows are missing, a behaviour has several layers, or no answer is a letter.
    """
    import plotly.graph_objects as go

    require("caa_lens.sweep", frame, *_SWEPT, "p_a")
    every = names(frame)
    layers = {name: one_layer(frame[frame["behavior"] == name], name, "frame") for name in every}
    own = _moved(frame[frame["kind"] == "vector"])
    lettered = own[own["letter"].notna()]
    if lettered.empty:
        raise ValueError("no item of the frame has a matching letter: there are no letters to balance")
    tables = {name: _by_letter(lettered[lettered["behavior"] == name]) for name in every}
    panels = Panels([f"{name}, layer {layer}" for name, layer in layers.items()], high=190, shared_y=True)
    begun: set[str] = set()
    for index, name in enumerate(every):
        for style, (label, part) in enumerate(tables[name].groupby("what", sort=False)):
            drift = label == "share of A"
            color, marker = (NULL_EDGE, "diamond-open") if drift else line_style(style)
            what = "change {effect:+.3f}" if drift else "effect {effect:+.3f} [{effect_low:+.3f}, {effect_high:+.3f}]"
            line = go.Scatter(
                x=part["multiplier"],
                y=part["effect"],
                **({} if drift else whiskers(part["effect"], part["effect_low"], part["effect_high"], color)),
                mode="lines+markers",
                marker={"color": color, "symbol": marker, "size": 7},
                line={"color": color, "dash": "dot" if drift else "solid"},
                name=str(label),
                legendgroup=str(label),
                showlegend=label not in begun,
                hovertext=told(part, f"{{behavior}}, {label}, multiplier {{multiplier:+g}}", what, "{n_items} items"),
                hoverinfo="text",
            )
            begun.add(str(label))
            panels.add(index, line)
        x = own.loc[own["behavior"] == name, "multiplier"]
        panels.axes(index, {"title_text": "multiplier", **doses(x)}, {"title_text": "effect", "tickformat": "+~g"})
    import pandas as pd

    table = pd.concat(tables.values())
    panels.figure.update_yaxes(range=reaching(table, ["effect", "effect_low", "effect_high"]))
    said = ["change in P(matching answer) with 95 % intervals (normal) over the items of a letter"]
    said += ["dotted: change of the mean share of A (p_a)"]
    said += [items_of(table[table["what"] != "share of A"], what="items of each letter")]
    return panels.finish("Effect by matching letter", said)


def null_distribution(frame: pd.DataFrame, multiplier: float | None = None) -> go.Figure:
    """The vector's effect among the effects of every null vector, a histogram for each kind.

    Effects are letter-balanced; where they cannot be, plain, and the panel says so.

    Args:
        frame: As `caa_lens.sweep` returns it with nulls, one layer for each behaviour.
        multiplier: At which; None for the largest.

    Raises:
        ValueError: If columns or rows are missing, a behaviour has several layers or no nulls, or at a multiplier that
            the frame lacks.
    """
    import numpy as np
    import plotly.graph_objects as go

    require("caa_lens.sweep", frame, *_SWEPT)
    every = names(frame)
    layers = {name: one_layer(frame[frame["behavior"] == name], name, "frame") for name in every}
    there = sorted(set(frame["multiplier"].unique().tolist()) - {0.0})
    at = max(there, default=0.0) if multiplier is None else float(multiplier)
    if at not in there:
        raise ValueError(
            f"the frame has no rows at multiplier {at:g}: it has {', '.join(f'{each:g}' for each in there)}"
        )
    own = frame[frame["kind"] == "vector"].groupby("behavior")["vector"].first()
    frame = frame[frame["vector"] == frame["behavior"].map(own)]
    moved = _moved(frame)
    kinds = _kinds(frame)
    panels = Panels([f"{name}, layer {layer}" for name, layer in layers.items()], high=70 + 42 * len(kinds))
    for index, name in enumerate(every):
        here = moved[(moved["behavior"] == name) & (moved["multiplier"] == at)]
        effects, balanced = _balanced_effects(here)
        if not balanced:
            panels.figure.layout.annotations[index].text = f"{shortened(name, 18)}, layer {layers[name]} (not balanced)"
        effect = float(effects.pop(("vector", -1)))
        if effects.empty:
            raise ValueError(f"the sweep of {name} {_NO_NULLS}")
        of_kind = effects.groupby(level="kind", sort=False)
        edges = np.histogram_bin_edges(effects.to_numpy(), bins=min(40, max(10, len(effects) // 6)))
        for kind, nulls in of_kind:
            row, n = kinds.index(str(kind)), len(nulls)
            beaten = int((nulls < effect).sum() if at > 0 else (nulls > effect).sum())
            panels.add(index, _histogram(nulls.to_numpy(), edges, f"{name}, {kind}", row))
            beside = {"xref": "x domain", "x": 1, "y": row + 0.42, "xanchor": "right", "yanchor": "middle"}
            panels.note(index, f"beats<br>{beaten} of {n}", beside)
        line = go.Scatter(
            x=[effect, effect],
            y=[-0.1, len(kinds)],
            mode="lines",
            line={"color": line_style(0)[0], "width": 2.5},
            name="the vector",
            legendgroup="the vector",
            showlegend=index == 0,
            hovertext=[f"{name}, layer {layers[name]}, multiplier {at:+g}<br>effect {effect:+.3f}"] * 2,
            hoverinfo="text",
        )
        panels.add(index, line)
        low, high = reaching(effects.to_frame("null").assign(vector=effect), ["null", "vector"])
        panels.axes(
            index,
            {"title_text": "effect", "tickformat": "+~g", "range": [low, high + 0.45 * (high - low)], "zeroline": True},
            {
                "tickvals": [row + 0.3 for row in range(len(kinds))],
                "ticktext": kinds,
                "range": [-0.1, len(kinds) + 0.05],
                "showgrid": False,
                "zeroline": False,
                "showticklabels": index % panels.columns == 0,
            },
        )
    panels.figure.update_layout(bargap=0, barmode="overlay")
    said = [
        f"letter-balanced change in P(matching answer) at multiplier {signed(at)}",
        "grey: vectors of the same norm",
    ]
    said += [f"{frame.groupby('behavior')['item'].nunique().max()} items"]
    return panels.finish("Effect among the effects of null vectors", said, left=86)


def _moved(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``change``, each item's p_matching minus that at multiplier 0, and the same of p_a."""
    at_zero = frame[(frame["kind"] == "vector") & (frame["multiplier"] == 0)]
    base = at_zero.drop_duplicates(["behavior", "item"]).set_index(["behavior", "item"])
    if missing := sorted(set(frame["behavior"]) - set(at_zero["behavior"])):
        raise ValueError(f"the sweep of {missing[0]} has no rows at multiplier 0, against which effects are measured")
    columns = [column for column in ("p_matching", "p_a") if column in frame.columns]
    before = frame[["behavior", "item"]].join(base[columns], on=["behavior", "item"])
    moved = frame.assign(change=frame["p_matching"] - before["p_matching"])
    return moved.assign(drift=frame["p_a"] - before["p_a"]) if "p_a" in columns else moved


def _by_letter(moved: pd.DataFrame) -> pd.DataFrame:
    """Effect and interval of each letter's items at each multiplier, and the mean drift."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    name = moved["behavior"].iloc[0]
    for letter, part in moved.groupby("letter"):
        for multiplier, cell in part.groupby("multiplier"):
            mean, reach = float(cell["change"].mean()), 1.96 * float(str(cell["change"].sem()))
            row = {"what": f"matching letter {letter}", "multiplier": multiplier, "effect": mean}
            rows.append({**row, "effect_low": mean - reach, "effect_high": mean + reach, "n_items": len(cell)})
    for multiplier, cell in moved.groupby("multiplier"):
        row = {"what": "share of A", "multiplier": multiplier, "effect": cell["drift"].mean()}
        rows.append({**row, "effect_low": float("nan"), "effect_high": float("nan"), "n_items": len(cell)})
    return pd.DataFrame(rows).assign(behavior=name)


def _balanced_effects(moved: pd.DataFrame) -> tuple[pd.Series, bool]:
    """Effect of each vector, averaged over the items of A and of B, and whether that was possible."""
    letters = moved["letter"].fillna("").astype(str)
    both = {"A", "B"} <= set(letters)
    none = set(letters) == {""}
    kept = moved[letters.isin(["A", "B"])] if both else moved.assign(letter="")
    means = kept.groupby(["kind", "draw", "letter"], sort=False)["change"].mean()
    return means.groupby(level=["kind", "draw"], sort=False).mean(), both or none


def _kinds(frame: pd.DataFrame) -> list[str]:
    kinds = [str(kind) for kind in frame["kind"].unique() if kind not in ("vector", "compared")]
    if not kinds:
        raise ValueError(f"the sweep {_NO_NULLS}")
    return kinds


def _histogram(values: np.ndarray, edges: np.ndarray, label: str, row: int) -> Any:
    """Bars that stand on their row, the highest 0.8 of it."""
    import numpy as np
    import plotly.graph_objects as go

    counts, _ = np.histogram(values, edges)
    texts = [
        f"{label}<br>{count} of {len(values)} between {low:+.3f} and {high:+.3f}"
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    return go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=0.8 * counts / counts.max(),
        base=row,
        width=edges[1:] - edges[:-1],
        marker={"color": "#b0b0b0", "line": {"color": NULL_EDGE, "width": 0.5}},
        showlegend=False,
        hovertext=texts,
        hoverinfo="text",
    )
