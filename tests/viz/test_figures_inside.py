"""Figures of activations and of what steering costs hold the numbers of their frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from caa_lens.viz import figures


def components(behaviors: tuple[str, ...] = ("kind", "brave"), layers: int = 3, pairs: int = 6) -> pd.DataFrame:
    generator = np.random.default_rng(2)
    rows = [
        (
            behavior,
            pair,
            side,
            "AB"[(pair + (side == "other")) % 2],
            layer,
            *generator.normal(size=2),
            0.6 - layer / 100,
        )
        for layer in range(layers)
        for behavior in behaviors
        for pair in range(pairs)
        for side in ("matching", "other")
    ]
    columns = ["behavior", "pair", "side", "letter", "layer", "pc1", "pc2", "explained_1"]
    return pd.DataFrame(rows, columns=columns).assign(explained_2=0.2)


def test_pca_holds_every_activation() -> None:
    frame = components()
    figure = figures.pca(frame)
    shown = [trace for trace in figure.data if trace.x[0] is not None]
    points = sorted((x, y) for trace in shown for x, y in zip(trace.x, trace.y, strict=True))
    np.testing.assert_array_equal(points, sorted(zip(frame["pc1"], frame["pc2"], strict=True)))
    assert [note.text for note in figure.layout.annotations] == ["layer 0", "layer 1", "layer 2"]
    assert [figure.layout[f"xaxis{axis}"].title.text for axis in ("", "2", "3")] == [
        "pc1 (60%)",
        "pc1 (59%)",
        "pc1 (58%)",
    ]
    assert figure.layout.yaxis.title.text == "pc2 (20%)"


def test_pca_marks_behavior_by_colour_side_by_filling_and_letter_by_shape() -> None:
    figure = figures.pca(components(layers=1))
    marks = {trace.name: (trace.marker.color, trace.marker.symbol) for trace in figure.data if trace.x[0] is not None}
    assert {symbol for _, symbol in marks.values()} == {"circle", "circle-open", "square", "square-open"}
    assert marks["kind, matching A"][1] == "circle" and marks["kind, other B"][1] == "square-open"
    assert len({color for name, (color, _) in marks.items() if name.startswith("kind")}) == 1
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert legend == ["kind", "brave", "matching", "other", "answer (A)", "answer (B)"]
    text = next(trace for trace in figure.data if trace.name == "kind, other B").hovertext[0]
    assert text.startswith("kind, pair 0, other answer B<br>layer 0")


def test_pca_of_one_behavior_colours_its_sides() -> None:
    figure = figures.pca(components(("kind",), layers=1).assign(letter=""))
    marks = {trace.name: (trace.marker.color, trace.marker.symbol) for trace in figure.data if trace.x[0] is not None}
    assert set(marks) == {"kind, matching", "kind, other"}
    assert len({color for color, _ in marks.values()}) == 2 and {symbol for _, symbol in marks.values()} == {"diamond"}
    assert [trace.name for trace in figure.data if trace.showlegend] == ["matching answer", "other answer"]


def test_pca_of_forty_layers_has_forty_panels() -> None:
    figure = figures.pca(components(layers=40, pairs=1))
    assert len({trace.xaxis for trace in figure.data}) == 40
    assert figure.layout.annotations[39].text == "layer 39" and figure.layout.width == 800


def separated(behaviors: tuple[str, ...] = ("kind", "brave")) -> pd.DataFrame:
    frame = pd.DataFrame([(name, layer) for name in behaviors for layer in range(4)], columns=["behavior", "layer"])
    return frame.assign(
        n_pairs=30,
        accuracy=0.5 + frame["layer"] / 10,
        accuracy_balanced=0.5 + frame["layer"] / 20,
        d_prime=frame["layer"] * 1.0,
        letter_accuracy=0.99,
        letter_d_prime=5.0,
        letter_cosine=0.25,
    )


def test_separation_holds_the_frame() -> None:
    frame = separated()
    figure = figures.separation(frame)
    lines = {trace.name: trace for trace in figure.data[:3]}
    part = frame[frame["behavior"] == "kind"]
    for name, column in (
        ("matching or other", "accuracy"),
        ("the same, letters balanced", "accuracy_balanced"),
        ("A or B", "letter_accuracy"),
    ):
        np.testing.assert_array_equal(lines[name].y, part[column])
    assert "d' 3.00" in lines["matching or other"].hovertext[3] and "30 pairs" in lines["A or B"].hovertext[0]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.5, 0.5], "chance"


def test_separation_without_letters_has_one_line() -> None:
    frame = separated(("kind",)).assign(accuracy_balanced=np.nan, letter_accuracy=np.nan)
    assert [trace.name for trace in figures.separation(frame).data] == ["matching or other"]


def costs(layers: tuple[int, ...] = (2, 5), texts: int = 3) -> pd.DataFrame:
    rows = [
        ("toy", text, layer, m, 100, abs(m) * layer / 10 + text / 100, abs(m) * 1.0, 3.0, 3.0 + m / 10, 0.9)
        for layer in layers
        for m in (-1.0, 0.0, 1.0)
        for text in range(texts)
    ]
    columns = ["vector", "document", "layer", "multiplier", "n_tokens", "kl_mean", "kl_p95"]
    return pd.DataFrame(rows, columns=[*columns, "nll_unsteered", "nll_steered", "top1_agreement"])


def test_side_effects_hold_means_and_intervals_over_texts() -> None:
    frame = costs()
    figure = figures.side_effects(frame)
    assert [trace.name for trace in figure.data] == ["layer 2", "layer 5"] * 4
    five = frame[frame["layer"] == 5].groupby("multiplier")["kl_mean"]
    np.testing.assert_allclose(figure.data[1].y, five.mean())
    np.testing.assert_allclose(figure.data[1].error_y.array, 1.96 * five.sem())
    np.testing.assert_allclose(figure.data[4].y, [-0.1, 0, 0.1])
    np.testing.assert_allclose(figure.data[6].y, 0.9)
    assert figure.data[0].hovertext[0] == (
        "vector toy<br>layer 2<br>multiplier -1<br>KL, mean over tokens: 0.21 [0.2, 0.22]<br>3 texts<br>300 tokens"
    )
    assert "means over 3 texts; 95 % intervals (normal); 300 tokens" in figure.layout.title.subtitle.text


def test_side_effects_of_one_vector_need_no_legend() -> None:
    figure = figures.side_effects(costs((2,), texts=1).drop(columns="layer"))
    assert len(figure.data) == 4 and not any(trace.showlegend for trace in figure.data)
    assert "interval" not in figure.layout.title.subtitle.text, "one text has none"


def test_side_effects_of_many_layers_have_colours_in_order() -> None:
    figure = figures.side_effects(costs(tuple(range(40))))
    assert len({trace.line.color for trace in figure.data}) == 40
    assert figure.data[0].line.color == "rgb(0, 34, 78)"


def test_side_effects_draw_the_damage_of_a_selection() -> None:
    frame = (
        costs(texts=1)
        .drop(columns=["document", "vector", "kl_p95"])
        .rename(columns={"kl_mean": "kl"})
        .assign(kl_max=3.0)
    )
    figure = figures.side_effects(frame)
    assert [note.text for note in figure.layout.annotations][:2] == [
        "KL, mean over tokens",
        "KL, the largest of a token",
    ]
    assert list(figure.data[1].y) == [0.5, 0, 0.5] and list(figure.data[2].y) == [3.0] * 3
    assert "over" not in figure.layout.title.subtitle.text and "100 tokens" in figure.layout.title.subtitle.text


def test_side_effects_say_how_to_name_the_multipliers() -> None:
    with pytest.raises(ValueError, match=r"lacks the columns multiplier: .*with a column multiplier, returns"):
        figures.side_effects(costs().drop(columns="multiplier"))


def candidates() -> pd.DataFrame:
    rows = [("mean", m, abs(m) * 0.1, m * 0.2) for m in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    rows += [("probe", 1.0, 0.2, 0.1), ("probe", np.nan, 0.3, np.nan)]
    frame = pd.DataFrame(rows, columns=["vector", "multiplier", "kl", "effect"])
    return frame.assign(layer=3, effect_low=frame["effect"] - 0.05, effect_high=frame["effect"] + 0.05)


def test_tradeoff_has_a_line_for_each_candidate_and_side() -> None:
    figure = figures.tradeoff(candidates())
    assert [(trace.name, list(trace.x), list(trace.y), list(trace.text)) for trace in figure.data] == [
        ("mean", [0.1, 0.2], [0.2, 0.4], ["+1", "+2"]),
        ("mean", [0.1, 0.2], [-0.2, -0.4], ["-1", "-2"]),
        ("probe", [0.2], [0.1], ["+1"]),
    ]
    assert [trace.showlegend for trace in figure.data] == [True, False, True]
    np.testing.assert_allclose(figure.data[0].error_y.array, 0.05)
    assert figure.data[0].hovertext[0].startswith("vector mean<br>layer 3<br>multiplier +1<br>effect +0.200 [+0.150")
    assert "KL 0.1 nats per token" in figure.data[0].hovertext[0]
    assert figure.layout.xaxis.type != "log" and "plain change" in figure.layout.title.subtitle.text


def test_tradeoff_takes_the_balanced_effect_where_there_is_one() -> None:
    frame = candidates().assign(effect_balanced=0.07, balanced_low=0.01, balanced_high=0.2)
    figure = figures.tradeoff(frame)
    assert set(figure.data[0].y) == {0.07} and "letter-balanced" in figure.layout.title.subtitle.text
    np.testing.assert_allclose(figure.data[0].error_y.array, 0.13)


def test_tradeoff_over_decades_is_logarithmic() -> None:
    frame = candidates()
    assert figures.tradeoff(frame.assign(kl=frame["kl"] ** 6)).layout.xaxis.type == "log"
    with pytest.raises(ValueError, match="a KL of -0.3: a KL is 0 or more"):
        figures.tradeoff(frame.assign(kl=-frame["kl"]))
    with pytest.raises(ValueError, match="no row with an effect and a KL at a multiplier other than 0"):
        figures.tradeoff(frame[frame["multiplier"] == 0])
