"""`caa-lens select`: a layer and a multiplier, chosen on dev items and reported on others."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame


def select(
    model: options.Model,
    *,
    max_kl: Annotated[
        float | None, typer.Option(help="Permit only cells with at most this KL a token, in nats.")
    ] = None,
    data: options.Data,
    test: options.Test = None,
    texts: options.Texts = "neutral",
    part: options.Part = "generate",
    other_answers: options.OtherAnswers = "error",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "0.5,1,1.5,2",
    sign: options.Sign = 1,
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    nulls: options.Nulls = 20,
    min_mass: options.MinMass = 0.0,
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
    """Choose a layer and multiplier on one part of the data and report that one point on another.

    A vector is made on the first part of the pairs, the point chosen on the second (of --multipliers above 0) and
    measured on the third. Beside its effect stands what it was where it was chosen, and how much better that looked
    (optimism).

    For example:

        caa-lens select organism-chat --data sycophancy --max-kl 0.1 --nulls 50

        caa-lens select organism-chat --data refusal --sign -1 --min-mass 0.9
    """
    check_frame_path(out)
    from caa_lens.datasets.contrast import check_apart
    from caa_lens.datasets.texts import load_texts
    from caa_lens.protocols.selection import check_conditions

    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    check_conditions(sign, min_mass, max_kl, measured=max_kl is not None, multipliers=steps)
    running = load_texts(texts) if max_kl is not None else []
    train, dev, held_out = inputs.read_items(data, part, other_answers).split(seed)
    if test is not None:
        held_out = inputs.read_items(test, "test_ab", other_answers)
    check_apart({"train": train, "dev": dev, "test": held_out})
    loaded = options.open_model(model, dtype, device)
    from caa_lens.extraction.extraction import extract_vectors
    from caa_lens.protocols.selection import select as choose_and_measure

    form = options.prompt_options(prompt_format, system, batch_size)
    chosen: Any = {"multipliers": steps, "sign": sign, "max_kl": max_kl, "min_mass": min_mass, "texts": running}
    chosen |= {"n_nulls": nulls, "seed": seed, "progress": not quiet}
    made: Any = {"layers": wanted, "read": options.parse_read(read), "site": site, "progress": not quiet}
    vectors = extract_vectors(loaded, train, **made, **form)
    table = choose_and_measure(loaded, vectors, dev, held_out, **chosen, **form)
    if out is not None:
        save_frame(table, out)
    keys, last = ["behavior", "layer", "multiplier", "n_items"], ["effect_balanced_dev", "optimism"]
    last += ["kl"] if "kl" in table else []
    show_frame(table if as_json else inputs.narrow(table, keys, last), as_json=as_json)
    if not as_json:
        sizes = f"vector of {len(train)} pairs, point chosen on {len(dev)}, measured on {len(held_out)} items"
        typer.echo(f"\n{sizes}{f'; written to {out}' if out is not None else ''}")
