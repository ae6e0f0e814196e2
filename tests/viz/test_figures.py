"""Figures of effects and of directions hold the numbers of their frames, unrounded, and say what they need."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from caa_lens.viz import figures
from caa_lens.viz.figures.panels import SMALLEST_RANGE, told

MULTIPLIERS = (-1.0, 0.0, 1.0)


def summary(
    behaviors: tuple[str, ...] = ("kind", "brave"),
    layers: tuple[int, ...] = (0, 1, 2),
    kinds: tuple[str, ...] = ("random",),
) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        [(b, layer, m) for b in behaviors for layer in layers for m in MULTIPLIERS],
        columns=["behavior", "layer", "multiplier"],
    )
    frame["n_items"] = 50
    for name in ("effect", "effect_balanced"):
        frame[name] = np.where(frame["multiplier"] == 0, 0.0, generator.normal(0, 0.2, len(frame)))
    for bounds, middle in (("effect", "effect"), ("balanced", "effect_balanced")):
        frame[f"{bounds}_low"], frame[f"{bounds}_high"] = frame[middle] - 0.05, frame[middle] + 0.07
    for index, kind in enumerate(kinds):
        frame[f"n_{kind}"] = np.where(frame["multiplier"] == 0, 0, 50)
        frame[f"{kind}_low"] = np.where(frame["multiplier"] == 0, np.nan, -0.031 * (index + 1))
        frame[f"{kind}_high"] = np.where(frame["multiplier"] == 0, np.nan, 0.042 * (index + 1))
        frame[f"beats_{kind}"] = np.where(frame["multiplier"] == 0, np.nan, 0.96)
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
    assert "50 items" in figure.layout.title.subtitle.text


def test_the_pointer_reads_each_cell() -> None:
    frame = summary()
    row = frame[(frame["behavior"] == "brave") & (frame["layer"] == 1) & (frame["multiplier"] == 1)].iloc[0]
    text = np.array(figures.sweep_heatmap(frame).data[1].hovertext)[1, 2]
    assert text == (
        "brave, layer 1, multiplier +1<br>"
        f"letter-balanced effect {row.effect_balanced:+.3f} [{row.balanced_low:+.3f}, {row.balanced_high:+.3f}]<br>"
        f"plain effect {row.effect:+.3f} [{row.effect_low:+.3f}, {row.effect_high:+.3f}]<br>50 items"
    )


def test_colours_are_centred_on_zero() -> None:
    frame = summary()
    axis = figures.sweep_heatmap(frame).layout.coloraxis
    assert axis.cmin == -axis.cmax == -frame["effect_balanced"].abs().max()
    quiet = figures.sweep_heatmap(frame.assign(effect_balanced=frame["effect_balanced"] * 1e-6))
    assert quiet.layout.coloraxis.cmax == SMALLEST_RANGE, "noise must not fill the colour scale"


def test_letters_that_cannot_be_balanced_show_the_plain_effect() -> None:
    frame = summary()
    frame.loc[frame["behavior"] == "kind", "effect_balanced"] = np.nan
    figure = figures.sweep_heatmap(frame)
    expected = frame[frame["behavior"] == "kind"].pivot(index="layer", columns="multiplier", values="effect")
    np.testing.assert_array_equal(np.array(figure.data[0].z), expected)
    assert [note.text for note in figure.layout.annotations] == ["kind (not balanced)", "brave"]


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
    np.testing.assert_array_equal(traces["50 random vectors"].y, [0.042, 0.0, 0.042])
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["kind, layer 1", "brave, layer 1"]
    assert "random vectors: -0.031 to +0.042<br>beats 96% of 50 random vectors" in traces["plain"].hovertext[2]


def test_every_kind_of_null_has_a_band_of_its_own_look() -> None:
    figure = figures.dose_response(summary(("kind",), (1,), ("random", "permuted", "shuffled")))
    bands = [trace for trace in figure.data if trace.fill == "tonexty"]
    assert [band.name for band in bands] == ["50 random vectors", "50 permuted vectors", "50 shuffled vectors"]
    assert [band.y[2] for band in bands] == pytest.approx([0.042, 0.084, 0.126])
    assert len({(band.fillcolor, band.line.dash) for band in bands}) == 3
    below = [figure.data[list(figure.data).index(band) - 1].y[2] for band in bands]
    assert below == pytest.approx([-0.031, -0.062, -0.093]), "a band is filled down to the trace before it"
    low, high = figure.layout.yaxis.range
    assert low < -0.093 and high > 0.126


def test_a_missing_null_is_a_gap_and_not_zero() -> None:
    frame = summary(("kind",), (1,))
    frame.loc[frame["multiplier"] == -1, ["random_low", "random_high"]] = np.nan
    band = next(trace for trace in figures.dose_response(frame).data if trace.fill == "tonexty")
    assert np.isnan(band.y[0]) and band.y[1] == 0


def test_dose_response_without_random_vectors_has_no_band() -> None:
    frame = summary(layers=(1,)).assign(random_low=np.nan, random_high=np.nan, n_random=0)
    figure = figures.dose_response(frame)
    assert {trace.name for trace in figure.data} == {"plain", "letter-balanced"}
    assert "null" not in figure.layout.title.subtitle.text


def test_dose_response_shows_an_assessment_asked_both_ways() -> None:
    table = summary(("kind",), (1,)).query("multiplier != 0")
    table = table.assign(effect_asked_twice=[-0.1, 0.1], asked_twice_low=-0.2, asked_twice_high=0.2)
    line = next(trace for trace in figures.dose_response(table).data if trace.name == "asked both ways")
    assert list(line.y) == [-0.1, 0.1] and list(line.x) == [-1.0, 1.0]


def test_dose_response_wants_one_layer() -> None:
    with pytest.raises(
        ValueError, match=r"kind has the layers \[0, 1, 2\]: keep one, such as summary\[summary.layer == 0"
    ):
        figures.dose_response(summary())
    with pytest.raises(ValueError, match=r"the layers \[0, 1, ..., 39\]: keep one"):
        figures.dose_response(summary(layers=tuple(range(40))))


def entangled(behaviors: tuple[str, ...] = ("kind", "brave")) -> pd.DataFrame:
    rows = [(v, b, 3, m, 40, m * 0.1 * (1 + i)) for i, v in enumerate(behaviors) for b in behaviors for m in (-1, 1)]
    frame = pd.DataFrame(rows, columns=["vector", "behavior", "layer", "multiplier", "n_items", "effect"])
    frame["effect_balanced"] = np.where(frame["vector"] == frame["behavior"], frame["effect"], 0.01)
    return frame.assign(
        balanced_low=frame["effect_balanced"] - 0.04, balanced_high=frame["effect_balanced"] + 0.04, share_of_own=np.nan
    )


def test_entanglement_holds_the_frame_and_frames_the_own() -> None:
    frame = entangled()
    figure = figures.entanglement(frame)
    for trace, multiplier in zip(figure.data, (-1, 1), strict=True):
        assert list(trace.x) == list(trace.y) == ["kind", "brave"], "in the order of the frame"
        part = frame[frame["multiplier"] == multiplier].set_index(["vector", "behavior"])["effect_balanced"]
        for row, vector in enumerate(trace.y):
            for column, behavior in enumerate(trace.x):
                assert trace.z[row][column] == part[vector, behavior]
    assert figure.data[1].text[0][0] == "<b>+.10</b>" and figure.data[1].text[0][1] == "+.01"
    assert [(shape.x0, shape.y0) for shape in figure.layout.shapes[:2]] == [(-0.5, -0.5), (0.5, 0.5)]
    text = figure.data[1].hovertext[0][1]
    assert "vector of kind (layer 3) on items of brave, multiplier +1" in text
    assert "[-0.030, +0.050]" in text and "- of its effect at home" in text and "40 items" in text


def test_baselines_hold_the_frame() -> None:
    frame = pd.DataFrame(
        [("none", 0.0, 0.4, 0.0), ("system prompt", 0.0, 0.7, 0.3), ("system prompt", 1.0, 0.8, 0.4)],
        columns=["baseline", "multiplier", "p_matching", "effect"],
    ).assign(effect_low=lambda part: part["effect"] - 0.1, effect_high=lambda part: part["effect"] + 0.2)
    figure = figures.baselines(frame)
    assert [trace.name for trace in figure.data] == ["multiplier 0", "multiplier +1"]
    assert [list(trace.x) for trace in figure.data] == [[0.0, 0.3], [0.4]]
    np.testing.assert_allclose(figure.data[0].error_x.array, 0.2)
    np.testing.assert_allclose(figure.data[0].error_x.arrayminus, 0.1)
    assert list(figure.layout.yaxis.ticktext) == ["none", "system prompt"]
    assert [round(y) for y in figure.data[0].y] == [0, 1] and [round(y) for y in figure.data[1].y] == [1]
    assert "p_matching 0.700" in figure.data[0].hovertext[1]


def test_baselines_in_two_directions_stand_over_their_nulls() -> None:
    rows = [("none", "", m) for m in (0, 1)] + [("system", d, m) for d in ("positive", "negative") for m in (0, 1)]
    frame = pd.DataFrame(rows, columns=["baseline", "direction", "multiplier"]).assign(behavior="kind", p_matching=0.5)
    frame["effect"] = np.arange(6) / 10
    frame = frame.assign(effect_low=frame["effect"] - 0.1, effect_high=frame["effect"] + 0.1, n_random=20)
    frame["random_low"] = np.where(frame["multiplier"] == 0, np.nan, -0.05 - frame["effect"])
    frame["random_high"] = -frame["random_low"]
    figure = figures.baselines(frame)
    assert list(figure.layout.yaxis.ticktext) == ["none", "system positive", "system negative"]
    grey = [trace for trace in figure.data if trace.name == "20 random vectors"]
    assert [end for end in grey[1].x if end is not None] == pytest.approx([-0.15, 0.15, -0.35, 0.35, -0.55, 0.55])
    steered = next(trace for trace in figure.data if trace.name == "multiplier +1")
    assert [height for height in grey[1].y if height is not None][::2] == list(steered.y)
    assert figure.layout.xaxis.range[0] < -0.55, "nulls are not cut off"


def test_scores_hold_the_summary() -> None:
    frame = pd.DataFrame(
        [("kind", 2, m, 5 + m) for m in MULTIPLIERS], columns=["behavior", "layer", "multiplier", "score"]
    )
    frame = frame.assign(score_low=frame["score"] - 1, score_high=frame["score"] + 0.5, n_questions=12, n_unscored=1)
    figure = figures.scores(frame)
    assert list(figure.data[0].y) == [4, 5, 6] and figure.layout.annotations[0].text == "kind, layer 2"
    np.testing.assert_allclose(figure.data[0].error_y.array, 0.5)
    assert "12 questions; 3 answers without a score" in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="no answer has a score"):
        figures.scores(frame.assign(score=np.nan))


def test_cosine_heatmap_holds_the_matrix() -> None:
    matrix = pd.DataFrame([[1.0, 0.73], [0.73, 1.0]], ["a", "b"], ["a", "b"])
    figure = figures.cosine_heatmap(matrix, "Title")
    np.testing.assert_array_equal(np.array(figure.data[0].z), matrix)
    assert figure.layout.title.text == "Title"
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-1, 1)
    assert figure.data[0].hovertext[0][1] == "a and b<br>cosine 0.730"


def test_cosine_heatmap_wants_a_square() -> None:
    with pytest.raises(ValueError, match=r"rows \['a'\] and columns \['a', 'b'\]: they must be the same"):
        figures.cosine_heatmap(pd.DataFrame([[1.0, 0.2]], ["a"], ["a", "b"]))


def test_cross_layer_holds_the_frame() -> None:
    rows = [("kind", i, j, 1 - abs(i - j) / 10) for i in range(11) for j in range(11)]
    figure = figures.cross_layer(pd.DataFrame(rows, columns=["behavior", "layer_a", "layer_b", "cosine"]))
    np.testing.assert_array_equal(np.array(figure.data[0].z)[0, :3], [1.0, 0.9, 0.8])
    assert list(figure.data[0].x) == [str(layer) for layer in range(11)], "in the order of numbers, 2 before 10"
    assert figure.data[0].hovertext[2][10] == "kind, layers 2 and 10<br>cosine 0.200"


def test_cross_layer_names_the_two_models() -> None:
    frame = pd.DataFrame([("kind", 0, 4, 0.5)], columns=["behavior", "layer_a", "layer_b", "cosine"])
    figure = figures.cross_layer(frame, models=("base", "chat"))
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("layer of chat", "layer of base")
    assert "base and chat" in figure.layout.title.text


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
    assert figure.data[0].hovertext[1] == "kind, layer 1<br>cosine 0.500"


def test_norms_of_two_models_are_told_apart() -> None:
    rows = [(model, "kind", layer, 2.0 + layer) for model in ("chat", "base") for layer in range(2)]
    frame = pd.DataFrame(rows, columns=["model", "behavior", "layer", "norm"])
    figure = figures.norms(frame)
    assert [(trace.line.dash, trace.showlegend) for trace in figure.data] == [("solid", True), ("dash", False)]
    assert "solid: chat, dashed: base" in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="has the models chat, base, other: give two at most"):
        figures.norms(pd.concat([frame, frame[:1].assign(model="other")]))


def test_norms_over_decades_are_logarithmic() -> None:
    frame = pd.DataFrame([("kind", 0, 0.1), ("kind", 1, 100.0)], columns=["behavior", "layer", "norm"])
    assert figures.norms(frame).layout.yaxis.type == "log"


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_any_number_of_behaviors_has_a_panel_each(n: int) -> None:
    names = tuple(f"behavior-{index}" for index in range(n))
    figure = figures.sweep_heatmap(summary(names))
    assert len(figure.data) == n and figure.layout.width == 800
    rows = -(-n // 3)
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    top = figure.layout.yaxis.domain
    assert (top[1] - top[0]) * inner == pytest.approx(120), "small plots keep their height"
    assert len({trace.yaxis for trace in figure.data}) == n and inner >= rows * 120


def test_the_legend_and_the_headings_stand_under_the_title() -> None:
    kinds = ("random", "permuted", "shuffled")
    one, many = (figures.dose_response(summary(("kind",), (1,), kinds[:n])) for n in (0, 3))
    for figure in (one, many):
        legend_top = (1 - figure.layout.legend.y) * figure.layout.height
        assert 50 < legend_top <= figure.layout.margin.t - 21 - 30, "room for the legend and a heading"
    assert many.layout.margin.t > one.layout.margin.t, "more lines, more room"


def test_a_frame_without_columns_or_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the columns layer, cosine: it has behavior; give what .*compare"):
        figures.base_versus_chat(pd.DataFrame({"behavior": ["kind"]}))
    with pytest.raises(ValueError, match="no rows: there is nothing to show"):
        figures.base_versus_chat(pd.DataFrame({"behavior": [], "layer": [], "cosine": []}))


PUBLIC = sorted(name for name in vars(figures) if callable(getattr(figures, name)) and not name.startswith("_"))


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "cosine_heatmap"])
def test_every_figure_names_the_columns_it_lacks(name: str) -> None:
    with pytest.raises(ValueError, match=r"the frame lacks the columns .*: it has none; give what .*"):
        getattr(figures, name)(pd.DataFrame())


def test_the_public_figures_are_documented_where_they_are_listed() -> None:
    assert PUBLIC and [name for name in PUBLIC if f"`{name}`" not in str(figures.__doc__)] == []


def test_told_leaves_out_lines_whose_columns_are_not_there() -> None:
    frame = pd.DataFrame({"name": ["{odd}", "nancy"], "value": [0.5, np.nan]})
    assert told(frame, "{name}: {value:+.1f}", "{other} is not there") == ["{odd}: +0.5", "nancy: -"]
