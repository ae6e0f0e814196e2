"""Texts, token by token: how much of a vector each has, what was read from it, what was steered.

A view shows itself in a notebook and saves itself as one file. It is made of coloured boxes that show everywhere, also
in a notebook that is not trusted (`caa_lens.viz.token_spans`). Where a script may run, circuitsvis's component takes
their place, with a choice of layers and all values on hover (`caa_lens.viz.components`). Nothing comes from a network.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from caa_lens.files.whole import write_whole
from caa_lens.viz import components, token_spans
from caa_lens.viz.token_spans import Text, Token

if TYPE_CHECKING:
    import pandas as pd

Value = Literal["cosine", "projection", "dot"]
COLUMNS = ("document", "pos", "token_id", "token", "role", "layer", "vector", "read", "steered")
SMALLEST_REACH = {"cosine": 0.05, "projection": 1e-9, "dot": 1e-9}
"""The colour scale reaches at least this far, so that noise about zero does not fill it."""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
</head>
<body style="max-width:1000px;margin:24px auto;padding:0 12px">
{view}{script}</body>
</html>
"""
READ_FILL, STEERED_FILL = "background-color:#E69F00;color:#000;", "background-color:#cfe6f5;color:#000;"


@dataclass(frozen=True, slots=True)
class TokenView:
    """A finished view.

    Attributes:
        title: What is shown, in plain text.
        html: A fragment for a page that holds `components.script` once; without it the boxes are shown.
        live: Whether the script does anything for it.
    """

    title: str
    html: str
    live: bool = True

    def __repr__(self) -> str:
        """The title and the size; the notebook shows the view itself."""
        return f"TokenView({self.title!r}, {len(self.html):,} characters)"

    def _repr_html_(self) -> str:
        return self.html + (components.script_for_output() if self.live else "")

    def save(self, path: str | Path) -> Path:
        """Write the view as one HTML file that needs nothing else, script included; folders are made.

        Raises:
            ValueError: If the name does not end in ``.html``.
        """
        path = Path(path)
        if path.suffix.lower() != ".html":
            raise ValueError(f"cannot write {path}: give a name that ends in .html")
        page = PAGE.format(
            title=html.escape(self.title), view=self.html, script=components.script() if self.live else ""
        )
        write_whole(path, lambda to: to.write_text(page, encoding="utf-8"))
        return path


def tokens(frame: pd.DataFrame, value: Value = "cosine", layer: int | None = None) -> TokenView:
    """Texts coloured by how much of a vector each token has.

    White is zero and both ends of the scale are equally far from it, for all texts and layers together; a beginning-of-
    sequence token does not stretch it, because its values are often many times all others.

    Args:
        frame: As `caa_lens.analysis.project` returns it: a row for each text, layer and position.
        value: The column to show: ``cosine`` (-1 to 1), ``projection`` (in the stream's units) or ``dot``.
        layer: The layer to show; None shows all of the frame's, with a choice between them.

    Raises:
        ValueError: For a frame without rows or columns that are needed, several rows for one token, or a value or layer
            that is not in it.
    """
    shown, layers = _chosen(frame, value, layer)
    texts = _texts(shown, value, layers)
    several = len(texts) > 1
    return _view(
        [Text(f"text {index}" if several else "", row) for index, row in texts.items()],
        title=f"{value} with {_names(shown)}",
        value=value,
        layers=layers,
    )


def steered_beside(
    unsteered: pd.DataFrame, steered: pd.DataFrame, value: Value = "cosine", layer: int | None = None
) -> TokenView:
    """The same texts without and with steering, side by side on one colour scale.

    Args:
        unsteered: As `caa_lens.analysis.project` returns it.
        steered: The same texts and vectors with ``steer=``. Generated texts may differ in their tokens.
        value: See `tokens`.
        layer: See `tokens`.

    Raises:
        ValueError: As `tokens` does, or if the two frames hold different texts, layers or vectors.
    """
    found = [_chosen(each, value, layer) for each in (unsteered, steered)]
    for name, word in (("document", "text"), ("layer", "layer"), ("vector", "vector")):
        one, other = (sorted(each[name].unique().tolist()) for each, _ in found)
        if one != other:
            raise ValueError(
                f"the unsteered frame has the {word}s {_list(one)} and the steered one {_list(other)}: "
                "project the same texts on the same vectors, with steer= and without"
            )
    sides = [_texts(shown, value, layers) for shown, layers in found]
    texts: list[Text] = []
    for index in sides[0]:
        before = f"text {index}, " if len(sides[0]) > 1 else ""
        texts += [Text(f"{before}unsteered", sides[0][index]), Text(f"{before}steered", sides[1][index])]
    title = f"{value} with {_names(found[0][0])}, unsteered beside steered"
    return _view(texts, title=title, value=value, layers=found[0][1], columns=2)


