"""Notebooks as a browser shows them: token views and figures are there, not only free of errors.

A notebook that has both is run and turned into a page, as `jupyter nbconvert` does it, and a browser without a window
says what it made of the page after its scripts have run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from caa_lens.viz.images import find_browser

FOLDER = Path(__file__).parents[1] / "notebooks"
# Runs last: leaves in the page's body how many heatmaps each figure shows, and how many tokens each view.
PROBE = """<script>
setTimeout(() => {
  const seen = (each) => each.getBoundingClientRect().width > 0;
  const shown = (root, what) => [...root.querySelectorAll(what)].filter(seen);
  const plots = [...document.querySelectorAll(".js-plotly-plot")];
  document.body.setAttribute("data-plots", plots.map((plot) => shown(plot, ".hm image").length));
  const views = [...document.querySelectorAll(".caa-tokens")];
  document.body.setAttribute("data-views", views.map((view) => shown(view, "bdi").length));
}, 6000);
</script>"""


def test_token_views_and_a_figure_are_drawn(tmp_path: Path) -> None:
    browser = find_browser()
    if browser is None:
        pytest.skip("needs a Chrome or Chromium (on the PATH or in BROWSER_PATH), which this machine does not have")
    pytest.importorskip("nbconvert", reason="needs nbconvert, which comes with JupyterLab")
    page = as_page("05_token_by_token", tmp_path)
    source = after_its_scripts(browser, page, tmp_path)
    plots, views = (re.findall(rf'data-{what}="([^"]*)"', source)[0].split(",") for what in ("plots", "views"))
    assert plots == ["1"], "one figure, and its heatmap has a size"
    assert len(views) == 4
    assert min(map(int, views)) > 30, "every view shows its tokens"
    assert source.count('class="caa-live"') == 3, "the component has taken the place of the boxes of all but `roles`"
    assert "Traceback" not in source


def as_page(name: str, folder: Path) -> Path:
    """Run a notebook and write it with its outputs as one page."""
    settings = {"PLOTLY_RENDERER": "notebook", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    own = {key: str(folder / key) for key in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", f"--output-dir={folder}"]
    command.append(str(FOLDER / f"{name}.ipynb"))
    done = subprocess.run(command, capture_output=True, env={**os.environ, **settings, **own}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    return folder / f"{name}.html"


def after_its_scripts(browser: str, page: Path, folder: Path) -> str:
    """The page's source when its scripts have run, without a network."""
    head, _, tail = page.read_text(encoding="utf-8").rpartition("</body>")
    page.write_text(f"{head}{PROBE}</body>{tail}", encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    source = done.stdout.decode("utf-8", "replace")
    assert "data-views=" in source, done.stderr.decode("utf-8", "replace")[-2000:]
    return source
