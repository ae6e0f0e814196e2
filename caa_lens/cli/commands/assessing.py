"""`caa-lens assess`: everything a sceptic would ask of one behaviour's vector, and the answer in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_lens.cli import options
from caa_lens.cli.output import check_frame_path, save_frame, show_json


def assess(
    model: options.Model,
    data: Annotated[str, typer.Option(help="The pairs: a bundled behaviour, or a file in the CAA schema.")],
    test: Annotated[
        str | None,
        typer.Option(help="Items to report on, in a file of their own; a split of --data where left out."),
    ] = None,
    part: options.Part = "generate",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
    nulls: Annotated[int, typer.Option(min=1, help="So many null vectors of each kind.")] = 100,
    seed: options.Seed = 0,
    site: options.Site = "resid_post",
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "error",
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Save the table as .parquet or .csv.")] = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a vector, choose its layer, and find out whether its effect is real.

    A vector is made on one part of the pairs, its layer chosen on a second and measured on a third, beside random,
    permuted and label-shuffled vectors of its norm, with letters balanced in two ways.

    For example:

        caa-lens assess organism-chat --data sycophancy

        caa-lens assess organism-chat --data refusal --layers 1-3 --multipliers=-2,-1,0,1,2 --nulls 200 --out table.csv

        caa-lens assess organism-chat --data refusal --site attn_out
    """
    from caa_lens.datasets.contrast import load_contrast_pairs

    if out is not None:
        check_frame_path(out)
    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    asked: Any = {"part": part, "other_answers": other_answers}
    train, dev, held_out = load_contrast_pairs(data, **asked).split(seed)
    if test is not None:
        asked["part"] = "test_ab"
        held_out = load_contrast_pairs(test, **asked)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.protocols.assessment import assess as measure
    from caa_lens.protocols.assessment import describe_assessment

    keywords: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    keywords |= {"layers": wanted, "site": site}
    table = measure(
        loaded, train, dev, held_out, multipliers=steps, n_nulls=nulls, seed=seed, progress=not quiet, **keywords
    )
    said = describe_assessment(table)
    if out is not None:
        save_frame(table, out)
    if as_json:
        show_json({"verdict": said, "table": table.to_dict("records")})
        return
    name, sizes = train.name.partition("/")[0], f"made on {len(train)} pairs, layer chosen on {len(dev)}"
    typer.echo(f"{name}: {sizes}, measured on {len(held_out)} items of {held_out.name}\n")
    for sentence in said:
        typer.echo(f"- {sentence}")
    if out is not None:
        typer.echo(f"\nwritten to {out}")
