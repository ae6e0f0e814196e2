"""Figures of additions to prompts: the numbers are the frame's, and the controls are there."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from caa_lens.viz import figures


def table_of_effects(*layers: int) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for layer in layers:
        for coefficient in (4.0, -2.0, 1.0):
            effect = 0.1 * coefficient + layer
            row: dict[str, Any] = {"layer": layer, "at": "front", "coefficient": coefficient, "n_items": 7}
            row |= {"value_unsteered": 0.5, "value_steered": 0.5 + effect, "effect": effect}
            row |= {"effect_low": effect - 0.1, "effect_high": effect + 0.2}
            for place, kind in enumerate(("random", "nonsense"), start=1):
                row |= {f"n_{kind}": 5, f"{kind}_low": -0.1 * place, f"{kind}_high": 0.3 * place, f"beyond_{kind}": 0.8}
            rows.append(row)
    return pd.DataFrame(rows)


def test_effects_stand_before_both_bands() -> None:
    table = table_of_effects(2, 0)
    figure = figures.added_effects(table, measure="change of log odds")
    lines = [trace for trace in figure.data if trace.name == "the addition"]
    assert len(lines) == 2 and sum(bool(line.showlegend) for line in lines) == 1
    for line, layer in zip(lines, (2, 0), strict=True):
        part = table[table["layer"] == layer].sort_values("coefficient")
        assert list(line.x) == [-2, 1, 4] and list(line.y) == part["effect"].tolist()
        assert list(line.error_y.array) == pytest.approx([0.2] * 3) and list(line.error_y.arrayminus) == pytest.approx(
            [0.1] * 3
        )
    bands = {trace.name: trace for trace in figure.data if trace.fill == "tonexty"}
    assert set(bands) == {"random additions", "nonsense additions"}
    assert list(bands["nonsense additions"].y) == [0.6] * 3 and list(bands["random additions"].y) == [0.3] * 3
    lower = figure.data[list(figure.data).index(next(t for t in figure.data if t.fill == "tonexty")) - 1]
    assert list(lower.y) == [-0.1] * 3
    headings = [each.text for each in figure.layout.annotations]
    assert headings[:2] == ["layer 2, front", "layer 0, front"]
    both = pd.concat([table, table.assign(at="back")])
    rows = figures.added_effects(both)
    assert {trace.yaxis for trace in rows.data} == {"y", "y2", "y3", "y4"} and "xaxis5" not in rows.layout
    assert rows.layout.yaxis.domain[0] > rows.layout.yaxis3.domain[1] and rows.layout.xaxis.domain[1] > 0.3
    assert "effect +1.8 [+1.7, +2]" in lines[0].hovertext[0] and "beyond 80% of them" in lines[0].hovertext[0]
    assert figure.layout.yaxis.title.text == "change of log odds" and "7 items" in figure.layout.title.subtitle.text


def norms_frame() -> pd.DataFrame:
    rows = [
        {
            "item": prompt,
            "position": position,
            "made_from": added,
            "token": "<b>",
            "norm": norm,
            "stream_norm": 2.0 + prompt,
        }
        for prompt in (0, 1)
        for position, (added, norm) in enumerate((("<s> - <s>", 0.0), ("Love - Hate", 5.0)))
    ]
    return pd.DataFrame(rows).assign(relative=lambda frame: frame["norm"] / frame["stream_norm"])


def test_norms_of_both_and_their_ratio() -> None:
    frame = norms_frame()
    figure = figures.added_norms(frame)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["addition"].y) == frame["norm"].tolist()
    assert list(by_name["stream, each prompt"].y) == frame["stream_norm"].tolist()
    assert list(figure.data[2].y) == frame["relative"].tolist()
    assert list(figure.layout.xaxis.ticktext) == ["&lt;s&gt; - &lt;s&gt;", "Love - Hate"], "no markup"
    assert "addition 5, stream 3, ratio 1.67" in figure.data[0].hovertext[3]
    assert "&lt;b&gt;" in figure.data[0].hovertext[3]
    assert "2 prompts" in figure.layout.title.subtitle.text


def test_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="lacks the columns nonsense_low: .*give what caa_lens.evaluation.actadd.besi"):
        figures.added_effects(table_of_effects(0).drop(columns="nonsense_low"))
    with pytest.raises(ValueError, match="several rows for a layer, place and coefficient: keep one kind of text"):
        figures.added_effects(pd.concat([table_of_effects(0)] * 2))
    with pytest.raises(ValueError, match=r"the frame has no rows.*norms_along"):
        figures.added_norms(norms_frame().iloc[:0])
