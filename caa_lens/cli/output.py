"""What commands print: tables for people, JSON for machines, frames into files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd


def show_table(
    header: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str = "", numbers: Iterable[str] = ()
) -> None:
    """Print a table; the columns named in ``numbers`` are set to the right. Text is shown as it is, never as markup."""
    table = Table(title=Text(title) if title else None, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(Text(name, style="bold"), justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    # A pipe has no width to keep to: a table in a log should not be folded at 80 columns.
    Console(width=None if Console().is_terminal else 160).print(table)


def show_json(value: Any) -> None:
    """Print JSON; a number that is none is null."""
    typer.echo(json.dumps(_plain(value), indent=1, ensure_ascii=False))


def show_frame(frame: pd.DataFrame, *, as_json: bool, out: Path | None = None) -> None:
    """Print a frame as a table or as JSON records, and save it where asked."""
    if out is not None:
        save_frame(frame, out)
    if as_json:
        show_json(frame.to_dict("records"))
        return
    numeric = [str(name) for name in frame.columns if frame[name].dtype.kind in "if"]
    rows = [[_cell(value) for value in row.values()] for row in frame.to_dict("records")]
    show_table([str(name) for name in frame.columns], rows, numbers=numeric)


def save_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame whole, as .parquet or .csv.

    Raises:
        ValueError: For another suffix.
    """
    from caa_lens.files.whole import write_whole

    check_frame_path(path)
    if path.suffix == ".parquet":
        write_whole(path, lambda to: frame.to_parquet(to, index=False))
    else:
        write_whole(path, lambda to: frame.to_csv(to, index=False))


def check_frame_path(path: Path | None) -> None:
    """Refuse a path that `save_frame` cannot write, before anything is computed."""
    check_path(path, ".parquet", ".csv")


def check_path(path: Path | None, *suffixes: str) -> None:
    """Refuse another suffix, and a place where nothing can be written, before anything is computed.

    Raises:
        ValueError: Saying which.
    """
    from caa_lens.files.whole import check_writable

    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"cannot write {path}: give a name that ends in {' or '.join(suffixes)}")
    check_writable(path)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return cast(Any, value).item() if hasattr(value, "item") else value
