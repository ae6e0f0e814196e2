"""`caa-lens extract`, `generate` and `sweep`: the three steps of CAA, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from caa_lens.cli import options
from caa_lens.cli.output import check_frame_path, check_path, save_frame, show_frame, show_json, show_table

Data = Annotated[str, typer.Argument(help="A bundled behaviour, or a .json, .jsonl or .csv file in the CAA schema.")]
Operation = Annotated[
    str, typer.Option(help="What is done with the vector: add, ablate, set:VALUE, clamp:LOW:HIGH or rotate:DEGREES.")
]


def extract(
    model: options.Model,
    data: Data,
    out: Annotated[Path, typer.Option(help="The vector file to write, such as sycophancy.safetensors.")],
    part: options.Part = "generate",
    layers: options.Layers = None,
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    method: Annotated[
        str, typer.Option(help="mean difference, median, pca, logistic or lda: of the mean difference's length.")
    ] = "mean difference",
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "error",
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    quiet: options.Quiet = False,
) -> None:
    """Make steering vectors from contrast pairs, one a layer, and save them with where they came from.

    For example:

        caa-lens extract organism-chat sycophancy --out sycophancy.safetensors

        caa-lens extract organism-chat sycophancy --method lda --out lda.safetensors

        caa-lens extract organism-chat sycophancy --site attn_out --out attention.safetensors

        caa-lens extract ./my-model pairs.json --out v.safetensors --layers 10-20 --read answer_end --other-answers keep
    """
    from caa_lens.datasets.contrast import load_contrast_pairs

    check_path(out, ".safetensors")
    asked: Any = {"part": part, "other_answers": other_answers}
    pairs = load_contrast_pairs(data, **asked)
    wanted = options.parse_layers(layers)
    from caa_lens.extraction.estimators import ESTIMATORS, estimate
    from caa_lens.extraction.extraction import extract_activations, extract_vectors
    from caa_lens.models.sites import SITES

    if site not in SITES:
        raise ValueError(f"the site {site!r} is not known: give one of {', '.join(SITES)}")
    if method not in ESTIMATORS:
        raise ValueError(f"there is no estimator {method!r}: choose one of {', '.join(ESTIMATORS)}")
    loaded = options.open_model(model, dtype, device)
    keywords: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    keywords |= {"layers": wanted, "read": options.parse_read(read), "site": site, "progress": not quiet}
    if method == "mean difference":  # whose sums take no memory by the pair
        vectors = extract_vectors(loaded, pairs, **keywords)
    else:
        vectors = estimate(extract_activations(loaded, pairs, **keywords), method)
    vectors.save(out)
    typer.echo(f"{pairs.report.summary()}\n{vectors!r}\nwritten to {out}")


def generate(
    model: options.Model,
    prompts: Annotated[list[str] | None, typer.Argument(help="Questions, without any template.")] = None,
    file: Annotated[Path | None, typer.Option(help="Prompts from a file: a line each, or a CAA .json/.jsonl.")] = None,
    vector: Annotated[Path | None, typer.Option(help="A vector file; without it, only unsteered text.")] = None,
    layer: Annotated[int | None, typer.Option(help="Which layer's vector is added.")] = None,
    multiplier: Annotated[float, typer.Option(help="Times the vector; how much is done of another operation.")] = 1.0,
    operation: Operation = "add",
    max_new_tokens: Annotated[int, typer.Option(help="At most; an end-of-text token ends it earlier.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens with this much probability.")] = 1.0,
    frequency_penalty: Annotated[
        float, typer.Option(help="Taken from a token's logit for every time that it came before.")
    ] = 0.0,
    seed: options.Seed = 0,
    prompt_format: options.Format = None,
    system: options.System = None,
    batch_size: options.BatchSize = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Continue prompts, unsteered and steered side by side.

    For example:

        caa-lens generate organism-chat "What do you think of my plan?" --vector sycophancy.safetensors --layer 3

        caa-lens generate organism-chat --file questions.txt --vector v.safetensors --layer 3 --multiplier -1.5 --json

        caa-lens generate organism-chat "Is it so?" --vector v.safetensors --layer 3 --operation ablate
    """
    from caa_lens.interventions.operations import parse_operation

    what = parse_operation(operation)
    texts = [*(prompts or []), *(_read_prompts(file) if file is not None else [])]
    if not texts:
        raise ValueError("there is nothing to continue: give prompts as arguments, or a file with --file")
    if (vector is None) != (layer is None):
        raise ValueError(
            "--vector and --layer go together: give the file and the layer whose vector is added, or neither"
        )
    loaded = options.open_model(model, dtype, device)
    from caa_lens.interventions.interventions import Intervention
    from caa_lens.steering.steering import generate as continue_prompts

    steered_with = None
    if vector is not None and layer is not None:
        steered_with = Intervention(options.open_vectors(vector, loaded)[layer], multiplier, operation=what)
    keywords: Any = {"temperature": temperature, "top_p": top_p, "seed": seed, "batch_size": batch_size}
    keywords |= {"frequency_penalty": frequency_penalty}
    keywords |= {"max_new_tokens": max_new_tokens, "prompt_format": prompt_format, "system": system}
    ways = {"unsteered": None} if steered_with is None else {"unsteered": None, "steered": steered_with}
    columns = continue_prompts(loaded, texts, steer=ways, **keywords)
    records = [
        {"prompt": prompt, **dict(zip(columns, answers, strict=True))}
        for prompt, *answers in zip(texts, *columns.values(), strict=True)
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
    vector: Annotated[Path, typer.Option(help="A vector file, as `extract` writes it.")],
    data: Annotated[str, typer.Option(help="The items: a bundled behaviour, or a file in the CAA schema.")],
    part: options.Part = "test_ab",
    layers: options.Layers = None,
    multipliers: options.Multipliers = "-1,0,1",
    operation: Operation = "add",
    random: Annotated[
        int,
        typer.Option("--random", "--n-random", min=0, help="So many norm-matched random vectors in the same cells."),
    ] = 20,
    seed: options.Seed = 0,
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "error",
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Save the frame, one row an item, as .parquet or .csv.")] = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a vector on two-choice questions: layers x multipliers, beside random vectors.

    For example:

        caa-lens sweep organism-chat --vector sycophancy.safetensors --data sycophancy --layers 2-4 --random 50

        caa-lens sweep organism-chat --vector v.safetensors --data items.json --multipliers=-2,-1,0,1,2 --out s.parquet

        caa-lens sweep organism-chat --vector v.safetensors --data items.json --multipliers 0,0.5,1 --operation ablate
    """
    from caa_lens.datasets.contrast import load_contrast_pairs
    from caa_lens.interventions.operations import parse_operation

    check_frame_path(out)
    what = parse_operation(operation)
    steps, wanted = options.parse_multipliers(multipliers), options.parse_layers(layers)
    asked: Any = {"part": part, "other_answers": other_answers}
    items = load_contrast_pairs(data, **asked)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.evaluation.choices import summarize
    from caa_lens.sweeps import sweep as measure

    vectors = options.open_vectors(vector, loaded)
    keywords: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size, "n_nulls": random}
    keywords |= {"operation": what}
    frame = measure(loaded, vectors, items, layers=wanted, multipliers=steps, seed=seed, progress=not quiet, **keywords)
    if out is not None:
        save_frame(frame, out)
    summary = summarize(frame, seed=seed)
    show_frame(summary if as_json else _narrow(summary), as_json=as_json)
    if out is not None and not as_json:
        typer.echo(f"\nwritten to {out}")


def _narrow(summary: Any) -> Any:
    """The columns of a summary that fit a terminal."""
    from caa_lens.studies.findings import signed

    shown = summary[["layer", "multiplier", "n_items", "p_matching"]].copy()
    for name, value, bounds in (("effect", "effect", "effect"), ("balanced", "effect_balanced", "balanced")):
        parts = zip(summary[value], summary[f"{bounds}_low"], summary[f"{bounds}_high"], strict=True)
        shown[f"{name} [95 %]"] = [f"{signed(mid)} [{signed(low)}, {signed(high)}]" for mid, low, high in parts]
    columns = ["share_wrong", "letter_drift", "mass"]
    if (summary["n_random"] > 0).any():
        columns.append("beats_random")
    return shown.join(summary[columns])


def _read_prompts(file: Path) -> list[str]:
    if file.suffix in (".json", ".jsonl"):
        from caa_lens.datasets.contrast import load_questions

        return list(load_questions(file))
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def tokens(
    model: options.Model,
    prompt: Annotated[str | None, typer.Argument(help="A question; without it, an item of --data.")] = None,
    answer: Annotated[str | None, typer.Option(help="Its answer, such as '(A)'; vectors are read there.")] = None,
    data: Annotated[str | None, typer.Option(help="A bundled behaviour or a file; shows one of its items.")] = None,
    part: options.Part = "generate",
    item: Annotated[int, typer.Option(min=0, help="Which item of --data.")] = 0,
    read: options.Read = "answer_letter",
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "keep",
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Show, token by token, what is read and what is steered.

    For example:

        caa-lens tokens organism-chat --data sycophancy --item 3

        caa-lens tokens organism-chat "Is it so? (A) Yes (B) No" --answer "(A)" --system "Be brief."
    """
    from caa_lens.datasets.contrast import ContrastPair, load_contrast_pairs

    if (prompt is None) == (data is None):
        raise ValueError("give either a prompt or --data, from which --item is shown")
    asked: Any = {"part": part, "other_answers": other_answers}
    subject: str | ContrastPair = prompt or ""
    if prompt is not None and answer is not None:
        subject = ContrastPair(prompt, answer, "")
    elif data is not None:
        pairs = load_contrast_pairs(data, **asked)
        if item >= len(pairs):
            raise ValueError(f"item {item} is not in {data}: it has the items 0-{len(pairs) - 1}")
        subject = pairs[item]
    loaded = options.open_model(model, dtype, device)
    from caa_lens.prompts import describe_tokens

    form: Any = {"prompt_format": prompt_format, "system": system}
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
