r"""Tokens as people can see them: nothing hidden, nothing obeyed.

A token is data. It may be a piece of markup, a line break, half an emoji, or a character that turns the text around it
from right to left. Here it becomes HTML that shows it: markup is escaped, and what has no shape of its own gets a small
grey mark (``␣`` for a token of spaces, ``↵`` for a line break, ``U+202E`` for the override above).
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
JOINERS = "\u200c\u200d"
"""Invisible, but part of what they stand in: most emoji of several people, and many words of Persian and Hindi."""


def shown(token: str) -> str:
    """One token as HTML.

    A space beside other characters is a space that cannot collapse; the box that the token is drawn in shows it.
    """
    if not token:
        return _mark("empty")
    only_spaces = not token.strip(" ")
    return "".join(_shown_character(token, at, only_spaces) for at in range(len(token)))


def direction(tokens: Iterable[str]) -> str:
    """``rtl`` where most letters of a text are written from right to left, else ``ltr``."""
    kinds = [unicodedata.bidirectional(character) for token in tokens for character in token]
    rightward = sum(kind == "L" for kind in kinds)
    return "rtl" if sum(kind in ("R", "AL") for kind in kinds) > rightward else "ltr"


def _shown_character(token: str, at: int, only_spaces: bool) -> str:
    character = token[at]
    kind = unicodedata.category(character)
    if character == " ":
        return _mark("␣") if only_spaces else "&nbsp;"
    if character in MARKS:
        return _mark(MARKS[character])
    if character in JOINERS and 0 < at < len(token) - 1:
        return character
    if kind in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs"):
        return _mark(f"U+{ord(character):04X}")
    if kind.startswith("M") and at == 0:
        return _mark(f"◌{character}")
    return html.escape(character)


def _mark(text: str) -> str:
    return f'<small style="opacity:.75">{text}</small>'
