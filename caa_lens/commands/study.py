"""`caa-lens demo` and `caa-lens study`: a whole study in one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from caa_lens.commands import options
from caa_lens.commands.output import show_json, show_table

if TYPE_CHECKING:
    from caa_lens.experiment import StudyResult
    from caa_lens.settings import StudySettings

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
}


def demo(folder: Folder = None, as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Run the whole workflow on the bundled models: vectors, sweeps, steered answers, analyses, figures, a page.

    A run that was interrupted goes on where it stopped.

    For example:

        caa-lens demo

        caa-lens demo --folder my-demo
    """
    import torch

    from caa_lens.settings import StudySettings

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
    n_random: Annotated[int | None, typer.Option(help="Random vectors on the test items.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random choice.")] = None,
    prompt_format: options.Format = None,
    base_prompt_format: Annotated[str | None, typer.Option(help="The same for the base model.")] = None,
    system: options.System = None,
    read: Annotated[str | None, typer.Option(help="Where vectors are read: a role, or a position.")] = None,
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

        caa-lens study --name mine --behaviors sycophancy --behaviors refusal --n-random 100

        caa-lens study --model meta-llama/Llama-2-7b-chat-hf --base-model none --behaviors pairs.json --dtype bfloat16

        caa-lens study --settings runs/demo-1a2b3c4d/settings.json
    """
    from caa_lens.settings import read_settings, study_settings

    given: dict[str, Any] = {
        "name": name,
        "model": model,
        "base_model": base_model,
        "behaviors": behaviors or None,
        "dev": dict(_named_file("dev", each) for each in dev) if dev else None,
        "test": dict(_named_file("test", each) for each in test) if test else None,
        "multipliers": options.parse_multipliers(multipliers) if multipliers is not None else None,
        "layers": options.parse_layers(layers),
        "n_random": n_random,
        "seed": seed,
        "prompt_format": prompt_format,
        "base_prompt_format": base_prompt_format,
        "system": system,
        "read": options.parse_read(read) if read is not None else None,
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
    if base_model == "none":
        values["base_model"] = None
    elif base_model is None and model is not None and "base_model" not in values:
        values["base_model"] = None  # the default base model belongs to the default model
    _run(study_settings(values), folder, as_json, quiet)


def _run(settings: StudySettings, folder: Path | None, as_json: bool, quiet: bool) -> None:
    options.quiet_libraries()
    from caa_lens.experiment import run_study

    result = run_study(settings, folder, progress=not quiet)
    if as_json:
        found = result.tables["findings"].to_dict("records")
        show_json({"folder": str(result.folder), "layers": result.layers, "findings": found})
        return
    show_findings(result)
    typer.echo(f"\nOpen in a browser: {result.folder / 'index.html'}")
    typer.echo(f"Run folder: {result.folder}")


def show_findings(result: StudyResult) -> None:
    """The table of the test items: a row for each behaviour and direction."""
    from caa_lens.findings import CLEAR, MEANINGS, VERDICTS, cells

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
    show_table(list(NARROW.values()), rows, numbers=("layer", "at", "balanced", "wrong", "mass", "random"))
    typer.echo(f"\n* {CLEAR}: {VERDICTS[CLEAR]}")
    for key in ("effect", "balanced", "wrong", "mass", "random"):
        name = NARROW[key]
        meaning = "change in P(matching answer), with its interval over items" if key == "effect" else MEANINGS[name]
        typer.echo(f"  {name.split(' [')[0]}: {meaning}")


def _named_file(option: str, text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ValueError(f"{option} {text!r} cannot be read: give NAME=FILE, such as sycophancy=items.json")
    return name, file
