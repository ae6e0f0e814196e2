"""How a value that somebody gave is shown in an error: whole where it is short, else by its beginning and its type."""

from __future__ import annotations

from typing import Any

WHOLE = 240
"""A value of so many characters is shown whole: the path of a file, or the names of a few behaviours."""

BEGINNING = 60
"""So many characters are shown of a longer one."""


def brief(value: Any) -> str:
    """A value as the text of an error may hold it, however large it is.

    >>> brief("sycophancy"), brief(("A", "B"))
    ("'sycophancy'", "('A', 'B')")
    >>> brief(list(range(10_000)))
    '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1... (a list of 10000)'
    """
    text = repr(value)
    if len(text) <= WHOLE:
        return text
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{text[:BEGINNING]}... (a {type(value).__name__}{size})"
