"""Searches: how many evaluations they need, what they choose, what they refuse, and that they go on after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import caa_lens as caa
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.protocols.composition import (
    COEFFICIENTS,
    ask,
    compared,
    n_assignments,
    search_coefficients,
    search_layers,
)
from caa_lens.protocols.composition import evaluations as running
from caa_lens.vectors.vectors import Provenance, SteeringVectors

NAMES = ("brave", "kind")


def items(name: str, what: str, n: int = 4) -> ContrastDataset:
    rows = [
        (f"{what} {name} {i}?\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 2 else ("(B)", "(A)"))) for i in range(n)
    ]
    return ContrastDataset.from_pairs(rows, name=name)


DEV, TEST = ({name: items(name, what) for name in NAMES} for what in ("Some", "Other"))


def random_vectors(name: str, seed: int, n_layers: int = 3, d_model: int = 32) -> SteeringVectors:
    values = torch.randn(n_layers, d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVectors(values, tuple(range(n_layers)), Provenance.unknown("toy"), name)


VECTORS = {name: random_vectors(name, seed) for seed, name in enumerate(NAMES)}
LOOSE: dict[str, Any] = {"max_outside": 1.0, "n_nulls": 2}


@pytest.fixture(scope="module")
def llama(bridge: Callable[[str], Any]) -> Any:
    return bridge("llama")


@given(st.integers(1, 4), st.integers(4, 6))
def test_the_number_of_assignments_is_counted(n: int, layers: int) -> None:
    assert n_assignments(n, layers) == len(list(permutations(range(layers), n)))
    assert n_assignments(n, layers, "greedy") == sum(range(layers - n + 1, layers + 1))


def test_coefficients_go_from_a_half_to_three_hundred() -> None:
    assert (COEFFICIENTS[0], COEFFICIENTS[-1], len(COEFFICIENTS)) == (0.5, 300.0, 12)
    ratios = np.diff(np.log(COEFFICIENTS))
    assert ratios.min() == pytest.approx(ratios.max(), rel=0.02)


def test_the_largest_effect_together_is_chosen(llama: Any) -> None:
    found = search_layers(llama, VECTORS, DEV, TEST, coefficients={"brave": 2.0, "kind": -1.0}, **LOOSE)
    tried = found.tried
    assert tried["candidate"].nunique() == n_assignments(2, 3) == 6
    assert (tried.groupby("candidate")["layer"].nunique() == 2).all(), "a layer each"
    effects: dict[tuple[int, int], float] = {}
    for places in permutations(range(3), 2):
        recipe = [VECTORS["brave"][places[0]] * 2.0, VECTORS["kind"][places[1]] * -1.0]
        each = [
            compared(ask(llama, {"x": recipe}, DEV[name])).set_index("vector").loc["x", "effect_even"] for name in NAMES
        ]
        effects[places] = (each[0] - each[1]) / 2  # the second vector is steered against
        candidate = tried[tried["candidate"] == f"brave layer {places[0]} x 2.0, kind layer {places[1]} x -1.0"]
        assert candidate["effect_even"].tolist() == pytest.approx(each, abs=1e-5)
        assert candidate["objective"].tolist() == pytest.approx([effects[places]] * 2, abs=1e-5)
    best = max(effects, key=lambda places: effects[places])
    assert tuple(found.parts[name].layer for name in NAMES) == best
    assert [found.parts[name].multiplier for name in NAMES] == [2.0, -1.0]
    table = found.table.set_index("behavior")
    recipe = [*found.parts.values()]
    for name in NAMES:
        on_test = compared(ask(llama, {"x": recipe, "own": found.parts[name]}, TEST[name])).set_index("vector")
        row, sign = table.loc[name], np.sign(found.parts[name].multiplier)
        assert row["effect_even"] == pytest.approx(on_test.loc["x", "effect_even"], abs=1e-5)
        assert row["effect_alone"] == pytest.approx(on_test.loc["own", "effect_even"], abs=1e-5)
        assert row["optimism"] == pytest.approx((row["effect_even_dev"] - row["effect_even"]) * sign)
        assert row["n_random"] == 2 and row["random_low"] <= row["random_high"]


def test_greedy_places_one_after_another(llama: Any) -> None:
    found = search_layers(llama, VECTORS, DEV, TEST, how="greedy", **LOOSE)
    tried = found.tried
    assert tried["candidate"].nunique() == n_assignments(2, 3, "greedy") == 5
    alone = tried[~tried["candidate"].str.contains(",")]
    first = int(alone.loc[alone["objective"].idxmax(), "layer"])
    assert found.parts["brave"].layer == first
    later = tried[tried["candidate"].str.contains(",")]
    assert set(later[later["behavior"] == "brave"]["layer"]) == {first}
    assert sorted(later[later["behavior"] == "kind"]["layer"]) == sorted({0, 1, 2} - {first})
    best = later.loc[later["objective"].idxmax(), "candidate"]
    assert best.endswith(f"kind layer {found.parts['kind'].layer} x 1.0")


def test_coefficients_alone_and_jointly(llama: Any) -> None:
    at = {name: vectors[1] for name, vectors in VECTORS.items()}
    alone = search_coefficients(llama, at, DEV, TEST, coefficients=(0.5, 1, 2), sign=-1, **LOOSE)
    assert len(alone.tried) == 6 and (alone.tried["multiplier"] < 0).all() and "effect_alone" not in alone.table
    for name in NAMES:
        mine = alone.tried[alone.tried["behavior"] == name]
        assert alone.parts[name].multiplier == mine.loc[mine["effect_even"].idxmin(), "multiplier"]
    jointly = search_coefficients(llama, at, DEV, TEST, coefficients=(0.5, 1, 2), jointly=True, **LOOSE)
    assert jointly.tried["candidate"].nunique() == 9 and len(jointly.tried) == 18
    best = jointly.tried.loc[jointly.tried["objective"].idxmax(), "candidate"]
    said = ", ".join(f"{name} layer 1 x {jointly.parts[name].multiplier}" for name in NAMES)
    assert best == said


def test_what_leaves_the_choices_is_out() -> None:
    model = caa.load_model("organism-chat")
    pairs = caa.load_contrast_pairs("refusal")[:60]
    vectors = {"refusal": caa.extract_vectors(model, pairs)[2]}
    test = caa.load_contrast_pairs("refusal", "test_ab")
    given: dict[str, Any] = {"dev": {"refusal": test[:20]}, "test": {"refusal": test[20:40]}, "n_nulls": 3}
    found = search_coefficients(model, vectors, **given, coefficients=(1, 3, 20, 80))
    tried = found.tried.set_index("multiplier")
    assert tried["permitted"].tolist() == [True, True, False, False]
    assert tried.loc[80, "share_outside"] == 1 and tried.loc[80, "effect_even"] > 0.1, (
        "the ratio of the two still looks like steering"
    )
    assert found.parts["refusal"].multiplier == 3 and found.table.iloc[0]["effect_even_low"] > 0.3
    assert found.table.iloc[0]["beats_random"] == 1
    strict = search_coefficients(
        model, vectors, **given, coefficients=(1, 3), min_mass=float(tried.loc[1, "mass"]) - 1e-6
    )
    assert strict.tried["permitted"].tolist() == [True, bool(tried.loc[3, "mass"] >= tried.loc[1, "mass"] - 1e-6)]
    message = (
        r"none of 2 candidates for refusal is permitted: at the best one 100% of a behaviour's items are answered with "
        r"neither answer \(allowed 10%\), and the largest mass is .* \(at least 0\); give smaller"
    )
    with pytest.raises(ValueError, match=message):
        search_coefficients(model, vectors, **given, coefficients=(20, 80))


def counted(monkeypatch: pytest.MonkeyPatch, fail_after: int | None = None) -> list[int]:
    """How many ways each call asked on dev items; the model is the real one."""
    calls: list[int] = []

    def count(model: Any, ways: Any, *arguments: Any, **keywords: Any) -> pd.DataFrame:
        if fail_after is not None and len(calls) >= fail_after:
            raise KeyboardInterrupt
        calls.append(len(ways))
        return ask(model, ways, *arguments, **keywords)

    monkeypatch.setattr(running, "ask", count)
    return calls


def test_a_stopped_search_goes_on(llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search_layers(llama, VECTORS, DEV, TEST, **LOOSE)
    cells = tmp_path / "kept" / "cells.json"
    monkeypatch.setattr(running, "AT_ONCE", 2)
    counted(monkeypatch, fail_after=3)  # two behaviours a chunk: the second chunk is stopped half way
    with pytest.raises(KeyboardInterrupt):
        search_layers(llama, VECTORS, DEV, TEST, cells=cells, **LOOSE)
    assert len(json.loads(cells.read_text())["evaluations"]) == 2
    assert [path.name for path in cells.parent.iterdir()] == ["cells.json"]
    calls = counted(monkeypatch)
    resumed = search_layers(llama, VECTORS, DEV, TEST, cells=cells, **LOOSE)
    assert calls == [2, 2, 2, 2], "four of the six were left"
    pd.testing.assert_frame_equal(resumed.tried, whole.tried, atol=1e-6)
    assert resumed.parts == whole.parts
    calls = counted(monkeypatch)
    again = search_layers(llama, VECTORS, DEV, TEST, cells=cells, **LOOSE)
    assert calls == []
    pd.testing.assert_frame_equal(again.tried, resumed.tried, rtol=0, atol=0)


def test_a_file_of_another_search_is_refused(llama: Any, tmp_path: Path) -> None:
    cells = tmp_path / "cells.json"
    search_layers(llama, VECTORS, DEV, TEST, layers=[0, 1], cells=cells, **LOOSE)
    other = {**DEV, "kind": items("kind", "No")}
    with pytest.raises(ValueError, match=r"is of another search, with other dev items of kind: give another file"):
        search_layers(llama, VECTORS, other, TEST, cells=cells, **LOOSE)
    changed = {**VECTORS, "brave": VECTORS["brave"] * 2}
    with pytest.raises(ValueError, match=r"with other system, vectors of brave: give another file"):
        search_layers(llama, changed, DEV, TEST, cells=cells, system="Be brief.", **LOOSE)
    cells.write_text("[]")
    with pytest.raises(ValueError, match=r"cells.json holds no evaluations of a search: give another file"):
        search_layers(llama, VECTORS, DEV, TEST, cells=cells, **LOOSE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_evaluations": 5}, "this search needs 6 evaluations (2 behaviours over 3 layers), each of all dev items, "
         "and max_evaluations is 5: give max_evaluations=6, fewer layers, or how='greedy' (5 evaluations)"),
        ({"max_evaluations": 4, "how": "greedy"}, "needs 5 evaluations"),
        ({"how": "random"}, "how is 'random': give 'every' or 'greedy'"),
        ({"layers": [1]}, "there are 2 behaviours and 1 layers, [1]: give each one of its own"),
        ({"layers": [1, 99]}, "layer 99 is out of range"),
        ({"coefficients": 0.0}, "coefficients are {'brave': 0.0, 'kind': 0.0}"),
        ({"coefficients": {"kind": 1.0}}, "give each a number that is not 0"),
        ({"max_outside": 1.5}, "max_outside 1.5, min_mass 0.0, n_nulls 20: the first two are from 0 to 1"),
        ({"n_nulls": 0}, "no effect is given without its null, so n_nulls is 1 or more"),
        ({"test": {"brave": TEST["brave"]}}, "dev items ['brave', 'kind'] and test items ['brave']: give all under"),
        ({"test": DEV}, "dev of brave and test of brave share 4 questions"),
    ],
)  # fmt: skip
def test_searches_of_layers_are_checked_before_the_model_runs(
    llama: Any, given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    calls = counted(monkeypatch)
    with pytest.raises(ValueError) as raised:
        search_layers(llama, VECTORS, DEV, **({"test": TEST} | given))
    assert message in str(raised.value) and calls == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coefficients": (0, 1)}, "coefficients [0, 1], sign 1: give numbers above 0, and a sign of 1 or -1"),
        ({"coefficients": ()}, "give numbers above 0"),
        ({"sign": 0}, "a sign of 1 or -1"),
        ({"jointly": True, "max_evaluations": 100}, "this search needs 144 evaluations (12 coefficients of 2 "
         "behaviours, jointly), each of all dev items, and max_evaluations is 100: give max_evaluations=144, fewer "
         "coefficients, or jointly=False (24 evaluations)"),
    ],
)  # fmt: skip
def test_searches_of_coefficients_are_checked_before_the_model_runs(
    llama: Any, given: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    with pytest.raises(ValueError) as raised:
        search_coefficients(llama, {name: vectors[1] for name, vectors in VECTORS.items()}, DEV, TEST, **given)
    assert message in str(raised.value) and calls == []


def test_the_number_of_evaluations_is_shown_at_the_start(llama: Any, capfd: pytest.CaptureFixture[str]) -> None:
    search_layers(llama, VECTORS, DEV, TEST, progress=True, **LOOSE)
    assert capfd.readouterr().err.lstrip("\r").startswith("searching, 6 evaluations:   0%")
