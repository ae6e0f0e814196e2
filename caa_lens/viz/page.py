"""One page that shows a study: what was found, the figures, the steered texts, and how it was made.

The page needs no network: plotly's script lies once beside it. What comes from data or from a model is escaped.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.viz.images import find_browser

if TYPE_CHECKING:
    import plotly.graph_objects as go

SCRIPT = "plotly.min.js"


@dataclass(frozen=True, slots=True)
class Section:
    """A figure on the page, with its heading and what to look for in it."""

    name: str
    heading: str
    caption: str
    figure: go.Figure


def render_page(
    *,
    title: str,
    notes: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    meanings: Mapping[str, str],
    sentences: Mapping[str, Sequence[str]],
    sections: Sequence[Section],
    samples: Sequence[Mapping[str, Any]],
    data: Sequence[Mapping[Any, Any]],
    settings: Mapping[str, Any],
    run: Mapping[str, Any],
    command: str,
    files: Sequence[str],
) -> str:
    """The page as HTML.

    Args:
        title: Heading of the page.
        notes: What a reader must know before the numbers.
        header: Names of the table's columns.
        rows: The table, as text; the first column is the behaviour.
        meanings: What the columns mean.
        sentences: Behaviour to what was found, in words, a paragraph each.
        sections: The figures, in order.
        samples: Steered texts: ``behavior, layer, question, multiplier, text``.
        data: One record a behaviour on the items used.
        settings: The study's settings.
        run: Versions and seconds, as in ``run.json``.
        command: What makes this study again.
        files: Names of the files in the folder.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["signed"] = lambda value: f"{value:+g}" if value else "0 (unsteered)"
    figures = [(each, _figure_html(each)) for each in sections]
    return environment.from_string(TEMPLATE).render(
        title=title,
        notes=notes,
        header=header,
        rows=rows,
        meanings=meanings,
        sentences=sentences,
        figures=figures,
        samples=side_by_side(samples),
        data=data,
        settings=settings,
        run=run,
        command=command,
        files=files,
        script=SCRIPT,
    )


def side_by_side(samples: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[tuple[float, str]]]]:
    """Samples grouped: behaviour to question to its ``(multiplier, text)`` in ascending order."""
    grouped: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for sample in sorted(samples, key=lambda each: float(each["multiplier"])):
        questions = grouped.setdefault(str(sample["behavior"]), {})
        questions.setdefault(str(sample["question"]), []).append((float(sample["multiplier"]), str(sample["text"])))
    order = dict.fromkeys((str(each["behavior"]), str(each["question"])) for each in samples)
    return {name: {q: grouped[name][q] for b, q in order if b == name} for name in dict.fromkeys(b for b, _ in order)}


def write_figures(figures: Mapping[str, go.Figure], folder: Path) -> None:
    """Write plotly's script into a folder, and each figure into ``figures/`` as HTML and, with a Chrome, as PNG."""
    from plotly.offline import get_plotlyjs

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    _replace(folder / SCRIPT, get_plotlyjs())
    for name, figure in figures.items():
        html: str = figure.to_html(include_plotlyjs=f"../{SCRIPT}", div_id=name)
        _replace(folder / "figures" / f"{name}.html", html)
    write_images(figures, folder / "figures")


