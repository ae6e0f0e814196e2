"""The page escapes what comes from data and models, and needs no network."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from caa_lens.viz import page

HOSTILE = '</script><script>alert(1)</script> <bos> & "quoted" {{ 1 + 1 }}'


def render(**changed: Any) -> str:
    values: dict[str, Any] = {
        "title": "a study",
        "notes": ["note"],
        "header": ["behaviour", "finding"],
        "rows": [["kind", "steers"], ["kind", "no clear effect"]],
        "meanings": {"finding": "what was found"},
        "sentences": {"kind": ["It steers."]},
        "sections": [page.Section("one", "First figure", "A caption.", go.Figure(go.Scatter(x=[1], y=[2])))],
        "samples": [
            {"behavior": "kind", "layer": 1, "question": "Why?", "multiplier": m, "text": f" text at {m}"}
            for m in (1.0, -1.0, 0.0)
        ],
        "data": [{"behavior": "kind", "n_train": 3, "n_dev": 1, "n_test": 2, "test_letters": "A 1, B 1"}],
        "settings": {"name": "study", "layers": None},
        "run": {"versions": {"python": "3.11"}, "seconds": {"dev sweep": 1.5}},
        "command": "caa-lens study --settings settings.json",
        "files": ["summary.csv"],
    }
    return page.render_page(**(values | changed))


class _Scripts(HTMLParser):
    """Counts script elements and collects visible text, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.text, self._inside = 0, "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.scripts += tag == "script"
        self._inside = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside else data


@pytest.mark.parametrize(
    "changed",
    [
        {"title": HOSTILE},
        {"notes": [HOSTILE]},
        {"rows": [[HOSTILE, HOSTILE]]},
        {"sentences": {HOSTILE: [HOSTILE]}},
        {"samples": [{"behavior": HOSTILE, "layer": 1, "question": HOSTILE, "multiplier": 1.0, "text": HOSTILE}]},
        {"data": [{"behavior": HOSTILE, "n_train": 3, "n_dev": 1, "n_test": 2, "test_letters": HOSTILE}]},
        {"settings": {HOSTILE: HOSTILE}},
        {"command": HOSTILE},
        {"files": [HOSTILE]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_hostile_text_is_shown_and_not_run(changed: dict[str, Any]) -> None:
    plain, hostile = _Scripts(render()), _Scripts(render(**changed))
    assert hostile.scripts == plain.scripts
    assert HOSTILE in hostile.text


def test_hostile_text_in_a_figure_does_not_end_its_script() -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[2], name=HOSTILE), layout={"title": HOSTILE})
    hostile = render(sections=[page.Section("one", "First", "A caption.", figure)])
    assert _Scripts(hostile).scripts == _Scripts(render()).scripts


def test_texts_stand_side_by_side_in_ascending_order() -> None:
    text = render()
    assert re.findall(r"<td>text at ([-.\d]+)</td>", text) == ["-1.0", "0.0", "1.0"]
    assert "0 (unsteered)" in text


def test_samples_keep_the_order_of_questions() -> None:
    samples = [
        {"behavior": b, "question": q, "multiplier": m, "text": f"{b}{q}{m}"}
        for b in ("z", "a")
        for m in (0.0, -1.0)
        for q in ("second", "first")
    ]
    grouped = page.side_by_side(samples)
    assert list(grouped) == ["z", "a"] and list(grouped["z"]) == ["second", "first"]
    assert grouped["a"]["first"] == [(-1.0, "afirst-1.0"), (0.0, "afirst0.0")]


def test_a_study_without_samples_says_so() -> None:
    assert "No open-ended questions were asked" in render(samples=[])


def test_the_page_loads_nothing_from_the_network() -> None:
    assert re.findall(r'(?:src|href)="(https?:[^"]*)"', render()) == []


def test_figures_share_one_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_browser", lambda: None)
    page.write_figures({"one": go.Figure(), "two": go.Figure()}, tmp_path)
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["one.html", "plotly.min.js", "two.html"]
    alone = (tmp_path / "figures" / "one.html").read_text(encoding="utf-8")
    assert 'src="../plotly.min.js"' in alone and len(alone) < 20_000


def test_no_browser_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    assert page.find_browser() is None
    assert page.write_images({"one": go.Figure()}, tmp_path) == []


def test_a_broken_browser_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plotly.io

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the browser closed")

    monkeypatch.delenv("BROWSER_PATH", raising=False)
    monkeypatch.setattr(page, "find_browser", lambda: "/bin/false")
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(plotly.io, "write_images", fail)
    figure = go.Figure(layout={"width": 100, "height": 100})
    assert page.write_images({"one": figure}, tmp_path) == []
    assert "BROWSER_PATH" not in os.environ, "what was set for one call is put back"