def roles(rows: pd.DataFrame | Sequence[Any]) -> TokenView:
    """What was read and what was steered, and the part that each token plays.

    Args:
        rows: As `caa_lens.analysis.project` returns them, or what `caa_lens.describe_tokens` lists for one prompt.

    Raises:
        ValueError: If there are no rows, or a frame lacks columns.
    """
    given: Any = rows
    if hasattr(given, "columns"):
        _require(given, *COLUMNS)
        found = _texts(given[given["layer"] == given["layer"].iloc[0]], None, [])
        texts = [Text(f"text {index}" if len(found) > 1 else "", row) for index, row in found.items()]
    elif given:
        row = tuple(Token(each.index, each.id, each.token, each.roles, each.read, each.steered) for each in given)
        texts = [Text("", row)]
    else:
        raise ValueError("there are no tokens to show: give the rows of describe_tokens, or a frame of project")

    def box(token: Token) -> tuple[str, str]:
        plain = "background-color:#fff;color:#000;"
        return READ_FILL if token.read else STEERED_FILL if token.steered else plain, token_spans.describe(token)

    title = "what was read, what was steered"
    fills = {"read": READ_FILL, "steered": STEERED_FILL}
    legend = token_spans.marks(texts, fills) or "no token is read, none is steered"
    parts = "".join(f'<div style="{token_spans.NOTE}">{html.escape(line)}</div>' for line in _parts(texts))
    body = _framed(f"{title}: {legend}", token_spans.boxes(texts, box) + parts)
    return TokenView(title, body, live=False)


def stacked(*views: TokenView) -> TokenView:
    """Several views, one below the other, as one: saved in one file, or the output of one cell."""
    if not views:
        raise ValueError("there are no views to stack: give one or more")
    title = "; ".join(view.title for view in views)
    return TokenView(title, "".join(view.html for view in views), live=any(view.live for view in views))


def _view(texts: Sequence[Text], *, title: str, value: str, layers: list[int], columns: int = 1) -> TokenView:
    cells = [token for text in texts for token in text.tokens]
    reach, clipped = _reach(cells, SMALLEST_REACH[value])
    start = _strongest(cells, len(layers))
    drawn = [token_spans.layer_spans(texts, index, value, reach, columns) for index in range(len(layers))]
    still = drawn[0]
    if len(layers) > 1:
        still = "".join(
            f"<details{' open' if index == start else ''}><summary>layer {layer}</summary>{each}</details>"
            for index, (layer, each) in enumerate(zip(layers, drawn, strict=True))
        )
    where = f", layer {layers[0]}" if len(layers) == 1 else ""
    legend = f"{html.escape(title + where)} &ensp; {token_spans.scale(reach, clipped)}"
    if marked := token_spans.marks(texts):
        legend += f" &ensp; {marked}"
    data = {
        "tokens": [token.text for token in cells],
        "values": [[_rounded(each) for each in token.values] for token in cells],
        "numbers": [[token_spans.number(each) for each in token.values] for token in cells],
        "layers": [f"layer {layer}" for layer in layers],
        "start": start,
        "reach": reach,
    }
    return TokenView(title + where, _framed(legend, components.live(still, data)))


def _framed(legend: str, body: str) -> str:
    head = f'<div style="margin-bottom:6px;line-height:2">{legend}</div>'
    # The script finds a view as the parent of what is in `body`, so nothing may come between them.
    return f'<div class="caa-tokens" style="{token_spans.FRAME}">{head}{body}</div>\n'


