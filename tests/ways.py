"""How tests name a vector or a null in short: ``vector``, ``unsteered``, ``random-1``, as the columns of a frame."""

from __future__ import annotations

from typing import Any

import pandas as pd


def way(name: str, vector: str = "toy") -> dict[str, Any]:
    """The columns ``vector``, ``kind`` and ``draw``."""
    kind, _, draw = name.partition("-")
    return {"vector": kind if kind == "unsteered" else vector, "kind": kind, "draw": int(draw or -1)}


def ways_of(frame: pd.DataFrame) -> list[str]:
    """The short name of each row."""
    pairs = zip(frame["kind"], frame["draw"], strict=True)
    return [kind if draw < 0 else f"{kind}-{draw}" for kind, draw in pairs]
