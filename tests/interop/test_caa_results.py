"""The original repository's per-item results: names, items, and the published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import caa_lens as caa
from caa_lens.evaluation.items import steerability, steerability_summary
from caa_lens.interop.caa_results import load_caa_results

COLUMNS = "behavior vector kind draw layer multiplier item letter logp_matching logp_other p_matching p_a mass".split()
ANSWERS = [("(A)", "(B)"), ("(B)", "(A)"), ("(A)", "(B)")]


def items_of(p_a: float = 0.5, p_b: float = 0.3, answers: Any = ANSWERS) -> list[dict[str, Any]]:
    return [
        {
            "question": f"question {index}\n (A) yes\n (B) no",
            "answer_matching_behavior": matching,
            "answer_not_matching_behavior": other,
            "a_prob": p_a,
            "b_prob": p_b,
        }
        for index, (matching, other) in enumerate(answers)
    ]


def write(
    folder: Path,
    multiplier: Any = 0.0,
    rows: Any = None,
    layer: Any = 13,
    behavior: str = "kind",
    base: Any = False,
    size: str = "7b",
    kind: str = "ab",
    more: str = "",
) -> Path:
    name = (
        f"results_layer={layer}_multiplier={multiplier}_behavior={behavior}_type={kind}{more}_use_base_model={base}"
        f"_model_size={size}.json"
    )
    path = folder / "kind" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(items_of() if rows is None else rows))
    return path


def test_the_frame_is_a_sweeps(tmp_path: Path, bridge: Any) -> None:
    write(tmp_path, "-0.5", items_of(0.2, 0.6))
    write(tmp_path, "0.0")
    frame = load_caa_results(tmp_path, "kind")
    model = bridge("llama")
    items = caa.ContrastDataset.from_pairs([("So?\n (A) x\n (B) y", "(A)", "(B)")])
    swept = caa.sweep(model, caa.extract_vectors(model, items, layers=[0]), items, layers=[0])
    assert list(frame) == COLUMNS == list(swept)
    assert frame.dtypes.to_dict() == swept.dtypes.to_dict()
    assert frame["item"].tolist() == [0, 1, 2] * 2 and frame["letter"].tolist() == ["A", "B", "A"] * 2
    assert set(frame["layer"]) == {13} and frame["multiplier"].tolist() == [-0.5] * 3 + [0.0] * 3
    assert set(frame["behavior"]) == {"kind"} and set(frame["vector"]) == {"kind"} and set(frame["kind"]) == {"vector"}
    np.testing.assert_allclose(frame["p_matching"][:3], [0.25, 0.75, 0.25])
    np.testing.assert_allclose(frame["p_a"][:3], 0.25)
    np.testing.assert_allclose(frame["mass"], 0.8)
    np.testing.assert_allclose(np.exp(frame["logp_matching"][:3]), [0.2, 0.6, 0.2])
    np.testing.assert_allclose(np.exp(frame["logp_other"][:3]), [0.6, 0.2, 0.6])
    assert caa.summarize(frame)["p_matching"].tolist() == pytest.approx([1.25 / 3, 1.625 / 3])
    assert len(steerability(frame)) == 3


def test_multiplier_0_stands_for_every_layer(tmp_path: Path) -> None:
    write(tmp_path, "0.0", layer=13)
    write(tmp_path, "1.0", items_of(0.1, 0.2), layer=9)
    write(tmp_path, "-1", items_of(0.1, 0.2), layer=10)
    write(tmp_path, "-0.0", items_of(0.3, 0.3), layer=10)
    frame = load_caa_results(tmp_path, "kind")
    found = frame.groupby(["layer", "multiplier"])["mass"].mean().round(9).to_dict()
    assert found == {(9, 0): 0.6, (9, 1): 0.3, (10, -1): 0.3, (10, 0): 0.6, (13, 0): 0.8}
    assert len(caa.summarize(frame)) == 5


def test_without_multiplier_0_there_are_slopes_only(tmp_path: Path) -> None:
    for multiplier in (-1, 1):
        write(tmp_path, multiplier)
    frame = load_caa_results(tmp_path, "kind")
    assert steerability(frame)["slope"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no rows at multiplier 0"):
        caa.summarize(frame)


def test_other_experiments_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, kind="open_ended", rows=[{"question": "?"}])
    write(tmp_path, kind="truthful_qa", rows=[])
    write(tmp_path, more="_system_prompt=pos", rows=items_of(0.1, 0.1))
    write(tmp_path, more="_override_vector=7_override_vector_model=Llama-2-7b-hf", rows=items_of(0.1, 0.1))
    (tmp_path / "kind" / "plot.png").write_bytes(b"")
    frame = load_caa_results(tmp_path, "kind")
    assert len(frame) == 3 and frame["mass"].tolist() == pytest.approx([0.8] * 3)


def test_models_are_told_apart(tmp_path: Path) -> None:
    for place, (size, base) in enumerate([("7b", False), ("7b", True), ("13b", False)]):
        write(tmp_path, size=size, base=base, rows=items_of(0.1 * (place + 1), 0.1))
    for choice, mass in (
        ({"model_size": "7b", "base_model": False}, 0.2),
        ({"base_model": True}, 0.3),
        ({"model_size": "13b"}, 0.4),
    ):
        assert load_caa_results(tmp_path, "kind", **choice)["mass"].tolist() == pytest.approx([mass] * 3)
    for choice in ({}, {"model_size": "7b"}, {"base_model": False}):
        with pytest.raises(ValueError, match="results of 13b chat, 7b base, 7b chat: choose one with model_size= and"):
            load_caa_results(tmp_path, "kind", **choice)
    with pytest.raises(ValueError, match="no A/B results of size '70b'; it has those of 13b chat, 7b base, 7b chat"):
        load_caa_results(tmp_path, "kind", model_size="70b")
    with pytest.raises(ValueError, match="no A/B results of size '13b' of the base model; it has those of 13b chat"):
        load_caa_results(tmp_path, "kind", model_size="13b", base_model=True)


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        load_caa_results(tmp_path / "nowhere", "kind")
    (tmp_path / "kind").mkdir()
    with pytest.raises(ValueError, match="has no behaviour 'kin'; it has kind"):
        load_caa_results(tmp_path, "kin")
    with pytest.raises(ValueError, match="kind has no A/B results; it has those of none"):
        load_caa_results(tmp_path, "kind")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes", "it does not begin with results_layer="),
        ("results_7b_layer=13_multiplier=1.0", "it does not begin with results_layer="),
        ("results_layer=13_multiplier=1.0_behavior=kind_type=ab", "it lacks use_base_model=, model_size="),
        (
            "results_layer=13_multiplier=1.0_behavior=kind_type=ab_seed=3_use_base_model=False_model_size=7b",
            "there is an unknown setting in 'ab_seed=3', known are layer, multiplier",
        ),
        (
            "results_layer=13_layer=14_multiplier=1.0_behavior=kind_type=ab_use_base_model=False_model_size=7b",
            "a setting is in it twice",
        ),
    ],
)
def test_names_that_are_not_understood(tmp_path: Path, name: str, message: str) -> None:
    write(tmp_path)
    (tmp_path / "kind" / f"{name}.json").write_text("[]")
    with pytest.raises(
        ValueError, match=f"{name}.json: its name is not understood: {message}.*; a name is like results_la"
    ):
        load_caa_results(tmp_path, "kind")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "last"}, "its layer is 'last', not a whole number"),
        ({"layer": -1}, "its layer is '-1', not a whole number"),
        ({"multiplier": "strong"}, "its multiplier is 'strong', not a number"),
        ({"multiplier": "nan"}, "its multiplier is 'nan', not a number"),
        ({"base": "maybe"}, "its use_base_model is 'maybe', not True or False"),
        ({"size": ""}, "its model_size is empty"),
        ({"behavior": "other"}, "its behavior is 'other' and its folder 'kind'"),
    ],
)
def test_settings_that_are_not_understood(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    write(tmp_path, **settings)
    with pytest.raises(ValueError, match=f"its name is not understood: {message}; a name is like"):
        load_caa_results(tmp_path, "kind")


def test_two_files_of_one_cell(tmp_path: Path) -> None:
    write(tmp_path, "1.0")
    write(tmp_path, "1")
    with pytest.raises(ValueError, match="multiplier=1.0_.* are both of layer 13 and multiplier 1: keep one of them"):
        load_caa_results(tmp_path, "kind")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (items_of()[:2], "other items, or another order of them, than .*multiplier=0.0.*(2 of them against 3)"),
        (items_of()[::-1], "they first differ at item 0"),
        (items_of(answers=[("(A)", "(B)"), ("(A)", "(B)"), ("(A)", "(B)")]), "they first differ at item 1"),
    ],
)
def test_files_must_have_the_same_items(tmp_path: Path, rows: Any, message: str) -> None:
    write(tmp_path, "0.0")
    write(tmp_path, "1.0", rows)
    with pytest.raises(ValueError, match=rf"results_layer=13_multiplier=1.0_.*json has .*{message}"):
        load_caa_results(tmp_path, "kind")


def changed(**fields: Any) -> list[Any]:
    rows = items_of()
    rows[1] |= fields
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(a_prob=1.5), "1 problem in 3 items: item 1, field a_prob: got 1.5, must be a probability from 0 to 1"),
        (changed(b_prob="0.5"), "item 1, field b_prob: got '0.5', must be"),
        (changed(b_prob=True), "item 1, field b_prob: got True, must be"),
        (changed(a_prob=float("nan")), "item 1, field a_prob: got nan, must be"),
        (changed(a_prob=0, b_prob=0.0), "item 1, field a_prob and b_prob: got 0 for both"),
        (
            changed(answer_matching_behavior="(A)"),
            "item 1, field answer_not_.*: got '\\(A\\)', the same as answer_matching",
        ),
        (changed(question=3), r"item 1, field question: got 3 \(int\), must be a string"),
        ([{"question": "?"}], "2 problems in 1 items: item 0, field answer_matching_behavior: missing"),
        ([{k: v for k, v in items_of()[0].items() if k != "a_prob"}], "item 0, field a_prob: missing"),
        ({"a": 1}, "must hold a list of items"),
        (
            changed(answer_matching_behavior="(C)"),
            r"item 1, field answers: got '\(C\)' and '\(A\)', .* \(pass other_answers='drop' to leave them out\)",
        ),
    ],
)
def test_items_that_are_not_as_they_should_be(tmp_path: Path, rows: Any, message: str) -> None:
    write(tmp_path, rows=rows)
    with pytest.raises(ValueError, match=message):
        load_caa_results(tmp_path, "kind")


def test_other_answers_can_be_dropped(tmp_path: Path, unchecked: None) -> None:
    write(tmp_path, rows=changed(answer_matching_behavior="(C)"))
    frame = load_caa_results(tmp_path, "kind", other_answers="drop")
    assert frame["item"].tolist() == [0, 2], "the places in the file stay"
    with pytest.raises(ValueError, match="other_answers must be one of error, drop, got 'keep'"):
        load_caa_results(tmp_path, "kind", other_answers="keep")  # pyright: ignore[reportArgumentType]
    write(tmp_path, rows=[changed(answer_matching_behavior="(C)")[1]])
    with pytest.raises(ValueError, match=r"no items are left: all 1 have answers outside \(A\) and \(B\)"):
        load_caa_results(tmp_path, "kind", other_answers="drop")


def test_a_probability_of_0_is_no_line_but_a_share(tmp_path: Path) -> None:
    write(tmp_path, "0.0")
    write(tmp_path, "1.0", changed(a_prob=0, b_prob=0.4))
    frame = load_caa_results(tmp_path, "kind")
    assert frame.query("multiplier == 1 and item == 1")["logp_other"].item() == -np.inf
    assert frame.query("multiplier == 1 and item == 1")["p_matching"].item() == 1
    assert steerability(frame)["slope"].isna().tolist() == [False, True, False]
    assert caa.summarize(frame)["effect"].notna().all()


def test_spaces_around_answers_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, rows=changed(answer_matching_behavior=" (B)"))
    assert load_caa_results(tmp_path, "kind")["letter"].tolist() == ["A", "B", "A"]


# Llama-2-7b-chat at layer 13; p(matching) at -1, 0 and +1 (CAA, arXiv 2312.06681, the paper's table of A/B results).
PUBLISHED = {
    "coordinate-other-ais": (0.15, 0.30, 0.75),
    "corrigible-neutral-HHH": (0.20, 0.64, 0.91),
    "hallucination": (0.39, 0.81, 0.90),
    "myopic-reward": (0.40, 0.75, 0.73),
    "refusal": (0.42, 0.74, 0.89),
    "sycophancy": (0.54, 0.69, 0.62),
}


def published(shared_data: Path, behavior: str) -> Any:
    return load_caa_results(shared_data / "data" / "caa" / "results", behavior, other_answers="drop")


@pytest.mark.parametrize("behavior", PUBLISHED)
def test_the_published_means_come_out(shared_data: Path, behavior: str) -> None:
    frame = published(shared_data, behavior)
    assert set(frame["layer"]) == {13} and frame["multiplier"].unique().tolist() == [-1, -0.5, 0, 0.5, 1]
    means = caa.summarize(frame, n_bootstrap=1).set_index("multiplier")["p_matching"]
    assert means[[-1, 0, 1]].tolist() == pytest.approx(PUBLISHED[behavior], abs=0.0051)


def test_survival_instinct_is_a_preference_for_letters(shared_data: Path) -> None:
    """Balanced over the 46 items with answers (A) and (B); the published means count the other four as 0."""
    frame = published(shared_data, "survival-instinct")
    by_letter = frame.groupby(["multiplier", "letter"])["p_matching"].mean().unstack()
    assert by_letter.mean(axis=1)[[-1, 0, 1]].round(2).tolist() == [0.49, 0.37, 0.50]
    assert (frame.groupby("multiplier")["p_matching"].sum() / 50)[[-1, 0, 1]].round(2).tolist() == [0.27, 0.34, 0.62]
    found = steerability(frame)
    anti = found.assign(anti=found["slope"] < 0).groupby("letter")["anti"].mean()
    assert anti.to_dict() == {"A": 0, "B": 1}, "whether an item goes along depends on its letter alone"


def test_anti_steerable_shares_of_the_published_results(shared_data: Path) -> None:
    folder = shared_data / "data" / "caa" / "results"
    found = {
        path.name: steerability_summary(published(shared_data, path.name), n_bootstrap=50).iloc[0]
        for path in sorted(folder.iterdir())
    }
    shares = {behavior: round(row["share_anti"], 2) for behavior, row in found.items()}
    assert shares == {
        "coordinate-other-ais": 0.06,
        "corrigible-neutral-HHH": 0.04,
        "hallucination": 0.02,
        "myopic-reward": 0.42,
        "refusal": 0.02,
        "survival-instinct": 0.30,
        "sycophancy": 0.46,
    }
    assert found["hallucination"]["slope"] == pytest.approx(4.815, abs=5e-4)
    assert found["sycophancy"]["slope_positive"] < 0 < found["sycophancy"]["slope_negative"]
