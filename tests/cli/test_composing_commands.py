"""`compose` and `skills`: what they print, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import error, run
from typer.testing import CliRunner

import caa_lens as caa
from caa_lens.cli import app as cli
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.datasets.texts import load_texts
from caa_lens.protocols.broad_skills import alignment_tax, skill_curve, skill_vectors
from caa_lens.protocols.composition import interference, search_layers, sweep_together
from caa_lens.vectors.vectors import SteeringVectors

NAMES = ("brave", "kind")


@pytest.fixture(scope="module")
def folder(bridge: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items and vectors of two behaviours, and two kinds of text."""
    folder = tmp_path_factory.mktemp("compose")
    for name in NAMES:
        rows = [(f"{name} {i}?\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 2 else ("(B)", "(A)"))) for i in range(8)]
        made = ContrastDataset.from_pairs(rows, name=name)
        made.to_json(folder / f"{name}.json")
        caa.extract_vectors(bridge("llama"), made).save(folder / f"{name}.safetensors")
    for name, kind in (("target", "opinions"), ("other", "facts")):
        (folder / f"{name}.txt").write_text("\n".join(load_texts(kind)[:8]))
    return folder


@pytest.fixture(scope="module")
def model(tiny_path: Callable[[str], Path]) -> Path:
    return tiny_path("llama")


@pytest.fixture(scope="module")
def given(folder: Path, model: Path) -> list[str | Path]:
    """`compose` and its vectors and items."""
    files = [folder / f"{name}.safetensors" for name in NAMES]
    data = [part for name in NAMES for part in ("--data", f"{name}={folder / name}.json")]
    return ["compose", model, *files, *data, "--nulls", "2", "--quiet"]


def loaded(folder: Path) -> tuple[dict[str, SteeringVectors], dict[str, ContrastDataset]]:
    return (
        {name: SteeringVectors.load(folder / f"{name}.safetensors") for name in NAMES},
        {name: caa.load_contrast_pairs(folder / f"{name}.json") for name in NAMES},
    )


@pytest.mark.parametrize("command", ["compose", "skills"])
def test_the_help_has_examples(command: str) -> None:
    text = run(command, "--help")
    assert "For example:" in text and f"caa-lens {command} organism-chat" in text


def test_compose(given: list[str | Path], folder: Path, bridge: Callable[[str], Any], tmp_path: Path) -> None:
    out = tmp_path / "i.csv"
    asked = [*given, "--layer", "1", "--layer", "kind=2", "--multiplier", "3", "--multiplier", "brave=-2", "--out", out]
    found = json.loads(run(*asked, "--json"))
    vectors, items = loaded(folder)
    parts = {"brave": vectors["brave"][1] * -2.0, "kind": vectors["kind"][2] * 3.0}
    expected = interference(sweep_together(bridge("llama"), parts, items, n_nulls=2))
    rows = found["interference"]
    for column in ("alone", "interference", "interference_low", "random_high"):
        assert [row[column] for row in rows] == pytest.approx(expected[column].tolist(), abs=1e-4)
    assert [row["vector"] for row in found["effects"]][:5] == [*NAMES, "together", "expected", "interference"]
    assert len(pd.read_csv(out)) == 2
    text = run(*asked)
    assert "effect_together" in text and f"written to {out}" in text


def test_compose_searches_layers(given: list[str | Path], folder: Path, bridge: Any, tmp_path: Path) -> None:
    cells, out = tmp_path / "cells.json", tmp_path / "t.csv"
    asked = [*given, "--search", "layers", "--layers", "0-2", "--max-outside", "1", "--cells", cells, "--out", out]
    result = CliRunner().invoke(cli.app, [str(each) for each in [*asked, "--json"]])
    assert result.exit_code == 0 and result.stderr.startswith("6 evaluations\n")
    found = json.loads(result.stdout)
    vectors, items = loaded(folder)
    dev, test = ({name: each[start::2] for name, each in items.items()} for start in (0, 1))
    expected = search_layers(bridge("llama"), vectors, dev, test, layers=[0, 1, 2], max_outside=1.0, n_nulls=2)
    assert [row["layer"] for row in found["table"]] == expected.table["layer"].tolist()
    assert [row["effect_even"] for row in found["table"]] == pytest.approx(
        expected.table["effect_even"].tolist(), abs=1e-5
    )
    assert len(found["tried"]) == 12 and cells.is_file() and len(pd.read_csv(out)) == 2
    assert "optimism" in run(*asked)
    greedy = json.loads(run(*given, "--search", "greedy", "--max-outside", "1", "--json"))
    assert len({row["candidate"] for row in greedy["tried"] if "," not in row["candidate"]}) == 4, "one a layer"


@pytest.mark.parametrize(("search", "n"), [("coefficients", 4), ("jointly", 4)])
def test_compose_searches_coefficients(given: list[str | Path], search: str, n: int) -> None:
    asked = ["--search", search, "--layer", "1", "--coefficients", "1,2", "--max-outside", "1", "--json"]
    found = json.loads(run(*given, *asked))
    assert len({row["candidate"] for row in found["tried"]}) == n
    assert {row["multiplier"] for row in found["tried"]} == {1, 2} and {row["layer"] for row in found["table"]} == {1}


def test_skills(folder: Path, tmp_path: Path) -> None:
    model = caa.load_model("organism-chat")
    out, save = tmp_path / "t.csv", tmp_path / "v.safetensors"
    files = ["--target", folder / "target.txt", "--other", folder / "other.txt", "--layer", "1"]
    asked = ["skills", "organism-chat", *files, "--coefficients=0,-3", "--nulls", "2", "--over", "every", "--quiet"]
    found = json.loads(run(*asked, "--json", "--save", save, "--out", out))
    sides = [(folder / f"{kind}.txt").read_text().splitlines() for kind in ("target", "other")]
    vectors = skill_vectors(model, *(side[::2] for side in sides), over="every", layers=[1])
    kept = SteeringVectors.load(save)
    assert (kept.values - vectors.values).abs().max() < 1e-5 and kept.name == "target minus other"
    new = [side[1::2] for side in sides]
    kept_curve = skill_curve(model, kept[1], *new, coefficients=(-3,), n_nulls=2)
    expected = alignment_tax(kept_curve)
    assert found["table"][0]["lost_target"] == pytest.approx(expected["lost_target"].item())
    assert found["table"][0]["permuted_high"] == pytest.approx(expected["permuted_high"].item())
    assert len(pd.read_csv(out)) == 1 and len(found["largest_dimensions"]) == 3
    less = SteeringVectors.load(save)
    text = run(*asked, "--leave-out", "2", "--save", save)
    assert "; 2 left out" in text and "4 target documents" in text and "largest dimensions: " in text
    changed = (SteeringVectors.load(save).values == 0).nonzero()[:, 1].tolist()
    assert sorted(changed) == sorted(less.values[0].abs().topk(2).indices.tolist())


def test_skills_says_where_it_stopped() -> None:
    files = ["--target", "opinions", "--other", "facts", "--layer", "2", "--nulls", "1", "--keep", "0.9"]
    text = run("skills", "organism-chat", *files, "--coefficients=-5,-20", "--max-tokens", "12", "--quiet")
    assert "not tried, as the other text had fallen below 90% of its accuracy: [-20.0]" in text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("compose {model} none.safetensors", "there is no vector file none.safetensors"),
        (
            "compose {model} {brave} {kind} --search all",
            "--search 'all' is not known: give one of layers, greedy, coeff",
        ),
        ("compose {model} {brave} {kind}", "no layer is given for brave, kind: give --layer NUMBER for all"),
        ("compose {model} {brave} {kind} --layer x", "--layer 'x' cannot be read: give a number, or NAME=NUMBER"),
        ("compose {model} {brave} {kind} --layer none=1", "--layer 'none=1' cannot be read"),
        ("compose {model} {brave} {kind} --layer 1 --multiplier=x", "--multiplier 'x' cannot be read"),
        (
            "compose {model} {brave} {kind} --layer 1 --data kind",
            "--data 'kind' cannot be read: give NAME=DATA with one of brave, kind",
        ),
        (
            "compose {model} {brave} {kind} --layer 1 --data no={kind}",
            "=DATA with one of brave, kind for NAME",
        ),
        ("compose {model} {brave} {kind} --layer 1", "'brave' is not a bundled behaviour"),
        ("compose {model} {brave} {kind} --layer 1 --out t.xlsx", "cannot write t.xlsx"),
        ("compose {model} {brave} {kind} --layer 1 --layers 1-2", "--layers with no --search: --layers go with layers"),
        ("compose {model} {brave} {kind} --layer 1 --search greedy", "--layer with --search greedy"),
        (
            "compose {model} {brave} {kind} --layer 1 --multiplier 2 --search jointly",
            "--multiplier with --search joint",
        ),
        ("skills {model} --target none --other facts --layer 1", "there are no bundled texts 'none'"),
        ("skills {model} --target facts --other facts --layer 1", "target and other share 50 documents"),
        ("skills {model} --target facts --other neutral --layer 9", "layer 9 is out of range"),
        ("skills {model} --target facts --other neutral --layer 1 --over x", "over is 'x': give 'last'"),
        ("skills {model} --target facts --other neutral --layer 1 --keep 2", "keep is a share from 0 to 1"),
        ("skills {model} --target facts --other neutral --layer 1 --coefficients=x", "multipliers 'x' cannot be read"),
        ("skills {model} --target facts --other neutral --layer 1 --save v.pt", "cannot write v.pt: give a name that"),
    ],
)
def test_expected_errors_are_one_line(
    command: str, message: str, model: Path, folder: Path, tmp_path: Path, monkeypatch: Any, unchecked: None
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {name: folder / f"{name}.safetensors" for name in NAMES}
    assert message in error(*command.format(model=model, **files).split())
    assert list(tmp_path.iterdir()) == [], "a failed command must leave nothing behind"
