"""`caa-lens report`: the report of a study that is done, made again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_lens.cli import options
from caa_lens.cli.output import show_json


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The run folder of a finished study.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Write there, as .html; index.html in the folder if left out.", rich_help_panel="Output"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make one HTML file of a study: findings, figures, texts, tokens, tables, settings, and how to make it again.

    It is made from the folder's files alone, without a model; it needs no network and no other file, so that it can be
    moved or sent. `caa-lens study` and `caa-lens demo` end with the same.

    For example:

        caa-lens report runs/demo-1a2b3c4d

        caa-lens report runs/demo-1a2b3c4d --out demo.html
    """
    if out is not None and out.suffix.lower() != ".html":
        raise ValueError(f"cannot write {out}: give a name that ends in .html")
    options.quiet_libraries()
    from caa_lens.studies.report import write_report
    from caa_lens.studies.result import read_study

    path = write_report(read_study(folder), out)
    if as_json:
        show_json({"folder": str(folder), "report": str(path), "bytes": path.stat().st_size})
        return
    show_report(path, folder)


def show_report(path: Path, folder: Path) -> None:
    """The last two lines of a study: where its report is, and where all of it."""
    typer.echo(f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    typer.echo(f"Run folder: {folder}")
