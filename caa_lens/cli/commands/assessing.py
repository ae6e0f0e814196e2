"""`caa-lens assess`: everything a sceptic would ask of one behaviour's vector, and the answer in sentences."""

from __future__ import annotations

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_json


def assess(
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
    """Make a vector, choose its layer, and find out whether its effect is real.

    A vector is made on one part of the pairs, its layer chosen on a second and measured on a third, beside random,
    permuted and label-shuffled vectors of its norm, with letters balanced in two ways.

    For example:

        caa-lens assess organism-chat --data sycophancy

        caa-lens assess organism-chat --data refusal --layers 1-3 --multipliers=-2,-1,0,1,2 --nulls 200 --out table.csv

        caa-lens assess organism-chat --data refusal --site attn_out
    """
    check_frame_path(out)
    options.check_nulls(nulls)
    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    train, dev, held_out = inputs.read_items(data, part, other_answers).split(seed)
    if test is not None:
        held_out = inputs.read_items(test, "test_ab", other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.protocols.assessment import assess as measure
    from caa_lens.protocols.assessment import describe_assessment

    form, place = options.prompt_options(prompt_format, system, batch_size), options.parse_read(read)
    table = measure(
        loaded, train, dev, held_out, layers=wanted, multipliers=steps, n_nulls=nulls, seed=seed, read=place, site=site,
        progress=not quiet, **form,
    )  # fmt: skip
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
