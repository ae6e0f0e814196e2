"""Figures become files without the network; what is missing for an image is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import plotly.graph_objects as go
import pytest
from token_frames import token_frame

from caa_lens.viz import images, save_figure, tokens
from caa_lens.viz.theme import styled

FIGURE = styled(go.Figure(go.Scatter(x=[1, 2], y=[2, 3])), "A title", height=300)
STARTS = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}


@pytest.fixture
def browser() -> str:
    found = images.find_browser()
    if found is None or importlib.util.find_spec("kaleido") is None:
        pytest.skip("no kaleido, or no Chrome or Chromium, is installed")
    return found


def test_html_needs_no_network(tmp_path: Path) -> None:
    path = save_figure(FIGURE, tmp_path / "new" / "figure.html")
    text = path.read_text(encoding="utf-8")
    assert "A title" in text and "plotly.js v" in text and 'src="http' not in text
    assert '"modeBarButtonsToRemove": ["sendChartToCloud"]' in text, "no button sends the figure away"
    assert [file.name for file in path.parent.iterdir()] == ["figure.html"], "no temporary file is left"


@pytest.mark.parametrize("suffix", STARTS)
def test_images_are_drawn_by_a_browser_that_is_there(browser: str, suffix: str, tmp_path: Path) -> None:
    content = save_figure(FIGURE, str(tmp_path / f"figure{suffix}")).read_bytes()
    assert content.startswith(STARTS[suffix])
    if suffix == ".png":
        size = [int.from_bytes(content[at : at + 4], "big") for at in (16, 20)]
        assert size == [1600, 600], "two pixels for each of the figure's"


def test_images_ask_the_network_for_nothing(browser: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import kaleido

    pages = []
    generate = kaleido.PageGenerator.generate_index

    def kept(self: kaleido.PageGenerator) -> str:
        pages.append(generate(self))
        return pages[-1]

    monkeypatch.setattr(kaleido.PageGenerator, "generate_index", kept)
    save_figure(FIGURE, tmp_path / "figure.svg")
    assert len(pages) == 1 and "plotly" in pages[0] and "http" not in pages[0]


def test_one_start_of_the_browser_draws_all(browser: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import kaleido

    starts = []
    opened = kaleido.Kaleido.open

    async def counted(self: kaleido.Kaleido) -> None:
        starts.append(1)
        await opened(self)

    monkeypatch.setattr(kaleido.Kaleido, "open", counted)
    small = styled(go.Figure(go.Scatter(x=[1], y=[2])), "Another", height=200)
    drawn = images.draw([FIGURE, small], {"png": 1, "webp": 1}, browser)
    heights = [int.from_bytes(image[20:24], "big") for image in drawn["png"]]
    assert heights == [300, 200], "in the order of the figures"
    assert [image[:4] + image[8:12] for image in drawn["webp"]] == [b"RIFFWEBP"] * 2
    assert len(starts) == 1


@pytest.mark.parametrize("name", ["figure.html", "tokens.html"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, _: Path) -> None:
        raise OSError("disk full")

    path = tmp_path / name
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(FIGURE, path) if name == "figure.html" else tokens(token_frame()).save(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write .*jpg: give a name that ends in .html, .png, .svg, .pdf"):
        save_figure(FIGURE, tmp_path / "figure.jpg")


def test_without_kaleido_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"figure.png: images need kaleido: run 'pip install kaleido'"):
        save_figure(FIGURE, tmp_path / "figure.png")


def test_without_a_browser_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match=r"BROWSER_PATH is '.*nowhere', and there is no such file"):
        save_figure(FIGURE, tmp_path / "figure.png")
    monkeypatch.delenv("BROWSER_PATH")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"none of chromium, .* is on the PATH: install one .*BROWSER_PATH, or save"):
        save_figure(FIGURE, tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_fails_is_named(browser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    with pytest.raises(RuntimeError, match=r"figure.png: the browser .*broken failed"):
        save_figure(FIGURE, tmp_path / "figure.png")
    assert not (tmp_path / "figure.png").exists()
