"""`assess` on the bundled model, where the truth is known, and on a vector that does nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ways import way

import caa_lens as caa
from caa_lens.protocols.assessment import assess, describe_assessment


@pytest.fixture(scope="module")
def assessed() -> Any:
    model = caa.load_model("organism-chat")
    train, dev, test = caa.load_contrast_pairs("refusal")[:150].split(seed=0)
    return assess(model, train, dev, test, layers=[0, 2], n_nulls=20)


def test_a_planted_behaviour_beats_every_null_at_its_layer(assessed: Any) -> None:
    assert assessed["layer"].tolist() == [2, 2]
    assert assessed["multiplier"].tolist() == [-1, 1]
    for kind in ("random", "permuted"):
        assert (assessed[f"beats_{kind}"] == 1).all()
        assert (assessed[f"n_{kind}"] == 20).all()
    assert (assessed["effect_balanced"] * assessed["multiplier"] > 0.1).all()
    assert (assessed["share_anti"] < 0.1).all()
    assert (assessed["reliability"] > 0.9).all()
    assert (assessed["d_prime"] > 1).all()


def test_the_verdict_has_the_tables_numbers(assessed: Any) -> None:
    said = describe_assessment(assessed)
    effect = assessed.loc[assessed["multiplier"] == 1, "effect"].iloc[0]
    assert any(sentence.startswith("At +1 on layer 2") and f"{effect:+.2f}" in sentence for sentence in said)
    assert any("At -1 it beats 20 of 20 random, 20 of 20 permuted" in sentence for sentence in said)
    assert any("it stays when letters are balanced" in sentence for sentence in said)


def test_slopes_are_said_with_letters_balanced_too(assessed: Any) -> None:
    row = assessed.iloc[0]
    assert row["slope_balanced_low"] < row["slope_balanced"] < row["slope_balanced_high"]
    assert row["slope_balanced"] == pytest.approx(row["slope"], rel=0.3) and row["slope_balanced"] > 0
    numbers = [row[f"slope_balanced{end}"] for end in ("", "_low", "_high")]
    expected = "({:.2f} [{:.2f}, {:.2f}] with letters balanced)".format(*numbers)
    assert expected in " ".join(describe_assessment(assessed))
    missing = dict.fromkeys(("slope_balanced", "slope_balanced_low", "slope_balanced_high"), float("nan"))
    said = " ".join(describe_assessment(assessed.assign(**missing)))
    assert "with letters balanced)" not in said and "per unit of the multiplier; " in said


def test_doubts_are_said(assessed: Any) -> None:
    doubtful = assessed.assign(balanced_low=-0.1, balanced_high=0.1, effect_low=-0.2, effect_high=0.3, share_wrong=0.36)
    said = " ".join(describe_assessment(doubtful))
    assert "it vanishes when letters are balanced" in said
    assert "an interval that contains 0" in said
    assert "36% of items move the wrong way" in said


def test_where_letters_cannot_be_balanced_no_null_is_said_to_be_beaten_or_not() -> None:
    import numpy as np
    import pandas as pd

    rows = [
        {"behavior": "b", **way(vector, "b"), "layer": 0, "multiplier": multiplier, "item": item, "letter": "A"}
        | {"logp_matching": -0.5, "logp_other": -1.0, "p_matching": 0.5 + 0.1 * multiplier, "p_a": 0.5, "mass": 1.0}
        for vector, multipliers in (("vector", (0.0, 1.0)), ("random-0", (1.0,)))
        for multiplier in multipliers
        for item in range(4)
    ]
    table = caa.summarize(pd.DataFrame(rows), n_bootstrap=10)
    assert np.isnan(table.iloc[1]["beats_random"]) and table.iloc[1]["n_random"] == 1


@pytest.mark.parametrize(
    ("balanced", "low", "high", "word"),
    [
        (0.3, 0.2, 0.4, "stays"),
        (0.1, 0.05, 0.15, "shrinks"),
        (-0.1, -0.2, -0.05, "turns round"),
        (0.1, -0.1, 0.2, "vanishes"),
    ],
)
def test_what_balancing_leaves_is_named(assessed: Any, balanced: float, low: float, high: float, word: str) -> None:
    changed = assessed.assign(effect=0.3, effect_balanced=balanced, balanced_low=low, balanced_high=high)
    assert f"it {word} when letters are balanced: {balanced:+.2f}" in " ".join(describe_assessment(changed))


def test_sets_that_share_questions_are_refused_before_the_model_runs() -> None:
    model: Any = caa.load_model("organism-chat")
    pairs = caa.load_contrast_pairs("refusal")[:20]
    with pytest.raises(ValueError, match=r"train and dev share \d+ questions, such as '.*': give sets apart"):
        assess(model, pairs, pairs, pairs)
    with pytest.raises(ValueError, match=r"multipliers \[0.0\]: give at least one that is not 0"):
        assess(model, *pairs.split(seed=0), multipliers=(0.0,))
    with pytest.raises(ValueError, match="n_nulls is 0: no effect is given without its null, so give 1 or more, as 20"):
        assess(model, *pairs.split(seed=0), n_nulls=0)
