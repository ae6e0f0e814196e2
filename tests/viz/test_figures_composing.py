"""Figures of vectors together and of the alignment tax hold the numbers of their frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from caa_lens.viz import figures


def table_of_effects() -> pd.DataFrame:
    rows = [
        {
            "behavior": behavior,
            "vector": vector,
            "n_items": 40,
            "log_odds_change": value,
            "log_odds_change_low": value - 0.3,
        }
        | {
            "log_odds_change_high": value + 0.3,
            "effect_even": value / 5,
            "effect_even_low": value / 6,
            "effect_even_high": value / 4,
        }
        | {"mass": 1.0, "share_outside": 0.0, "n_random": 20, "random_low": -0.4, "random_high": 0.4}
        | {"outsizes_random": 1.0 if behavior == "kind" else 0.5}
        for behavior, values in {"kind": (2.0, 0.1, 1.2, 2.1, -0.9), "brave": (0.2, 1.5, 1.1, 1.7, -0.6)}.items()
        for vector, value in zip(("kind", "brave", "together", "expected", "interference"), values, strict=True)
    ]
    return pd.DataFrame(rows)


def tax_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": 3,
            "coefficient": [-5.0, -1.0, 2.0],
            "lost_target": [0.6, 0.2, 0.1],
            "lost_other": [0.3, 0.05, 0.3],
            "apart": [0.3, 0.15, -0.2],
            "apart_low": [0.25, 0.1, -0.3],
            "apart_high": [0.35, 0.2, -0.1],
            "tax": [0.5, 0.25, np.nan],
            "n_permuted": 10,
            "permuted_low": [-0.05, -0.02, -0.03],
            "permuted_high": [0.1, 0.05, 0.02],
            "beats_permuted": [1.0, 1.0, 0.9],
        }
    )


def test_interference_shows_the_matrix() -> None:
    frame = table_of_effects()
    figure = figures.interference(frame)
    [cells] = figure.data
    assert list(cells.x) == ["kind", "brave", "together", "expected", "interference"]
    assert list(cells.y) == ["kind", "brave"]
    np.testing.assert_array_equal(np.array(cells.z), frame["log_odds_change"].to_numpy().reshape(2, 5))
    text = np.array(cells.text)
    assert text[0, 0] == "<b>+2.00</b>" and text[0, 1] == "+.10", "bold where the interval leaves out 0"
    assert text[0, 4] == "<b>-.90 *</b>" and text[1, 4] == "<b>-.60</b>", "starred where it is beyond random vectors"
    framed = [(shape.x0, shape.x1, shape.y0, shape.y1) for shape in figure.layout.shapes]
    assert framed == [(-0.5, 0.5, -0.5, 0.5), (0.5, 1.5, 0.5, 1.5)]
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax == -2.1
    assert "40 items" in figure.layout.title.subtitle.text
    assert "items of brave: interference<br>change of log odds -0.60 [-0.90, -0.30]" in np.array(cells.hovertext)[1, 4]


def test_the_tax_is_drawn_with_its_controls() -> None:
    table = tax_table()
    figure = figures.alignment_tax(table.sample(frac=1, random_state=0))
    lines = {each.name: each for each in figure.data if each.name}
    for name, column in (("target text", "lost_target"), ("other text", "lost_other"), ("the vector", "apart")):
        np.testing.assert_array_equal(lines[name].x, table["coefficient"])
        np.testing.assert_array_equal(lines[name].y, table[column])
    np.testing.assert_allclose(lines["the vector"].error_y.arrayminus, table["apart"] - table["apart_low"])
    np.testing.assert_array_equal(lines["10 vectors with permuted dimensions"].y, table["permuted_high"])
    assert "tax -" in lines["the vector"].hovertext[2] and "tax 0.50" in lines["the vector"].hovertext[0]


def test_frames_of_another_kind_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"lacks the columns log_odds_change: .*give what caa_lens.protocols.composition.effects returns",
    ):
        figures.interference(table_of_effects().drop(columns="log_odds_change"))
    with pytest.raises(
        ValueError, match=r"lacks the columns apart_low: .*caa_lens.protocols.broad_skills.alignment_tax returns"
    ):
        figures.alignment_tax(tax_table().drop(columns="apart_low"))
