"""`caa-lens demo` and `caa-lens study`: a whole study in one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from caa_lens.cli import inputs, options
from caa_lens.cli.commands.report import show_report
from caa_lens.cli.output import show_json, show_table

if TYPE_CHECKING:
    import pandas as pd

    from caa_lens.studies.result import StudyResult
    from caa_lens.studies.settings import StudySettings

NARROW = {
    "behavior": "behaviour",
    "layer": "layer",
    "multiplier": "at",
    "effect": "effect [95 %]",
    "balanced": "balanced",
    "wrong": "wrong",
    "mass": "mass",
    "random": "random",
    "permuted": "permuted",
    "shuffled": "shuffled",
}


def demo(
    *,
    folder: options.Folder = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the whole workflow on the bundled models: vectors, sweeps, steered answers, analyses, figures, a report.

    A run that was interrupted goes on where it stopped.

    For example:

        caa-lens demo

        caa-lens demo --folder my-demo
    """
    import torch

    from caa_lens.studies.settings import StudySettings

    # The bundled models are so small that a second thread gains nothing, and costs much where the processor is busy.
    torch.set_num_threads(1)
    _run(StudySettings(), folder, as_json, quiet)


def study(
    model: options.SetModel = None,
    *,
    settings: Annotated[
        Path | None, typer.Option(help="A JSON file with settings; what is given on the line goes first.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the study.")] = None,
    base_model: Annotated[str | None, typer.Option(help="A model to compare vectors with; 'none' for none.")] = None,
    data: options.SetData = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: a behaviour's test items; once for each.", rich_help_panel="Data"),
    ] = None,
    dev: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: items to choose a behaviour's layer on; once for each.", rich_help_panel="Data"),
    ] = None,
    texts: options.SetTexts = None,
    other_answers: options.SetOtherAnswers = None,
    dev_fraction: Annotated[
        float | None,
        typer.Option(help="Share of the pairs that the layer is chosen on.", rich_help_panel="Data"),
    ] = None,
    max_pairs: Annotated[
        int | None, typer.Option(help="At most so many pairs of each behaviour.", rich_help_panel="Data")
    ] = None,
    n_questions: options.Questions = None,
    layers: options.Layers = None,
    multipliers: options.SetMultipliers = None,
    read: options.SetRead = None,
    site: options.SetSite = None,
    nulls: options.SetNulls = None,
    baselines: options.SetBaselines = None,
    prompt_format: options.Format = None,
    system: options.System = None,
    base_prompt_format: Annotated[
        str | None,
        typer.Option(
            callback=options.check_format, help="The prompt format of the base model.", rich_help_panel="Prompts"
        ),
    ] = None,
    max_new_tokens: options.SetMaxNewTokens = None,
    dtype: options.SetDtype = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    seed: options.SetSeed = None,
    folder: options.Folder = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a study of your own: the same stages as the demo, with every setting as an option or from a file.

    What neither the line nor --settings gives is as in the demo. 'none' for --base-model, --texts or --baselines leaves
    that stage out. --data also takes a folder of files.

    For example:

        caa-lens study organism-chat --name mine --data sycophancy --data refusal --nulls 100

        caa-lens study meta-llama/Llama-2-7b-chat-hf --base-model none --data pairs.json --dtype bfloat16

        caa-lens study --settings runs/demo-1a2b3c4d/settings.json
    """
    from caa_lens.studies.settings import read_settings, study_settings

    given: dict[str, Any] = {
        "name": name,
        "model": model,
        "base_model": base_model,
        "behaviors": data or None,
        "dev": dict(inputs.named_file("--dev", each) for each in dev) if dev else None,
        "test": dict(inputs.named_file("--test", each) for each in test) if test else None,
        "multipliers": options.parse_multipliers(multipliers) if multipliers is not None else None,
        "layers": options.parse_layers(layers),
        "n_nulls": nulls,
        "baselines": None if baselines is None else [] if baselines == "none" else baselines.split(","),
        "texts": texts,
        "seed": seed,
        "prompt_format": prompt_format,
        "base_prompt_format": base_prompt_format,
        "system": system,
        "read": options.parse_read(read) if read is not None else None,
        "site": site,
        "dev_fraction": dev_fraction,
        "max_pairs": max_pairs,
        "other_answers": other_answers,
        "n_questions": n_questions,
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
        "device": device,
        "batch_size": batch_size,
    }
    values = read_settings(settings).model_dump() if settings is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    for option, value in (("base_model", base_model), ("texts", texts)):
        # the default base model and texts belong to the default model
        if value == "none" or (value is None and model is not None and option not in values):
            values[option] = None
    _run(study_settings(values), folder, as_json, quiet)


def _run(settings: StudySettings, folder: Path | None, as_json: bool, quiet: bool) -> None:
    options.quiet_libraries()
    from caa_lens.studies.files import REPORT_FILE
    from caa_lens.studies.run import run_study

    result = run_study(settings, folder, progress=not quiet)
    if as_json:
        found = result.tables["findings"].to_dict("records")
        report = str(result.folder / REPORT_FILE)
        show_json({"folder": str(result.folder), "report": report, "layers": result.layers, "findings": found})
        return
    show_findings(result)
    if "baselines" in result.tables:
        show_baselines(result.tables["baselines"])
    typer.echo("")
    show_report(result.folder / REPORT_FILE, result.folder)


def show_findings(result: StudyResult) -> None:
    """The table of the test items: a row for each behaviour and direction."""
    from caa_lens.extraction.nulls import KINDS
    from caa_lens.studies.findings import CLEAR, MEANINGS, VERDICTS, cells

    rows: list[list[str | Text]] = []
    last = ""
    for record in result.tables["findings"].to_dict("records"):
        text, clear = cells(record), record["verdict"] == CLEAR
        text["balanced"] = text["balanced"].split(" ")[0] + ("*" if clear else " ")
        if text["behavior"] == last:
            text["behavior"] = text["layer"] = ""
        last = str(record["behavior"])
        rows.append([Text(text[key], style="bold" if clear and key == "balanced" else "") for key in NARROW])
    typer.echo("\nEffect of each vector on its test items, at the layer chosen on the dev items:\n")
    show_table(list(NARROW.values()), rows, numbers=(*("layer", "at", "balanced", "wrong", "mass"), *KINDS))
    typer.echo(f"\n* {CLEAR}: {VERDICTS[CLEAR]}")
    for key in ("effect", "balanced", "wrong", "mass", *KINDS):
        name = NARROW[key]
        meaning = "change in P(matching answer), with its interval over items" if key == "effect" else MEANINGS[name]
        typer.echo(f"  {name.split(' [')[0]}: {meaning}")


def show_baselines(table: pd.DataFrame) -> None:
    """Steering beside prompting: for each behaviour and direction, what each does alone."""
    from caa_lens.studies.findings import signed

    names = [str(name) for name in dict.fromkeys(table["baseline"]) if name != "none"]
    rows: list[list[str | Text]] = []
    for behavior, part in table.groupby("behavior", sort=False):
        for direction, sign in (("positive", 1), ("negative", -1)):
            steered = part[(part["baseline"] == "none") & (part["multiplier"] * sign > 0)]
            alone = part[(part["direction"] == direction) & (part["multiplier"] == 0)].set_index("baseline")
            effects = [steered.iloc[-1 if sign > 0 else 0]] if len(steered) else [None]
            effects += [alone.loc[name] if name in alone.index else None for name in names]
            shown = ["-" if each is None else _interval(each, signed) for each in effects]
            rows.append([Text(str(behavior) if sign > 0 else ""), Text("for" if sign > 0 else "against"), *shown])
    typer.echo("\nWhat else would have done it: effects on the same items of steering, and of prompting instead:\n")
    show_table(["behaviour", "", "steering", *(name.replace("_", "-") for name in names)], rows)


def _interval(row: Any, signed: Any) -> str:
    return f"{signed(row['effect'])} [{signed(row['effect_low'])}, {signed(row['effect_high'])}]"
