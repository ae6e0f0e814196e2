"""`actadd`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import error, run

import caa_lens as caa
import caa_lens.cli.options as options
from caa_lens.evaluation.actadd import beside_controls, completion_loss, continuations, topic_words
from caa_lens.steering.activation_addition import addition

PROMPTS = ["hello there, this is it", "one two three four"]


@pytest.fixture(scope="module")
def asked(tiny_path: Callable[[str], Path]) -> list[str | Path]:
    """`actadd`, the model, the addition and the prompts."""
    prompts = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    given = ["--positive", "the o", "--negative", "so", "--layer", "2", "--coefficient", "4", "--at", "back"]
    return ["actadd", tiny_path("llama"), *given, *prompts, "--max-new-tokens", "3"]


def test_the_help_has_examples() -> None:
    text = run("actadd", "--help")
    assert "For example:" in text and "caa-lens actadd gpt2-xl --positive Love --negative Hate" in text


def test_unsteered_beside_steered(asked: list[str | Path], bridge: Callable[[str], Any]) -> None:
    model = bridge("llama")
    love = addition(model, "the o", "so", layer=2, coefficient=4.0, at="back")
    found = json.loads(run(*asked, "--json"))
    how: Any = {"prompt_format": "plain", "max_new_tokens": 3}
    expected = caa.generate(model, PROMPTS, steer={"unsteered": None, "steered": love}, **how)
    assert [row["prompt"] for row in found] == PROMPTS
    for way, texts in expected.items():
        assert [row[way] for row in found] == texts
    assert expected["steered"] != expected["unsteered"]
    text = run(*asked)
    assert "PromptAddition('the o' - 'so', layer 2, x 4, 4 positions at the back" in text and f"> {PROMPTS[1]}" in text
    sampled = json.loads(run(*asked, "--json", "--paper-sampling", "--seed", "2"))
    how |= {"temperature": 1.0, "top_p": 0.3, "frequency_penalty": 1.0, "seed": 2}
    assert [row["steered"] for row in sampled] == caa.generate(model, PROMPTS, steer=love, **how)


def test_words_are_counted_beside_controls(
    asked: list[str | Path], bridge: Callable[[str], Any], tmp_path: Path
) -> None:
    model = bridge("llama")
    love = addition(model, "the o", "so", layer=2, coefficient=4.0, at="back")
    written = continuations(model, love, PROMPTS, n_samples=3, n_nulls=2, max_new_tokens=3)
    words = [str(written["text"].iloc[0]).strip()[:1] or "a", "the"]
    counted = completion_loss(model, topic_words(written, words))
    expected = pd.concat([beside_controls(counted, value) for value in ("hit", "loss")], ignore_index=True)
    more = ["--words", ",".join(words), "--samples", "3", "--nulls", "2", "--quiet"]
    found = pd.DataFrame(json.loads(run(*asked, *more, "--json", "--out", tmp_path / "w.parquet")))
    assert found["measure"].tolist() == ["share with a word", "loss, unsteered model"]
    pd.testing.assert_frame_equal(found[list(expected)].astype(float), expected.astype(float), atol=1e-6)
    saved = pd.read_parquet(tmp_path / "w.parquet")
    assert saved["text"].tolist() == counted["text"].tolist() and "loss" in saved
    text = run(*asked, *more)
    assert "6 texts in each way" in text and "2 nonsense" in text and "beyond random" in text
    by_hand = [*more[:2], "--samples", "1", *more[4:], "--out", tmp_path / "h.parquet"]
    for option, temperature in (("0.7", 0.7), ("0", 0.0)):
        run(*asked, *by_hand, "--temperature", option)
        sampling = {"temperature": temperature}
        expected = continuations(model, love, PROMPTS, n_nulls=2, sampling=sampling, max_new_tokens=3)
        assert pd.read_parquet(tmp_path / "h.parquet")["text"].tolist() == expected["text"].tolist()


def test_what_is_refused_before_a_model_loads(asked: list[str | Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "open_model", lambda *_: pytest.fail("a model was loaded"))
    assert "--out goes with --words" in error(*asked, "--out", "a.csv")
    assert "give a name that ends in .parquet or .csv" in error(*asked, "--words", "a", "--out", "a.txt")
    assert "--paper-sampling sets temperature" in error(*asked, "--paper-sampling", "--top-p", "0.5")
    for option in ("--temperature=0", "--top-p=0.5"):
        same = error(*asked, "--words", "a", option)
        assert "--samples is 20 at temperature 0, where all texts of a prompt are the same: give --samples 1" in same
    assert "--positive and --negative are both 'so', and their diff" in error(*asked, "--positive", "so")
    assert "at 'end' is not known: give one of front, middle, back" in error(*asked, "--at", "end")
    assert "words 'a,' cannot be read: give comma-separated words" in error(*asked, "--words", "a,")


def test_what_the_model_refuses(asked: list[str | Path]) -> None:
    assert "layer 9 is out of range" in error(*asked, "--layer", "9")
    assert "prompt 2 has 3 tokens and" in error(*asked, "--prompt", "a")
