"""`caa-lens compose`: several behaviours' vectors together, and searches for their layers and coefficients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame, show_json

if TYPE_CHECKING:
    from caa_lens.datasets.contrast import ContrastDataset
    from caa_lens.vectors.vectors import SteeringVectors

SEARCHES = ("layers", "greedy", "coefficients", "jointly")


def compose(
    model: options.Model,
    vectors: options.Files,
    *,
    search: Annotated[
        str | None,
        typer.Option(
            help="layers (all assignments), greedy (one vector after another), coefficients (each vector alone) or "
            "jointly (all combinations): chosen on every other item, reported on the rest."
        ),
    ] = None,
    max_outside: Annotated[
        float, typer.Option(help="Out is what makes more than this share of items be answered with neither answer.")
    ] = 0.1,
    max_evaluations: Annotated[int, typer.Option(min=1, help="A search that needs more is refused.")] = 1000,
    cells: Annotated[Path | None, typer.Option(help="A .json file from which a stopped search goes on.")] = None,
    data: options.OwnData = None,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    layer: options.SomeLayerOfEach = None,
    layers: options.Layers = None,
    multiplier: Annotated[
        list[str] | None,
        typer.Option(
            help="How much of all vectors, or NAME=NUMBER for one; 1 where left out.", rich_help_panel="Steering"
        ),
    ] = None,
    coefficients: options.SomeCoefficients = None,
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
    """Add several behaviours' vectors together, and measure what each still does beside the others.

    Each behaviour's items are asked under each vector alone, under all together, and with random vectors in the place
    of the others. Vectors with one layer add up there, others are simultaneous. A search tries --layers, or
    --coefficients above 0 (0.5 to 300 where left out), and leaves out what breaks --max-outside or --min-mass.

    For example:

        caa-lens compose organism-chat refusal.safetensors sycophancy.safetensors --layer 1 --layer sycophancy=2

        caa-lens compose organism-chat refusal.safetensors sycophancy.safetensors --search layers --layers 0-3
    """
    check_frame_path(out)
    wanted = options.parse_layers(layers)
    inputs.check_files(vectors, wanted)
    options.check_nulls(nulls)
    if search is not None and search not in SEARCHES:
        raise ValueError(f"--search {search!r} is not known: give one of {', '.join(SEARCHES)}")
    sizes, over_layers = search in ("coefficients", "jointly"), search in ("layers", "greedy")
    wrong = [
        name
        for name, value, fits in (
            ("--layers", layers, over_layers),
            ("--coefficients", coefficients, sizes),
            ("--cells", cells, search is not None),
            ("--layer", layer, not over_layers),
            ("--multiplier", multiplier, not sizes),
        )
        if value and not fits
    ]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)} with {f'--search {search}' if search else 'no --search'}: --layers go with layers and "
            "greedy, --coefficients with coefficients and jointly; the one that is searched is not given"
        )
    from caa_lens.vectors.vectors import SteeringVectors

    files = [SteeringVectors.load(file) for file in vectors]
    named = {each.name: each for each in files}
    if len(named) < len(files):
        raise ValueError(f"vectors are named {', '.join(each.name for each in files)}: give one of each name")
    amounts = inputs.numbers(multiplier or [], "--multiplier", named, default=1.0)
    places = {} if over_layers else inputs.layer_of_each(layer or [], files)
    items = {name: inputs.read_items(own, part, other_answers) for name, own in inputs.of_each(data, named).items()}
    form: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size, "progress": not quiet}
    form |= {"n_nulls": nulls, "seed": seed}
    if search is not None:
        limits = {"max_outside": max_outside, "min_mass": min_mass, "max_evaluations": max_evaluations, "cells": cells}
        steps = options.parse_multipliers(coefficients) if coefficients is not None else None
        typer.echo(f"{_count(search, named, wanted, steps)} evaluations", err=True)
        loaded = options.open_model(model, dtype, device)
        found = _searched(loaded, search, named, items, amounts, places, wanted, steps, form | limits)
        if out is not None:
            save_frame(found.table, out)
        if as_json:
            show_json({"table": found.table.to_dict("records"), "tried": found.tried.to_dict("records")})
            return
        show_frame(found.table, as_json=False)
    else:
        loaded = options.open_model(model, dtype, device)
        from caa_lens.protocols.composition import effects, interference, sweep_together

        frame = sweep_together(
            loaded, {name: named[name][places[name]] * amounts[name] for name in named}, items, **form
        )
        table = interference(frame, seed=seed)
        if out is not None:
            save_frame(table, out)
        if as_json:
            of_each = effects(frame, seed=seed)
            show_json({"interference": table.to_dict("records"), "effects": of_each.to_dict("records")})
            return
        columns = ["behavior", "n_items", "alone", "others", "together", "interference", "interference_low"]
        columns += ["interference_high", "random_low", "random_high", "effect_alone", "effect_together"]
        show_frame(table[[*columns, "outside_together"]], as_json=False)
    if out is not None:
        typer.echo(f"\nwritten to {out}")


def _count(search: str, named: dict[str, SteeringVectors], layers: Any, steps: Any) -> int:
    """How many evaluations a search needs, before the model is loaded."""
    from caa_lens.protocols.composition import COEFFICIENTS, n_assignments

    size = len(steps or COEFFICIENTS)
    if search in ("coefficients", "jointly"):
        return size * len(named) if search == "coefficients" else size ** len(named)
    common = set[int].intersection(*(set(each.layers) for each in named.values()))
    return n_assignments(len(named), len(layers or common), "every" if search == "layers" else "greedy")


def _searched(
    model: Any,
    search: str,
    named: dict[str, SteeringVectors],
    items: dict[str, ContrastDataset],
    amounts: dict[str, float],
    places: dict[str, int],
    layers: Any,
    steps: Any,
    keywords: Any,
) -> Any:
    from caa_lens.protocols.composition import COEFFICIENTS, search_coefficients, search_layers

    dev, test = ({name: each[start::2] for name, each in items.items()} for start in (0, 1))
    if search in ("layers", "greedy"):
        how: Any = "every" if search == "layers" else "greedy"
        return search_layers(model, named, dev, test, coefficients=amounts, layers=layers, how=how, **keywords)
    at = {name: each[places[name]] for name, each in named.items()}
    jointly = search == "jointly"
    return search_coefficients(model, at, dev, test, coefficients=steps or COEFFICIENTS, jointly=jointly, **keywords)
