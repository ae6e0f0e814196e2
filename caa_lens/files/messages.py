"""How a value that somebody gave is shown in an error: whole where it is short, else by its type and its beginning."""

from __future__ import annotations

from typing import Any

WHOLE = 60
"""So many characters of a value are shown, and of a longer one the first of them."""

WHOLE_TEXT = 240
"""The same for a string, which may be the path of a file."""


def shown(value: Any) -> str:
    """A value as the text of an error may hold it, however large it is.

    >>> shown("sycophancy"), shown(("A", "B"))
    ("'sycophancy'", "('A', 'B')")
    >>> shown(list(range(10_000)))
    'a list of 10000 that begins [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, ...'
    """
    text = repr(value)
    if len(text) <= (WHOLE_TEXT if isinstance(value, str) else WHOLE):
        return text
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"a {type(value).__name__}{size} that begins {text[:WHOLE].rstrip()} ..."
