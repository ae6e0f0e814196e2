"""`caa-lens baselines`: a vector beside system prompts, few-shot prompts and finetuning, alone and together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_json, show_table

if TYPE_CHECKING:
    import pandas as pd


def baselines(
    model: options.Model,
    *,
    positive_prompt: Annotated[str | None, typer.Option(help="A system prompt for the behaviour.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="A system prompt against it.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Answered examples in front of each item.")] = 4,
    finetuning: Annotated[
        str, typer.Option(help="How to finetune: full, or lora (with the extra `finetuning`).")
    ] = "full",
    learning_rate: Annotated[
        float | None, typer.Option(help="Of finetuning; small models need more than the default of 1e-4 (lora: 2e-4).")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of finetuning.")] = 1,
    train_batch_size: Annotated[int, typer.Option(min=1, help="Pairs for each step of finetuning.")] = 2,
    data: options.Data,
    test: options.Test = None,
    part: options.Part = "generate",
    other_answers: options.OtherAnswers = "error",
    layer: options.SomeLayer = None,
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    nulls: options.Nulls = 20,
    baselines: options.Baselines = "system,few_shot,finetuned",
    prompt_format: options.Format = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find out whether prompting or finetuning would have done what a vector does, and what it adds to them.

    A vector is made on one part of the pairs, which are also what is finetuned on and where few-shot examples come
    from; its layer is chosen on a second part unless --layer is given, and everything is measured on a third.

    For example:

        caa-lens baselines organism-chat --data sycophancy --learning-rate 0.02

        caa-lens baselines organism-chat --data refusal --layer 2 --baselines system,few_shot --shots 2 --out table.csv
    """
    check_frame_path(out)
    options.check_nulls(nulls)
    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    if layer is not None and layers is not None:
        raise ValueError("give --layer to steer there, or --layers to choose from, not both")
    if (positive_prompt is None) != (negative_prompt is None):
        raise ValueError("give --positive-prompt and --negative-prompt together, or neither")
    train, dev, held_out = inputs.read_items(data, part, other_answers).split(seed)
    if test is not None:
        held_out = inputs.read_items(test, "test_ab", other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.evaluation.choices import choose_layer, summarize
    from caa_lens.extraction.extraction import extract_vectors
    from caa_lens.protocols.baselines.comparison import compare, describe_baselines
    from caa_lens.sweeps import sweep

    running: Any = {"prompt_format": prompt_format, "batch_size": batch_size, "progress": not quiet}
    made: Any = {"read": options.parse_read(read), "site": site, **running}
    vectors = extract_vectors(loaded, train, layers=wanted if layer is None else [layer], **made)
    if layer is None:
        on_dev = sweep(loaded, vectors, dev, multipliers=steps, n_nulls=0, **running)
        layer = choose_layer(summarize(on_dev, n_bootstrap=1, seed=seed))
    keywords: Any = {"baselines": tuple(baselines.split(",")), "method": finetuning, **running}
    if positive_prompt is not None:
        keywords["prompts"] = (positive_prompt, negative_prompt)
    table = compare(
        loaded,
        vectors,
        held_out,
        train=train,
        layer=layer,
        multipliers=steps,
        shots=shots,
        learning_rate=learning_rate,
        epochs=epochs,
        train_batch_size=train_batch_size,
        n_nulls=nulls,
        seed=seed,
        **keywords,
    )
    said = describe_baselines(table)
    if out is not None:
        save_frame(table, out)
    if as_json:
        show_json({"verdict": said, "table": table.to_dict("records")})
        return
    name = train.name.partition("/")[0]
    typer.echo(f"{name}: made on {len(train)} pairs, measured on {len(held_out)} items of {held_out.name}\n")
    _show(table)
    typer.echo()
    for sentence in said:
        typer.echo(f"- {sentence}")
    if out is not None:
        typer.echo(f"\nwritten to {out}")


def _show(table: pd.DataFrame) -> None:
    numbers = ("multiplier", "p_matching", "effect", "added by CAA", "beats random", "over control", "mass")
    rows = [
        [
            f"{row['baseline']} {row['direction']}".strip(),
            f"{row['multiplier']:+g}" if row["multiplier"] else "0",
            f"{row['p_matching']:.2f}",
            _interval(row, "effect"),
            _interval(row, "added"),
            f"{row['beats_random']:.2f}" if row["n_random"] else "-",
            _interval(row, "over_control"),
            f"{row['mass']:.2f}",
        ]
        for row in table.to_dict("records")
    ]
    show_table(("baseline", *numbers), rows, numbers=numbers)


def _interval(row: Mapping[Any, Any], name: str) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" if value == value else "-"
