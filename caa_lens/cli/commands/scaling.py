"""`caa-lens scaling`: finished studies of several models beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_lens.cli import options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame, show_json

SHOWN = ("model", "behavior", "n_layers", "layer", "depth", "test_positive", "test_negative", "n_test")


def scaling(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDERS", help="Run folders of finished studies.")],
    *,
    n_layers: Annotated[
        list[str] | None, typer.Option(help="MODEL=N, for a run that swept some layers only; once for each.")
    ] = None,
    multiplier: options.Multiplier = 1.0,
    figure: Annotated[
        Path | None, typer.Option(help="Draw it as .html, or .png, .svg or .pdf.", rich_help_panel="Output")
    ] = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Compare finished studies of models of different size: the layer that was chosen, by depth, and its effects.

    Both directions of --multiplier are shown, at the best layer; --out saves all layers.

    Three bundled settings files repeat the study of refusal in Llama 2 of 7, 13 and 70 billion parameters; they need
    CAA's public repository in the folder CAA, and the models.

    For example:

        caa-lens study --settings refusal-scaling-7b --folder runs/7b

        caa-lens scaling runs/7b runs/13b runs/70b --out depths.csv --figure depths.html
    """
    from caa_lens.studies.scaling import by_depth

    check_frame_path(out)
    if figure is not None and figure.suffix not in (".html", ".png", ".svg", ".pdf"):
        raise ValueError(f"cannot draw {figure}: give a name that ends in .html, .png, .svg or .pdf")
    table = by_depth(folders, multiplier=multiplier, n_layers=dict(map(_depth, n_layers or ())))
    if out is not None:
        save_frame(table, out)
    if figure is not None:
        from caa_lens.viz import figures, save_figure

        save_figure(figures.scaling(table), figure)
    if as_json:
        show_json(table.to_dict("records"))
        return
    show_frame(table.loc[table["best"], list(SHOWN)], as_json=False)
    for written in filter(None, (out, figure)):
        typer.echo(f"\nwritten to {written}")


def _depth(text: str) -> tuple[str, int]:
    model, equals, number = text.rpartition("=")
    if not (equals and model and number.isdigit()):
        raise ValueError(f"--n-layers {text!r} cannot be read: give MODEL=N, such as Llama-2-7b-chat-hf=32")
    return model, int(number)
