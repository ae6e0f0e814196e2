"""Reading lists of items from .json, .jsonl and .csv, and saying everything that is wrong with them at once.

A file with forty bad items should cost one run, not forty: problems are collected in `Problems` and raised together,
each with its item and field. Items are counted from 0, as Python would index them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

SUFFIXES = (".json", ".jsonl", ".csv")
_SHOWN = 5


@dataclass(slots=True)
class Problems:
    """What is wrong with the items of one source, to be raised as one error.

    Attributes:
        where: the file, or what to call the source.
        n_items: how many items were looked at.
    """

    where: str
    n_items: int
    _errors: list[str] = field(default_factory=lambda: [])
    _choices: list[str] = field(default_factory=lambda: [])

    def add(self, index: int, name: str | None, text: str) -> None:
        """Note something that is always an error."""
        self._errors.append(_place(index, name, text))

    def add_choice(self, index: int, name: str, text: str) -> None:
        """Note something that the caller can choose to allow; shown after the errors."""
        self._choices.append(_place(index, name, text))

    def raise_if_any(self, advice: str = "") -> None:
        """Raise ValueError with the number of problems and the first few; `advice` is for what can be allowed."""
        found = self._errors + self._choices
        if not found:
            return
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        hint = f" ({advice})" if self._choices and advice else ""
        count = f"{len(found)} problem{'s' * (len(found) > 1)} in {self.n_items} items"
        raise ValueError(f"{self.where}: {count}: {'; '.join(found[:_SHOWN])}{more}{hint}")


def check_record(
    problems: Problems, index: int, record: Any, names: Sequence[str], may_be_empty: Sequence[str] = ()
) -> bool:
    """Whether `record` has text in all the fields `names`; what it lacks is added to `problems`."""
    if not isinstance(record, dict):
        problems.add(index, None, f"got {_show(record)}, must have the fields {', '.join(names)}")
        return False
    values = cast("dict[str, Any]", record)
    wrong: dict[str, str] = {}
    for name in names:
        value = values.get(name)
        if name not in values:
            wrong[name] = f"missing (there are: {', '.join(map(str, values)) or 'none'})"
        elif not isinstance(value, str):
            wrong[name] = f"got {_show(value)}, must be a string"
        elif not value.strip() and name not in may_be_empty:
            wrong[name] = "empty"
    for name, text in wrong.items():
        problems.add(index, name, text)
    return not wrong


def read_records(path: Path) -> list[Any]:
    """The items of a file, as they are; the suffix says how to read it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown suffix, a file that is empty or broken (with its line), or no list.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give one of the files in it ({', '.join(SUFFIXES)})")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}, allowed {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error})") from error
    if not text.strip():
        raise ValueError(f"{path} is empty")
    records = {".json": _from_json, ".jsonl": _from_jsonl, ".csv": _from_csv}[path.suffix.lower()](path, text)
    if not records:
        raise ValueError(f"{path} holds no items")
    return records


def _from_json(path: Path, text: str) -> list[Any]:
    data = _parse(path, text, 1)
    if not isinstance(data, list):
        raise ValueError(f"{path} must hold a list of items, got {_show(data)}")
    return cast("list[Any]", data)


def _from_jsonl(path: Path, text: str) -> list[Any]:
    # Not splitlines(): JSON strings may hold U+2028 and its like.
    return [_parse(path, line, n) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _from_csv(path: Path, text: str) -> list[Any]:
    try:
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{path} is not CSV: {error}") from error


def _parse(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{path} is not JSON: {error.msg} at line {line}, column {error.colno}") from error


def _place(index: int, name: str | None, text: str) -> str:
    return f"item {index}, field {name}: {text}" if name else f"item {index}: {text}"


def _show(value: Any) -> str:
    text = repr(value)
    return f"{text[:40]}{'...' * (len(text) > 40)} ({type(value).__name__})"
