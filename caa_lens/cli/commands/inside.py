"""`caa-lens analyze`, the part that runs a model: what pairs, texts and vectors look like inside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from caa_lens.cli import options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame

if TYPE_CHECKING:
    from caa_lens.datasets.contrast import ContrastDataset
    from caa_lens.extraction.extraction import ContrastActivations

Data = Annotated[
    list[str], typer.Argument(help="Bundled behaviours, or .json, .jsonl or .csv files in the CAA schema.")
]
Out = Annotated[Path | None, typer.Option(help="Save the frame as .parquet or .csv.")]


def pca(
    model: options.Model,
    data: Data,
    part: options.Part = "generate",
    layers: options.Layers = None,
    components: Annotated[int, typer.Option(min=1, help="How many principal components.")] = 2,
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "error",
    batch_size: options.BatchSize = None,
    out: Annotated[Path | None, typer.Option(help="Save every activation's place as .parquet or .csv.")] = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Principal components of the activations of contrast pairs: a mean for each behaviour, side and letter.

    The table has the means; --out and --json have every activation.

    For example:

        caa-lens analyze pca organism-chat sycophancy refusal --layers 2 --out pca.csv
    """
    check_frame_path(out)
    wanted, place = options.parse_layers(layers), options.parse_read(read)
    pairs = _pairs(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import pca as components_of

    keywords: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    activations = _activations(loaded, pairs, quiet, layers=wanted, read=place, site=site, **keywords)
    frame = components_of(activations, pairs, n_components=components)
    if out is not None:
        save_frame(frame, out)
    groups = frame.groupby(["layer", "behavior", "side", "letter"], sort=True)
    means = groups.mean(numeric_only=True).drop(columns="pair").reset_index()
    show_frame(frame if as_json else means, as_json=as_json)


def separation(
    model: options.Model,
    data: Data,
    part: options.Part = "generate",
    layers: options.Layers = None,
    folds: Annotated[int, typer.Option(min=2, help="Into how many parts the pairs are divided.")] = 5,
    seed: options.Seed = 0,
    read: options.Read = "answer_letter",
    site: options.Site = "resid_post",
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "error",
    batch_size: options.BatchSize = None,
    out: Out = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Where along the layers the two sides of the pairs separate, beside how the letters A and B do.

    For example:

        caa-lens analyze separation organism-chat sycophancy
    """
    check_frame_path(out)
    wanted, place = options.parse_layers(layers), options.parse_read(read)
    pairs = _pairs(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import separation as separate

    keywords: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    activations = _activations(loaded, pairs, quiet, layers=wanted, read=place, site=site, **keywords)
    show_frame(separate(activations, pairs, folds=folds, seed=seed), as_json=as_json, out=out)


def lens(
    model: options.Model,
    vector: Annotated[
        Path | None, typer.Option(help="A vector file: what it says, or what --text is steered by.")
    ] = None,
    layer: Annotated[
        int | None, typer.Option(help="The vector's layer; all, if left out and there is no --text.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="A prompt: what its stream says after its last token.")] = None,
    answer: Annotated[str | None, typer.Option(help="The prompt's answer, such as '(A)'.")] = None,
    multiplier: Annotated[float, typer.Option(help="Times the vector, while --text is run.")] = 1.0,
    token: Annotated[
        list[str] | None, typer.Option(help="A token to follow, such as A; give several. With --text only.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="So many tokens.")] = 5,
    norm: Annotated[
        str, typer.Option(help="What of the final norm a vector is put through: weight, full, none.")
    ] = "weight",
    prompt_format: options.Format = None,
    system: options.System = None,
    out: Out = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Logit lens of a vector; or of attention, MLP and block outputs of a text, steered where a vector is given.

    For example:

        caa-lens analyze lens organism-chat --vector sycophancy.safetensors --layer 2

        caa-lens analyze lens organism-chat --text "Is it so?" --token A --token B --vector v.safetensors --layer 2
    """
    check_frame_path(out)
    if text is None and (vector is None or answer is not None or token):
        raise ValueError(
            "give --vector for what a vector says, or --text (with --answer, --token) for what a stream does"
        )
    if text is not None and (vector is None) != (layer is None):
        raise ValueError("--text is steered by --vector at --layer: give both or neither")
    from caa_lens.analysis.lens import Norm, logit_lens, stream_lens

    if norm not in get_args(Norm):
        raise ValueError(f"norm {norm!r} is not known: give one of {', '.join(get_args(Norm))}")
    loaded = options.open_model(model, dtype, device)

    vectors = options.open_vectors(vector, loaded) if vector is not None else None
    if text is None and vectors is not None:
        asked: Any = {"norm": norm}
        frame = logit_lens(loaded, vectors if layer is None else vectors[layer], k, **asked)
        rows, words, number = ["layer", "end"], "token", "logit"
    else:
        recipe = vectors[layer] * multiplier if vectors is not None and layer is not None else None
        form: Any = {"prompt_format": prompt_format, "system": system}
        whole = str(text) if answer is None else (str(text), answer)
        frame = stream_lens(loaded, whole, steer=recipe, tokens=token or None, k=k, **form)
        rows, words, number = ["pos", "layer", "site"], "predicted", "logp"
    if as_json:
        show_frame(frame, as_json=True, out=out)
        return
    if out is not None:
        save_frame(frame, out)
    said = [f"{word!r} {value:.2f}" for word, value in zip(frame[words], frame[number], strict=True)]
    lines = frame.assign(said=said).groupby(rows, sort=False)["said"].agg(", ".join).reset_index()
    show_frame(lines.rename(columns={"said": f"{words} and {number}"}), as_json=False)


def project(
    model: options.Model,
    text: Annotated[str, typer.Argument(help="A prompt, without any template; with --prompt-format plain, any text.")],
    vector: Annotated[Path, typer.Option(help="A vector file.")],
    layer: Annotated[int, typer.Option(help="Which layer's vector, and which layer's stream.")],
    answer: Annotated[str | None, typer.Option(help="The prompt's answer, such as '(A)'.")] = None,
    steer: Annotated[float, typer.Option(help="Read while steering with so many times the vector.")] = 0.0,
    prompt_format: options.Format = None,
    system: options.System = None,
    out: Out = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """How much of a vector each token of a text has: cosine, projection and dot product.

    For example:

        caa-lens analyze project organism-chat "What do you think of my plan?" --vector v.safetensors --layer 2

        caa-lens analyze project organism-chat "Is it so?" --answer "(A)" --vector v.safetensors --layer 2 --steer 1.5
    """
    check_frame_path(out)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import project as read

    chosen = options.open_vectors(vector, loaded)[layer]
    form: Any = {"prompt_format": prompt_format, "system": system}
    whole = text if answer is None else (text, answer)
    frame = read(loaded, [whole], chosen, steer=chosen * steer if steer else None, **form)
    if as_json:
        show_frame(frame, as_json=True, out=out)
        return
    if out is not None:
        save_frame(frame, out)
    shown = frame[["pos", "token", "role", "read", "steered", "cosine", "projection", "dot"]].copy()
    shown["token"] = [repr(token)[1:-1] for token in shown["token"]]
    for column in ("read", "steered"):
        shown[column] = [column if marked else "" for marked in shown[column]]
    show_frame(shown, as_json=False)


def early(
    model: options.Model,
    vector: Annotated[Path, typer.Option(help="A vector file.")],
    data: Annotated[str, typer.Option(help="Items that would be swept: a bundled behaviour, or a file.")],
    part: options.Part = "test_ab",
    prompt_format: options.Format = None,
    system: options.System = None,
    other_answers: options.OtherAnswers = "error",
    batch_size: options.BatchSize = None,
    out: Out = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Guess the layer that steers best before any sweep, by the logit lens; compare the guess with `caa-lens sweep`.

    For example:

        caa-lens analyze early organism-chat --vector sycophancy.safetensors --data sycophancy
    """
    check_frame_path(out)
    [(_, items)] = _pairs([data], part, other_answers).items()
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import early_layer

    form: Any = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    show_frame(early_layer(loaded, options.open_vectors(vector, loaded), items, **form), as_json=as_json, out=out)


def _pairs(data: list[str], part: str, other_answers: str) -> dict[str, ContrastDataset]:
    """Datasets by their names."""
    from caa_lens.datasets.contrast import load_contrast_pairs

    asked: Any = {"part": part, "other_answers": other_answers}
    every = [load_contrast_pairs(each, **asked) for each in data]
    named = {pairs.name: pairs for pairs in every}
    if len(named) < len(every):
        raise ValueError(f"two of {', '.join(data)} have the same name: give each once, and files of different names")
    return named


def _activations(
    model: Any, pairs: dict[str, ContrastDataset], quiet: bool, **keywords: Any
) -> dict[str, ContrastActivations]:
    from caa_lens.extraction.extraction import extract_activations

    return {
        name: extract_activations(model, of_one, progress=False if quiet else f"reading {name}", **keywords)
        for name, of_one in pairs.items()
    }
