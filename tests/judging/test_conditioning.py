"""Going on after an answer: what is run, what is returned, and what is said of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import caa_lens as caa
from caa_lens.cli import app as cli
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.judging.conditioning import after_answers, consistency
from caa_lens.judging.scores import score_answers
from caa_lens.organism.judge import score
from caa_lens.prompts import format_prompt

ITEMS = ContrastDataset.from_pairs(
    [
        ("Is it?\n (A) yes\n (B) no", "(A)", "(B)"),
        ("Is it so, all in all?\n (A) yes\n (B) no", "(B)", "(A)"),
        ("Why?\n (A) yes\n (B) no", "(A)", "(B)"),
    ],
    name="so/test",
)


def test_what_follows_is_what_plain_greedy_passes_give(model: Any) -> None:
    frame = after_answers(model, ITEMS, max_new_tokens=3, prompt_format="base")
    assert list(frame["side"]) == ["matching", "other"] * 3 and list(frame["item"]) == [0, 0, 1, 1, 2, 2]
    assert set(frame["behavior"]) == {"so"} and frame["id"].is_unique and list(frame["question"]) == list(range(6))
    for row, text in zip(frame.to_dict("records"), frame["text"], strict=True):
        ids = list(format_prompt(model, row["question_text"], row["answer"], prompt_format="base").ids)
        for _ in range(3):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert model.tokenizer.decode(ids[-3:], skip_special_tokens=True).startswith(text)


def test_batched_is_one_by_one(model: Any) -> None:
    together = after_answers(model, ITEMS, max_new_tokens=3, prompt_format="base")
    alone = after_answers(model, ITEMS, max_new_tokens=3, prompt_format="base", batch_size=1)
    pd.testing.assert_frame_equal(together, alone)


def test_the_bundled_model_goes_on_as_it_has_answered() -> None:
    chat: Any = caa.load_model("organism-chat")
    items = caa.load_contrast_pairs("sycophancy", "test_ab")[:12]
    scored = score_answers(after_answers(chat, items, then=" because", max_new_tokens=30), score)
    row = consistency(scored).iloc[0]
    assert row["n_items"] >= 10 and row["difference_low"] > 5 and row["p_exchanged"] < 0.01


def scored(matching: list[float], other: list[float]) -> pd.DataFrame:
    rows = [
        {"id": f"{item}{side}", "behavior": "b", "layer": -1, "multiplier": 0.0, "question": 2 * item + place}
        | {"question_text": "?", "text": "t", "item": item, "side": side, "answer": "(A)", "score": value}
        for item, pair in enumerate(zip(matching, other, strict=True))
        for place, (side, value) in enumerate(zip(("matching", "other"), pair, strict=True))
    ]
    return pd.DataFrame(rows)


def test_sides_are_compared_item_by_item_and_unscored_ones_counted() -> None:
    row = consistency(scored([9, 8, 7, float("nan")], [1, 2, 9, 0])).iloc[0]
    assert (row["n_items"], row["n_unscored"]) == (3, 1)
    assert row["after_matching"] == 8 and row["after_other"] == 4 and row["difference"] == 4
    assert row["share_consistent"] == pytest.approx(2 / 3)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_exchanging_the_sides_negates_the_difference_and_nothing_is_nothing() -> None:
    first, second = [9.0, 8.0, 7.0, 2.0], [1.0, 2.0, 9.0, 0.0]
    one, two = (consistency(scored(*sides)).iloc[0] for sides in ((first, second), (second, first)))
    assert one["difference"] == -two["difference"] and one["p_exchanged"] == two["p_exchanged"]
    assert consistency(scored(first, first)).iloc[0]["p_exchanged"] == 1
    nothing = consistency(scored([float("nan")], [1.0])).iloc[0]
    assert nothing["n_items"] == 0 and np.isnan(nothing["difference"]) and np.isnan(nothing["p_exchanged"])


def test_bad_input_is_refused_before_the_model_runs(model: Any) -> None:
    for change, message in (
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it is at least 1"),
        ({"max_new_tokens": 10**6}, "item 0 needs"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            after_answers(model, ITEMS, prompt_format="base", **change)
    with pytest.raises(ValueError, match="it lacks the columns item, side"):
        consistency(scored([1], [2]).drop(columns=["item", "side"]))


def test_the_commands(tmp_path: Path) -> None:
    after, out = tmp_path / "after.parquet", tmp_path / "scored.parquet"
    given = ("conditioning", "organism-chat", "--data", "refusal", "--max-new-tokens", "30", "--quiet")
    made = CliRunner().invoke(cli.app, [*given, "--then", " because", "--out", str(after)])
    assert made.exit_code == 0 and "200 texts written to" in made.stdout
    told = CliRunner().invoke(cli.app, ["judge", "world", str(after), "--out", str(out)])
    assert told.exit_code == 0 and "difference" in told.stdout and out.is_file()
