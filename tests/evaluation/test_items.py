"""Steerability against numpy's polyfit and hand-made lines; choices exchanged in the text and in the answers."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ways import way

import caa_lens as caa
from caa_lens.evaluation.items import steerability, steerability_summary, swapped

FIELDS = ("slope", "intercept", "residual", "spearman")


def frame_of(
    odds: Any, multipliers: Any, letters: str = "", layer: int = 3, behavior: str = "toy", vector: str = "vector"
) -> pd.DataFrame:
    """A sweep's frame from log odds ``[multiplier, item]``."""
    odds = np.asarray(odds, dtype=float)
    n = odds.shape[1]
    letters = letters or "AB" * n
    rows = [
        {
            "behavior": behavior,
            **way(vector, behavior),
            "layer": layer,
            "multiplier": float(multiplier),
            "item": item,
            "letter": letters[item],
            "logp_matching": -1.0,
            "logp_other": -1.0 - odds[place, item],
            "p_matching": 1 / (1 + np.exp(-odds[place, item])),
            "p_a": 0.5,
            "mass": 0.9,
        }
        for place, multiplier in enumerate(multipliers)
        for item in range(n)
    ]
    return pd.DataFrame(rows)


def random_odds(seed: int, n_multipliers: int = 5, n_items: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    multipliers = np.sort(generator.choice(np.arange(-20, 21), n_multipliers, replace=False)) / 4
    return multipliers, generator.normal(size=(n_multipliers, n_items)) * 3


def test_lines_drawn_by_hand() -> None:
    """One item goes along, one the other way, one does not care, and one bends at 0."""
    odds = np.array([[-2, 1, 0.5, 0], [0, 0, 0.5, 0], [2, -1, 0.5, 3]])
    found = steerability(frame_of(odds, (-1, 0, 1), "ABBA"))
    assert found["slope"].tolist() == [2, -1, 0, 1.5] and found["intercept"].tolist() == [0, 0, 0.5, 1]
    np.testing.assert_allclose(found["residual"], [0, 0, 0, np.sqrt((0.25 + 1 + 0.25) / 3)], atol=1e-15)
    np.testing.assert_allclose(found["spearman"], [1, -1, np.nan, np.sqrt(3) / 2])
    assert found["slope_positive"].tolist() == [2, -1, 0, 3] and found["slope_negative"].tolist() == [2, -1, 0, 0]
    assert found["letter"].tolist() == ["A", "B", "B", "A"] and found["item"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_each_item_is_what_polyfit_and_ranks_say(seed: int) -> None:
    multipliers, odds = random_odds(seed)
    odds[1, 0] = odds[3, 0]  # a tie
    found = steerability(frame_of(odds, multipliers))
    for item in range(odds.shape[1]):
        slope, intercept = np.polyfit(multipliers, odds[:, item], 1)
        left = odds[:, item] - (slope * multipliers + intercept)
        ranks = [np.mean([1 + (odds[:, item] < x).sum(), (odds[:, item] <= x).sum()]) for x in odds[:, item]]
        spearman = np.corrcoef(ranks, np.arange(len(multipliers)))[0, 1]
        expected = [slope, intercept, np.sqrt((left**2).mean()), spearman]
        np.testing.assert_allclose(found.loc[item, list(FIELDS)].astype(float), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(-5, 5))
def test_laws_of_the_axes(seed: int, scale: float, shift: float) -> None:
    multipliers, odds = random_odds(seed)
    plain = steerability(frame_of(odds, multipliers))
    stretched = steerability(frame_of(odds, multipliers * scale))
    moved = steerability(frame_of(odds + shift, multipliers))
    for name in ("slope", "slope_positive", "slope_negative"):
        np.testing.assert_allclose(stretched[name], plain[name] / scale, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(moved[name], plain[name], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(moved["intercept"], plain["intercept"] + shift, rtol=1e-8, atol=1e-9)
    for name in ("residual", "spearman"):
        np.testing.assert_allclose(stretched[name], plain[name], rtol=1e-8, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_exchanging_the_answers_negates_and_turning_the_axis_exchanges_the_sides(seed: int) -> None:
    multipliers, odds = random_odds(seed)
    frame = frame_of(odds, multipliers)
    columns = {"logp_matching": "logp_other", "logp_other": "logp_matching"}
    plain, other = steerability(frame), steerability(frame.rename(columns=columns))
    for name in ("slope", "intercept", "spearman", "slope_positive", "slope_negative"):
        np.testing.assert_allclose(other[name], -plain[name], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(other["residual"], plain["residual"], rtol=1e-9, atol=1e-12)
    turned = steerability(frame.assign(multiplier=-frame["multiplier"]))
    np.testing.assert_allclose(turned["slope"], -plain["slope"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(turned["slope_negative"], -plain["slope_positive"], rtol=1e-9, atol=1e-12)


def test_the_order_of_rows_and_nulls_do_not_matter() -> None:
    multipliers, odds = random_odds(3)
    frame = pd.concat([frame_of(odds, multipliers), frame_of(odds * 2, multipliers, layer=1)])
    nulls = [frame_of(-odds, multipliers, vector=name) for name in ("random-0", "shuffled-0")]
    shuffled = pd.concat([*nulls, frame.sample(frac=1, random_state=0)])
    pd.testing.assert_frame_equal(steerability(shuffled), steerability(frame))
    found = steerability(frame)
    assert found["layer"].tolist() == [1] * 4 + [3] * 4, "layers from the lowest"
    np.testing.assert_allclose(found["slope"][:4], found["slope"][4:] * 2)


def test_what_is_not_there_is_nan() -> None:
    one_sided = steerability(frame_of([[0, 1], [1, 1]], (0.5, 1)))
    assert one_sided["slope_negative"].isna().all() and one_sided["slope_positive"].tolist() == [2, 0]
    odds = np.array([[0.0, 0, 0], [np.inf, 1, 1], [2, 1, np.nan]])
    frame = frame_of(odds, (-1, 0, 1))
    frame["logp_matching"] = frame["logp_matching"].where(np.isfinite(frame["logp_other"]), -np.inf)
    found = steerability(frame)
    assert found["slope"].isna().tolist() == [True, False, True]
    assert (
        found.loc[[0, 2], ["intercept", "residual", "spearman", "slope_positive", "slope_negative"]]
        .isna()
        .all(axis=None)
    )
    summary = steerability_summary(frame, n_bootstrap=10)
    assert summary["n_items"].tolist() == [1] and summary["slope_sd"].isna().all()
    assert summary["slope"].tolist() == summary["slope_low"].tolist() == [0.5]


def test_the_summary_is_of_the_items() -> None:
    multipliers, odds = random_odds(8, n_items=40)
    frame = frame_of(odds + np.linspace(-1, 2, 40) * multipliers[:, None], multipliers)
    items, row = steerability(frame), steerability_summary(frame).iloc[0]
    for name in ("slope", "slope_positive", "slope_negative", "spearman"):
        assert row[name] == pytest.approx(items[name].mean())
    assert row["slope_sd"] == pytest.approx(np.std(items["slope"], ddof=1))
    assert row["share_anti"] == (items["slope"] < 0).mean()
    assert row["share_anti_negative"] == (items["slope_negative"] < 0).mean()
    for name in ("slope", "slope_positive", "slope_negative"):
        standard_error = items[name].std() / np.sqrt(40)
        assert row[f"{name}_low"] == pytest.approx(row[name] - 1.96 * standard_error, abs=0.3 * standard_error)
        assert row[f"{name}_high"] == pytest.approx(row[name] + 1.96 * standard_error, abs=0.3 * standard_error)


def test_a_liking_for_a_letter_has_no_balanced_slope() -> None:
    """Steering makes A likelier, whatever is asked: three in four items match A, and seem to go along."""
    odds = np.array([[-1.0, -1, -1, 1], [1, 1, 1, -1]]) * 2
    row = steerability_summary(frame_of(odds, (-1, 1), "AAAB")).iloc[0]
    assert row["slope"] == 1 and row["slope_balanced"] == 0
    for letters, balanced in (("AAAA", np.nan), ("BBBB", np.nan), ("ABAB", 1.0), ("CACB", 0.0)):
        found = steerability_summary(frame_of(odds, (-1, 1), letters), n_bootstrap=50).iloc[0]
        np.testing.assert_equal(found["slope_balanced"], balanced)
        assert np.isnan(found["slope_balanced_low"]) == np.isnan(found["slope_balanced_high"]) == np.isnan(balanced)


def test_without_letters_the_balanced_slope_is_the_plain_one() -> None:
    multipliers, odds = random_odds(2, n_items=12)
    row = steerability_summary(frame_of(odds, multipliers).assign(letter=None)).iloc[0]
    for end in ("", "_low", "_high"):
        assert row[f"slope_balanced{end}"] == row[f"slope{end}"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_laws_of_the_balanced_slope(seed: int, n_a: int, n_b: int) -> None:
    multipliers, odds = random_odds(seed, n_items=n_a + n_b)
    frame = frame_of(odds, multipliers, "A" * n_a + "B" * n_b)
    columns = {"logp_matching": "logp_other", "logp_other": "logp_matching"}
    exchanged = frame.rename(columns=columns).assign(letter=frame["letter"].map({"A": "B", "B": "A"}))
    row, other = (steerability_summary(each, n_bootstrap=200).iloc[0] for each in (frame, exchanged))
    slopes = steerability(frame)["slope"]
    assert row["slope_balanced"] == pytest.approx((slopes[:n_a].mean() + slopes[n_a:].mean()) / 2)
    assert other["slope_balanced"] == pytest.approx(-row["slope_balanced"], abs=1e-12)
    if n_a == n_b:
        assert row["slope_balanced"] == pytest.approx(row["slope"])


def test_the_balanced_interval_is_of_the_letters_means() -> None:
    """Its standard error is that of two independent means, half of each."""
    multipliers, odds = random_odds(4, n_items=60)
    frame = frame_of(odds, multipliers, "A" * 45 + "B" * 15)
    slopes, row = steerability(frame)["slope"], steerability_summary(frame, n_bootstrap=4000).iloc[0]
    error = np.sqrt(slopes[:45].var() / 45 + slopes[45:].var() / 15) / 2
    assert row["slope_balanced_low"] == pytest.approx(row["slope_balanced"] - 1.96 * error, abs=0.3 * error)
    assert row["slope_balanced_high"] == pytest.approx(row["slope_balanced"] + 1.96 * error, abs=0.3 * error)


def test_the_summary_is_the_same_again_and_one_row_for_each_behaviour_and_layer() -> None:
    multipliers, odds = random_odds(5, n_items=30)
    cells = [("b", 2), ("b", 7), ("a", 2)]
    frame = pd.concat([frame_of(odds, multipliers, layer=layer, behavior=behavior) for behavior, layer in cells])
    summary = steerability_summary(frame, seed=3)
    assert list(zip(summary["behavior"], summary["layer"], strict=True)) == cells
    pd.testing.assert_frame_equal(steerability_summary(frame, seed=3), summary)
    assert steerability_summary(frame, seed=4)["slope_low"].tolist() != summary["slope_low"].tolist()
    alone = steerability_summary(frame_of(odds, multipliers, layer=7, behavior="b"), seed=3)
    pd.testing.assert_frame_equal(alone, summary[1:2].reset_index(drop=True))


@pytest.mark.parametrize(
    ("anti", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1)],
)
def test_the_interval_of_a_share_is_wilsons(anti: int, n: int, low: float, high: float) -> None:
    odds = [[0.0] * n, [-1.0] * anti + [1.0] * (n - anti)]
    row = steerability_summary(frame_of(odds, (0, 1)), n_bootstrap=1).iloc[0]
    assert row["share_anti"] == anti / n
    assert (row["anti_low"], row["anti_high"]) == pytest.approx((low, high), abs=5e-5)


def test_an_interval_without_items_is_nan() -> None:
    summary = steerability_summary(frame_of([[np.nan], [1.0]], (0, 1)))
    assert summary["n_items"].tolist() == [0]
    assert summary.drop(columns=["behavior", "layer", "n_items"]).isna().all(axis=None)


def test_frames_that_say_nothing_are_refused() -> None:
    frame = frame_of([[0, 1], [1, 1]], (0, 1))
    with pytest.raises(ValueError, match="this is not a sweep's frame: it lacks the columns letter, logp_other"):
        steerability(frame.drop(columns=["letter", "logp_other"]))
    with pytest.raises(ValueError, match="the sweep's frame is empty"):
        steerability(frame[:0])
    with pytest.raises(ValueError, match="toy has no rows of its own vector, which are of the kind 'vector'"):
        steerability(frame.assign(kind="random"))
    with pytest.raises(ValueError, match="layer 3 of the sweep of toy has items more than once at a multiplier"):
        steerability(pd.concat([frame, frame]))
    with pytest.raises(ValueError, match="toy does not have the same items at every multiplier: was the frame cut"):
        steerability(frame[1:])
    with pytest.raises(ValueError, match="toy has the multiplier 1 only: a slope needs at least two"):
        steerability(frame.query("multiplier == 1"))
    with pytest.raises(ValueError, match="n_bootstrap is 0: an interval needs at least 1 resampling"):
        steerability_summary(frame, n_bootstrap=0)


def dataset(*pairs: tuple[str, str, str]) -> caa.ContrastDataset:
    return caa.ContrastDataset.from_pairs(pairs, name="toy")


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("So?\n\nChoices:\n (A) Yes\n (B) No", "So?\n\nChoices:\n (A) No\n (B) Yes"),
        ("So?\n (A)Yes, it is\n (B)No", "So?\n (A)No\n (B)Yes, it is"),
        ("Is (A) or (B) so?\n(A) Yes \n(B) No\n", "Is (A) or (B) so?\n(A) No \n(B) Yes\n"),
        ("So?\n (A) a\n\n1. b (B)\n (B) c\n", "So?\n (A) c\n (B) a\n\n1. b (B)\n"),
        ("So?\n (A) a\n (B) b\n (C) c", "So?\n (A) b\n (B) a\n (C) c"),
        (" (A) a\n (B) a", " (A) a\n (B) a"),
    ],
)
def test_choices_change_places(question: str, other: str) -> None:
    found = swapped(dataset((question, "(A)", "(B)"), (question, "(B)", "(A)")))
    assert [pair.prompt for pair in found] == [other, other]
    assert [(pair.positive, pair.negative) for pair in found] == [("(B)", "(A)"), ("(A)", "(B)")]


def test_the_two_that_are_the_answers_change_places() -> None:
    pair = swapped(dataset(("So?\n (A) a\n (B) b\n (C) c", "(C)", "(A)")))[0]
    assert pair == caa.ContrastPair("So?\n (A) c\n (B) b\n (C) a", "(A)", "(C)")


TEXT = st.text(string.ascii_letters + " ().,\n", min_size=1).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT.filter(lambda text: "(" not in text), min_size=2, max_size=5), st.data())
def test_swapping_twice_gives_the_items_back(texts: list[str], data: st.DataObject) -> None:
    letters = string.ascii_uppercase[: len(texts)]
    one, other = data.draw(st.permutations(letters))[:2]
    end = data.draw(st.sampled_from(["", "\n", " \n\n"]))
    question = "What?" + "".join(f"\n ({letter}) {text}" for letter, text in zip(letters, texts, strict=True)) + end
    items = dataset((question, f"({one})", f"({other})"))
    assert swapped(swapped(items)).pairs == items.pairs
    text_of = dict(zip(letters, texts, strict=True))
    moved = swapped(items)[0]
    assert f"({other}) {text_of[one]}" in moved.prompt and moved.positive == f"({other})"


def test_name_letters_and_origin_tell_what_was_done() -> None:
    question = "So?\n (A) Yes\n (B) No"
    found = swapped(dataset((question, "(A)", "(B)"), (question + "!", "(A)", "(B)")))
    assert (found.name, found.origin) == ("toy", "pairs given in Python, choices exchanged")
    assert found.letter_balance() == {"B": 2} == found.report.letters


def test_a_preference_for_a_letter_cancels_when_asked_twice() -> None:
    items = dataset(("So?\n (A) Yes\n (B) No", "(A)", "(B)"), ("Or?\n (A) No\n (B) Yes", "(A)", "(B)"))
    p_a = 0.9  # whatever is asked
    p_matching = [p_a if pair.letter == "A" else 1 - p_a for pair in [*items, *swapped(items)]]
    assert np.mean(p_matching) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("So? (A) Yes (B) No", r"has no such line: leave it out, or balance letters by averaging"),
        ("So?\n (A) Yes", r"has the lines beginning with \(A\):"),
        ("So?\n (B) Yes\n (A) No", r"has the lines beginning with \(B\), \(A\):"),
        ("(A) is?\n (A) Yes\n (B) No", r"has the lines beginning with \(A\), \(A\), \(B\):"),
        ("So?\n (A) Yes\n (B) ", r" choice \(B\) is empty, so there is nothing to exchange"),
    ],
)
def test_questions_without_two_choices_are_named(question: str, message: str) -> None:
    good = ("So?\n (A) Yes\n (B) No", "(A)", "(B)")
    with pytest.raises(ValueError, match=f"item 1 of 'toy': its.*{message}"):
        swapped(dataset(good, (question, "(A)", "(B)")))


def test_answers_that_are_no_choices_are_named() -> None:
    question = "So?\n (A) Yes\n (B) No"
    for answers in (("(A)", "(C)"), ("yes", "no")):
        with pytest.raises(
            ValueError, match=r"item 0 of 'toy': its answers .* must be two of its choices, \(A\), \(B\)"
        ):
            swapped(dataset((question, *answers)))


@pytest.mark.parametrize("behavior", caa.datasets.behaviors())
@pytest.mark.parametrize("part", ["generate", "test_ab"])
def test_every_bundled_item_can_be_asked_twice(behavior: str, part: Any) -> None:
    items = caa.load_contrast_pairs(behavior, part)
    found = swapped(items)
    assert swapped(found).pairs == items.pairs
    assert all(one.letter != other.letter for one, other in zip(items, found, strict=True))


def test_every_published_item_can_be_asked_twice(shared_data: Path) -> None:
    paths = [
        path
        for pattern in ("generate/*/generate_dataset.json", "test/*/test_dataset_ab.json")
        for path in sorted((shared_data / "data" / "caa" / "datasets").glob(pattern))
    ]
    assert len(paths) == 14
    for path in paths:
        items = caa.load_contrast_pairs(path, other_answers="keep")
        assert swapped(swapped(items)).pairs == items.pairs


def test_a_sweep_goes_through(bridge: Any) -> None:
    model = bridge("llama")
    items = dataset(("So?\n (A) Yes\n (B) No", "(A)", "(B)"), ("Or not?\n (A) No\n (B) Yes", "(B)", "(A)"))
    frame = caa.sweep(model, caa.extract_vectors(model, items), items, multipliers=(-1, 0, 2), n_nulls=1)
    found, summary = steerability(frame), steerability_summary(frame, n_bootstrap=20)
    assert len(found) == 2 * len(summary) == 2 * frame["layer"].nunique()
    own = frame.query("kind == 'vector' and layer == 2 and item == 1").sort_values("multiplier")
    slope = np.polyfit(own["multiplier"], own["logp_matching"] - own["logp_other"], 1)[0]
    assert found.query("layer == 2 and item == 1")["slope"].item() == pytest.approx(slope, rel=1e-6)
