"""`caa-lens demo` and `caa-lens study`: a whole study in one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from caa_lens.cli import options
from caa_lens.cli.commands.report import show_report
from caa_lens.cli.output import show_json, show_table

if TYPE_CHECKING:
    import pandas as pd

    from caa_lens.studies.result import StudyResult
    from caa_lens.studies.settings import StudySettings

Folder = Annotated[Path | None, typer.Option(help="Run folder; runs/<name>-<hash of the settings> where left out.")]

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


def demo(folder: Folder = None, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
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
    settings: Annotated[
        Path | None, typer.Option(help="A JSON file with settings; options given here go first.")
    ] = None,
    folder: Folder = None,
    name: Annotated[str | None, typer.Option(help="Of the study.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that is steered.")] = None,
    base_model: Annotated[str | None, typer.Option(help="A model to compare vectors with; 'none' for none.")] = None,
    behaviors: Annotated[
        list[str] | None, typer.Option(help="A bundled name, a CAA file or a folder of them; give it once for each.")
    ] = None,
    dev: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: items to choose a behaviour's layer on; once for each.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="NAME=FILE: a behaviour's test items; once for each.")] = None,
    multipliers: Annotated[str | None, typer.Option(help="Comma-separated numbers, such as -1,0,1.")] = None,
    layers: options.Layers = None,
    n_nulls: Annotated[int | None, typer.Option(help="Null vectors of each kind, on the test items.")] = None,
    baselines: Annotated[
        list[str] | None, typer.Option(help="system, few_shot or finetuned; once for each, or 'none'.")
    ] = None,
    texts: Annotated[
        str | None, typer.Option(help="Neutral text for side effects: a bundled name, a file, or 'none'.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.")] = None,
    prompt_format: options.Format = None,
    base_prompt_format: Annotated[str | None, typer.Option(help="The same for the base model.")] = None,
    system: options.System = None,
    read: Annotated[str | None, typer.Option(help="Where vectors are read: a role, or a position.")] = None,
    site: Annotated[
        str | None, typer.Option(help="Where in each block: resid_pre, attn_out, resid_mid, mlp_out, resid_post (CAA).")
    ] = None,
    dev_fraction: Annotated[float | None, typer.Option(help="Share of the pairs that the layer is chosen on.")] = None,
    max_pairs: Annotated[int | None, typer.Option(help="At most so many pairs of each behaviour.")] = None,
    other_answers: Annotated[
        str | None, typer.Option(help="Answers other than (A) and (B): error, keep, drop.")
    ] = None,
    n_questions: Annotated[int | None, typer.Option(help="Open-ended questions shown for each behaviour.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of the answers to them.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")] = None,
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a study of your own: the same stages as the demo, with every setting as an option or from a file.

    For example:

        caa-lens study --name mine --behaviors sycophancy --behaviors refusal --n-null 100

        caa-lens study --model meta-llama/Llama-2-7b-chat-hf --base-model none --behaviors pairs.json --dtype bfloat16

        caa-lens study --settings runs/demo-1a2b3c4d/settings.json
    """
    from caa_lens.studies.settings import read_settings, study_settings

    given: dict[str, Any] = {
        "name": name,
        "model": model,
        "base_model": base_model,
        "behaviors": behaviors or None,
        "dev": dict(_named_file("dev", each) for each in dev) if dev else None,
        "test": dict(_named_file("test", each) for each in test) if test else None,
        "multipliers": options.parse_multipliers(multipliers) if multipliers is not None else None,
        "layers": options.parse_layers(layers),
        "n_nulls": n_nulls,
        "baselines": None if not baselines else [] if baselines == ["none"] else baselines,
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


def _named_file(option: str, text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ValueError(f"{option} {text!r} cannot be read: give NAME=FILE, such as sycophancy=items.json")
    return name, file
