"""The report escapes what comes from data and models, has every part it lists, and hides no row that it leaves out."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from report_pages import HOSTILE, render
from token_frames import token_frame

from caa_lens.viz import page, steered_beside
from caa_lens.viz import tokens as token_view


class _Page(HTMLParser):
    """Counts script elements and collects visible text, ids and links, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts, self.text, self._inside = 0, "", False
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src") if name in given]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
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
        {"samples": [{"behavior": HOSTILE, "layer": 1, "question_text": HOSTILE, "multiplier": 1.0, "text": HOSTILE}]},
        {"subtitle": HOSTILE},
        {"meanings": {HOSTILE: HOSTILE}},
        {"tables": [page.Table(HOSTILE, HOSTILE, pd.DataFrame({HOSTILE: [HOSTILE]}))]},
        {"settings": {HOSTILE: HOSTILE}},
        {"commands": [HOSTILE]},
        {"facts": {HOSTILE: {HOSTILE: HOSTILE}}},
        {"files": {HOSTILE: 1}},
        {"tokens": {HOSTILE: [token_view(token_frame([[HOSTILE]]))]}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_hostile_text_is_shown_and_not_run(changed: dict[str, Any]) -> None:
    plain, hostile = _Page(render()), _Page(render(**changed))
    assert hostile.scripts == plain.scripts
    assert HOSTILE in hostile.text


def test_hostile_text_in_a_figure_does_not_end_its_script() -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[2], name=HOSTILE), layout={"title": HOSTILE})
    hostile = render(sections=[page.Section("one", "First", "A caption.", figure)])
    assert _Page(hostile).scripts == _Page(render()).scripts and HOSTILE not in hostile
    assert unpacked(hostile, "figures")["one"]["data"][0]["name"] == HOSTILE


def unpacked(text: str, name: str) -> Any:
    """What a packed element of the page holds."""
    [content] = re.findall(rf'id="packed-{name}">([^<]*)<', text)
    whole = gzip.decompress(base64.b64decode(content)).decode()
    return json.loads(whole) if name == "figures" else whole


def test_texts_stand_side_by_side_in_ascending_order() -> None:
    text = render()
    assert re.findall(r"<td>text at ([-.\d]+)</td>", text) == ["-1.0", "0.0", "1.0"]
    assert "0 (unsteered)" in text


def test_samples_keep_the_order_of_questions() -> None:
    samples = [
        {"behavior": b, "question_text": q, "multiplier": m, "text": f"{b}{q}{m}"}
        for b in ("z", "a")
        for m in (0.0, -1.0)
        for q in ("second", "first")
    ]
    grouped = page.side_by_side(samples)
    assert list(grouped) == ["z", "a"] and list(grouped["z"]) == ["second", "first"]
    assert grouped["a"]["first"] == [(-1.0, "afirst-1.0"), (0.0, "afirst0.0")]


def test_a_study_without_samples_says_so() -> None:
    assert "No open-ended questions were asked" in render(samples=[])


def test_the_contents_lead_to_every_part() -> None:
    seen = _Page(render())
    assert [link for link in seen.links if not link.startswith("#")] == [], "nothing is loaded, from nowhere"
    assert len(seen.ids) == len(set(seen.ids))
    targets = {link[1:] for link in seen.links}
    assert targets <= set(seen.ids)
    parts = {"about", "results", "words", "figures", "samples", "tokens", "tables", "again", "settings", "files"}
    assert parts | {"words-1", "figure-one", "table-1", "fact-1"} <= targets
    assert seen.headings[0] == 1 and seen.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(seen.headings, seen.headings[1:], strict=False))


def test_a_policy_forbids_every_request() -> None:
    [policy] = re.findall(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', render())
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'unsafe-inline' 'wasm-unsafe-eval'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_scripts_are_there_once_and_only_where_they_are_needed() -> None:
    from plotly.offline import get_plotlyjs

    text = render(tokens={name: [token_view(token_frame())] * 2 for name in ("a", "b")})
    assert unpacked(text, "plotly") == get_plotlyjs()
    assert unpacked(text, "tokens").count("const CircuitsVis") == 1
    bare = render(sections=[], tokens={})
    assert "packed-" not in re.sub(r"packed-(\$|plotly|figures|tokens)", "", bare) and len(bare) < 40_000
    assert 'id="packed-' not in bare


def test_a_figure_has_its_still_image_or_says_that_there_is_none() -> None:
    first = page.Section("one", "First", "What to see.", go.Figure(), still=b"RIFF")
    text = render(sections=[first, page.Section("two", "Second", "A caption.", go.Figure())])
    encoded = base64.b64encode(b"RIFF").decode()
    assert text.count("<img ") == 1 and f'src="data:image/webp;base64,{encoded}" alt="First: What to see."' in text
    assert text.count("Here a script draws a figure") == 1


def test_a_long_table_says_what_it_leaves_out() -> None:
    long = pd.DataFrame({"item": range(page.LONGEST + 1), "value": 0.5})
    text = render(tables=[page.Table("test.parquet", "Items.", long)])
    assert "501 rows,\n2 columns." in text and "<b>The first 20 of 501 rows.</b>" in text
    assert "pd.read_parquet(&#34;test.parquet&#34;)" in text
    assert '<td class="number">19</td>' in text and '<td class="number">20</td>' not in text
    assert '<table class="sortable">' not in text, "the order of the first rows says nothing about all"
    whole = render(tables=[page.Table("test.csv", "Items.", long.head(page.LONGEST))])
    assert (
        '<td class="number">499</td>' in whole and "<b>The first" not in whole and '<table class="sortable">' in whole
    )
    assert "pd.read_csv(&#34;test.csv&#34;)" in whole


def test_small_tables_are_open_and_numbers_are_short() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "value": [1.23456, float("nan")], "n": [1, 2], "yes": [True, False]})
    text = render(tables=[page.Table("a.csv", "", frame), page.Table("b.csv", "", pd.concat([frame] * 13))])
    assert '<details class="table" id="table-1" open>' in text and '<details class="table" id="table-2">' in text
    assert '<td class="number">1.235</td><td class="number">1</td><td>True</td>' in text
    assert '<td class="number">-</td>' in text


def test_an_empty_table_is_shown_as_one() -> None:
    assert "0 rows," in render(tables=[page.Table("a.csv", "", pd.DataFrame(columns=["x"]))])


def test_a_findings_colour_is_that_of_steers_alone() -> None:
    assert render(rows=[["kind", "steers"], ["kind", "no clear effect"]]).count('class="finding-steers"') == 1


def test_settings_can_be_copied_as_a_file() -> None:
    settings = {"name": "é", "layers": [1, 2], "base_model": None}
    [copied] = re.findall(r"<code>settings.json</code></summary><pre>(.*?)</pre>", render(settings=settings), re.DOTALL)
    assert json.loads(copied.replace("&#34;", '"')) == settings


def test_the_same_study_gives_the_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    beside = steered_beside(token_frame(), token_frame(seed=1))
    first = render(tokens={"kind": [beside]})
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert render(tokens={"kind": [beside]}) == first


def test_no_browser_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_browser", lambda: None)
    assert page.draw_images({"one": go.Figure()}, {"webp": 1}) == {"webp": {}}


def test_a_broken_browser_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the browser closed")

    monkeypatch.setattr(page, "find_browser", lambda: "/bin/false")
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(page.images, "draw", fail)
    assert page.draw_images({"one": go.Figure()}, {"webp": 1, "png": 2}) == {"webp": {}, "png": {}}


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (3_859_830, "3.9 MB")],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert page.readable_size(size) == text