def write_images(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Write each figure as PNG where kaleido and a Chrome are installed, else nothing; what was written is returned."""
    browser = find_browser()
    if browser is None or importlib.util.find_spec("kaleido") is None:
        return []
    import plotly.io

    every: list[Any] = list(figures.values())
    paths = [folder / f"{name}.png" for name in figures]
    sizes: dict[str, Any] = {side: [int(figure.layout[side]) for figure in every] for side in ("width", "height")}
    given = os.environ.get("BROWSER_PATH")
    os.environ["BROWSER_PATH"] = browser  # the only way to tell plotly which; put back below
    try:
        plotly.io.write_images(every, [str(path) for path in paths], scale=2, **sizes)
    except Exception:  # a browser fails in many ways, and the study does not depend on it
        return [path for path in paths if path.is_file()]
    finally:
        if given is None:
            del os.environ["BROWSER_PATH"]
    return paths


def _figure_html(section: Section) -> Any:
    from markupsafe import Markup

    html: str = section.figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"figure-{section.name}")
    return Markup(html)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<script src="{{ script }}"></script>
<style>
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; color: #222; background: #fff;
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1.05rem; margin-bottom: .3rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
.results td { white-space: nowrap; } .results tr.first td { border-top: 1px solid #999; }
.finding-steers { font-weight: 600; color: #08519c; }
.notes li { margin-bottom: .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; font-size: 13px; }
dt { font-weight: 600; } dd { margin: 0; } dd p { margin: 0 0 .3rem; max-width: 50rem; }
details.words { margin: .5rem 0; max-width: 50rem; } .words p { margin: .2rem 0 .2rem 1.2rem; font-size: 13px; }
.samples { table-layout: fixed; width: 100%; } .samples td { white-space: pre-wrap; overflow-wrap: anywhere; }
.question { font-style: italic; margin: .9rem 0 .2rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre, code { background: #f5f5f5; font-size: 13px; } pre { padding: .7rem; overflow-x: auto; }
figcaption, .caption { color: #444; max-width: 46rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<ul class="notes">
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
<nav><ul>
<li><a href="#results">Results</a></li>
{% for section, _ in figures %}
<li><a href="#{{ section.name }}">{{ section.heading }}</a></li>
{% endfor %}
<li><a href="#samples">Steered texts</a></li>
<li><a href="#made">How this was made</a></li>
</ul></nav>

<h2 id="results">Results on the test items</h2>
<div class="wide"><table class="results">
<thead><tr>{% for name in header %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
{% set first = loop.first or rows[loop.index0 - 1][0] != row[0] %}
<tr{{ ' class="first"' | safe if first }}>
{% for cell in row %}
<td{{ ' class="finding-steers"' | safe if loop.last and cell == "steers" }}>
{{- "" if loop.first and not first else cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
<details><summary>What the columns mean</summary><dl>
{% for name, meaning in meanings.items() %}
<dt>{{ name }}</dt><dd>{{ meaning }}</dd>
{% endfor %}
</dl></details>
<h3>In words</h3>
<p class="caption">Open a behaviour for its whole assessment: letters, nulls, items, reliability, prompting instead.</p>
{% for name, each in sentences.items() %}
<details class="words"><summary><b>{{ name }}</b> {{ each[0] }}</summary>
{% for sentence in each[1:] %}
<p>{{ sentence }}</p>
{% endfor %}
</details>
{% endfor %}

{% for section, html in figures %}
<h2 id="{{ section.name }}">{{ section.heading }}</h2>
<p class="caption">{{ section.caption }} <a href="figures/{{ section.name }}.html">Figure alone</a></p>
<div class="wide">{{ html }}</div>
{% endfor %}

<h2 id="samples">Steered texts</h2>
<p class="caption">The same question, with the vector subtracted, left out and added, at the chosen layer. Nothing was
picked: these are the first questions of each behaviour.</p>
{% for behavior, questions in samples.items() %}
<h3>{{ behavior }}</h3>
{% for question, texts in questions.items() %}
<p class="question">{{ question }}</p>
<table class="samples">
<thead><tr>{% for multiplier, _ in texts %}<th>{{ multiplier | signed }}</th>{% endfor %}</tr></thead>
<tbody><tr>{% for _, text in texts %}<td>{{ text.strip() }}</td>{% endfor %}</tr></tbody>
</table>
{% endfor %}
{% else %}
<p>No open-ended questions were asked in this study.</p>
{% endfor %}

<h2 id="made">How this was made</h2>
<p>The same study again:</p>
<pre>{{ command }}</pre>
<h3>Items</h3>
<div class="wide"><table>
<thead><tr><th>behaviour</th><th>pairs for the vector</th><th>dev</th><th>test</th>
<th>matching letters in test</th></tr></thead>
<tbody>
{% for row in data %}
<tr><td>{{ row.behavior }}</td><td>{{ row.n_train }}</td><td>{{ row.n_dev }}</td><td>{{ row.n_test }}</td>
<td>{{ row.test_letters }}</td></tr>
{% endfor %}
</tbody></table></div>
<h3>Settings</h3>
<table>
{% for name, value in settings.items() %}
<tr><th>{{ name }}</th><td>{{ value | tojson if value is not string else value }}</td></tr>
{% endfor %}
</table>
<h3>Versions and seconds</h3>
<table>
{% for name, value in run.get("versions", {}).items() %}
<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
{% for name, value in run.get("made_from", {}).items() %}
<tr><th>{{ name }}</th><td><code>{{ value[:16] }}</code></td></tr>
{% endfor %}
{% for name, value in run.get("seconds", {}).items() %}
<tr><th>{{ name }}</th><td>{{ value }} s</td></tr>
{% endfor %}
</table>
<h3>Files</h3>
<p>{% for file in files %}<a href="{{ file }}">{{ file }}</a>{{ ", " if not loop.last }}{% endfor %}</p>
</body>
</html>
"""
