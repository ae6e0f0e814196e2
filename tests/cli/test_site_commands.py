"""`caa-lens extract --site`, and `--operation` of generate and sweep: the same numbers as the Python functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import caa_lens as caa
from caa_lens.cli.app import app
from caa_lens.interventions.interventions import Intervention
from caa_lens.interventions.operations import Ablate, Clamp
from caa_lens.vectors.vectors import SteeringVectors

MODEL, QUESTION = "organism-chat", "What do you think of my plan?"


def run(*arguments: str, fails: bool = False) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert (result.exit_code != 0) == fails, result.output
    return result


@pytest.fixture(scope="module")
def model() -> Any:
    return caa.load_model(MODEL)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors read at the attention's output."""
    out = tmp_path_factory.mktemp("vectors") / "v.safetensors"
    run("extract", MODEL, "--data", "sycophancy", "--site", "attn_out", "--layers", "2-3", "--out", str(out), "--quiet")
    return out


def test_extract_reads_at_the_site_and_generate_and_sweep_use_it(file: Path, model: Any) -> None:
    vectors = SteeringVectors.load(file)
    assert vectors[2].site == "attn_out"
    expected = caa.extract_vectors(model, caa.load_contrast_pairs("sycophancy"), layers=[2, 3], site="attn_out")
    assert (vectors.values - expected.values).abs().max() < 1e-5
    found = run(
        "generate",
        MODEL,
        str(file),
        "--prompt",
        QUESTION,
        "--layer",
        "3",
        "--multiplier",
        "4",
        "--json",
        "--max-new-tokens",
        "12",
        "--operation",
        "clamp:20:",
        "--frequency-penalty",
        "0.5",
    ).output
    recipe = Intervention(vectors[3], 4.0, operation=Clamp(low=20.0))
    kwargs: Any = {"max_new_tokens": 12, "frequency_penalty": 0.5}
    plain, steered = (caa.generate(model, [QUESTION], steer=each, **kwargs) for each in (None, recipe))
    assert json.loads(found) == [{"prompt": QUESTION, "unsteered": plain[0], "steered": steered[0]}]
    assert plain != steered


def test_sweep_with_an_operation(file: Path, model: Any, tmp_path: Path) -> None:
    import pandas as pd

    questions = [
        {
            "question": f"Is it {n}?\n (A) yes\n (B) no",
            "answer_matching_behavior": "(A)",
            "answer_not_matching_behavior": "(B)",
        }
        for n in range(4)
    ]
    (tmp_path / "items.json").write_text(json.dumps(questions))
    run(
        "sweep",
        MODEL,
        str(file),
        "--data",
        str(tmp_path / "items.json"),
        "--multipliers",
        "0,1",
        "--nulls",
        "2",
        "--operation",
        "ablate",
        "--out",
        str(tmp_path / "s.csv"),
        "--quiet",
        "--json",
    )
    items = caa.load_contrast_pairs(str(tmp_path / "items.json"))
    vectors = SteeringVectors.load(file)
    expected = caa.sweep(model, vectors, items, multipliers=[0, 1], n_nulls=2, operation=Ablate())
    found = pd.read_csv(tmp_path / "s.csv")
    assert found["logp_matching"].to_numpy() == pytest.approx(expected["logp_matching"].to_numpy(), abs=1e-6)
    added = caa.sweep(model, vectors, items, multipliers=[0, 1], n_nulls=2)
    assert abs(found["logp_matching"] - added["logp_matching"]).max() > 1e-3


def test_what_cannot_be_done_is_said_before_a_model_is_loaded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caa_lens.cli.options.open_model", lambda *_: pytest.fail("a model was loaded"))
    out = run("extract", MODEL, "--data", "sycophancy", "--site", "middle", "--out", str(file), fails=True)
    assert "the site 'middle' is not known: give one of resid_pre, attn_out" in " ".join(out.output.split())
    for command in (["generate", MODEL, "--prompt", "hello"], ["sweep", MODEL, str(file), "--data", "sycophancy"]):
        out = run(*command, "--operation", "remove", fails=True)
        assert "operation 'remove' cannot be read: give add, ablate, set:VALUE" in " ".join(out.output.split())
