"""In a real browser circuitsvis's component takes the place of the boxes, shows the same text, and asks no network."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from token_frames import HOSTILE, token_frame

from caa_lens.viz import components, stacked, steered_beside, tokens, visible_text
from caa_lens.viz.images import find_browser

# Runs after the views: hovers over one token, then leaves what the page has loaded in its title.
PROBE = """<script>
setTimeout(() => {
  const shown = [...document.querySelectorAll(".caa-live bdi")];
  shown[HOVERED]?.parentElement.dispatchEvent(new MouseEvent("mouseenter", {bubbles: true, clientX: 5, clientY: 5}));
}, 3000);
setTimeout(() => {
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.body.setAttribute("data-loaded", JSON.stringify(loaded));
}, 4000);
</script>"""


class _Views(HTMLParser):
    """What a page shows: tokens of the boxes and of the component, headings, and whether the boxes are hidden."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.still: list[str] = []
        self.live: list[str] = []
        self.fills: dict[str, list[str]] = {"still": [], "live": []}
        self.hidden: dict[str, list[bool]] = {"still": [], "live": []}
        self.text = ""
        self._part = ""
        self._open = self._script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        if (part := (given.get("class") or "").removeprefix("caa-")) in self.hidden:
            self._part = part
            self.hidden[part].append("display: none" in (given.get("style") or ""))
        if tag == "bdi":
            self._open = True
            getattr(self, self._part).append("")
            found = re.search(r"background-color: ?([^;]+);", given["style"])
            self.fills[self._part].append(found[1] if found else "")
        self._script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "bdi"
        self._script = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._script else data
        if self._open:
            getattr(self, self._part)[-1] += data


def in_browser(html: str, folder: Path, *, hovered: int = 0) -> tuple[_Views, str]:
    """The page as it is after its scripts have run, and its source then."""
    browser = find_browser()
    if browser is None:
        pytest.skip("needs a Chrome or Chromium (on the PATH or in BROWSER_PATH), which this machine does not have")
    path = folder / "page.html"
    path.write_text(html.replace("</body>", PROBE.replace("HOVERED", str(hovered)) + "</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--virtual-time-budget=8000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    source = done.stdout.decode("utf-8")
    assert "data-loaded=" in source, done.stderr.decode("utf-8", "replace")[-2000:]
    return _Views(source), source


def expected(texts: list[Any]) -> list[str]:
    """The text of each token's box."""
    boxes = "".join(f"<bdi style='background-color: red;'>{visible_text.shown(token)}</bdi>" for token in texts)
    return _Views(f'<div class="caa-still">{boxes}</div>').still


def test_hostile_tokens_in_one_layer_and_in_many(tmp_path: Path) -> None:
    text = ["<bos>", *HOSTILE]
    one, many = tokens(token_frame([text])), tokens(token_frame([text, ["\u0645\u0631"]], layers=(2, 3, 4)))
    page = stacked(one, many).save(tmp_path / "saved.html").read_text(encoding="utf-8")
    views, source = in_browser(page, tmp_path, hovered=len(text) + HOSTILE.index("</script>") + 1)
    assert views.hidden == {"still": [True, True], "live": [False, False]}
    assert views.live == expected([*text, *text, "\u0645\u0631"])
    assert len(views.still) == len(text) + 3 * (len(text) + 1), "the boxes are still there"
    assert "<title>run</title>" not in source, "no token was run"
    assert 'data-loaded="[]"' in source
    title = "'</script>', position 2, id 102, question, cosine "
    assert title in views.text, "the hover says what the token is"
    assert views.text.count("layer 3") >= 2, "a choice of layers, and the hover has the number of each"
    assert source.count('dir="rtl"') == 3 + 1


def test_colours_are_those_of_the_boxes_also_of_the_layer_that_is_shown_first(tmp_path: Path) -> None:
    frame = token_frame(layers=(2, 3, 4))
    frame.loc[frame["layer"] == 3, "cosine"] *= 3
    page = tokens(frame).save(tmp_path / "saved.html").read_text(encoding="utf-8")
    views, _ = in_browser(page, tmp_path)
    n = len(views.live)
    as_hex = ["#{:02x}{:02x}{:02x}".format(*map(int, re.findall(r"\d+", fill))) for fill in views.fills["live"]]
    assert as_hex == views.fills["still"][n : 2 * n] and len(set(as_hex)) > 2


def test_a_view_before_and_a_view_after_the_script_and_a_second_script(tmp_path: Path) -> None:
    script, view = components.script(), tokens(token_frame())
    beside = steered_beside(token_frame(), token_frame(seed=1, steered_from=2))
    page = f"<meta charset='utf-8'><body>{view.html}{script}{beside.html}{script}{view.html}</body>"
    views, _ = in_browser(page, tmp_path)
    assert views.hidden == {"still": [True] * 3, "live": [False] * 3}
    assert len(views.live) == 6 + 12 + 6


def test_without_the_script_the_boxes_stay(tmp_path: Path) -> None:
    views, _ = in_browser(f"<meta charset='utf-8'><body>{tokens(token_frame([HOSTILE])).html}</body>", tmp_path)
    assert views.hidden == {"still": [False], "live": []}
    assert views.still == expected(list(HOSTILE))


def test_a_component_that_fails_leaves_the_boxes(tmp_path: Path) -> None:
    script = components.script()
    for broken in (
        script.replace("return CircuitsVis;\n", "return {...CircuitsVis, ColoredTokens: () => ({props: {}})};\n"),
        script.replace("return CircuitsVis;\n", "return {...CircuitsVis, render: () => { throw new Error('no') }};\n"),
    ):
        assert broken != script
        page = f"<meta charset='utf-8'><body>{tokens(token_frame()).html}{broken}</body>"
        views, _ = in_browser(page, tmp_path)
        assert views.hidden["still"] == [False] and len(views.still) == 6
