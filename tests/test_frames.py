"""The columns of a sweep, and of what is made from it, are those of `docs/frames.md`, with its types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from plain import PAIRS

import caa_lens as caa
from caa_lens.evaluation.capabilities import CapabilitySet, capabilities
from caa_lens.evaluation.entanglement import crossed, entanglement
from caa_lens.evaluation.items import steerability
from caa_lens.protocols.composition import sweep_together
from caa_lens.protocols.composition.asking import compared

PAGE = Path(__file__).parents[1] / "docs" / "frames.md"
ITEMS = caa.ContrastDataset.from_pairs(PAIRS, name="toy")
KINDS = {"text": "OUT", "whole": "i", "number": "f", "yes or no": "b"}


def schema() -> dict[str, str]:
    rows = [line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    names = [name.strip().strip("`") for name, _ in rows]
    assert len(set(names)) == len(names), "a name has one meaning"
    return {name: kind.strip() for name, (_, kind) in zip(names, rows, strict=True)}


def ends(column: str) -> str:
    """What an interval's end is of."""
    return column.removesuffix("_low").removesuffix("_high")


FRAMES: dict[str, Callable[[Any, Any], pd.DataFrame]] = {
    "sweep": lambda model, vectors: caa.sweep(model, vectors, ITEMS, n_nulls=1),
    "summarize": lambda model, vectors: caa.summarize(caa.sweep(model, vectors, ITEMS, n_nulls=1), n_bootstrap=5),
    "capabilities": lambda model, vectors: capabilities(
        model, vectors, CapabilitySet("s", ITEMS, ("x",) * len(ITEMS)), n_nulls=1
    ),
    "steerability": lambda model, vectors: steerability(caa.sweep(model, vectors, ITEMS, n_nulls=0)),
    "entanglement": lambda model, vectors: entanglement(
        caa.sweep(model, **crossed({"toy": vectors}, {"toy": ITEMS}, {"toy": 1})), {"toy": 1}, n_bootstrap=5
    ),
    "sweep_together": lambda model, vectors: sweep_together(
        model, {"a": vectors[0], "b": vectors[1]}, {"a": ITEMS, "b": ITEMS}, n_nulls=1
    ),
    "compared": lambda model, vectors: compared(
        sweep_together(model, {"a": vectors[0], "b": vectors[1]}, {"a": ITEMS, "b": ITEMS}, n_nulls=1), n_bootstrap=5
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_column_is_on_the_page_with_its_type(bridge: Any, name: str) -> None:
    model, known = bridge("llama"), schema()
    frame = FRAMES[name](model, caa.extract_vectors(model, ITEMS, layers=[0, 1]))
    for column in map(str, frame.columns):
        kind = known.get(column) or known.get(ends(column))
        assert kind is not None, f"{column} of {name} is not on the page of frames"
        found = frame[column].dtype.kind if frame[column].dtype.kind in "OUTifb" else "T"
        assert found in KINDS[kind], f"{column} of {name} is {frame[column].dtype}, and {kind} on the page"
