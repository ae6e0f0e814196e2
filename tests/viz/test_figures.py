"""Figures hold the numbers of their frames, unrounded, and say what they need."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from caa_lens.viz import figures
from caa_lens.viz.theme import line_style

MULTIPLIERS = (-1.0, 0.0, 1.0)


def summary(behaviors: tuple[str, ...] = ("kind", "brave"), layers: tuple[int, ...] = (0, 1, 2)) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(b, layer, m) for b in behaviors for layer in layers for m in MULTIPLIERS],
        columns=["behavior", "layer", "multiplier"],
    )
    for name in ("effect", "effect_balanced"):
        frame[name] = np.where(frame["multiplier"] == 0, 0.0, generator.normal(0, 0.2, len(frame)))
    for bounds, middle in (("effect", "effect"), ("balanced", "effect_balanced")):
        frame[f"{bounds}_low"], frame[f"{bounds}_high"] = frame[middle] - 0.05, frame[middle] + 0.07
    frame["n_random"] = np.where(frame["multiplier"] == 0, 0, 50)
    frame["random_low"] = np.where(frame["multiplier"] == 0, np.nan, -0.031)
    frame["random_high"] = np.where(frame["multiplier"] == 0, np.nan, 0.042)
    return frame


def test_sweep_heatmap_holds_the_frame() -> None:
    frame = summary()
    figure = figures.sweep_heatmap(frame, {"kind": 2, "brave": 0})
    assert len(figure.data) == 2
    for trace, name in zip(figure.data, ("kind", "brave"), strict=True):
        part = frame[frame["behavior"] == name]
        expected = part.pivot(index="layer", columns="multiplier", values="effect_balanced").to_numpy()
        np.testing.assert_array_equal(np.array(trace.z), expected)
        assert list(trace.x) == ["-1", "0", "+1"] and list(trace.y) == ["0", "1", "2"]
    assert [(shape.y0, shape.y1) for shape in figure.layout.shapes] == [(1.5, 2.5), (-0.5, 0.5)]


def test_colours_are_centred_on_zero() -> None:
    frame = summary()
    axis = figures.sweep_heatmap(frame).layout.coloraxis
    assert axis.cmin == -axis.cmax == -frame["effect_balanced"].abs().max()
    quiet = figures.sweep_heatmap(frame.assign(effect_balanced=frame["effect_balanced"] * 1e-6))
    assert quiet.layout.coloraxis.cmax == figures.SMALLEST_RANGE, "noise must not fill the colour scale"


def test_dose_response_holds_effects_intervals_and_nulls() -> None:
    frame = summary(layers=(1,))
    figure = figures.dose_response(frame)
    traces = {trace.name: trace for trace in figure.data[:4]}
    part = frame[frame["behavior"] == "kind"].reset_index(drop=True)
    for name, column, bounds in (("plain", "effect", "effect"), ("letter-balanced", "effect_balanced", "balanced")):
        trace = traces[name]
        np.testing.assert_array_equal(trace.x, MULTIPLIERS)
        np.testing.assert_array_equal(trace.y, part[column])
        np.testing.assert_allclose(np.array(trace.y) + trace.error_y.array, part[f"{bounds}_high"])
        np.testing.assert_allclose(np.array(trace.y) - trace.error_y.arrayminus, part[f"{bounds}_low"])
    np.testing.assert_array_equal(traces["50 random vectors, middle 95 %"].y, [0.042, 0.0, 0.042])
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["kind, layer 1", "brave, layer 1"]


def test_dose_response_without_random_vectors_has_no_band() -> None:
    frame = summary(layers=(1,)).assign(random_low=np.nan, random_high=np.nan, n_random=0)
    assert {trace.name for trace in figures.dose_response(frame).data} == {"plain", "letter-balanced"}


def test_dose_response_wants_one_layer() -> None:
    with pytest.raises(
        ValueError, match=r"kind has the layers \[0, 1, 2\]: keep one, such as summary\[summary.layer == 0"
    ):
        figures.dose_response(summary())


def test_cosine_heatmap_holds_the_matrix() -> None:
    matrix = pd.DataFrame([[1.0, 0.73], [0.73, 1.0]], ["a", "b"], ["a", "b"])
    figure = figures.cosine_heatmap(matrix, "Title")
    np.testing.assert_array_equal(np.array(figure.data[0].z), matrix)
    assert figure.layout.title.text == "Title"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)


def test_cosine_heatmap_wants_a_square() -> None:
    with pytest.raises(ValueError, match=r"rows \['a'\] and columns \['a', 'b'\]: they must be the same"):
        figures.cosine_heatmap(pd.DataFrame([[1.0, 0.2]], ["a"], ["a", "b"]))


def test_cross_layer_holds_the_frame() -> None:
    rows = [("kind", i, j, 1 - abs(i - j) / 10) for i in range(3) for j in range(3)]
    figure = figures.cross_layer(pd.DataFrame(rows, columns=["behavior", "layer_a", "layer_b", "cosine"]))
    np.testing.assert_array_equal(np.array(figure.data[0].z)[0], [1.0, 0.9, 0.8])


def test_lines_hold_the_frame() -> None:
    frame = pd.DataFrame(
        [("kind", 0, 0.9), ("kind", 1, 0.5), ("brave", 0, -0.2)], columns=["behavior", "layer", "cosine"]
    )
    figure = figures.base_versus_chat(frame)
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in figure.data] == [
        ("kind", [0, 1], [0.9, 0.5]),
        ("brave", [0], [-0.2]),
    ]
    assert figure.layout.yaxis.range[0] < -0.2


def test_norms_of_two_models_are_told_apart() -> None:
    rows = [(model, "kind", layer, 2.0 + layer) for model in ("chat", "base") for layer in range(2)]
    figure = figures.norms(pd.DataFrame(rows, columns=["model", "behavior", "layer", "norm"]))
    assert [(trace.line.dash, trace.showlegend) for trace in figure.data] == [("solid", True), ("dash", False)]
    assert "solid: chat, dashed: base" in figure.layout.title.subtitle.text


def test_norms_over_decades_are_logarithmic() -> None:
    frame = pd.DataFrame([("kind", 0, 0.1), ("kind", 1, 100.0)], columns=["behavior", "layer", "norm"])
    assert figures.norms(frame).layout.yaxis.type == "log"


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_any_number_of_behaviors_has_a_panel_each(n: int) -> None:
    names = tuple(f"behavior-{index}" for index in range(n))
    figure = figures.sweep_heatmap(summary(names))
    assert len(figure.data) == n and figure.layout.width == 800


def test_a_frame_without_columns_or_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the columns layer, cosine: it has behavior"):
        figures.base_versus_chat(pd.DataFrame({"behavior": ["kind"]}))
    with pytest.raises(ValueError, match="no rows"):
        figures.base_versus_chat(pd.DataFrame({"behavior": [], "layer": [], "cosine": []}))


def test_line_styles_do_not_repeat_soon() -> None:
    assert len({line_style(index) for index in range(49)}) == 49
