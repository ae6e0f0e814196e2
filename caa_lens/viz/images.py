"""Figures as files: pages that need no network, and images drawn by a browser that is already there.

Plotly draws with JavaScript, so an image needs a browser; kaleido drives one without a window. kaleido can also
download a browser, and fetches MathJax from the network for every image: neither is done here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from caa_lens.files.whole import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
IMAGES = (".png", ".svg", ".pdf")
OFFLINE = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"], "plotlyServerURL": ""}
"""Plotly's configuration without the button that would send a figure and its data to plotly's server."""


def save_figure(figure: go.Figure, path: str | Path, *, scale: float = 2.0) -> Path:
    """Write a figure as ``.html``, ``.png``, ``.svg`` or ``.pdf``, whole.

    An HTML page carries plotly's script (5 MB) and needs no network. An image needs kaleido and a Chrome or Chromium.

    Args:
        figure: Any plotly figure.
        path: Its suffix says what is written; folders are made.
        scale: Pixels of a ``.png`` for each pixel of the figure.

    Returns:
        The path.

    Raises:
        ValueError: For another suffix.
        RuntimeError: If an image needs what is not installed, or the browser fails; the message says what to do.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".html":
        page: str = figure.to_html(include_plotlyjs=True, config=OFFLINE)
        return _write(path, page.encode())
    if kind not in IMAGES:
        raise ValueError(f"cannot write {path}: give a name that ends in .html, {', '.join(IMAGES)}")
    if importlib.util.find_spec("kaleido") is None:
        raise RuntimeError(f"cannot write {path}: images need kaleido: run 'pip install kaleido', or save as .html")
    browser = find_browser()
    if browser is None:
        raise RuntimeError(f"cannot write {path}: {_no_browser()}")
    kind = kind.removeprefix(".")
    try:
        content = draw([figure], {kind: scale}, browser)[kind][0]
    except Exception as error:  # a browser fails in many ways
        raise RuntimeError(
            f"cannot write {path}: the browser {browser} failed ({type(error).__name__}: {error}); name another in "
            "BROWSER_PATH, or save as .html"
        ) from error
    return _write(path, content)


def draw(figures: Sequence[go.Figure], kinds: Mapping[str, float], browser: str) -> dict[str, list[bytes]]:
    """All figures as images, drawn by one start of a browser.

    Args:
        figures: Plotly figures.
        kinds: ``png``, ``webp``, ``svg`` or ``pdf`` to how many pixels of the image are one of the figure's.
        browser: The path of a Chrome or Chromium; kaleido drives it.

    Returns:
        For each kind, the images in the order of the figures.

    Raises:
        Exception: Whatever the browser or kaleido fails with.
    """
    import kaleido  # pyright: ignore[reportMissingImports]

    drawing: Any = kaleido
    with TemporaryDirectory() as name:
        asked: list[dict[str, Any]] = []
        for kind, scale in kinds.items():
            for index, figure in enumerate(figures):
                size = {"width": figure.layout.width, "height": figure.layout.height}
                options = {"format": kind, "scale": scale} | {side: each for side, each in size.items() if each}
                asked.append({"fig": figure.to_dict(), "path": Path(name) / f"{index}.{kind}", "opts": options})
        settings = {"page_generator": drawing.PageGenerator(mathjax=False), "path": browser}
        failed = drawing.write_fig_from_object_sync(asked, kopts=settings)
        if failed:
            raise failed[0]
        return {kind: [(Path(name) / f"{i}.{kind}").read_bytes() for i in range(len(figures))] for kind in kinds}


def find_browser() -> str | None:
    """The path of a Chrome or Chromium on this machine; ``BROWSER_PATH`` goes first, and nothing is downloaded."""
    given = os.environ.get("BROWSER_PATH")
    if given is not None:
        return given if Path(given).is_file() else None
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def _no_browser() -> str:
    given = os.environ.get("BROWSER_PATH")
    if given is not None:
        return f"BROWSER_PATH is {given!r}, and there is no such file: give the path of a Chrome or Chromium"
    return (
        f"images need a Chrome or Chromium, and none of {', '.join(BROWSERS)} is on the PATH: install one (such as "
        "'apt-get install chromium'), name it in BROWSER_PATH, or save as .html"
    )


def _write(path: Path, content: bytes) -> Path:
    write_whole(path, lambda to: to.write_bytes(content))
    return path
