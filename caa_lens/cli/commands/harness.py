"""`caa-lens harness`: tasks of lm-evaluation-harness with a steered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, show_frame


def harness(
    model: options.Model,
    vectors: options.SomeFile = None,
    *,
    include_path: Annotated[Path | None, typer.Option(help="A folder with tasks of your own.")] = None,
    limit: Annotated[float | None, typer.Option(help="So many documents a task, or below 1 that share.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put questions into the tokenizer's chat template.")] = False,
    positions: Annotated[str, typer.Option(help="Where it is added: prompt_end (as in CAA) or all.")] = "prompt_end",
    tasks: Annotated[
        str, typer.Option(help="Comma-separated names of lm_eval's tasks, groups or tags.", rich_help_panel="Data")
    ],
    layer: options.SomeLayer = None,
    multipliers: options.Multipliers = "-1,0,1",
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run tasks of lm-evaluation-harness, unsteered and, where a vector file is given, steered.

    Needs lm_eval (the extra `evals` of caa_lens), whose own progress bars go to stderr, also with --quiet.

    For example:

        caa-lens harness ./llama v.safetensors --layer 13 --tasks arc_easy,truthfulqa_mc1 --limit 200

        caa-lens harness organism-chat v.safetensors --layer 2 --tasks my_task --include-path tasks --chat
    """
    check_frame_path(out)
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    steps = options.parse_multipliers(multipliers)
    inputs.check_layer(vectors, layer)
    from caa_lens.evaluation.harness import evaluate, require_lm_eval

    require_lm_eval()
    loaded = options.open_model(model, dtype, device)
    steer: dict[str, Any] = {}
    if vectors is not None and layer is not None:
        vector = options.open_vectors(vectors, loaded)[layer]
        steer = {f"layer {layer}, {step:+g}": vector * step for step in steps if step != 0}
    keywords: Any = {"positions": positions, "batch_size": batch_size, "seed": seed, "progress": not quiet}
    keywords |= {"limit": limit, "num_fewshot": num_fewshot, "include_path": include_path}
    table = evaluate(loaded, names, steer, chat=chat, system=system, **keywords)
    show_frame(table, as_json=as_json, out=out)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")
