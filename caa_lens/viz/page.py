"""A study's report as one HTML file: what was found, figures, texts, tokens, tables, and how to make it all again.

The file needs no network and no other file. Plotly's and circuitsvis's scripts and the figures lie in it compressed,
and the browser unpacks them; where it cannot, or runs no script, still images and plain boxes stay. A content security
policy forbids every request. What comes from data or from a model is escaped. The template is `page.html` beside this.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.viz import components, images
from caa_lens.viz.images import find_browser

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from caa_lens.viz.token_views import TokenView

LONGEST, FIRST, SMALL = 500, 20, 100
"""Tables of more rows than this are cut to so many, with a word that they are; those of so few cells are shown open."""


@dataclass(frozen=True, slots=True)
class Section:
    """A figure of the report, with its heading, what to look for in it, and perhaps a WebP image of it."""

    name: str
    heading: str
    caption: str
    figure: go.Figure
    still: bytes | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report, the file of the run folder that it comes from, and what it holds."""

    file: str
    meaning: str
    frame: pd.DataFrame


def render_page(
    *,
    title: str,
    subtitle: str,
    notes: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    meanings: Mapping[str, str],
    sentences: Mapping[str, Sequence[str]],
    sections: Sequence[Section],
    samples: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, Sequence[TokenView]],
    tables: Sequence[Table],
    commands: Sequence[str],
    settings: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, str]],
    files: Mapping[str, int],
) -> str:
    """The report as HTML.

    Args:
        title: Its heading.
        subtitle: What was run, and when, in a line.
        notes: What a reader must know before the numbers.
        header: Names of the result table's columns.
        rows: The result table, as text; the first column is the behaviour.
        meanings: What its columns mean.
        sentences: Behaviour to what was found, in words; the first sentence is shown without a click.
        sections: The figures, in order.
        samples: Steered texts: ``behavior, layer, question, multiplier, text``.
        tokens: Behaviour to its token views.
        tables: The run folder's tables, in order.
        commands: What makes this study again, a line each.
        settings: The study's settings.
        facts: Heading to names and values, such as the versions.
        files: The folder's files, with their sizes in bytes.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["signed"] = lambda value: f"{value:+g}" if value else "0 (unsteered)"
    views = {name: [Markup(view.html) for view in each] for name, each in tokens.items()}
    live = any(view.live for each in tokens.values() for view in each)
    return environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).render(
        title=title,
        subtitle=subtitle,
        notes=notes,
        header=header,
        rows=rows,
        meanings=meanings,
        sentences=sentences,
        sections=[(each, _base64(each.still) if each.still else None) for each in sections],
        samples=side_by_side(samples),
        tokens=views,
        tables=[(each, _grid(each.frame), _opener(each.file)) for each in tables],
        commands=commands,
        settings=settings,
        settings_file=json.dumps(settings, indent=1, ensure_ascii=False),
        facts={heading: each for heading, each in facts.items() if each},
        files={name: readable_size(size) for name, size in files.items()},
        packed=_packed(sections, live),
        config=images.OFFLINE,
    )


def side_by_side(samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[float, str]]]]:
    """Samples grouped: behaviour to question to its ``(multiplier, text)`` in ascending order."""
    grouped: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for sample in sorted(samples, key=lambda each: float(each["multiplier"])):
        questions = grouped.setdefault(str(sample["behavior"]), {})
        questions.setdefault(str(sample["question_text"]), []).append(
            (float(sample["multiplier"]), str(sample["text"]))
        )
    order = dict.fromkeys((str(each["behavior"]), str(each["question_text"])) for each in samples)
    return {name: {q: grouped[name][q] for b, q in order if b == name} for name in dict.fromkeys(b for b, _ in order)}


def draw_images(figures: Mapping[str, go.Figure], kinds: Mapping[str, float]) -> dict[str, dict[str, bytes]]:
    """Each figure as an image where kaleido and a Chrome are installed, else nothing.

    Args:
        figures: Name to figure.
        kinds: Such as ``{"png": 2}``: how many pixels of the image are one of the figure's.

    Returns:
        For each kind, name to image; empty where no image could be drawn.
    """
    browser = find_browser()
    if browser is None or importlib.util.find_spec("kaleido") is None:
        return {kind: {} for kind in kinds}
    try:
        drawn = images.draw(list(figures.values()), kinds, browser)
    except Exception:  # a browser fails in many ways, and the report does not depend on it
        return {kind: {} for kind in kinds}
    return {kind: dict(zip(figures, drawn[kind], strict=True)) for kind in kinds}


def readable_size(size: int) -> str:
    """A number of bytes as people write it: ``812 B``, ``12 kB``, ``3.4 MB``."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"


@dataclass(frozen=True, slots=True)
class _Grid:
    """A frame as text: column names with whether they hold numbers, the rows that are shown, and how many there are."""

    columns: list[tuple[str, bool]]
    rows: list[list[str]]
    n_rows: int
    small: bool

    @property
    def cut(self) -> bool:
        return len(self.rows) < self.n_rows


def _grid(frame: pd.DataFrame) -> _Grid:
    columns = [(str(name), frame[name].dtype.kind in "iuf") for name in frame.columns]
    shown = frame if len(frame) <= LONGEST else frame.head(FIRST)
    rows = [[_cell(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    return _Grid(columns, rows, len(frame), len(frame) * len(columns) <= SMALL)


def _cell(value: Any) -> str:
    """A value as text; numbers with four digits, and a minus for what is none."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    return str(value)


def _opener(file: str) -> str:
    """The line of Python that reads a file."""
    return f'pd.read_{"parquet" if file.endswith(".parquet") else "csv"}("{file}")'


def _packed(sections: Sequence[Section], live_tokens: bool) -> dict[str, str]:
    """The page's large texts, each compressed: plotly, the figures, and circuitsvis where there are views for it."""
    from plotly.offline import get_plotlyjs

    texts: dict[str, str] = {}
    if sections:
        texts["plotly"] = get_plotlyjs()
        texts["figures"] = "{" + ",".join(f"{json.dumps(each.name)}:{each.figure.to_json()}" for each in sections) + "}"
    if live_tokens:
        texts["tokens"] = components.code()
    # no time of packing in it: the same study gives the same file
    return {name: _base64(gzip.compress(text.encode(), mtime=0)) for name, text in texts.items()}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
