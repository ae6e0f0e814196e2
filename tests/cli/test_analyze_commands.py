"""`caa-lens analyze`, the commands that look inside: what they print and save, and one line for every error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import run as run_command

from caa_lens import analysis
from caa_lens.datasets.contrast import load_contrast_pairs
from caa_lens.extraction.extraction import extract_activations
from caa_lens.models.loading import load_model
from caa_lens.vectors.vectors import SteeringVectors


def run(*arguments: str | Path, code: int = 0) -> str:
    """`caa-lens analyze`."""
    return run_command("analyze", *arguments, code=code)


def records(*arguments: str | Path) -> list[dict[str, Any]]:
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize("command", ["massive", "pca", "separation", "lens", "project", "early"])
def test_every_help_has_an_example(command: str) -> None:
    text = run(command, "--help")
    assert "For example:" in text and f"caa-lens analyze {command}" in text


def test_massive_dimensions_and_what_is_left_without_them(vectors: Path, tmp_path: Path) -> None:
    rows = records("massive", vectors, "--k", "2", "--layers", "1")
    assert [(row["layer"], row["rank"]) for row in rows] == [(1, 1), (1, 2)]
    loaded = SteeringVectors.load(vectors)
    assert rows[0]["dimension"] == int(loaded[1].values.abs().argmax())
    turned = tmp_path / "turned.safetensors"
    values = loaded.values.clone()
    values[:, rows[0]["dimension"]] += 1e3
    SteeringVectors(values, loaded.layers, loaded.provenance, "turned").save(turned)
    assert records("compare", vectors, turned)[1]["cosine"] < 0.9
    without = ("--without", rows[0]["dimension"])
    for row in records("compare", vectors, turned, *map(str, without)):
        assert row["cosine"] == pytest.approx(1, abs=1e-5)
    assert records("cosine", vectors, turned, "--without", "3,4")[0]["cosine"] < 0.9
    assert "error: dimensions 'x' cannot be read: give numbers" in run("layers", vectors, "--without", "x", code=1)
    assert "give one or more of 0 to 31" in run("compare", vectors, turned, "--without", "32", code=1)


def test_pca_prints_means_and_saves_everything(pairs: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "pca.csv"
    text = run("pca", model, "--data", pairs, "--layers", "1,2", "--out", out, "--quiet")
    frame = pd.read_csv(out)
    assert len(frame) == 2 * 10 * 2 and set(frame["letter"]) == {"A", "B"}
    dataset = load_contrast_pairs(pairs)
    own = analysis.pca(extract_activations(load_model(model), dataset), {dataset.name: dataset}["kind"], layers=[1, 2])
    assert frame["pc1"].to_numpy() == pytest.approx(own["pc1"].to_numpy(), abs=1e-5)
    assert len([line for line in text.splitlines() if "matching" in line]) == 2 * 2
    assert len(records("pca", model, "--data", pairs, "--layers", "1", "--components", "3", "--quiet")) == 20


def test_separation(pairs: Path, model: Path) -> None:
    rows = records("separation", model, "--data", pairs, "--folds", "2", "--quiet")
    assert [row["layer"] for row in rows] == [0, 1, 2, 3]
    assert all(0 <= row["accuracy"] <= 1 and row["letter_accuracy"] == 1 for row in rows)
    assert "have the same name" in run("separation", model, "--data", pairs, "--data", pairs, code=1)


def test_the_lens_of_a_vector_and_of_a_stream(vectors: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "lens.csv"
    text = run("lens", model, vectors, "--layer", "1", "--k", "3", "--out", out)
    expected = analysis.logit_lens(load_model(model), SteeringVectors.load(vectors)[1], k=3)
    assert pd.read_csv(out)["token_id"].tolist() == expected["token_id"].tolist()
    assert "top" in text and "bottom" in text and f"{expected['logit'].iloc[0]:.2f}" in text
    stream = ("--prompt", "Is it?", "--token", "A", "--token", "B")
    plainly = records("lens", model, *stream)
    assert [row["site"] for row in plainly][:6] == ["attn_out"] * 2 + ["mlp_out"] * 2 + ["resid_post"] * 2
    steered = records("lens", model, vectors, "--layer", "1", "--multiplier", "-20", *stream)
    moved = [one["logp"] != other["logp"] for one, other in zip(plainly, steered, strict=True)]
    assert moved == [row["layer"] > 1 or (row["layer"], row["site"]) == (1, "resid_post") for row in plainly]
    assert "give a vector file for what a vector says" in run("lens", model, code=1)
    assert "give both, or neither" in run("lens", model, "--prompt", "x", "--layer", "1", code=1)
    assert "--final-norm 'half' is not known" in run("lens", "no-such", vectors, "--final-norm", "half", code=1)


def test_project_prints_a_table_of_tokens(vectors: Path, model: Path) -> None:
    given = ("project", model, vectors, "--prompt", "Is it so?", "--answer", "(A)", "--layer", "2")
    text = run(*given)
    assert "answer_letter" in text and "prompt_end" in text and "read" in text
    plainly, steered = records(*given), records(*given, "--multiplier", "2")
    norm = SteeringVectors.load(vectors)[2].norm()
    for one, other in zip(plainly, steered, strict=True):
        change = other["projection"] - one["projection"]
        assert change == pytest.approx(2 * norm if other["steered"] else 0, abs=1e-3)
    assert "layer 7 is not in these vectors" in run(*given[:-1], "7", code=1)


def test_early(vectors: Path, model: Path, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "early.csv"
    rows = records("early", model, vectors, "--data", pairs, "--out", out)
    assert [row["layer"] for row in rows] == [0, 1, 2, 3] and rows[-1]["decided"] == 1
    assert len(pd.read_csv(out)) == 4


def test_a_file_that_cannot_be_written_is_refused_first(vectors: Path) -> None:
    text = run("project", "no-such-model", vectors, "--prompt", "x", "--layer", "1", "--out", "x.xls", code=1)
    assert "cannot write x.xls: give a name that ends in .parquet or .csv" in text
