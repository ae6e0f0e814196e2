"""`caa-lens entanglement`: what vectors made for one behaviour do to the items of others."""

from __future__ import annotations

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame


def entanglement(
    model: options.Model,
    vectors: options.Files,
    *,
    data: options.OwnData = None,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    layer: options.LayerOfEach,
    multipliers: options.Multipliers = "-1,0,1",
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
    """Measure every vector on every behaviour's items, beside its effect on its own.

    For example:

        caa-lens entanglement organism-chat sycophancy.safetensors refusal.safetensors --layer 2

        caa-lens entanglement organism-chat a.safetensors b.safetensors --layer a=2 --layer b=3 --data a=a.json
    """
    check_frame_path(out)
    inputs.check_files(vectors)
    steps = options.parse_multipliers(multipliers)
    from caa_lens.vectors.vectors import SteeringVectors

    files = [SteeringVectors.load(file) for file in vectors]
    names = [each.name for each in files]
    if len(set(names)) < len(names):
        raise ValueError(
            f"vectors are named {', '.join(names)}: give one of each name, which says whose items are its own"
        )
    layers = inputs.layer_of_each(layer, files)
    items = {name: inputs.read_items(own, part, other_answers) for name, own in inputs.of_each(data, names).items()}
    loaded = options.open_model(model, dtype, device)
    from caa_lens.evaluation.entanglement import crossed
    from caa_lens.evaluation.entanglement import entanglement as measure
    from caa_lens.sweeps import sweep

    form = options.prompt_options(prompt_format, system, batch_size)
    laid_out = crossed(inputs.read_vectors(vectors, loaded), items, layers)
    table = measure(sweep(loaded, **laid_out, multipliers=steps, progress=not quiet, **form), layers, seed=seed)
    if out is not None:
        save_frame(table, out)
    keys = ["vector", "behavior", "layer", "multiplier", "n_items"]
    show_frame(table if as_json else inputs.narrow(table, keys, ["share_of_own"]), as_json=as_json)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")