def _chosen(frame: pd.DataFrame, value: str, layer: int | None) -> tuple[pd.DataFrame, list[int]]:
    """The rows to show, and their layers in order."""
    if value not in get_args(Value):
        raise ValueError(f"value {value!r} is not known: give one of {', '.join(get_args(Value))}")
    _require(frame, *COLUMNS, value)
    layers: list[int] = sorted(frame["layer"].unique().tolist())
    if layer is not None and layer not in layers:
        raise ValueError(f"layer {layer} is not in the frame, which has the layers {_list(layers)}")
    return (frame, layers) if layer is None else (frame[frame["layer"] == layer], [layer])


def _texts(frame: pd.DataFrame, value: str | None, layers: Sequence[int]) -> dict[int, tuple[Token, ...]]:
    """Every text's tokens in order, with the values of the layers."""
    again = frame.duplicated(["document", "layer", "pos"])
    if again.any():
        row: Any = frame[again].iloc[0]
        raise ValueError(
            f"there are several rows for text {row['document']}, layer {row['layer']}, position {row['pos']}; vectors "
            f"are {_list(frame['vector'].unique())}: keep one vector, such as frame[frame.vector == {row['vector']!r}]"
        )
    found: dict[int, tuple[Token, ...]] = {}
    for index, part in frame.groupby("document", sort=True):
        number: Any = index
        rows = part.sort_values("pos")
        one = rows[rows["layer"] == rows["layer"].iloc[0]]
        values = [rows.loc[rows["layer"] == layer, ["pos", value]] for layer in layers]
        for layer, each in zip(layers, values, strict=True):
            if each["pos"].tolist() != one["pos"].tolist():
                raise ValueError(
                    f"text {number} has {len(one)} positions in one layer and {len(each)} in layer {layer}: "
                    "every layer needs the same"
                )
        columns = [one[name].tolist() for name in ("pos", "token_id", "token", "role", "read", "steered")]
        across: list[tuple[float, ...]] = list(zip(*(each[value].tolist() for each in values), strict=True))
        found[int(number)] = tuple(
            Token(pos, token_id, token, (role,) if role else (), read, steered, across[at] if layers else ())
            for at, (pos, token_id, token, role, read, steered) in enumerate(zip(*columns, strict=True))
        )
    return found


def _require(frame: pd.DataFrame, *columns: str) -> None:
    if missing := [column for column in columns if column not in frame.columns]:
        has = ", ".join(map(str, frame.columns))
        raise ValueError(f"the frame lacks the columns {', '.join(missing)}: it has {has}")
    if frame.empty:
        raise ValueError("the frame has no rows: there is nothing to show")


def _reach(cells: Sequence[Token], smallest: float) -> tuple[float, bool]:
    """How far the colour scale reaches, and whether a value lies beyond it."""
    ordinary = [cell for cell in cells if "bos" not in cell.roles] or cells
    sizes, every = (
        [abs(value) for cell in those for value in cell.values if math.isfinite(value)] for those in (ordinary, cells)
    )
    reach = max([smallest, *sizes])
    return reach, max(every, default=0.0) > reach


def _strongest(cells: Sequence[Token], n_layers: int) -> int:
    """Index of the layer whose values are largest on average, a beginning-of-sequence token left out."""
    ordinary = [cell for cell in cells if "bos" not in cell.roles] or cells
    sizes = [sum(abs(cell.values[at]) for cell in ordinary if math.isfinite(cell.values[at])) for at in range(n_layers)]
    return sizes.index(max(sizes))


def _rounded(value: float) -> float:
    return float(f"{value:.5g}") if math.isfinite(value) else 0.0


def _parts(texts: Sequence[Text]) -> list[str]:
    """Where each part of a text stands: ``question 4-20, prompt_end 27``, a line a text."""
    lines: list[str] = []
    for text in texts:
        places: dict[str, list[int]] = {}
        for token in text.tokens:
            for role in token.roles:
                places.setdefault(role, []).append(token.pos)
        named = (f"{role} {at[0]}" + (f"-{at[-1]}" if len(at) > 1 else "") for role, at in places.items())
        if places:
            lines.append((f"{text.heading}: " if text.heading else "positions: ") + ", ".join(named))
    return lines


def _names(frame: pd.DataFrame) -> str:
    return ", ".join(map(str, frame["vector"].unique()))


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
