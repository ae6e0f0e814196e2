"""What commands read: items, running text, vector files under names; and the few columns that fit a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caa_lens.cli import options

if TYPE_CHECKING:
    import pandas as pd

    from caa_lens.datasets.contrast import ContrastDataset
    from caa_lens.vectors.vectors import SteeringVectors

File = Annotated[Path, typer.Argument(help="A vector file, as `extract` writes it.")]
Files = Annotated[list[Path], typer.Argument(help="Vector files, as `extract` writes them.")]
Items = Annotated[str, typer.Option("--data", help="The items: a bundled behaviour, or a file in the CAA schema.")]
ItemsPart = Annotated[str, typer.Option("--part", help="Which file of a bundled behaviour: generate or test_ab.")]
Texts = Annotated[
    str, typer.Option(help="Running text: neutral, facts or opinions (bundled), a .txt with a text a line, or a .json.")
]
Random = Annotated[int, typer.Option("--random", "--n-random", min=0, help="So many random vectors beside each.")]
Norm = Annotated[str, typer.Option(help="own: vectors as long as they are; target: as long as the one that is there.")]
Sign = Annotated[int, typer.Option(help="1 steers along the vectors, -1 against them.")]
Out = Annotated[Path | None, typer.Option(help="Save the table as .parquet or .csv.")]


def read_items(source: str, part: str, other_answers: str) -> ContrastDataset:
    """Items of a bundled behaviour or a file."""
    from caa_lens.datasets.contrast import load_contrast_pairs

    asked: Any = {"part": part, "other_answers": other_answers}
    return load_contrast_pairs(source, **asked)


def read_vectors(files: Sequence[Path], model: Any, layers: Sequence[int] | None = None) -> dict[str, SteeringVectors]:
    """Vectors, of these layers or all, by their own names, or by their files where two have the same name."""
    import torch

    every = [options.open_vectors(file, model) for file in files]
    if layers is not None:
        wanted = sorted(set(layers))
        every = [
            replace(each, values=torch.stack([each[layer].values for layer in wanted]), layers=tuple(wanted))
            for each in every
        ]
    names = [vectors.name for vectors in every]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    return dict(zip(names, every, strict=True))


def check_files(files: Sequence[Path]) -> None:
    """Refuse files that are not there, or there twice, before a model is loaded."""
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"there is no vector file {file}")
    if len(set(files)) < len(files):
        raise ValueError("a vector file was given twice: give each once")


def named_file(text: str) -> tuple[str, str]:
    """``NAME=FILE`` of the option ``--data`` as its two parts."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--data {text!r} cannot be read: give NAME=FILE, such as sycophancy=items.json")
    return name, value


def numbers(
    given: Sequence[str], option: str, names: Collection[str], default: float | None = None
) -> dict[str, float]:
    """``["3", "refusal=4"]`` as a number for each name; whole and not negative for ``--layer``.

    Raises:
        ValueError: For a text that is no number, another name, or a name without a number where there is no default.
    """
    chosen: dict[str, float] = {}
    of_all = default
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number) if option != "--layer" or number.isdecimal() else None
        except ValueError:
            value = None
        if value is None or (equals and name not in names):
            raise ValueError(
                f"{option} {text!r} cannot be read: give a number, or NAME=NUMBER with one of {', '.join(names)}"
            )
        if equals:
            chosen[name] = value
        else:
            of_all = value
    if of_all is None and (missing := [name for name in names if name not in chosen]):
        what = option.removeprefix("--")
        raise ValueError(f"no {what} is given for {', '.join(missing)}: give {option} NUMBER for all, or NAME=NUMBER")
    return {name: chosen.get(name, of_all or 0.0) for name in names}


def narrow(table: pd.DataFrame, first: Sequence[str], last: Sequence[str] = ()) -> pd.DataFrame:
    """The columns of effects that fit a terminal: these, effects with their intervals in one cell, and those."""
    from caa_lens.studies.findings import signed

    shown = table[list(first)].copy()
    for name, value, bounds in (("effect", "effect", "effect"), ("balanced", "effect_balanced", "balanced")):
        if f"{bounds}_low" in table:
            parts = zip(table[value], table[f"{bounds}_low"], table[f"{bounds}_high"], strict=True)
            shown[f"{name} [95 %]"] = [f"{signed(mid)} [{signed(low)}, {signed(high)}]" for mid, low, high in parts]
        else:
            shown[name] = table[value]
    columns = [name for name in ("share_wrong", "mass") if name in table]
    if "n_random" in table and (table["n_random"] > 0).any():
        columns.append("beats_random")
    return shown.join(table[[*columns, *last]])
