"""In a real browser the report draws figures and tokens and asks no network; where it cannot, still images stay."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from report_pages import HOSTILE, render
from token_frames import token_frame

from caa_lens.viz import page, tokens
from caa_lens.viz.images import find_browser
from caa_lens.viz.theme import styled

# Notes what the page breaks and loads from its first moment on, and what a reader sees at the end.
WATCH = """<script>
window.seen = { violations: [], errors: [] };
addEventListener("securitypolicyviolation", (each) => seen.violations.push(each.blockedURI || each.violatedDirective));
addEventListener("error", (each) => seen.errors.push(String(each.message)));
addEventListener("unhandledrejection", (each) => seen.errors.push(String(each.reason)));
</script>"""
PROBE = """<script>
setTimeout(() => {
  const all = (what) => [...document.querySelectorAll(what)];
  ACTION
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.drawn = all(".js-plotly-plot").map((each) => each.parentElement.id);
  seen.titles = all(".js-plotly-plot .gtitle").map((each) => each.textContent);
  seen.stills = all(".plot img, .plot .still").length;
  seen.warning = document.getElementById("undrawn").hidden ? "" : document.getElementById("undrawn").textContent;
  seen.buttons = all(".modebar-btn").map((each) => each.getAttribute("data-title"));
  seen.tokens = all(".caa-live").map((each) => each.style.display !== "none");
  document.body.setAttribute("data-seen", JSON.stringify(seen));
}, 5000);
</script>"""


def in_browser(text: str, folder: Path, *, first: str = "", action: str = "") -> dict[str, Any]:
    """What a reader of the page sees after its scripts have run."""
    browser = find_browser()
    if browser is None:
        pytest.skip("needs a Chrome or Chromium (on the PATH or in BROWSER_PATH), which this machine does not have")
    text = text.replace("<title>", f"{WATCH}{first}<title>", 1)
    path = folder / "page.html"
    path.write_text(text.replace("</body>", PROBE.replace("ACTION", action) + "</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--virtual-time-budget=10000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    found = re.search(r'data-seen="([^"]*)"', done.stdout.decode("utf-8"))
    assert found, done.stderr.decode("utf-8", "replace")[-2000:]
    return json.loads(unescape(found[1]))


def report(**changed: Any) -> str:
    figures = {name: styled(go.Figure(go.Scatter(x=[1, 2], y=[2, 3])), name, height=300) for name in ("one", HOSTILE)}
    sections = [
        page.Section(f"figure{at}", name, "A caption.", figure, base64.b64decode("UklGRgAAAABXRUJQ"))
        for at, (name, figure) in enumerate(figures.items())
    ]
    frame = pd.DataFrame({"name": ["b", "a", "c", "d"], "value": [10.0, -2.5, float("nan"), 9.0]})
    values: dict[str, Any] = {"sections": sections, "tables": [page.Table("norms.csv", "Lengths.", frame)]}
    return render(**(values | {"tokens": {"kind": [tokens(token_frame([[HOSTILE, "a"]]))]}} | changed))


def test_figures_and_tokens_are_drawn_and_nothing_is_asked_for(tmp_path: Path) -> None:
    seen = in_browser(report(), tmp_path)
    assert (seen["errors"], seen["violations"]) == ([], [])
    assert [name for name in seen["loaded"] if not name.startswith("data:image/webp;")] == []
    assert seen["drawn"] == ["plot-figure0", "plot-figure1"] and seen["stills"] == 0 and seen["warning"] == ""
    assert seen["titles"][0] == "one" and seen["tokens"] == [True]
    assert [name for name in seen["buttons"] if re.search("share|cloud|edit|plotly", name, re.IGNORECASE)] == []
    assert len([name for name in seen["buttons"] if name.startswith("Download plot")]) == 2


def test_the_policy_stops_a_request(tmp_path: Path) -> None:
    seen = in_browser(
        report(), tmp_path, first='<img src="http://127.0.0.1:9/x.png"><link rel="stylesheet" href="x.css">'
    )
    stopped = {each.rsplit("/", 1)[-1] for each in seen["violations"]}
    assert stopped == {"x.png", "file"}, "of files, browsers tell the scheme alone"


def test_an_old_browser_keeps_the_still_images_and_says_why(tmp_path: Path) -> None:
    seen = in_browser(report(), tmp_path, first="<script>delete window.DecompressionStream</script>")
    assert seen["drawn"] == [] and seen["stills"] == 2 and seen["errors"] == []
    assert (
        "this browser is older than Chrome 80" in seen["warning"] and "everything else is complete" in seen["warning"]
    )


def test_a_figure_that_fails_keeps_its_still_image(tmp_path: Path) -> None:
    broken = report().replace(
        "await Plotly.newPlot(", 'if (name === "figure1") throw new Error("no");\nawait Plotly.newPlot('
    )
    seen = in_browser(broken, tmp_path)
    assert seen["drawn"] == ["plot-figure0"] and seen["stills"] == 1 and "(no)" in seen["warning"]


def test_columns_sort_as_numbers_and_as_text(tmp_path: Path) -> None:
    clicks = """seen.orders = [1, 1, 0].map((column) => {
      all("#table-1 th button")[column].click();
      const sorted = all("#table-1 th").map((each) => each.getAttribute("aria-sort"));
      return [all("#table-1 tbody tr").map((row) => row.cells[1].textContent), sorted];
    });"""
    assert in_browser(report(), tmp_path, action=clicks)["orders"] == [
        [["-", "-2.5", "9", "10"], [None, "ascending"]],
        [["10", "9", "-2.5", "-"], [None, "descending"]],
        [["-2.5", "10", "-", "9"], ["ascending", None]],
    ]


def test_a_link_opens_what_is_folded(tmp_path: Path) -> None:
    follow = """<script>setTimeout(() => document.querySelector('nav a[href="#words-1"]').click(), 2000)</script>"""
    opened = 'seen.open = all("details").filter((each) => each.open).map((each) => each.id);'
    assert in_browser(report(), tmp_path, first=follow, action=opened)["open"] == ["words-1", "table-1"]
    assert in_browser(report(), tmp_path, action=opened)["open"] == ["table-1"]
