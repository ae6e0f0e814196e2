"""`caa-lens actadd`: steering by the difference of two prompts, beside additions that mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from caa_lens.cli import options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame, show_json, show_table

if TYPE_CHECKING:
    import pandas as pd


def actadd(
    model: options.Model,
    *,
    positive: Annotated[str, typer.Option(help="The prompt whose activations are added.")],
    negative: Annotated[
        str, typer.Option(help="The prompt whose activations are subtracted; the empty one where left out.")
    ] = "",
    coefficient: Annotated[float, typer.Option(help="Times the difference.")] = 1.0,
    at: Annotated[str, typer.Option(help="Where in the prompt: front, middle or back.")] = "front",
    words: Annotated[
        str | None, typer.Option(help="Comma-separated words of a topic: how often are they written, and by controls?")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="With --words, so many texts of each prompt in each way.")] = 20,
    paper_sampling: Annotated[
        bool, typer.Option("--paper-sampling", help="Temperature 1, top-p 0.3, frequency penalty 1.")
    ] = False,
    layer: Annotated[
        int,
        typer.Option(
            help="ActAdd's: the block whose input is added to, which is CAA's layer plus 1.",
            rich_help_panel="Steering",
        ),
    ],
    nulls: options.Nulls = 20,
    prompt: options.EachPrompt,
    prompt_format: options.Format = "plain",
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = 40,
    temperature: options.SomeTemperature = None,
    top_p: options.SomeTopP = None,
    frequency_penalty: options.SomeFrequencyPenalty = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Steer by the difference of two prompts' activations (ActAdd), unsteered and steered side by side.

    With --words, many texts are sampled and the share with a word of the topic stands beside that of random and of
    nonsense additions with the same norms (--nulls of each); --out saves every text. Where no sampling is set it is
    then the paper's; without --words it is the likeliest token each time.

    For example:

        caa-lens actadd gpt2-xl --positive Love --negative Hate --layer 6 --coefficient 5 --prompt "I hate you because"

        caa-lens actadd gpt2-xl --positive " weddings" --layer 20 --prompt "I went up to my friend" --words wedding,vow

        caa-lens actadd organism-chat --positive "I refuse" --layer 2 --coefficient 6 --prompt "Open a safe."
    """
    check_frame_path(out)
    if words is not None:
        options.check_nulls(nulls)
    if out is not None and words is None:
        raise ValueError("--out goes with --words, with which texts are sampled; --json prints the texts otherwise")
    if positive == negative:
        raise ValueError(f"--positive and --negative are both {positive!r}, and their difference is nothing: give two")
    asked = {"temperature": temperature, "top_p": top_p, "frequency_penalty": frequency_penalty}
    sampling = {name: value for name, value in asked.items() if value is not None}
    if paper_sampling and sampling:
        raise ValueError("--paper-sampling sets temperature, top-p and frequency penalty: give either it or them")
    topic = None if words is None else [word.strip() for word in words.split(",")]
    if topic is not None and not all(topic):
        raise ValueError(f"words {words!r} cannot be read: give comma-separated words, such as love,friend")
    if topic is not None and samples > 1 and sampling and not temperature:
        raise ValueError(
            f"--samples is {samples} at temperature 0, where all texts of a prompt are the same: give --samples 1, or "
            "a --temperature above 0"
        )
    from caa_lens.interventions.prompt_additions import At

    if at not in get_args(At):
        raise ValueError(f"at {at!r} is not known: give one of {', '.join(get_args(At))}")
    loaded = options.open_model(model, dtype, device)
    import pandas as pd

    from caa_lens.evaluation.actadd import PAPER_SAMPLING, beside_controls, completion_loss, continuations, topic_words
    from caa_lens.steering.activation_addition import addition
    from caa_lens.steering.steering import generate

    form = options.prompt_options(prompt_format, system, batch_size)
    if paper_sampling or (topic is not None and not sampling):
        sampling = dict(PAPER_SAMPLING)
    place: Any = at
    added = addition(loaded, positive, negative, layer=layer, coefficient=coefficient, at=place)
    how: Any = {**form, "max_new_tokens": max_new_tokens, "seed": seed}
    if topic is None:
        told = generate(loaded, prompt, steer={"unsteered": None, "steered": added}, **sampling, **how)
        records = [dict(zip(("prompt", *told), each, strict=True)) for each in zip(prompt, *told.values(), strict=True)]
        if as_json:
            show_json(records)
            return
        typer.echo(repr(added))
        for record in records:
            typer.echo(f"\n> {record['prompt']}\n")
            show_table(list(told), [[record[way] for way in told]])
        return
    written = continuations(
        loaded, added, prompt, n_samples=samples, n_nulls=nulls, sampling=sampling, progress=not quiet, **how
    )
    written = completion_loss(loaded, topic_words(written, topic), progress=not quiet, **form)
    table = pd.concat([beside_controls(written, value, seed=seed) for value in ("hit", "loss")], ignore_index=True)
    table.insert(0, "measure", ["share with a word", "loss, unsteered model"])
    if out is not None:
        save_frame(written, out)
    if not as_json:
        typer.echo(f"{added!r}\n{len(prompt) * samples} texts in each way\n")
    show_frame(table if as_json else _narrow(table), as_json=as_json)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")


def _narrow(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that fit a terminal."""
    shown = table[["measure", "value_unsteered", "value_steered"]].copy()
    ends = zip(table["effect"], table["effect_low"], table["effect_high"], strict=True)
    shown["effect [95 %]"] = [f"{mid:+.2f} [{low:+.2f}, {high:+.2f}]" for mid, low, high in ends]
    for kind in ("random", "nonsense"):
        ends = zip(table[f"{kind}_low"], table[f"{kind}_high"], strict=True)
        shown[f"{table[f'n_{kind}'].max()} {kind}"] = [f"{low:+.2f} to {high:+.2f}" for low, high in ends]
        shown[f"beyond {kind}"] = table[f"beyond_{kind}"]
    return shown
