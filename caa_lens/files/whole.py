"""Files that are there whole or not at all.

What is written goes under another name in the same folder first and is renamed when it is complete, which replaces an
older file in one step. A job that is killed leaves the older file as it was, and no half of a new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file (of the same suffix) in the same folder, then rename it to ``path``.

    The folder is made where it is missing. If ``write`` fails, nothing is left of the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a path at which `write_whole` could write nothing, before anything is computed.

    Raises:
        ValueError: It is a folder, is below a file, or is where this user may not write.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if not folder.is_dir():
        raise ValueError(f"cannot write {path}: {folder} is a file, not a folder; give another path")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"cannot write {path}: {folder} is not yours to write in; give another path")
