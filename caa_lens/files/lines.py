"""Caches that are files of JSON lines, only ever added to, so that a killed run loses nothing that it had.

Every line begins with its key. The last line may have been torn off while it was written; it is then left out, and cut
off before the next one is added. Any other file is refused, so that no cache is written into something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

Entry = TypeVar("Entry")
_LINE_BEGINS = b'{"key": "'


def read_lines(path: Path, what: str, entry_of: Callable[[Any], Entry]) -> dict[str, Entry]:
    """What is kept under each key; empty where there is no file.

    Args:
        path: The file.
        what: What it should be, such as ``judge's cache``.
        entry_of: Makes an entry of a line's object; may raise ValueError, KeyError or TypeError.

    Raises:
        ValueError: If the file is something else, with the line.
    """
    if not path.exists():
        return {}
    whole, newline, _ = _without_torn_line(path, what).rpartition(b"\n")
    found: dict[str, Entry] = {}
    for number, line in enumerate(whole.split(b"\n") if newline else [], start=1):
        try:
            held: Any = json.loads(line)
            entry = entry_of(held)
            found[str(held["key"])] = entry
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}, line {number}: this is no line of a {what}; give another file, or take the line out"
            ) from None
    return found


def open_lines(path: Path, what: str) -> IO[bytes]:
    """Open for adding lines, after cutting off a torn last one.

    Raises:
        ValueError: If the file is something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = len(_without_torn_line(path, what)) if path.exists() else 0
    file = path.open("ab")
    file.truncate(whole)
    return file


def add_line(file: IO[bytes], key: str, **values: Any) -> None:
    """Add one line, which is in the file when this returns."""
    file.write(json.dumps({"key": key, **values}).encode() + b"\n")
    file.flush()


def _without_torn_line(path: Path, what: str) -> bytes:
    """The file's whole lines. An end that is not the beginning of one of ours is no torn line: ValueError."""
    content = path.read_bytes()
    whole, newline, torn = content.rpartition(b"\n")
    if not (torn.startswith(_LINE_BEGINS) or _LINE_BEGINS.startswith(torn)):
        raise ValueError(f"{path} is no {what}: give another file")
    return whole + newline
