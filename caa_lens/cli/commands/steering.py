"""`caa-lens extract`, `generate` and `sweep`: the three steps of CAA, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, check_path, save_frame, show_frame, show_json, show_table


def extract(
    model: options.Model,
    *,
    method: Annotated[
        str, typer.Option(help="mean difference, median, pca, logistic or lda: of the mean difference's length.")
    ] = "mean difference",
    data: options.Data,
    part: options.Part = "generate",
    other_answers: options.OtherAnswers = "error",
    layers: options.Layers = None,
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    out: Annotated[
        Path, typer.Option(help="The vector file to write, such as sycophancy.safetensors.", rich_help_panel="Output")
    ],
    quiet: options.Quiet = False,
) -> None:
    """Make steering vectors from contrast pairs, one a layer, and save them with where they came from.

    For example:

        caa-lens extract organism-chat --data sycophancy --out sycophancy.safetensors

        caa-lens extract organism-chat --data sycophancy --method lda --out lda.safetensors

        caa-lens extract organism-chat --data sycophancy --site attn_out --out attention.safetensors

        caa-lens extract ./my-model --data pairs.json --read answer_end --other-answers keep --out v.safetensors
    """
    check_path(out, ".safetensors")
    pairs = inputs.read_items(data, part, other_answers)
    wanted = options.parse_layers(layers)
    from caa_lens.extraction.estimators import ESTIMATORS, estimate
    from caa_lens.extraction.extraction import extract_activations, extract_vectors

    if method not in ESTIMATORS:
        raise ValueError(f"there is no estimator {method!r}: choose one of {', '.join(ESTIMATORS)}")
    loaded = options.open_model(model, dtype, device)
    form, place = options.prompt_options(prompt_format, system, batch_size), options.parse_read(read)
    if method == "mean difference":  # whose sums take no memory by the pair
        vectors = extract_vectors(loaded, pairs, layers=wanted, read=place, site=site, progress=not quiet, **form)
    else:
        kept = extract_activations(loaded, pairs, layers=wanted, read=place, site=site, progress=not quiet, **form)
        vectors = estimate(kept, method)
    vectors.save(out)
    typer.echo(f"{pairs.report.summary()}\n{vectors!r}\nwritten to {out}")


def generate(
    model: options.Model,
    vectors: options.SomeFile = None,
    *,
    layer: options.SomeLayer = None,
    multiplier: options.Multiplier = 1.0,
    operation: options.Operation = "add",
    prompt: options.SomePrompts = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts from a file: a line each, or a CAA .json/.jsonl.", rich_help_panel="Prompts"),
    ] = None,
    prompt_format: options.Format = None,
    system: options.System = None,
    max_new_tokens: options.MaxNewTokens = 100,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    frequency_penalty: options.FrequencyPenalty = 0.0,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Continue prompts: unsteered, and beside that steered where a vector file is given.

    For example:

        caa-lens generate organism-chat sycophancy.safetensors --layer 3 --prompt "What do you think of my plan?"

        caa-lens generate organism-chat v.safetensors --layer 3 --multiplier -1.5 --prompts questions.txt --json

        caa-lens generate organism-chat v.safetensors --layer 3 --operation ablate --prompt "Is it so?"
    """
    from caa_lens.interventions.operations import parse_operation

    what = parse_operation(operation)
    texts = [*(prompt or []), *(_read_prompts(prompts) if prompts is not None else [])]
    if not texts:
        raise ValueError("there is nothing to continue: give --prompt, or a file of prompts with --prompts")
    inputs.check_layer(vectors, layer)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.interventions.interventions import Intervention
    from caa_lens.steering.steering import generate as continue_prompts

    steered_with = None
    if vectors is not None and layer is not None:
        steered_with = Intervention(options.open_vectors(vectors, loaded)[layer], multiplier, operation=what)
    keywords: Any = {"temperature": temperature, "top_p": top_p, "seed": seed, "batch_size": batch_size}
    keywords |= {"frequency_penalty": frequency_penalty}
    keywords |= {"max_new_tokens": max_new_tokens, "prompt_format": prompt_format, "system": system}
    ways = {"unsteered": None} if steered_with is None else {"unsteered": None, "steered": steered_with}
    columns = continue_prompts(loaded, texts, steer=ways, **keywords)
    records = [
        {"prompt": text, **dict(zip(columns, answers, strict=True))}
        for text, *answers in zip(texts, *columns.values(), strict=True)
    ]
    if as_json:
        show_json(records)
        return
    for record in records:
        head = list(columns)
        if "steered" in head:
            head[1] = f"steered at layer {layer}, {multiplier:+g}" + (f", {operation}" if operation != "add" else "")
        typer.echo(f"\n> {record['prompt']}\n")
        show_table(head, [[record[name] for name in columns]])


