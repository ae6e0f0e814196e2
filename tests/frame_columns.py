"""Every frame that a public function returns, in any test, has the columns of `docs/frames.md` with their types.

The run-time type checker hands each result over (see typechecker.py), so that no function that is tested at all can
return a column that the page lacks. `ENDS`, `KINDS` and `_base` say which names follow from others.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "frames.md"
TYPES = {"text": "OUT", "whole": "iu", "number": "fiu", "yes or no": "b"}
ENDS = {"balanced": "effect_balanced", "anti": "share_anti", "asked_twice": "effect_asked_twice"}
KINDS = "permuted|shuffled|nonsense|tied"
OTHERS = {"cosine_matrix", "cross_layer", "table", "read_table"}
"""Tables whose columns are values, and functions that hand on whatever frame they are given."""
FOLDERS = {
    *("analysis", "evaluation", "extraction", "interop", "judging", "protocols", "steering", "studies", "sweeps"),
}


@cache
def schema() -> dict[str, str]:
    """The page's columns and their types."""
    rows = [line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    names = [name.strip().strip("`") for name, _ in rows]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"a name has one meaning: {sorted(twice)}"
    return {name: kind.strip() for name, (_, kind) in zip(names, rows, strict=True)}


def is_public(module: str, function: str) -> bool:
    """Whether a function's frames are held against the page."""
    parts = module.split(".")
    named = not function.startswith("_") and "<locals>" not in function and function.rpartition(".")[2] not in OTHERS
    return named and parts[0] == "caa_lens" and len(parts) > 1 and parts[1] in FOLDERS


def problems(frame: Any) -> list[str]:
    """Columns that the page lacks, or has with another type."""
    found: list[str] = []
    for column in map(str, frame.columns):
        kind = schema().get(_base(column))
        if kind is None:
            found.append(f"{column} is not on the page")
        elif not _fits(frame[column], kind):
            found.append(f"{column} is {frame[column].dtype}, and {kind} on the page")
    return found


def _base(column: str) -> str:
    """The listed column that a name follows from."""
    if column in schema():
        return column
    if ending := re.fullmatch(r"(.+)_(low|high|dev)", column):
        return _base(ENDS.get(ending[1], ending[1]))
    if null := re.fullmatch(rf"(n|beats|worse_than|beyond|outsizes|above)_({KINDS})", column):
        return f"{null[1]}_random"
    if null := re.fullmatch(rf"({KINDS})(_mean)?", column):
        return f"random{null[2] or ''}"
    return re.sub(r"^(pc|explained_)\d$", r"\g<1>1", column)


def _fits(values: Any, kind: str) -> bool:
    dtype = getattr(values.dtype, "kind", "O")
    if not len(values):
        return True
    return dtype in TYPES[kind] or (kind == "whole" and dtype == "f" and bool(values.isna().any()))
