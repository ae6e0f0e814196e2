"""`--read` wherever a command makes vectors of pairs: the same numbers as the functions, also for answers in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run

import caa_lens as caa
from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.protocols.assessment import assess
from caa_lens.protocols.baselines.comparison import compare
from caa_lens.protocols.selection import select
from caa_lens.protocols.transfer import across_prompts

READ: Any = "answer_end"


@pytest.fixture(scope="module")
def in_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose answers are no letters, so that there is no letter to read."""
    file = tmp_path_factory.mktemp("words") / "words.json"
    rows = [(f"Is item {i} good?", "the one is so good", "the other") for i in range(10)]
    ContrastDataset.from_pairs(rows).to_json(file)
    return file


def by_hand(command: str, model: Any, pairs: Path) -> Any:
    train, dev, test = caa.load_contrast_pairs(pairs, other_answers="keep").split(0)
    few: Any = {"multipliers": (1,), "n_nulls": 1}
    if command == "assess":
        return assess(model, train, dev, test, layers=[1], read=READ, **few)
    if command == "transfer prompts":
        return across_prompts(model, train, test, formats=("plain",), layers=[1], read=READ, **few)
    vectors = caa.extract_vectors(model, train, layers=[1], read=READ)
    if command == "select":
        return select(model, vectors, dev, test, **few)
    return compare(model, vectors, test, train=train, layer=1, baselines=("few_shot",), **few)


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("assess", ["--layers", "1"]),
        ("select", ["--layers", "1"]),
        ("transfer prompts", ["--layers", "1", "--formats", "plain"]),
        ("baselines", ["--layer", "1", "--baselines", "few_shot"]),
    ],
)
def test_answers_in_words_are_read_where_it_is_said(
    command: str, more: list[str], in_words: Path, model: Path, bridge: Callable[[str], Any]
) -> None:
    given = [*command.split(), model, "--data", in_words, "--other-answers", "keep", "--multipliers", "1"]
    given += ["--nulls", "1", *more, "--quiet", "--json"]
    found = json.loads(run(*given, "--read", READ))
    rows = found["table"] if isinstance(found, dict) else found
    expected = by_hand(command, bridge("llama"), in_words)
    assert [row["effect"] for row in rows] == pytest.approx(expected["effect"].tolist(), abs=1e-5, nan_ok=True)
    assert any(row["effect"] for row in rows)
    assert "answer_letter" in run(*given, code=1), "there is no letter to read"
