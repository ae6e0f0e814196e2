"""Questions with a right answer: loading, the frame against full passes, every column by hand, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import error, run
from plain import plain_logits
from ways import way

import caa_lens as caa
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.evaluation.capabilities import (
    CapabilitySet,
    capabilities,
    capability_sets,
    describe_capabilities,
    load_capabilities,
    summarize_capabilities,
)
from caa_lens.evaluation.statistics import mcnemar
from caa_lens.prompts import format_prompt

ROW = {"prompt": "What is it?\n (A) one\n (B) other", "correct": "(A)", "incorrect": "(B)", "category": "one"}


def write(folder: Path, rows: list[dict[str, str]], name: str = "asked.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(rows))
    return file


def toy(n: int = 4) -> CapabilitySet:
    pairs = [(f"Is it {i}?\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 2 else ("(B)", "(A)"))) for i in range(n)]
    return CapabilitySet("toy", ContrastDataset.from_pairs(pairs, name="toy"), ("small", *["large"] * (n - 1)))


def test_bundled_sets_are_there() -> None:
    assert capability_sets() == ("facts", "truthful")
    for name in capability_sets():
        questions = load_capabilities(name)
        assert (questions.name, len(questions), questions.items.letter_balance()) == (name, 100, {"A": 50, "B": 50})
        assert set(questions.categories) == {"capitals", "colours", "homes", "sounds"}
    assert load_capabilities("facts").categories.count("capitals") == 49
    assert load_capabilities("facts").summary() == (
        "facts: 100 read, 100 kept; matching letter: A 50, B 50; 4 categories"
    )


def test_published_sets_are_read_as_they_are(shared_data: Path) -> None:
    folder = shared_data / "data" / "caa" / "datasets" / "test"
    mmlu = load_capabilities(folder / "mmlu" / "mmlu.json")
    assert (mmlu.name, len(mmlu), len(set(mmlu.categories)), mmlu.empty_choices) == ("mmlu", 570, 57, ())
    assert {mmlu.categories.count(name) for name in mmlu.categories} == {10}
    assert mmlu.items.letter_balance() == {"A": 299, "B": 271}
    truthful = load_capabilities(folder / "truthfulqa" / "truthful_qa.json")
    assert (truthful.name, len(truthful), truthful.items.letter_balance()) == ("truthful_qa", 817, {"A": 419, "B": 398})
    assert len(truthful.empty_choices) == 5 and "5 have a choice without text" in truthful.summary()
    for place in truthful.empty_choices:
        assert truthful.items[place].prompt.endswith("(B) ") or "(A) \n" in truthful.items[place].prompt
    without = load_capabilities(folder / "truthfulqa" / "truthful_qa.json", empty_choices="drop")
    assert len(without) == len(without.categories) == 812 and without.empty_choices == ()


def test_published_questions_go_through_the_sweep(shared_data: Path) -> None:
    path = shared_data / "data" / "caa" / "datasets" / "test" / "mmlu" / "mmlu.json"
    weights = shared_data / "models" / "stories260K"
    if not weights.is_dir():
        pytest.skip("needs the shared model stories260K, which this machine does not have")
    model = caa.load_model(weights)
    mmlu = load_capabilities(path)
    short = min(range(0, 570, 10), key=lambda at: max(len(pair.prompt) for pair in mmlu.items[at : at + 4]))
    questions = mmlu[short : short + 4]
    vectors = caa.extract_vectors(model, toy().items)
    table = summarize_capabilities(capabilities(model, vectors, questions, layers=[2], n_nulls=3))
    assert table["n_items"].tolist() == [4, 4, 4]
    assert table.loc[table["multiplier"] != 0, "n_random"].tolist() == [3, 3]
    assert table["mass"].between(0, 1).all()


def test_a_slice_keeps_categories_and_blemishes(tmp_path: Path) -> None:
    rows = [ROW | {"category": str(i), "incorrect_full_text": " " if i in (1, 3) else "x"} for i in range(5)]
    questions = load_capabilities(write(tmp_path, rows))
    part = questions[1:5:2]
    assert (len(part), part.categories, part.empty_choices) == (2, ("1", "3"), (0, 1))
    dropped = load_capabilities(write(tmp_path, rows), empty_choices="drop")
    assert dropped.categories == ("0", "2", "4")


def test_what_is_wrong_with_a_file_is_said_at_once(tmp_path: Path, unchecked: None) -> None:
    rows = [ROW, ROW | {"correct": "(C)"}, ROW | {"incorrect": "(A)"}, {"prompt": "What?"}, ROW | {"category": ""}]
    with pytest.raises(ValueError, match="asked.json: 6 problems in 5 items: ") as caught:
        load_capabilities(write(tmp_path, rows))
    text = str(caught.value)
    assert "item 1, field correct: got '(C)', allowed (A) or (B)" in text
    assert "item 2, field incorrect: got '(A)', the same as correct" in text
    assert "item 3, field correct: missing (there are: prompt)" in text
    with pytest.raises(ValueError, match=r"'mmlu' is not a bundled set of questions \(these are: facts, truthful\)"):
        load_capabilities("mmlu")
    with pytest.raises(FileNotFoundError, match="there is no file mmlu.json"):
        load_capabilities("mmlu.json")
    with pytest.raises(ValueError, match="empty_choices must be one of keep, drop, got 'all'"):
        load_capabilities("facts", empty_choices="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no items are left: all 1 have a choice without text"):
        load_capabilities(write(tmp_path, [ROW | {"correct_full_text": ""}]), empty_choices="drop")


def test_every_answer_equals_a_full_pass(model: Any) -> None:
    questions = toy(3)
    vectors = caa.extract_vectors(model, toy().items) * 2.0
    frame = capabilities(model, vectors, questions, layers=[1], multipliers=(-1, 1), n_nulls=1)
    assert len(frame) == 3 * (3 + 2)
    for row in frame[frame["kind"] == "vector"].itertuples():
        pair = questions.items[row.item]
        text, wrong = (format_prompt(model, pair.prompt, answer) for answer in (pair.positive, pair.negative))
        at = text.position("answer_letter")
        edits = [(1, vectors[1].values * row.multiplier)] if row.multiplier else []
        logits = plain_logits(model, text.ids[:at], edits, text.position("prompt_end"))[-1]
        assert row.correct == bool(logits[text.ids[at]] > logits[wrong.ids[at]])
        assert (row.set, row.category) == ("toy", questions.categories[row.item])


def test_several_sets_are_each_alone(bridge: Any) -> None:
    model = bridge("llama")
    vectors = caa.extract_vectors(model, toy().items)
    other = CapabilitySet("other", toy(6).items[2:], ("x", "y", "x", "y"))
    both = capabilities(model, vectors, [toy(), other], layers=[0])
    alone = capabilities(model, vectors, other, layers=[0])
    pd.testing.assert_frame_equal(both[both["set"] == "other"].reset_index(drop=True), alone)
    assert summarize_capabilities(both)["set"].tolist() == ["toy"] * 3 + ["other"] * 3
    with pytest.raises(ValueError, match=r"sets are \['toy', 'toy'\]: give at least one, each under a name of its own"):
        capabilities(model, vectors, [toy(), toy()])
    with pytest.raises(ValueError, match=r"sets are \[\]: give at least one"):
        capabilities(model, vectors, [])


LETTERS = "AABBBB"
CATEGORIES = ("x", "x", "x", "x", "y", "y")


def frame_of(p: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    """A frame of one layer, from p(correct) of six items by vector and multiplier."""
    rows = [
        {"set": "s", "behavior": "b", **way(vector, "b"), "layer": 3, "multiplier": multiplier, "item": item}
        | {"letter": LETTERS[item], "category": CATEGORIES[item], "p_matching": value, "correct": value > 0.5}
        | {"p_a": value if LETTERS[item] == "A" else 1 - value, "mass": 0.5 + item / 10}
        for (vector, multiplier), values in p.items()
        for item, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


BEFORE = [0.9, 0.6, 0.8, 0.7, 0.2, 0.6]
AFTER = [0.4, 0.6, 0.8, 0.3, 0.7, 0.1]  # loses items 0, 3 and 5, gains item 4
NULLS = {("random-0", 1.0): [0.9] * 6, ("random-1", 1.0): [0.1] * 6, ("shuffled-0", 1.0): BEFORE}
TIED = {("tied-0", 1.0): AFTER}


def test_every_column_is_what_it_says() -> None:
    frame = frame_of({("vector", 0.0): BEFORE, ("vector", 1.0): AFTER, **NULLS, **TIED})
    unsteered, row = summarize_capabilities(frame.sample(frac=1, random_state=0)).to_dict("records")
    assert (row["set"], row["behavior"], row["layer"], row["multiplier"], row["n_items"]) == ("s", "b", 3, 1.0, 6)
    assert unsteered["accuracy"] == pytest.approx(5 / 6) and row["accuracy"] == pytest.approx(3 / 6)
    assert row["accuracy_change"] == pytest.approx(-2 / 6)
    assert row["p_correct"] == pytest.approx(np.mean(AFTER))
    assert row["p_correct_change"] == pytest.approx(np.mean(AFTER) - np.mean(BEFORE))
    assert row["accuracy_balanced"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert row["accuracy_balanced_change"] == pytest.approx((-1 / 2 - 1 / 4) / 2)
    assert row["macro"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert row["macro_change"] == pytest.approx((2 / 4 + 1 / 2) / 2 - (4 / 4 + 1 / 2) / 2)
    assert (row["gained"], row["lost"], row["p_mcnemar"]) == (1, 3, mcnemar(1, 3))
    few = sum(math.comb(6, k) * row["lost_high"] ** k * (1 - row["lost_high"]) ** (6 - k) for k in range(3 + 1))
    assert few == pytest.approx(0.025) and unsteered["lost_high"] == pytest.approx(1 - 0.025 ** (1 / 6))
    p_a = [
        np.mean([p if letter == "A" else 1 - p for p, letter in zip(v, LETTERS, strict=True)]) for v in (BEFORE, AFTER)
    ]
    assert row["p_a"] == pytest.approx(p_a[1]) and row["letter_drift"] == pytest.approx(p_a[1] - p_a[0])
    assert row["mass"] == pytest.approx(0.75)
    assert row["n_random"] == 2 and row["n_shuffled"] == 1
    assert row["random_mean"] == pytest.approx((1 / 6 - 5 / 6) / 2)
    assert (row["random_low"], row["random_high"]) == pytest.approx(tuple(np.quantile([1 / 6, -5 / 6], [0.025, 0.975])))
    assert row["worse_than_random"] == 0.5 and row["worse_than_shuffled"] == 1.0 and row["shuffled_mean"] == 0.0
    assert row["worse_than_tied"] == 0.0, "one that keeps no more"
    assert unsteered["n_random"] == 0 and math.isnan(unsteered["random_mean"])
    for name in ("accuracy_change", "p_correct_change", "accuracy_balanced_change"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
        assert unsteered[f"{name}_low"] == unsteered[name] == unsteered[f"{name}_high"] == 0
    assert -1 <= row["accuracy_change_low"] and row["accuracy_change_high"] <= 1 / 6 + 1 / 2


def test_intervals_are_of_the_paired_change() -> None:
    """Every item moves by the same amount, so however items differ, the change is known exactly."""
    frame = frame_of({("vector", 0.0): BEFORE, ("vector", 1.0): [p - 0.1 for p in BEFORE]})
    row = summarize_capabilities(frame).iloc[1]
    assert row["p_correct_change_low"] == pytest.approx(-0.1) and row["p_correct_change_high"] == pytest.approx(-0.1)


def test_one_letter_alone_is_not_balanced() -> None:
    frame = frame_of({("vector", 0.0): BEFORE, ("vector", 1.0): AFTER})
    row = summarize_capabilities(frame[frame["letter"] == "B"]).iloc[1]
    assert (
        math.isnan(row["accuracy_balanced"]) and math.isnan(row["accuracy_balanced_change_low"]) and row["n_items"] == 4
    )


def test_frames_that_are_none_are_refused() -> None:
    frame = frame_of({("vector", 0.0): BEFORE, ("vector", 1.0): AFTER})
    with pytest.raises(
        ValueError, match=r"this is not a frame of capabilities\(\): it lacks the columns category, set"
    ):
        summarize_capabilities(frame.drop(columns=["set", "category"]))
    with pytest.raises(ValueError, match="the frame of s has no rows at multiplier 0"):
        summarize_capabilities(frame[frame["multiplier"] != 0])
    with pytest.raises(ValueError, match="a cell of the frame has other items than multiplier 0"):
        summarize_capabilities(frame[1:])


def test_the_verdict_has_the_tables_numbers() -> None:
    table = summarize_capabilities(frame_of({("vector", 0.0): BEFORE, ("vector", 1.0): AFTER, **NULLS}))
    (said,) = describe_capabilities(table)
    assert said.startswith("s at +1 on layer 3: no change is shown; that 88.2% of all such answers are lost is not ")
    assert "5 of 6 were right, 3 are (1 gained, 3 lost, McNemar p 0.62; change -33.3%" in said
    assert "random vectors of the same norm change accuracy by -33.3%" in said and "and 50% keep more" in said
    (lost,) = describe_capabilities(table[1:].assign(p_mcnemar=0.01))
    assert "layer 3: answers are lost." in lost
    (gained,) = describe_capabilities(table[1:].assign(p_mcnemar=0.01, gained=9, n_random=0))
    assert "layer 3: answers are gained." in gained and "random vectors" not in gained


def test_a_vector_that_destroys_the_model_is_found_out() -> None:
    model = caa.load_model("organism-chat")
    vectors = caa.extract_vectors(model, caa.load_contrast_pairs("sycophancy")[:60], layers=[2])
    table = summarize_capabilities(
        capabilities(model, vectors, load_capabilities("facts"), multipliers=(0, 1, 30), n_nulls=5)
    ).set_index("multiplier")
    assert table.loc[0.0, "accuracy"] > 0.9, "the organism knows its world"
    assert table.loc[30.0, "accuracy"] < 0.7 and table.loc[30.0, "p_mcnemar"] < 1e-6
    assert abs(table.loc[1.0, "accuracy_change"]) < 0.2
    assert "answers are lost" in describe_capabilities(table.reset_index())[1]


@pytest.fixture(scope="module")
def vectors(tiny_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vectors") / "v.safetensors"
    caa.extract_vectors(caa.load_model(tiny_path("llama")), toy().items).save(file)
    return file


def test_the_command_prints_and_saves(tiny_path: Callable[[str], Path], vectors: Path, tmp_path: Path) -> None:
    asked = write(tmp_path, [ROW, ROW | {"correct": "(B)", "incorrect": "(A)", "incorrect_full_text": ""}])
    out = tmp_path / "frame.csv"
    arguments = (
        "capabilities",
        tiny_path("llama"),
        vectors,
        "--data",
        asked,
        "--layers",
        "1",
        "--nulls",
        "2",
        "--quiet",
    )
    text = run(*arguments, "--out", out)
    assert "asked: 2 read, 2 kept; matching letter: A 1, B 1; 1 categories; 1 have a choice without text" in text
    assert "- asked at -1 on layer 1: " in text and f"written to {out}" in text
    assert len(pd.read_csv(out)) == 2 * (3 + 2 * 2)
    printed = json.loads(run(*arguments, "--json", "--empty-choices", "drop"))
    assert [row["n_items"] for row in printed["table"]] == [1, 1, 1] and len(printed["verdict"]) == 2
    both = json.loads(
        run(
            "capabilities",
            tiny_path("llama"),
            vectors,
            "--data",
            asked,
            "--data",
            "facts",
            "--layers",
            "1",
            "--json",
            "--quiet",
        )
    )
    assert {row["set"] for row in both["table"]} == {"asked", "facts"}


def test_the_command_fails_in_one_line(tiny_path: Callable[[str], Path], vectors: Path, tmp_path: Path) -> None:
    model = tiny_path("llama")
    assert "'mmlu' is not a bundled set of questions" in error("capabilities", model, vectors, "--data", "mmlu")
    assert "cannot write x.txt" in error("capabilities", model, vectors, "--out", "x.txt")
    assert "layer 9 is" in error("capabilities", model, vectors, "--layers", "9")
    assert "For example:" in run("capabilities", "--help")
