"""`caa-lens capabilities`: what a vector does to questions that have a right answer."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_json


def capabilities(
    model: options.Model,
    vectors: options.File,
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="facts, truthful, or a file such as CAA's mmlu.json; give it once for each. facts if left out.",
            rich_help_panel="Data",
        ),
    ] = None,
    empty_choices: Annotated[
        str, typer.Option(help="Items with a choice that has no text: keep or drop.", rich_help_panel="Data")
    ] = "keep",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
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
    """Ask a steered model what it knows: accuracy at every layer and multiplier, beside random vectors.

    Answers in sentences; --out saves a row for each item.

    For example:

        caa-lens capabilities organism-chat v.safetensors --data facts --data truthful --layers 2 --nulls 50

        caa-lens capabilities ./llama v.safetensors --data mmlu.json --layers 13 --multipliers=-2,-1,1,2 --out mmlu.csv
    """
    from caa_lens.evaluation.capabilities import capabilities as measure
    from caa_lens.evaluation.capabilities import describe_capabilities, load_capabilities, summarize_capabilities

    check_frame_path(out)
    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    inputs.check_files([vectors], wanted)
    empty = cast(Literal["keep", "drop"], empty_choices)
    sets = [load_capabilities(source, empty_choices=empty) for source in data or ["facts"]]
    loaded = options.open_model(model, dtype, device)
    found = options.open_vectors(vectors, loaded)
    form = options.prompt_options(prompt_format, system, batch_size)
    frame = measure(
        loaded, found, sets, layers=wanted, multipliers=steps, n_nulls=nulls, seed=seed, progress=not quiet, **form
    )
    table = summarize_capabilities(frame, seed=seed)
    said = describe_capabilities(table)
    if out is not None:
        save_frame(frame, out)
    if as_json:
        show_json({"verdict": said, "table": table.to_dict("records")})
        return
    for each in sets:
        typer.echo(each.summary())
    typer.echo("")
    for sentence in said:
        typer.echo(f"- {sentence}")
    if out is not None:
        typer.echo(f"\nwritten to {out}")
