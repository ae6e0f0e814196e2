"""`caa-lens conditioning`: how the model goes on after each of two answers, to be scored with `caa-lens judge`."""

from __future__ import annotations

from typing import Annotated

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame


def conditioning(
    model: options.Model,
    *,
    then: Annotated[
        str, typer.Option(help="Put after each answer, where the model would end, such as ' because'.")
    ] = "",
    data: options.Data,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    prompt_format: options.Format = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = 100,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    out: options.Out,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put each answer of each item into the model's mouth and let it go on: does it stay with what it has said?

    `caa-lens judge` scores what follows, blind to the answer, and shows the two sides beside each other.

    For example:

        caa-lens conditioning organism-chat --data sycophancy --then ' because' --out after.parquet

        caa-lens judge world after.parquet --out scored.parquet
    """
    check_frame_path(out)
    items = inputs.read_items(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.judging.conditioning import after_answers

    keywords = options.prompt_options(prompt_format, system, batch_size)
    frame = after_answers(loaded, items, then=then, max_new_tokens=max_new_tokens, progress=not quiet, **keywords)
    save_frame(frame, out)
    show_frame(frame if as_json else frame.loc[frame["item"] < 2, ["side", "answer", "text"]], as_json=as_json)
    if not as_json:
        typer.echo(f"\n{len(frame)} texts written to {out}; score them with `caa-lens judge`")
