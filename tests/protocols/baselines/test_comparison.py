"""The table of baselines and vectors on the bundled model, against plain sums over sweeps; and its command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import caa_lens as caa
import caa_lens.cli.options as options
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.protocols.baselines import comparison
from caa_lens.protocols.baselines.comparison import compare, describe_baselines
from caa_lens.protocols.baselines.finetuning import finetune
from caa_lens.protocols.baselines.prompting import few_shot, system_prompts

RATE = 0.02
MULTIPLIERS = (-1.0, 0.0, 1.0)
LIMITS = ("effect", "added", "over_control", "over_caa")


@pytest.fixture(scope="module")
def organism() -> Any:
    return caa.load_model("organism-chat")


@pytest.fixture(scope="module")
def sets() -> Any:
    return caa.load_contrast_pairs("refusal")[:60].split(seed=0)


@pytest.fixture(scope="module")
def vectors(organism: Any, sets: Any) -> Any:
    return caa.extract_vectors(organism, sets[0], layers=[1, 2])


@pytest.fixture(scope="module")
def table(organism: Any, vectors: Any, sets: Any) -> pd.DataFrame:
    train, _, test = sets
    return compare(
        organism, vectors, test, train=train, layer=2, shots=2, learning_rate=RATE, train_batch_size=6, n_nulls=4
    )


@pytest.fixture(scope="module")
def cells(organism: Any, vectors: Any, sets: Any) -> dict[tuple[str, str, float], pd.Series]:
    """p(matching) of every item in some of the cells, by plain sweeps."""
    train, _, test = sets
    asked = {
        ("none", ""): (organism, test, None),
        ("system", "positive"): (organism, test, system_prompts(test)[0]),
        ("system", "negative"): (organism, test, system_prompts(test)[1]),
        ("system", "control"): (organism, test, "You are an assistant."),
        ("few_shot", "negative"): (organism, few_shot(test, train, k=2, direction="negative"), None),
        ("finetuned", "positive"): (finetune(organism, train, learning_rate=RATE, train_batch_size=6), test, None),
    }
    found: dict[tuple[str, str, float], pd.Series] = {}
    for (baseline, direction), (model, items, system) in asked.items():
        frame = caa.sweep(model, vectors, items, layers=[2], multipliers=MULTIPLIERS, n_nulls=0, system=system)
        for multiplier, part in frame.groupby("multiplier"):
            found[baseline, direction, float(str(multiplier))] = part.set_index("item")["p_matching"]
    return found


def row(table: pd.DataFrame, baseline: str, direction: str, multiplier: float) -> pd.Series:
    found = table[
        (table["baseline"] == baseline) & (table["direction"] == direction) & (table["multiplier"] == multiplier)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_every_combination_is_a_row(table: pd.DataFrame, sets: Any) -> None:
    expected = [("none", "")]
    expected += [
        (each, way) for each in ("system", "few_shot", "finetuned") for way in ("positive", "negative", "control")
    ]
    keys = list(zip(table["baseline"], table["direction"], table["multiplier"], strict=True))
    assert keys == [(*each, multiplier) for each in expected for multiplier in MULTIPLIERS]
    assert (table["n_items"] == len(sets[2])).all()


def test_figures_are_differences_item_by_item(table: pd.DataFrame, cells: dict[Any, pd.Series]) -> None:
    for (baseline, direction, multiplier), share in cells.items():
        found = row(table, baseline, direction, multiplier)
        own = cells[baseline, direction, 0.0]
        assert found["p_matching"] == pytest.approx(share.mean(), abs=1e-6)
        assert found["effect"] == pytest.approx((share - cells["none", "", 0.0]).mean(), abs=1e-6)
        if multiplier:
            assert found["added"] == pytest.approx((share - own).mean(), abs=1e-6)
        if baseline == "system" and direction != "control":
            control = cells["system", "control", multiplier]
            assert found["over_control"] == pytest.approx((share - control).mean(), abs=1e-6)
        if multiplier == 0 and direction in ("positive", "negative"):
            sign = 1 if direction == "positive" else -1
            caa_alone = cells["none", "", float(sign)]
            assert found["over_caa"] == pytest.approx(sign * (share - caa_alone).mean(), abs=1e-6)


def test_no_figure_without_its_interval_and_its_null(table: pd.DataFrame) -> None:
    assert ((table["p_matching_low"] <= table["p_matching"]) & (table["p_matching"] <= table["p_matching_high"])).all()
    for name in LIMITS:
        given = table[table[name].notna()]
        assert len(given), name
        assert ((given[f"{name}_low"] <= given[name]) & (given[name] <= given[f"{name}_high"])).all()
    steered = table[table["multiplier"] != 0]
    assert (steered["n_random"] == 4).all() and steered["beats_random"].between(0, 1).all()
    assert (steered["random_low"] <= steered["random_high"]).all()
    alone = table[(table["multiplier"] == 0) & table["direction"].isin(["positive", "negative"])]
    assert len(alone) == 6 and alone[["over_control", "over_caa", "share_wrong"]].notna().all(axis=None)
    assert (table.loc[table["multiplier"] != 0, "share_wrong"].notna()).all()


def test_the_plain_model_unsteered_is_where_all_is_measured_from(table: pd.DataFrame) -> None:
    plain = row(table, "none", "", 0.0)
    assert [plain[name] for name in ("effect", "effect_low", "effect_high", "letter_drift")] == [0, 0, 0, 0]
    assert math.isnan(plain["added"]) and math.isnan(plain["share_wrong"])


def test_random_vectors_stand_on_the_same_baseline(table: pd.DataFrame, organism: Any, vectors: Any, sets: Any) -> None:
    """Their effects, too, are counted from the plain unsteered model."""
    test = sets[2]
    plain = caa.sweep(organism, vectors, test, layers=[2], multipliers=[0], n_nulls=0)["p_matching"].to_numpy()
    frame = caa.sweep(organism, vectors, test, layers=[2], n_nulls=4, system=system_prompts(test)[0])
    letters = [pair.letter for pair in test]
    effects: list[float] = []
    for _, part in frame[(frame["multiplier"] == 1) & (frame["kind"] != "vector")].groupby("draw"):
        moved = pd.Series(part.sort_values("item")["p_matching"].to_numpy() - plain)
        effects.append(moved.groupby(letters).mean().mean())
    found = row(table, "system", "positive", 1.0)
    assert found["beats_random"] == sum(effect < found["effect_balanced"] for effect in effects) / 4
    low, high = pd.Series(effects).quantile([0.025, 0.975])
    assert (found["random_low"], found["random_high"]) == pytest.approx((low, high), abs=1e-6)


def test_what_moves_the_wrong_way_is_counted_by_direction(table: pd.DataFrame, cells: dict[Any, pd.Series]) -> None:
    for direction, sign in (("positive", 1), ("negative", -1)):
        moved = cells["system", direction, 0.0] - cells["none", "", 0.0]
        assert row(table, "system", direction, 0.0)["share_wrong"] == pytest.approx((moved * sign < 0).mean())
        added = cells["system", direction, 1.0] - cells["system", direction, 0.0]
        assert row(table, "system", direction, 1.0)["share_wrong"] == pytest.approx((added < 0).mean())


def test_the_model_is_as_before(organism: Any, table: pd.DataFrame) -> None:
    fresh: Any = caa.load_model("organism-chat")
    before = dict(fresh.named_parameters())
    assert all((weight == before[name]).all() for name, weight in organism.named_parameters())


def test_the_verdict_has_the_tables_numbers(table: pd.DataFrame) -> None:
    said = describe_baselines(table)
    system, steered = row(table, "system", "positive", 0.0), row(table, "none", "", 1.0)
    [first] = [each for each in said if each.startswith("The positive system prompt alone moves it by ")]
    assert f"{system['effect']:+.2f} [{system['effect_low']:+.2f}, {system['effect_high']:+.2f}]" in first
    assert f"which leaves {system['over_control']:+.2f} [" in first
    [caa_alone] = [each for each in said if each.startswith("CAA alone at +1 on layer 2")]
    assert f"by {steered['effect']:+.2f} [" in caa_alone and "beats 4 of 4 random vectors of its norm" in caa_alone
    stacked = row(table, "finetuned", "negative", 1.0)
    [on_top] = [each for each in said if each.startswith("On top of the negative finetuning, CAA at +1 adds")]
    assert f"{stacked['added']:+.2f} [" in on_top and "of 4 random vectors" in on_top
    assert len([each for each in said if "than CAA at" in each]) == 6
    assert all("[" in each for each in said)


def test_who_wins_is_told_by_the_interval(table: pd.DataFrame) -> None:
    def words(low: float, high: float) -> str:
        said = describe_baselines(table.assign(over_caa=(low + high) / 2, over_caa_low=low, over_caa_high=high))
        return next(each for each in said if "than CAA at +1" in each)

    assert words(0.1, 0.3).endswith("the positive system prompt wins.")
    assert words(-0.3, -0.1).endswith("CAA wins.")
    assert words(-0.1, 0.3).endswith("neither is clearly ahead.")


def test_doubts_are_said(table: pd.DataFrame) -> None:
    said = " ".join(describe_baselines(table.assign(effect=-0.1, effect_low=-0.3, effect_high=0.2)))
    assert (
        "system prompt alone moves it by -0.10 [-0.30, +0.20] (the wrong way; an interval that contains 0); its" in said
    )
    said = " ".join(
        describe_baselines(
            table.assign(effect=0.1, effect_low=0.1, effect_high=0.2, balanced_low=-0.1, balanced_high=0.1)
        )
    )
    assert "it vanishes when letters are balanced" in said
    said = " ".join(describe_baselines(table.assign(effect_balanced=math.nan)))
    assert "no random vectors, as all matching letters are the same" in said


def test_free_answers_are_compared_too(organism: Any) -> None:
    pairs = ContrastDataset.from_pairs([(f"Is it {word}?", " yes", " no") for word in "a b c d e f g h i".split()])
    train, _, test = pairs.split(seed=0)
    vectors = caa.extract_vectors(organism, train, layers=[2], read="answer_end")
    found = compare(organism, vectors, test, train=train, layer=2, baselines=["few_shot"], shots=2, n_nulls=2)
    assert found["effect"].notna().all() and found["p_a"].isna().all() and len(describe_baselines(found)) > 4


def test_what_cannot_be_compared_is_said_first(
    organism: Any, vectors: Any, sets: Any, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    def ran(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model ran before the arguments were checked")

    monkeypatch.setattr(comparison, "sweep", ran)
    monkeypatch.setattr(comparison, "finetune", ran)
    train, _, test = sets
    for wrong, message in (
        ({"layer": 4}, r"layer 4 is not in these vectors"),
        ({"n_nulls": 0}, r"n_nulls is 0: no effect is given without its null"),
        ({"baselines": ["prompt"]}, r"baselines \['prompt'\] are not known: give some of system, few_shot, finetuned"),
        ({"baselines": ["system", "system"]}, r"baselines \['system', 'system'\]: give each once"),
        ({"train": test}, r"train and test share \d+ questions, such as '.*': give sets apart"),
        ({"shots": 30}, r"items of refusal/test, baseline 'few_shot': item 0 needs \d+ tokens .*; or give fewer shots"),
        ({"learning_rate": -1}, r"learning_rate must be a number of at least 0"),
        (
            {"prompts": ("", "x")},
            r"baseline 'system': the prompt format 'chat' leaves out the system prompt ''; or leave",
        ),
    ):
        keywords: dict[str, Any] = {"train": train, "layer": 2} | wrong
        with pytest.raises(ValueError, match=message):
            compare(organism, vectors, test, **keywords)


def test_a_template_without_a_system_role_is_said(bridge: Any) -> None:
    model = bridge("gemma2")
    pairs = ContrastDataset.from_pairs([(f"{i}?", "(A)", "(B)") for i in range(4)])
    vectors = caa.extract_vectors(model, pairs[:2], layers=[1])
    with pytest.raises(ValueError, match=r"refuses the prompt with a system prompt: .*; or leave 'system' out of base"):
        compare(model, vectors, pairs[2:], train=pairs[:2], layer=1, baselines=["system"], prompts=("One.", "Two."))


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "quiet_libraries", lambda: None)


def run(*arguments: Any, code: int = 0) -> str:
    from caa_lens.cli import app as cli

    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, f"exit code {result.exit_code}: {result.output}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def few(tmp_path: Path) -> Path:
    file = tmp_path / "refusal.json"
    caa.load_contrast_pairs("refusal")[:30].to_json(file)
    return file


@pytest.mark.usefixtures("_quiet")
def test_the_command_prints_and_saves_the_table(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    given = (
        "baselines",
        "organism-chat",
        "--data",
        few,
        "--baselines",
        "system",
        "--nulls",
        2,
        "--quiet",
        "--layers",
        "1-2",
    )
    text = run(*given, "--out", out)
    saved = pd.read_csv(out, keep_default_na=False, na_values=[""])
    assert len(saved) == 12 and set(saved["layer"]) <= {1, 2}
    assert (
        "CAA alone at +1 on layer" in text and re.search(r"system positive +0 ", text) and f"written to {out}" in text
    )
    loaded = json.loads(run(*given, "--json"))
    assert len(loaded["table"]) == 12 and loaded["table"][1]["added"] is None
    assert all(sentence in text for sentence in loaded["verdict"])


@pytest.mark.usefixtures("_quiet")
def test_the_command_takes_its_layer_and_prompts(few: Path) -> None:
    given = ("baselines", "organism-chat", "--data", few, "--baselines", "system", "--nulls", 1, "--quiet", "--json")
    own = ("--layer", 0, "--positive-prompt", "One.", "--negative-prompt", "Two.")
    assert {each["layer"] for each in json.loads(run(*given, *own))["table"]} == {0}
    assert "give --positive-prompt and --negative-prompt together" in run(*given, *own[:4], code=1)
    assert "give --layer to steer there, or --layers to choose from" in run(*given, *own[:2], "--layers", "1", code=1)
    assert "cannot write table.txt" in run(*given, "--out", "table.txt", code=1)
    assert "caa-lens baselines organism-chat" in run("baselines", "--help")


@pytest.mark.usefixtures("_quiet")
def test_the_command_says_how_to_get_peft(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    given = (
        "baselines",
        "organism-chat",
        "--data",
        few,
        "--baselines",
        "finetuned",
        "--finetuning",
        "lora",
        "--layer",
        2,
    )
    assert run(*given, "--quiet", code=1).startswith("error: LoRA needs the package peft: pip install caa_lens[finet")
