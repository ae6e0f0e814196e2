"""Figures of single items, letters and nulls, against the functions that compute the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ways import way

from caa_lens.evaluation.choices import summarize
from caa_lens.evaluation.items import steerability
from caa_lens.viz import figures


def swept(
    behaviors: tuple[str, ...] = ("kind",), letters: str = "AAAABBBB", nulls: int = 20, letter_push: float = 0.3
) -> pd.DataFrame:
    """A sweep's frame: items move with the multiplier, more where their letter is A."""
    generator = np.random.default_rng(1)
    rows = []
    for behavior in behaviors:
        for vector in ["vector", *(f"{kind}-{n}" for kind in ("random", "shuffled") for n in range(nulls))]:
            for multiplier in (-1.0, 0.0, 1.0, 2.0):
                if vector != "vector" and multiplier == 0:
                    continue
                for item, letter in enumerate(letters):
                    own = 0.5 + letter_push * (1 if letter == "A" else -1) if vector == "vector" else 0.0
                    odds = 0.2 * item + multiplier * (own + 0.1 * generator.normal())
                    rows.append(
                        (
                            behavior,
                            *way(vector, behavior).values(),
                            3,
                            multiplier,
                            item,
                            letter if letter != "-" else None,
                            odds,
                        )
                    )
    frame = pd.DataFrame(
        rows, columns=["behavior", "vector", "kind", "draw", "layer", "multiplier", "item", "letter", "odds"]
    )
    p = 1 / (1 + np.exp(-frame["odds"]))
    frame["logp_matching"], frame["logp_other"] = np.log(p), np.log(1 - p)
    frame["p_matching"], frame["mass"] = p, 1.0
    frame["p_a"] = np.where(frame["letter"].isna(), np.nan, np.where(frame["letter"] == "A", p, 1 - p))
    return frame


def test_item_slopes_hold_every_slope_in_order() -> None:
    items = steerability(swept(letter_push=0.7))
    figure = figures.item_slopes(items)
    by_letter = {trace.name: trace for trace in figure.data}
    assert list(by_letter) == ["matching letter A", "matching letter B"]
    placed = sorted((x, y) for trace in figure.data for x, y in zip(trace.x, trace.y, strict=True))
    np.testing.assert_array_equal([y for _, y in placed], np.sort(items["slope"]))
    assert [x for x, _ in placed] == list(range(1, 9))
    b = items[items["letter"] == "B"].sort_values("slope")
    np.testing.assert_array_equal(by_letter["matching letter B"].y, b["slope"])
    first = b.iloc[0]
    text = by_letter["matching letter B"].hovertext[0]
    assert text.startswith(f"kind, item {first['item']}, matching letter B<br>slope {first['slope']:+.3f} nats")


def test_items_that_go_against_the_vector_are_counted_and_shaded() -> None:
    items = steerability(swept(letter_push=0.7))
    against = int((items["slope"] < 0).sum())
    figure = figures.item_slopes(items)
    assert 0 < against < 8
    assert [note.text for note in figure.layout.annotations] == ["kind, layer 3", f"{against} of 8 below 0"]
    (shape,) = figure.layout.shapes
    assert (shape.x0, shape.x1) == (0.5, against + 0.5)
    assert not figures.item_slopes(items.assign(slope=items["slope"].abs())).layout.shapes


def test_items_without_a_slope_are_said() -> None:
    items = steerability(swept())
    items.loc[0, "slope"] = np.nan
    assert figures.item_slopes(items).layout.annotations[1].text == "0 of 7 below 0<br>1 without a slope"
    with pytest.raises(ValueError, match="all slopes are NaN"):
        figures.item_slopes(items.assign(slope=np.nan))


def test_item_slopes_want_one_layer() -> None:
    items = steerability(swept())
    with pytest.raises(ValueError, match=r"kind has the layers \[3, 4\]: keep one, such as items\[items.layer == 3"):
        figures.item_slopes(pd.concat([items, items.assign(layer=4)]))


