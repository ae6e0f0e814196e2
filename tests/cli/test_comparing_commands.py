"""`select`, `side-effects`, `entanglement`, `transfer` and `extract --method`: what they print, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import error, run

import caa_lens as caa
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.protocols.selection import damage
from caa_lens.protocols.transfer import across_layers
from caa_lens.vectors.vectors import SteeringVectors

COMMANDS = [("select",), ("side-effects",), ("entanglement",)]
COMMANDS += [("transfer", name) for name in ("layers", "models", "prompts")]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items of other questions."""
    file = tmp_path_factory.mktemp("items") / "others.json"
    rows = [(f"Thing {i}?\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 2 else ("(B)", "(A)"))) for i in range(4)]
    ContrastDataset.from_pairs(rows).to_json(file)
    return file


@pytest.fixture(scope="module")
def loaded(bridge: Callable[[str], Any]) -> Any:
    return bridge("llama")


@pytest.fixture(scope="module")
def other(pairs: Path, loaded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("other") / "another.safetensors"
    renamed = ContrastDataset.from_pairs(caa.load_contrast_pairs(pairs)[:4].pairs, name="another")
    caa.extract_vectors(loaded, renamed, read="answer_end").save(file)
    return file


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    file.write_text("the one then the other\n\nthis is a longer text\n")
    return file


def records(*arguments: str | Path) -> list[dict[str, Any]]:
    return json.loads(run(*arguments, "--json", "--quiet"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(command: tuple[str, ...]) -> None:
    text = run(*command, "--help")
    assert "For example:" in text and f"caa-lens {' '.join(command)}" in text


@pytest.mark.parametrize("method", ["lda", "mean difference"])
def test_extract_takes_an_estimator(pairs: Path, model: Path, loaded: Any, tmp_path: Path, method: str) -> None:
    out = tmp_path / "v.safetensors"
    run("extract", model, "--data", pairs, "--out", out, "--layers", "1-2", "--method", method, "--quiet")
    activations = caa.extract_activations(loaded, caa.load_contrast_pairs(pairs), layers=[1, 2])
    made, expected = SteeringVectors.load(out), caa.extraction.estimators.estimate(activations, method)
    assert made.provenance.method == method and made.layers == (1, 2)
    assert (made.values - expected.values).abs().max() < 1e-4


def test_transfer_layers(model: Path, loaded: Any, vectors: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    given = (
        "transfer",
        "layers",
        model,
        vectors,
        "--data",
        pairs,
        "--made-at",
        "1",
        "--used-at",
        "0-2",
        "--nulls",
        "2",
    )
    found = records(*given, "--norm", "target", "--multipliers", "1")
    expected = across_layers(
        loaded, SteeringVectors.load(vectors), caa.load_contrast_pairs(pairs), made_at=[1], used_at=[0, 1, 2],
        norm="target", multipliers=(1,), n_nulls=2,
    )  # fmt: skip
    assert [row["used_at"] for row in found] == [0, 1, 2]
    assert [row["effect"] for row in found] == pytest.approx(expected["effect"].tolist(), abs=1e-4)
    text = run(*given, "--out", out, "--quiet")
    assert "beats_random" in text and f"written to {out}" in text and len(pd.read_csv(out)) == 6


def test_transfer_models(model: Path, vectors: Path, other: Path, pairs: Path) -> None:
    found = records("transfer", "models", model, vectors, other, "--data", pairs, "--layers", "1", "--multipliers", "1")
    assert [row["vector"] for row in found] == ["kind", "another"] and {row["made_on"] for row in found} == {"llama"}
    assert found[0]["cosine"] == pytest.approx(1) and found[1]["cosine"] < 0.999


def test_transfer_prompts(model: Path, pairs: Path, others: Path, tmp_path: Path) -> None:
    given = ("transfer", "prompts", model, "--data", pairs, "--layers", "1", "--multipliers", "1")
    found = records(*given, "--formats", "chat,plain", "--test", others)
    assert [(row["made_format"], row["used_format"]) for row in found] == [
        (made, used) for used in ("chat", "plain") for made in ("chat", "plain")
    ]
    assert {row["n_items"] for row in found} == {4}
    systems = tmp_path / "systems.json"
    systems.write_text(json.dumps({"none": None, "brief": "Be brief."}))
    found = records(*given, "--systems", systems)
    assert {row["made_system"] for row in found} == {"none", "brief"} and {row["n_items"] for row in found} == {2}
    text = run(*given, "--systems", "bundled")
    assert "made_system" in text and "made_format" not in text and "item_correlation" in text


def test_side_effects_of_multipliers(model: Path, loaded: Any, vectors: Path, other: Path, texts: Path) -> None:
    given = ("side-effects", model, vectors, other, "--texts", texts, "--layers", "1-2")
    found = records(*given, "--multipliers", "0,2")
    cells = [(name, layer, m) for name in ("kind", "another") for layer in (1, 2) for m in (0.0, 2.0)]
    assert [(row["vector"], row["layer"], row["multiplier"]) for row in found] == cells
    lines = [line for line in texts.read_text().splitlines() if line]
    expected = damage(loaded, SteeringVectors.load(vectors), lines, layers=[1], multipliers=(2,))
    assert found[1]["kl"] == pytest.approx(expected["kl"].item(), rel=1e-3) and found[0]["kl"] == 0


def test_side_effects_at_a_budget(
    model: Path, vectors: Path, other: Path, texts: Path, pairs: Path, tmp_path: Path
) -> None:
    given = ("side-effects", model, vectors, other, "--texts", texts, "--layers", "1", "--budget", "0.01")
    alone = records(*given)
    assert [row["vector"] for row in alone] == ["kind", "another"] and "effect" not in alone[0]
    out = tmp_path / "b.csv"
    both = records(*given, "--data", pairs, "--nulls", "2", "--out", out)
    assert [row["multiplier"] for row in both] == pytest.approx([row["multiplier"] for row in alone], rel=1e-6)
    assert all(row["n_random"] == 2 and row["effect"] is not None for row in both) and len(pd.read_csv(out)) == 2
    assert all(row["multiplier"] < 0 for row in records(*given, "--sign", "-1"))
    assert "balanced [95 %]" in run(*given, "--data", pairs, "--quiet")


def test_bundled_texts_go_by_their_names(model: Path, vectors: Path) -> None:
    [row] = records("side-effects", model, vectors, "--layers", "1", "--multipliers", "1")
    assert row["n_tokens"] > 100


def test_select(model: Path, pairs: Path, others: Path, texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.csv"
    given = ("select", model, "--data", pairs, "--multipliers", "1,2", "--max-kl", "50", "--texts", texts)
    [row] = records(*given, "--nulls", "2", "--out", out)
    assert row["n_items"] == 2 and row["n_random"] == 2 and row["multiplier"] in (1, 2) and 0 < row["kl"] < 50
    assert len(pd.read_csv(out)) == 1
    text = run(*given, "--test", others, "--quiet")
    assert "vector of 6 pairs, point chosen on 2, measured on 4 items" in text and "optimism" in text


def test_entanglement(model: Path, vectors: Path, other: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.csv"
    given = ("entanglement", model, vectors, other, "--data", f"kind={pairs}", "--data", f"another={pairs}")
    found = records(*given, "--layer", "1", "--layer", "another=2", "--multipliers", "1", "--out", out)
    assert {(row["vector"], row["behavior"], row["layer"]) for row in found} == {
        (name, items, layer) for name, layer in (("kind", 1), ("another", 2)) for items in ("kind", "another")
    }
    assert len(pd.read_csv(out)) == 4 and "share_of_own" in run(*given, "--layer", "1", "--quiet")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("extract {model} --data {pairs} --out v.safetensors --method svm", "no estimator 'svm': choose one of mean"),
        ("transfer layers {model} none.safetensors --data {pairs}", "there is no vector file none.safetensors"),
        ("transfer layers ./no-model {vectors} --data {pairs} --norm unit", "norm 'unit' is not known"),
        ("side-effects ./no-model {vectors} --budget 0.1 --quantile 2", "quantile is from 0 to 1"),
        ("side-effects ./no-model {vectors} --budget 0", "budget is a positive number of nats"),
        ("transfer layers {model} {vectors} --data {pairs} --made-at x", "layers 'x' cannot be read"),
        ("transfer models {model} {vectors} {vectors} --data {pairs}", "a vector file was given twice"),
        ("transfer models {model} {vectors} --data nonsense", "'nonsense' is not a bundled behaviour"),
        ("transfer prompts {model} --data {pairs}", "nothing varies: give --formats, such as chat,base"),
        ("transfer prompts {model} --data {pairs} --formats chat,json", "prompt format 'json' is not known"),
        ("transfer prompts {model} --data {pairs} --systems none.json", "there is no file none.json: give 'bundled'"),
        ("transfer prompts {model} --data {pairs} --systems {pairs}", "must hold an object of names and texts"),
        ("transfer prompts {model} --data {pairs} --formats base --out t.xlsx", "cannot write t.xlsx"),
        ("side-effects {model} {vectors} --texts nonsense", "there are no bundled texts 'nonsense': give one of "),
        ("side-effects {model} {vectors} --texts none.txt", "there is no file none.txt"),
        ("side-effects {model} {vectors} --texts {pairs}", "field text: missing"),
        ("side-effects {model} {vectors} --data {pairs}", "--data goes with --budget"),
        ("side-effects {model} {vectors} --layers 9", "layer 9 is not in these vectors"),
        ("select {model} --data {pairs} --multipliers=-1,1", "give numbers above 0; sign=-1"),
        ("select {model} --data {pairs} --test {pairs}", "train and test share 6 questions, such as"),
        ("transfer prompts {model} --data {pairs} --test {pairs} --formats base", "train and test share 6 questions"),
        ("select {model} --data {pairs} --sign 3", "sign is 1 or -1"),
        ("entanglement {model} {vectors} --layer x", "--layer 'x' cannot be read: give a number, or NAME="),
        ("entanglement {model} {vectors} --layer none=1", "--layer 'none=1' cannot be read"),
        ("entanglement {model} {vectors} {other} --layer kind=1", "no layer is given for another: give --layer NUMBER"),
        ("entanglement {model} {vectors} --layer 1 --data kind", "'kind' is not a bundled behaviour"),
        ("entanglement {model} {vectors} --layer 1 --data no={pairs}", "give DATA, or NAME=DATA with one of kind"),
        ("entanglement {model} {vectors} --layer 1", "'kind' is not a bundled behaviour"),
        ("entanglement {model} {vectors} copy.safetensors --layer 1", "vectors are named kind, kind: give one of each"),
    ],
)  # fmt: skip
def test_expected_errors_are_one_line(
    command: str, message: str, pairs: Path, model: Path, vectors: Path, other: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, unchecked: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before: set[Path] = set()
    if "copy.safetensors" in command:
        SteeringVectors.load(vectors).save("copy.safetensors")
        before = {tmp_path / "copy.safetensors"}
    arguments = command.format(model=model, pairs=pairs, vectors=vectors, other=other).split()
    assert message in error(*arguments)
    assert set(tmp_path.iterdir()) == before, "a failed command must leave nothing behind"
