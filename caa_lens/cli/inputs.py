"""How what commands are given is read: items, vector files, values by name; and the few columns that fit a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caa_lens.cli import options

if TYPE_CHECKING:
    import pandas as pd

    from caa_lens.datasets.contrast import ContrastDataset
    from caa_lens.vectors.vectors import SteeringVectors


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


def check_files(files: Sequence[Path], layers: Sequence[int] | None = None) -> None:
    """Refuse files that hold no vectors, or not of these layers, or are given twice, before a model is loaded."""
    from caa_lens.vectors.vectors import SteeringVectors

    for file in files:
        found = SteeringVectors.load(file)
        for layer in layers or ():
            found[layer]
    if len(set(files)) < len(files):
        raise ValueError("a vector file was given twice: give each once")


def check_layer(file: Path | None, layer: int | None) -> None:
    """Refuse a file without a layer, a layer without a file, or one that is not in it, before a model is loaded."""
    if (file is None) != (layer is None):
        raise ValueError("a vector file and --layer go together: give both, or neither")
    if file is not None and layer is not None:
        check_files([file], [layer])


def named_file(option: str, text: str) -> tuple[str, str]:
    """``NAME=FILE`` of an option as its two parts."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"{option} {text!r} cannot be read: give NAME=FILE, such as sycophancy=items.json")
    return name, value


def of_each(given: Sequence[str] | None, names: Collection[str], *, shared: bool = False) -> dict[str, str]:
    """The data of each vector, from ``NAME=DATA`` of the option ``--data``; its own name where nothing is given.

    Args:
        given: What the option was given.
        names: Of the vectors.
        shared: Whether ``DATA`` alone may be for several vectors, and not just for a single one.

    Raises:
        ValueError: For another name, or for ``DATA`` alone where it would be unclear whose it is.
    """
    alone = shared or len(names) == 1
    own: dict[str, str] = {}
    of_all: str | None = None
    for text in given or ():
        name, equals, source = text.partition("=")
        if equals and name in names and source:
            own[name] = source
        elif text and not equals and alone:
            of_all = text
        else:
            what = "DATA, or NAME=DATA" if alone else "NAME=DATA"
            raise ValueError(f"--data {text!r} cannot be read: give {what} with one of {', '.join(names)} for NAME")
    return {name: own.get(name, of_all or name) for name in names}


def read_rubrics(given: Sequence[str] | None) -> dict[str, str]:
    """Rubrics by behaviour, from what ``--rubric`` gave."""
    rubrics: dict[str, str] = {}
    for text in given or ():
        behavior, equals, name = text.partition("=")
        if not (behavior and equals and name):
            raise ValueError(f"--rubric {text!r} cannot be read: give BEHAVIOR=FILE, such as kindness=kindness.txt")
        if not Path(name).is_file():
            raise FileNotFoundError(f"there is no file {name}")
        rubrics[behavior] = Path(name).read_text(encoding="utf-8")
    return rubrics


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


def layer_of_each(given: Sequence[str], vectors: Sequence[SteeringVectors]) -> dict[str, int]:
    """The layer of each vector by its name, from ``--layer``; one that is not among its layers is refused."""
    layers = {name: int(at) for name, at in numbers(given, "--layer", [each.name for each in vectors]).items()}
    for each in vectors:
        each[layers[each.name]]
    return layers


def narrow(
    table: pd.DataFrame,
    first: Sequence[str],
    last: Sequence[str] = (),
    *,
    doubts: Sequence[str] = ("share_wrong", "mass"),
) -> pd.DataFrame:
    """The columns of effects that fit a terminal: these, effects with intervals in one cell, doubts, and those."""
    from caa_lens.studies.findings import signed

    shown = table[list(first)].copy()
    for name, value, bounds in (("effect", "effect", "effect"), ("balanced", "effect_balanced", "balanced")):
        if f"{bounds}_low" in table:
            parts = zip(table[value], table[f"{bounds}_low"], table[f"{bounds}_high"], strict=True)
            shown[f"{name} [95 %]"] = [f"{signed(mid)} [{signed(low)}, {signed(high)}]" for mid, low, high in parts]
        else:
            shown[name] = table[value]
    columns = [name for name in doubts if name in table]
    if "n_random" in table and (table["n_random"] > 0).any():
        columns.append("beats_random")
    return shown.join(table[[*columns, *last]])
