"""`caa-lens analyze`: vector files compared with each other; `inside` has the commands that run a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from caa_lens.cli import options
from caa_lens.cli.commands import inside
from caa_lens.cli.output import check_frame_path, show_frame

if TYPE_CHECKING:
    from caa_lens.vectors.vectors import SteeringVectors

app = typer.Typer(
    no_args_is_help=True,
    help="Compare vector files: between behaviours, layers and models; look at pairs, texts and vectors in a model.",
)

Without = Annotated[
    str | None, typer.Option(help="Dimensions to leave out, such as 1415,2533; `analyze massive` finds the large ones.")
]


@app.command(no_args_is_help=True)
def cosine(
    vectors: options.Files,
    *,
    without: Without = None,
    layer: options.SomeLayer = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Cosine of every behaviour's vector with every other's: a matrix at one --layer, a list of all layers without it.

    For example:

        caa-lens analyze cosine sycophancy.safetensors refusal.safetensors --layer 3
    """
    from caa_lens.analysis import behavior_cosines, cosine_matrix

    check_frame_path(out)
    named = _load(vectors, without)
    if layer is None:
        frame = behavior_cosines(named)
        show_frame(
            frame[frame["behavior_a"] < frame["behavior_b"]] if len(named) > 1 else frame, as_json=as_json, out=out
        )
        return
    show_frame(cosine_matrix(named, layer).rename_axis("behavior").reset_index(), as_json=as_json, out=out)


@app.command(no_args_is_help=True)
def layers(
    vectors: options.File,
    *,
    without: Without = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Cosine of every layer's vector with every other layer's.

    For example:

        caa-lens analyze layers sycophancy.safetensors
    """
    from caa_lens.analysis import cross_layer

    check_frame_path(out)
    [(_, found)] = _load([vectors], without).items()
    frame = cross_layer(found).rename(columns=str).rename_axis("layer").reset_index()
    show_frame(frame, as_json=as_json, out=out)


@app.command(no_args_is_help=True)
def compare(
    vectors: options.TwoFiles,
    *,
    without: Without = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Cosine of two files' vectors at each layer that both have, and their norms.

    For example:

        caa-lens analyze compare chat.safetensors base.safetensors
    """
    from caa_lens.analysis import compare as compare_vectors

    check_frame_path(out)
    one, another = (next(iter(_load([file], without).values())) for file in vectors)
    show_frame(compare_vectors(one, another), as_json=as_json, out=out)


@app.command(no_args_is_help=True)
def norms(
    vectors: options.Files,
    *,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Length of every vector.

    For example:

        caa-lens analyze norms sycophancy.safetensors refusal.safetensors --json
    """
    from caa_lens.analysis import norms as norms_of

    check_frame_path(out)
    show_frame(norms_of(_load(vectors)), as_json=as_json, out=out)


@app.command(no_args_is_help=True)
def massive(
    vectors: options.Files,
    *,
    layers: options.Layers = None,
    k: options.Largest = 5,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Which dimensions hold most of each vector's squared norm.

    For example:

        caa-lens analyze massive sycophancy.safetensors --k 3 --layers 5-10
    """
    from caa_lens.analysis import massive_dimensions

    check_frame_path(out)
    wanted = options.parse_layers(layers)
    frame = massive_dimensions(_load(vectors), k)
    if wanted is not None:
        frame = frame[frame["layer"].isin(wanted)]
    show_frame(frame, as_json=as_json, out=out)


app.command(no_args_is_help=True)(inside.pca)
app.command(no_args_is_help=True)(inside.separation)
app.command(no_args_is_help=True)(inside.lens)
app.command(no_args_is_help=True)(inside.project)
app.command(no_args_is_help=True)(inside.early)


def _load(files: list[Path], without: str | None = None) -> dict[str, SteeringVectors]:
    """Vectors by their own names, or by their files where two have the same name; some dimensions set to 0."""
    from caa_lens.analysis import without_dimensions
    from caa_lens.vectors.vectors import SteeringVectors

    dimensions = None if without is None else _dimensions(without)
    every = [SteeringVectors.load(file) for file in files]
    if dimensions is not None:
        every = [without_dimensions(vectors, dimensions) for vectors in every]
    names = [vectors.name for vectors in every]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    if len(set(names)) < len(names):
        raise ValueError("a vector file was given twice: give each once")
    return dict(zip(names, every, strict=True))


def _dimensions(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"dimensions {text!r} cannot be read: give numbers, such as 1415,2533") from None