def test_letter_balance_averages_to_the_balanced_effect() -> None:
    frame = swept()
    figure = figures.letter_balance(frame)
    lines = {trace.name: trace for trace in figure.data}
    summary = summarize(frame, n_bootstrap=10)
    both = [np.array(lines[f"matching letter {letter}"].y) for letter in "AB"]
    np.testing.assert_allclose((both[0] + both[1]) / 2, summary["effect_balanced"])
    np.testing.assert_allclose(lines["share of A"].y, summary["letter_drift"], atol=1e-15)
    np.testing.assert_array_equal(lines["share of A"].x, summary["multiplier"])
    a = frame.query("kind == 'vector' and letter == 'A'").pivot(index="item", columns="multiplier", values="p_matching")
    error = 1.96 * (a[1.0] - a[0.0]).std() / 2  # of four items
    assert lines["matching letter A"].error_y.array[2] == pytest.approx(error)
    assert "4 items" in lines["matching letter A"].hovertext[0]


def test_letter_balance_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="no item of the frame has a matching letter"):
        figures.letter_balance(swept(letters="----"))
    frame = swept()
    with pytest.raises(ValueError, match="the sweep of kind has no rows at multiplier 0"):
        figures.letter_balance(frame[frame["multiplier"] != 0])


@pytest.mark.parametrize("letters", ["AAAABBBB", "AABBBBBB", "--------"])
@pytest.mark.parametrize("multiplier", [-1.0, 2.0])
def test_null_distribution_agrees_with_the_summary(letters: str, multiplier: float) -> None:
    frame = swept(letters=letters)
    row = summarize(frame, n_bootstrap=10).query(f"multiplier == {multiplier}").iloc[0]
    figure = figures.null_distribution(frame, multiplier)
    line = next(trace for trace in figure.data if trace.name == "the vector")
    assert line.x[0] == line.x[1] == pytest.approx(row["effect_balanced"])
    notes = [note.text for note in figure.layout.annotations]
    expected = [f"beats<br>{round(row[f'beats_{kind}'] * 20)} of 20" for kind in ("random", "shuffled")]
    assert notes == ["kind, layer 3", *expected]
    assert list(figure.layout.yaxis.ticktext) == ["random", "shuffled"]


def test_the_histograms_hold_all_nulls() -> None:
    frame = swept(nulls=30)
    bars = [trace for trace in figures.null_distribution(frame).data if trace.type == "bar"]
    assert [bar.base for bar in bars] == [0, 1]
    for bar in bars:
        counts = np.array([int(text.split("<br>")[1].split(" of ")[0]) for text in bar.hovertext])
        assert counts.sum() == 30
        np.testing.assert_allclose(bar.y, 0.8 * counts / counts.max())
    assert figures.null_distribution(frame).layout.title.subtitle.text.startswith(
        "letter-balanced change in P(matching answer) at multiplier +2"
    ), "the largest where none is given"


def test_null_distribution_says_what_is_missing() -> None:
    frame = swept()
    with pytest.raises(ValueError, match=r"no rows at multiplier 3: it has -1, 1, 2"):
        figures.null_distribution(frame, 3)
    with pytest.raises(ValueError, match=r"has no null vectors: give sweep n_nulls, or nulls=\{kind: null_vectors"):
        figures.null_distribution(frame[frame["kind"] == "vector"])
    two = pd.concat([frame, frame[frame["kind"] == "vector"].assign(behavior="brave", vector="brave")])
    with pytest.raises(ValueError, match=r"the sweep of brave has no null vectors"):
        figures.null_distribution(two)


def test_one_letter_alone_is_not_balanced_and_said_so() -> None:
    figure = figures.null_distribution(swept(letters="AAAA"))
    assert figure.layout.annotations[0].text == "kind, layer 3 (not balanced)"


@pytest.mark.parametrize("draw", [figures.letter_balance, figures.null_distribution])
def test_twelve_behaviors_have_a_panel_each(draw) -> None:
    figure = draw(swept(tuple(f"behavior-{index}" for index in range(12)), nulls=3))
    assert len({trace.xaxis for trace in figure.data}) == 12
    assert sum(trace.showlegend is not False for trace in figure.data) == (3 if draw is figures.letter_balance else 1)
