"""`caa-lens transfer`: a vector at other layers, on another model, under other prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    no_args_is_help=True, help="Use a vector where it was not made: at other layers, on other models, other prompts."
)


@app.command(no_args_is_help=True)
def layers(
    model: options.Model,
    vectors: options.File,
    *,
    data: options.Data,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    multipliers: options.Multipliers = "-1,0,1",
    norm: options.Norm = "own",
    nulls: options.Nulls = 20,
    made_at: Annotated[
        str | None, typer.Option(help="Layers whose vectors are used; all where left out.", rich_help_panel="Steering")
    ] = None,
    used_at: Annotated[
        str | None, typer.Option(help="Layers at which they are added; all where left out.", rich_help_panel="Steering")
    ] = None,
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Add the vector of one layer at another.

    For example:

        caa-lens transfer layers organism-chat sycophancy.safetensors --data sycophancy --made-at 2 --norm target
    """
    check_frame_path(out)
    from caa_lens.protocols.transfer import across_layers, check_cells

    chosen: Any = {"made_at": options.parse_layers(made_at), "used_at": options.parse_layers(used_at), "norm": norm}
    chosen |= {"multipliers": options.parse_multipliers(multipliers), "n_nulls": nulls, "seed": seed}
    inputs.check_files([vectors], chosen["made_at"])
    check_cells(chosen["multipliers"], norm)
    items = inputs.read_items(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    chosen |= {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    found = options.open_vectors(vectors, loaded)
    table = across_layers(loaded, found, items, progress=not quiet and "transfer between layers", **chosen)
    _show(table, ["made_at", "used_at", "multiplier", "cosine", "norm"], as_json, out)


@app.command(no_args_is_help=True)
def models(
    model: options.Model,
    vectors: options.Files,
    *,
    data: options.Data,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
    norm: options.Norm = "own",
    nulls: options.Nulls = 20,
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Steer a model with the vectors of another, such as the base model it was tuned from; its own file comes first.

    For example:

        caa-lens transfer models organism-chat chat.safetensors base.safetensors --data sycophancy --layers 2
    """
    check_frame_path(out)
    from caa_lens.protocols.transfer import across_models, check_cells

    wanted = options.parse_layers(layers)
    inputs.check_files(vectors, wanted)
    chosen: Any = {"layers": wanted, "norm": norm, "n_nulls": nulls, "seed": seed}
    chosen |= {"multipliers": options.parse_multipliers(multipliers)}
    check_cells(chosen["multipliers"], norm)
    items = inputs.read_items(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.vectors.vectors import SteeringVectors

    chosen |= {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    found = {file.stem: SteeringVectors.load(file) for file in vectors}
    if len(found) < len(vectors):
        found = {str(file): SteeringVectors.load(file) for file in vectors}
    table = across_models(loaded, found, items, progress=not quiet and "transfer between models", **chosen)
    _show(table, ["vector", "made_on", "layer", "multiplier", "cosine", "norm"], as_json, out)


@app.command(no_args_is_help=True)
def prompts(
    model: options.Model,
    *,
    data: options.Data,
    test: options.Test = None,
    part: options.Part = "generate",
    other_answers: options.OtherAnswers = "error",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    nulls: options.Nulls = 20,
    formats: Annotated[
        str | None, typer.Option(help="Comma-separated: chat, llama2, base, plain.", rich_help_panel="Prompts")
    ] = None,
    systems: Annotated[
        str | None,
        typer.Option(
            help="System prompts: bundled, or a .json with an object of names and texts (null for none).",
            rich_help_panel="Prompts",
        ),
    ] = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make vectors under each prompt format and system prompt, and use each under all the others.

    For example:

        caa-lens transfer prompts organism-chat --data sycophancy --formats chat,base --layers 2

        caa-lens transfer prompts organism-chat --data sycophancy --systems bundled --layers 2
    """
    check_frame_path(out)
    chosen: Any = {"layers": options.parse_layers(layers), "n_nulls": nulls, "seed": seed, "batch_size": batch_size}
    chosen |= {"multipliers": options.parse_multipliers(multipliers), "read": options.parse_read(read), "site": site}
    chosen |= {
        "formats": tuple(map(options.check_format, formats.split(","))) if formats else (),
        "systems": _read_systems(systems),
    }
    train, _, held_out = inputs.read_items(data, part, other_answers).split(seed)
    if test is not None:
        held_out = inputs.read_items(test, "test_ab", other_answers)
    from caa_lens.datasets.contrast import check_apart

    check_apart({"train": train, "test": held_out})
    if not formats and not systems:
        raise ValueError("nothing varies: give --formats, such as chat,base, or --systems bundled, or both")
    loaded = options.open_model(model, dtype, device)
    from caa_lens.protocols.transfer import across_prompts

    table = across_prompts(loaded, train, held_out, progress=not quiet, **chosen)
    keys = [f"{role}_{what}" for role in ("made", "used") for what in ("format", "system")]
    keys = [key for key in keys if table[key].nunique() > 1] or ["used_format"]
    _show(table, [*keys, "layer", "multiplier"], as_json, out, last=["item_correlation"])
    if not as_json:
        typer.echo(f"\nvectors of {len(train)} pairs, used on {len(held_out)} items of {held_out.name}")


def _read_systems(source: str | None) -> dict[str, str | None] | None:
    from caa_lens.protocols.transfer import SYSTEM_PROMPTS

    if source is None:
        return None
    if source == "bundled":
        return dict(SYSTEM_PROMPTS)
    file = Path(source)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}: give 'bundled', or a .json with names and system prompts")
    try:
        held: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    given = cast("dict[str, Any]", held if isinstance(held, dict) else {})
    if not given or not all(text is None or isinstance(text, str) for text in given.values()):
        raise ValueError(f'{file} must hold an object of names and texts, such as {{"none": null, "brief": "Be so."}}')
    return given


def _show(table: pd.DataFrame, keys: list[str], as_json: bool, out: Path | None, last: list[str] | None = None) -> None:
    if out is not None:
        save_frame(table, out)
    show_frame(table if as_json else inputs.narrow(table, keys, last or ()), as_json=as_json)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")
