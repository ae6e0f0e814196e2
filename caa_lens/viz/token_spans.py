"""Token views without a script: coloured boxes, a legend with the numbers, and what each token is on hover.

Everything is styled inline and uses only elements, attributes and properties that JupyterLab leaves in the output of a
notebook that is not trusted. The layers of a view are folds there. This is also the one source of what a token looks
like: with a script, circuitsvis's components take their text and colours from these boxes (`caa_lens.viz.components`).
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from caa_lens.viz.theme import DIVERGING, INK
from caa_lens.viz.visible_text import direction, shown

BOX = "border:1px solid #ddd;display:inline-block;"
STEERED = f"border-bottom:3px solid {INK};"
READ = f"border:2px solid {INK};"
NO_NUMBER = "#dddddd"
NOTE = "color:#555;font-size:12px;"
FRAME = f"background-color:#fff;color:{INK};padding:8px 10px;font-family:sans-serif;font-size:13px;"
LINES = "font-family:monospace;font-size:14px;line-height:1.6;overflow-wrap:break-word;word-break:break-word;"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text: where it stands, what it is, and one value for each layer."""

    pos: int
    token_id: int
    text: str
    roles: tuple[str, ...]
    read: bool
    steered: bool
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """The tokens of one text, with what stands above them (nothing where there is one text)."""

    heading: str
    tokens: tuple[Token, ...]


def color(value: float, reach: float) -> str:
    """The colour of a value on a scale from ``-reach`` to ``reach``, white at zero; grey for what is no number."""
    if not math.isfinite(value):
        return NO_NUMBER
    share = 0.5 + 0.5 * max(-1.0, min(1.0, value / reach))
    (low, start), (high, end) = next(
        pair for pair in zip(DIVERGING, DIVERGING[1:], strict=False) if share <= pair[1][0]
    )
    within = (share - low) / (high - low)
    mixed = (round(a + within * (b - a)) for a, b in zip(_channels(start), _channels(end), strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def number(value: float) -> str:
    """A value in three digits, with its sign."""
    return f"{value:+.3g}" if math.isfinite(value) else "no number"


def layer_spans(texts: Sequence[Text], index: int, name: str, reach: float, columns: int) -> str:
    """All texts, coloured by their values at the layer with this index."""

    def box(token: Token) -> tuple[str, str]:
        value = token.values[index]
        return _filled(color(value, reach)), f"{describe(token)}, {name} {number(value)}"

    return boxes(texts, box, columns)


def boxes(texts: Sequence[Text], box: Callable[[Token], tuple[str, str]], columns: int = 1) -> str:
    """All texts as boxes, a text or several to a row; ``box`` gives a token's fill and its words on hover."""
    grid = f"display:grid;grid-template-columns:{' '.join(['1fr'] * columns)};gap:6px 18px;" if columns > 1 else ""
    parts: list[str] = []
    for text in texts:
        spans: list[str] = []
        for token in text.tokens:
            fill, words = box(token)
            marks = (READ if token.read else "") + (STEERED if token.steered else "")
            breaks = "<br>" * token.text.count("\n")
            title = html.escape(words)
            spans.append(f'<bdi style="{fill}{BOX}{marks}" title="{title}">{shown(token.text)}</bdi>{breaks}')
        side = direction(token.text for token in text.tokens)
        head = f'<div style="{NOTE}margin-top:6px">{html.escape(text.heading)}</div>' if text.heading else ""
        parts.append(f'<div style="min-width:0">{head}<div dir="{side}" style="{LINES}">{"".join(spans)}</div></div>')
    return f'<div class="caa-layer" style="{grid}">{"".join(parts)}</div>'


def describe(token: Token) -> str:
    """A token in words; characters without a shape are written as Python writes them."""
    what = [repr(token.text), f"position {token.pos}", f"id {token.token_id}", *token.roles]
    return ", ".join(what + ["read"] * token.read + ["steered"] * token.steered)


def scale(reach: float, clipped: bool) -> str:
    """The colour scale as five boxes with their numbers."""
    steps = [-reach, -reach / 2, 0.0, reach / 2, reach]
    labels = [f"{step:+.2g}" if step else "0" for step in steps]
    if clipped:
        labels[0], labels[-1] = f"{labels[0]} and less", f"{labels[-1]} and more"
    swatches = "".join(
        f'<span style="{_filled(color(step, reach))}{BOX}padding:0 7px;line-height:1.4">{label}</span>'
        for step, label in zip(steps, labels, strict=True)
    )
    return f'<span style="display:inline-block">{swatches}</span>'


def marks(texts: Sequence[Text], fills: Mapping[str, str] | None = None) -> str:
    """What the marks on boxes mean, for those that are there; ``fills`` are colours of read and steered tokens."""
    tokens = [token for text in texts for token in text.tokens]
    fill = fills or {}
    sample = "display:inline-block;padding:0 7px;line-height:1.4;"
    found: list[str] = []
    if read := [token for token in tokens if token.read]:
        where = f" ({describe(read[0])})" if len(read) == 1 and fills else ""
        found.append(f'<span style="{sample}{fill.get("read", "")}{READ}">read</span>{html.escape(where)}')
    if n := sum(token.steered for token in tokens):
        style = f"{sample}{fill.get('steered', '')}{BOX}{STEERED}"
        found.append(f'<span style="{style}">steered</span> ({n} of {len(tokens)} tokens)')
    return " &ensp; ".join(found)


def _filled(background: str) -> str:
    """The style of a box in this colour, with letters that can be read on it."""
    red, green, blue = _channels(background)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    return f"background-color:{background};color:{'#fff' if dark else '#000'};"


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
