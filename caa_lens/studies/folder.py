"""A folder in which a study's results appear one file at a time, each of them whole.

Every file is written under another name and renamed, so a file that is there is complete. What is there is not made
again: a run that was killed goes on where it stopped. The settings and the hashes of data and models are kept beside
the results, and a folder that was begun with others is refused, so that no folder mixes two studies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from caa_lens.files.whole import write_whole

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

SETTINGS_FILE = "settings.json"
RUN_FILE = "run.json"
HOW = ("device", "batch_size")
"""Settings that change how a study runs and not what it is: a killed run may go on with others."""


def open_run(folder: Path, settings: str) -> None:
    """Begin a run in a new or empty folder, or go on with the one that is there.

    Args:
        folder: Made where it is missing.
        settings: The text of ``settings.json``.

    Raises:
        ValueError: If the folder holds something else, or a run with other settings; the message names them.
    """
    file = folder / SETTINGS_FILE
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder for the results")
    begun = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    if file.is_file() and begun - {SETTINGS_FILE, RUN_FILE}:
        _check_same(folder, _object(file), json.loads(settings))
        return
    if begun - {SETTINGS_FILE, RUN_FILE}:
        raise ValueError(f"{folder} is not empty and holds no study: give a new folder")
    (folder / RUN_FILE).unlink(missing_ok=True)  # of an attempt that failed before it had a result
    write_whole(file, lambda path: path.write_text(settings, encoding="utf-8"))


def _object(file: Path) -> dict[str, Any]:
    """The JSON object in a file of this folder."""
    try:
        held: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}): give a new folder") from error
    if not isinstance(held, dict):
        raise ValueError(f"{file} should hold a JSON object, it holds a {type(held).__name__}: give a new folder")
    return cast("dict[str, Any]", held)


def once(path: Path, make: Callable[[], T], write: Callable[[T, Path], object], read: Callable[[Path], T]) -> T:
    """Read the file, after making it where it is not there.

    What was just made is read back too, so that a first run and a resumed one go on with the same values.
    """
    if not path.is_file():
        value = make()
        write_whole(path, lambda temporary: write(value, temporary))
    return read(path)


def table(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """`once` for a frame, as ``.parquet`` or as ``.csv`` with numbers that come back bit for bit."""
    if path.suffix == ".parquet":
        return once(path, make, lambda frame, to: frame.to_parquet(to, index=False), read_table)
    return once(path, make, lambda frame, to: frame.to_csv(to, index=False), read_table)


def read_table(path: Path) -> pd.DataFrame:
    """Read what `table` wrote."""
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    # pandas 3 reads floats exactly and warns at the option with which pandas 2 does.
    exact: dict[str, Any] = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
    return pd.read_csv(path, keep_default_na=False, na_values=[""], **exact)


def document(path: Path, make: Callable[[], Any]) -> Any:
    """`once` for a JSON value."""
    return once(path, make, write_json, read_json)


def write_json(value: Any, path: Path) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def remember(folder: Path, key: str, value: str) -> None:
    """Note what the results are made from (a dataset's hash, a model's fingerprint), or check it against the note.

    Raises:
        ValueError: If it was another one when the folder was begun.
    """
    notes = _run_notes(folder)
    made_from = notes.setdefault("made_from", {})
    if key not in made_from:
        made_from[key] = value
        write_whole(folder / RUN_FILE, lambda path: write_json(notes, path))
    elif made_from[key] != value:
        raise ValueError(
            f"{key} has changed since the run folder {folder} was begun ({made_from[key][:8]}, now {value[:8]}): "
            "give another folder, or delete this one"
        )


@contextmanager
def timed(folder: Path, stage: str, done: bool) -> Generator[None]:
    """Note how many seconds a stage took; nothing is noted for one that had been ``done`` before."""
    started = time.perf_counter()
    yield
    if not done:
        notes = _run_notes(folder)
        notes.setdefault("seconds", {})[stage] = round(time.perf_counter() - started, 2)
        write_whole(folder / RUN_FILE, lambda path: write_json(notes, path))


def note_versions(folder: Path) -> None:
    """Note the versions of what computes the results, the machine, and the day, once."""
    import os
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import PackageNotFoundError, version

    notes = _run_notes(folder)
    if "versions" in notes:
        return
    versions = {"python": platform.python_version()}
    for package in ("caa_lens", "torch", "transformers", "transformer-lens", "numpy", "pandas"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    machine = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    notes |= {"begun": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions, "machine": machine}
    write_whole(folder / RUN_FILE, lambda path: write_json(notes, path))


def _run_notes(folder: Path) -> dict[str, Any]:
    file = folder / RUN_FILE
    return _object(file) if file.is_file() else {}


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    other = [key for key in new | old if key not in HOW and old.get(key) != new.get(key)]
    if other:
        first = ", ".join(f"{key} ({old.get(key)!r}, now {new.get(key)!r})" for key in other[:3])
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise ValueError(f"{folder} holds a study with other settings: {first}{more}; give another folder")
