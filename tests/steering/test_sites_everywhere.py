"""Wherever vectors are made for somebody, the site is theirs to choose, and reading and steering follow it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import caa_lens as caa
from caa_lens.cli.app import app
from caa_lens.evaluation.reliability import separability
from caa_lens.extraction.extraction import extract_activations
from caa_lens.prompts import format_prompt
from caa_lens.protocols.assessment import assess
from caa_lens.protocols.broad_skills import skill_vectors
from caa_lens.protocols.style import style_vectors
from caa_lens.protocols.transfer import across_prompts
from caa_lens.studies.run import run_study
from caa_lens.studies.settings import study_settings
from caa_lens.vectors.vectors import SteeringVectors
from caa_lens.viz import page

SITE = "resid_pre"
MODEL = "organism-chat"
DATA = "refusal"


@pytest.fixture(scope="module")
def chat() -> Any:
    return caa.load_model(MODEL)


@pytest.fixture(scope="module")
def parts() -> Any:
    return caa.load_contrast_pairs(DATA)[:60].split(seed=0)


@pytest.fixture(scope="module")
def swept(chat: Any, parts: Any) -> pd.DataFrame:
    """By hand: vectors of the site, added at the site."""
    train, _, test = parts
    vectors = caa.extract_vectors(chat, train, layers=[2], site=SITE)
    return caa.summarize(caa.sweep(chat, vectors, test, site=SITE, multipliers=[-1, 1])).set_index("multiplier")


def test_an_assessment_reads_and_steers_at_the_site(chat: Any, parts: Any, swept: pd.DataFrame) -> None:
    train, _, test = parts
    table = assess(chat, *parts, layers=[2], n_nulls=2, site=SITE).set_index("multiplier")
    for step in (-1, 1):
        assert table.loc[step, "effect"] == pytest.approx(swept.loc[step, "effect"], abs=1e-5)
    read = [extract_activations(chat, side, layers=[2], site=SITE) for side in (train, test)]
    assert table["d_prime"].iloc[0] == pytest.approx(separability(*read)["d_prime"].item(), rel=1e-4)
    elsewhere = assess(chat, *parts, layers=[2], n_nulls=2).set_index("multiplier")
    assert abs(elsewhere.loc[1, "effect"] - table.loc[1, "effect"]) > 1e-3
    assert elsewhere["d_prime"].iloc[0] != pytest.approx(table["d_prime"].iloc[0], rel=1e-2)


def test_transfer_between_prompts_keeps_the_site(chat: Any, parts: Any, swept: pd.DataFrame) -> None:
    train, _, test = parts
    table = across_prompts(chat, train, test, formats=("chat",), layers=[2], n_nulls=1, site=SITE)
    for row in table.to_dict("records"):
        assert row["effect"] == pytest.approx(swept.loc[row["multiplier"], "effect"], abs=1e-5)


def test_skills_and_styles_are_read_at_the_site(model: Any) -> None:
    target, other = ["the one thing", "this is it"], ["and that is the end", "one two three"]
    made = skill_vectors(model, target, other, layers=[1], site="attn_out")
    with torch.no_grad():
        ends = [
            model.run_with_cache(torch.tensor([format_prompt(model, text, prompt_format="plain").ids]))[1][
                "blocks.1.hook_attn_out"
            ][0, -1].double()
            for text in (*target, *other)
        ]
    expected = (ends[0] + ends[1] - ends[2] - ends[3]) / 2
    torch.testing.assert_close(made[1].values.double(), expected, atol=1e-4, rtol=1e-3)
    assert made[1].site == "attn_out"
    texts = [("Is it so?", "it is the one"), ("a?", "this and that")]
    styled, plain = (
        style_vectors(model, texts, ["no", "the other"], layers=[1], site=site) for site in ("attn_out", "resid_post")
    )
    assert (styled[1].site, plain[1].site) == ("attn_out", "resid_post")
    assert not torch.allclose(styled.values, plain.values)
    for make in (skill_vectors, style_vectors):
        with pytest.raises(ValueError, match=r"the site 'between' is not known: give one of resid_pre, attn_out"):
            make(model, *((target, other) if make is skill_vectors else (texts, ["no", "the other"])), site="between")


def test_a_study_at_another_site(
    tmp_path: Path, tiny_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "find_browser", lambda: None)
    files = [tmp_path / "polite.json", tmp_path / "rude.json"]
    for file in files:
        rows = [
            {
                "question": f"{file.stem} {index}?\n (A) yes\n (B) no",
                "answer_matching_behavior": f"({'AB'[index % 2]})",
                "answer_not_matching_behavior": f"({'BA'[index % 2]})",
            }
            for index in range(12)
        ]
        file.write_text(json.dumps(rows))
    train, test = map(str, files)
    small: dict[str, Any] = {"model": str(tiny_path("llama")), "base_model": None, "behaviors": [train]}
    small |= {"layers": [1], "n_nulls": 1, "n_questions": 0, "baselines": [], "texts": None}
    small |= {"site": "attn_out", "test": {"polite": test}}
    result = run_study(study_settings(small), tmp_path / "run", progress=False)
    assert result.vectors["polite"][1].site == "attn_out"
    model = caa.load_model(str(tiny_path("llama")))
    items = caa.load_contrast_pairs(test)
    by_hand = caa.summarize(caa.sweep(model, result.vectors["polite"], items, site="attn_out", multipliers=[-1, 1]))
    by_hand = by_hand[by_hand["multiplier"] != 0]
    found = result.tables["summary"].set_index("multiplier")["effect"]
    for row in by_hand.to_dict("records"):
        assert found[row["multiplier"]] == pytest.approx(row["effect"], abs=1e-5)
    assert "read and added at attn_out" in (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"site: should be 'resid_pre', 'attn_out'.* got 'between'"):
        study_settings(small | {"site": "between"})


@pytest.mark.parametrize("command", ["assess", "select"])
def test_commands_take_it(command: str, chat: Any, parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    arguments = [command, MODEL, "--data", DATA, "--layers", "2", "--site", SITE, "--out", str(out), "--quiet"]
    arguments += ["--nulls", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    train, _, test = caa.load_contrast_pairs(DATA).split(0)
    vectors: SteeringVectors = caa.extract_vectors(chat, train, layers=[2], site=SITE)
    for row in pd.read_parquet(out).to_dict("records"):
        by_hand = caa.summarize(caa.sweep(chat, vectors, test, multipliers=[row["multiplier"]]))
        effect = by_hand.set_index("multiplier").loc[row["multiplier"], "effect"]
        assert row["effect"] == pytest.approx(effect, abs=1e-5)
