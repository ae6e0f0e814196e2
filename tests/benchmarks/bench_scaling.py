"""How time grows with pairs, layers, multipliers and the prompt's length: exponents, and a plot.

    python tests/benchmarks/bench_scaling.py [--plot docs/scaling.png]

The exponent is the slope of log time against log size, by least squares. One along multipliers or layers would be what
full passes cost; below it, the shared prompt shows.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import subjects
from measure import interleaved

import caa_lens as caa

SERIES: dict[str, list[int]] = {
    "extraction: pairs": [16, 32, 64, 128],
    "sweep: items": [4, 8, 16, 32],
    "sweep: layers": [1, 2, 4, 8, 12],
    "sweep: multipliers": [1, 3, 6, 12, 24],
    "extraction: prompt tokens": [32, 64, 128, 256, 512],
}


def run(rounds: int = 3) -> list[dict[str, Any]]:
    """One row a series: sizes, median seconds, exponent."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model: Any = caa.load_model(subjects.write_model(Path(scratch) / "small"))
        jobs = _jobs(model)
        for name, sizes in SERIES.items():
            times = interleaved({str(size): jobs[name](size) for size in sizes}, rounds)
            seconds = [times.median(str(size)) for size in sizes]
            slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
            found.append({"job": name, "sizes": sizes, "seconds": seconds, "exponent": slope})
    return found


def _jobs(model: Any) -> dict[str, Callable[[int], Callable[[], object]]]:
    pairs, items = subjects.pairs(128), subjects.pairs(32, "test")
    vectors = caa.extract_vectors(model, pairs[:16], prompt_format="base")
    base: Any = {"prompt_format": "base"}

    def sweep(n_items: int, n_layers: int, n_multipliers: int) -> Callable[[], object]:
        layers = [round(layer) for layer in np.linspace(0, 11, n_layers)] if n_layers > 1 else [6]
        steps = [float(step) for step in range(1, n_multipliers + 1)]
        return lambda: caa.sweep(model, vectors, items[:n_items], layers=layers, multipliers=steps, n_nulls=0, **base)

    def of_length(n_tokens: int) -> Callable[[], object]:
        rng = random.Random(0)
        letters = [" a", " b", " c", " d", " e"]
        texts = ["".join(rng.choices(letters, k=n_tokens - 8)) for _ in range(16)]
        made = caa.ContrastDataset.from_pairs([(text, "(A)", "(B)") for text in texts])
        return lambda: caa.extract_vectors(model, made, **base)

    return {
        "extraction: pairs": lambda n: lambda: caa.extract_vectors(model, pairs[:n], **base),
        "sweep: items": lambda n: sweep(n, 12, 3),
        "sweep: layers": lambda n: sweep(8, n, 6),
        "sweep: multipliers": lambda n: sweep(8, 12, n),
        "extraction: prompt tokens": of_length,
    }


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Time relative to each series' smallest size, both axes logarithmic, with a line of slope one to compare."""
    import plotly.graph_objects as go

    figure = go.Figure()
    colors = ["#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73"]
    for series, color in zip(rows, colors, strict=True):
        figure.add_scatter(
            x=[size / series["sizes"][0] for size in series["sizes"]],
            y=[seconds / series["seconds"][0] for seconds in series["seconds"]],
            mode="lines+markers",
            name=f"{series['job']} (exponent {series['exponent']:.2f})",
            line={"color": color},
        )
    longest = max(series["sizes"][-1] / series["sizes"][0] for series in rows)
    figure.add_scatter(
        x=[1, longest], y=[1, longest], mode="lines", name="in proportion", line={"color": "#999999", "dash": "dot"}
    )
    figure.update_layout(
        title="Time against size, both relative to the smallest",
        template="plotly_white",
        width=820,
        height=460,
        xaxis={"type": "log", "title": "size / smallest", "dtick": "D2"},
        yaxis={"type": "log", "title": "time / smallest", "dtick": "D2"},
    )
    figure.write_image(file, scale=1.5)


def main() -> None:
    """Print the rows, and draw them where a file is named (needs kaleido and a Chrome)."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    rows = run()
    for each in rows:
        sys.stdout.write(f"{each}\n")
    if given.plot is not None:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
