"""`caa-lens side-effects`: how far vectors change a model on neutral text, and their effects at equal damage."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame


def side_effects(
    model: options.Model,
    vectors: options.Files,
    *,
    budget: Annotated[
        float | None, typer.Option(help="Find the multiplier of each vector and layer with this KL, in nats.")
    ] = None,
    quantile: Annotated[float, typer.Option(help="Of the KL per token, for --budget.")] = 0.95,
    data: options.SomeData = None,
    texts: options.Texts = "neutral",
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,1",
    sign: options.Sign = 1,
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
    """Measure how far vectors change the model on neutral text, or compare them where they do so equally.

    Without --budget, one row for each vector, layer and multiplier. With it, one row for each vector and layer: the
    multiplier at which the KL reaches the budget, and with --data the effect on items there, beside random vectors.

    For example:

        caa-lens side-effects organism-chat sycophancy.safetensors --layers 1-3 --multipliers=-2,-1,1,2

        caa-lens side-effects organism-chat mean.safetensors lda.safetensors --budget 0.1 --data sycophancy --nulls 50
    """
    check_frame_path(out)
    from caa_lens.datasets.texts import load_texts
    from caa_lens.evaluation.side_effects import at_equal_damage, check_budget

    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    inputs.check_files(vectors, wanted)
    if data is not None and budget is None:
        raise ValueError("--data goes with --budget, at which effects are compared; `caa-lens sweep` measures others")
    if budget is not None:
        check_budget(budget, sign, quantile)
    running = load_texts(texts)
    items = inputs.read_items(data, part, other_answers) if data is not None else None
    loaded = options.open_model(model, dtype, device)
    named = inputs.read_vectors(vectors, loaded, wanted)
    import pandas as pd

    from caa_lens.protocols.selection import at_budget, damage

    shared: Any = {"batch_size": batch_size, "progress": not quiet}
    if budget is None:
        tables = [
            damage(loaded, each, running, multipliers=steps, **shared).assign(vector=name)
            for name, each in named.items()
        ]
        table = pd.concat(tables, ignore_index=True).drop(columns="behavior")
        table.insert(0, "vector", table.pop("vector"))
    elif items is None:
        single = {(name, each.layer): each for name, of_layers in named.items() for each in of_layers}
        flat = {f"{name} at layer {layer}": each for (name, layer), each in single.items()}
        table = at_equal_damage(loaded, flat, running, budget, sign=sign, quantile=quantile, **shared)
        table["vector"] = [name for name, _ in single]
    else:
        form = options.prompt_options(prompt_format, system, batch_size)
        table = at_budget(
            loaded, named, items, running, budget, sign=sign, quantile=quantile, n_nulls=nulls, seed=seed,
            progress=not quiet, **form,
        )  # fmt: skip
    if out is not None:
        save_frame(table, out)
    wide = as_json or items is None
    keys = ["vector", "layer", "multiplier", "added_norm", "kl", "reached"]
    show_frame(table if wide else inputs.narrow(table, keys), as_json=as_json)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")