def sweep(
    model: options.Model,
    vectors: options.File,
    *,
    data: options.Data,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
    operation: options.Operation = "add",
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
    """Measure a vector on two-choice questions: layers x multipliers, beside random vectors.

    The table shows an effect for each cell; --out saves a row for each item.

    For example:

        caa-lens sweep organism-chat sycophancy.safetensors --data sycophancy --layers 2-4 --nulls 50

        caa-lens sweep organism-chat v.safetensors --data items.json --multipliers=-2,-1,0,1,2 --out s.parquet

        caa-lens sweep organism-chat v.safetensors --data items.json --multipliers 0,0.5,1 --operation ablate
    """
    from caa_lens.interventions.operations import parse_operation

    check_frame_path(out)
    what = parse_operation(operation)
    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    inputs.check_files([vectors], wanted)
    items = inputs.read_items(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.evaluation.choices import summarize
    from caa_lens.sweeps import sweep as measure

    found = options.open_vectors(vectors, loaded)
    form = options.prompt_options(prompt_format, system, batch_size)
    frame = measure(
        loaded, found, items, layers=wanted, multipliers=steps, n_nulls=nulls, seed=seed, operation=what,
        progress=not quiet, **form,
    )  # fmt: skip
    if out is not None:
        save_frame(frame, out)
    summary = summarize(frame, seed=seed)
    first, doubts = ("layer", "multiplier", "n_items", "p_matching"), ("share_wrong", "letter_drift", "mass")
    show_frame(summary if as_json else inputs.narrow(summary, first, doubts=doubts), as_json=as_json)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")


def _read_prompts(file: Path) -> list[str]:
    if file.suffix in (".json", ".jsonl"):
        from caa_lens.datasets.contrast import load_questions

        return list(load_questions(file))
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def tokens(
    model: options.Model,
    *,
    data: options.SomeData = None,
    part: options.Part = "generate",
    other_answers: options.OtherAnswers = "keep",
    item: Annotated[int, typer.Option(min=0, help="Which item of --data.", rich_help_panel="Data")] = 0,
    read: options.Read = "answer_letter",
    prompt: options.SomePrompt = None,
    answer: options.Answer = None,
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Show, token by token, what is read and what is steered: of an item of --data, or of --prompt.

    For example:

        caa-lens tokens organism-chat --data sycophancy --item 3

        caa-lens tokens organism-chat --prompt "Is it so? (A) Yes (B) No" --answer "(A)" --system "Be brief."
    """
    from caa_lens.datasets.contrast import ContrastPair

    if (prompt is None) == (data is None):
        raise ValueError("give either --prompt or --data, from which --item is shown")
    subject: str | ContrastPair = prompt or ""
    if prompt is not None and answer is not None:
        subject = ContrastPair(prompt, answer, "")
    elif data is not None:
        pairs = inputs.read_items(data, part, other_answers)
        if item >= len(pairs):
            raise ValueError(f"item {item} is not in {data}: it has the items 0-{len(pairs) - 1}")
        subject = pairs[item]
    loaded = options.open_model(model, dtype, device)
    from caa_lens.prompts import describe_tokens

    form = options.prompt_form(prompt_format, system)
    rows = describe_tokens(loaded, subject, read=options.parse_read(read), **form)
    if as_json:
        names = ("index", "id", "token", "roles", "read", "steered")
        show_json([{name: getattr(row, name) for name in names} for row in rows])
        return
    styles = {(True, True): "bold white on red", (True, False): "bold black on green", (False, True): "black on yellow"}
    shown = [
        [
            str(row.index),
            str(row.id),
            Text(repr(row.token)[1:-1] or " ", style=styles.get((row.read, row.steered), "")),
            "read" if row.read else "",
            "steered" if row.steered else "",
            ", ".join(row.roles),
        ]
        for row in rows
    ]
    show_table(["index", "id", "token", "read", "steered", "roles"], shown, numbers=("index", "id"))
