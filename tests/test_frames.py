"""The page of the columns of frames, and the check that every test's frames go through."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

import frame_columns
import pandas as pd
import pytest
from plain import PAIRS

import caa_lens as caa
from caa_lens.evaluation import choices


def test_a_column_that_is_not_on_the_page_is_refused(monkeypatch: pytest.MonkeyPatch, bridge: Any) -> None:
    items = caa.ContrastDataset.from_pairs(PAIRS, name="toy")
    frame = caa.sweep(bridge("llama"), caa.extract_vectors(bridge("llama"), items, layers=[0]), items, n_nulls=1)
    summary = caa.summarize(frame, n_bootstrap=5)
    kept = {name: kind for name, kind in frame_columns.schema().items() if name != "letter_drift"}
    monkeypatch.setattr(frame_columns, "schema", lambda: kept)
    message = r"the frame of caa_lens.evaluation.choices.summarize: letter_drift is not on the page"
    with pytest.raises(pytest.fail.Exception, match=message):
        choices.summarize(frame, n_bootstrap=5)
    assert "letter_drift" in summary.columns


def test_names_follow_from_others_and_types_count() -> None:
    good = {"effect": [0.1], "balanced_low": [0.0], "shuffled_high": [0.2], "n_permuted": [3], "mass_dev": [1.0]}
    assert frame_columns.problems(pd.DataFrame(good)) == []
    assert frame_columns.problems(pd.DataFrame({"layer": [], "vector": []})) == []
    wrong = pd.DataFrame({"layer": ["3"], "multiplicator": [1.0], "vector": [1.0]})
    assert [each.split()[0] for each in frame_columns.problems(wrong)] == ["layer", "multiplicator", "vector"]


def test_the_functions_on_the_page_are_there() -> None:
    rows = re.findall(r"^\| `\w+` .*\| (.*) \|$", frame_columns.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there: set[str] = set()
    for each in pkgutil.walk_packages(caa.__path__, "caa_lens."):
        if each.name.split(".")[1] in frame_columns.FOLDERS:
            module = importlib.import_module(each.name)
            members = [module, *(value for value in vars(module).values() if inspect.isclass(value))]
            there |= {name for name in named for member in members if hasattr(member, name)}
    assert len(named) > 40 and named == there
