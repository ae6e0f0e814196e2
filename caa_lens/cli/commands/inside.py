"""`caa-lens analyze`, the part that runs a model: what pairs, texts and vectors look like inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from caa_lens.cli import inputs, options
from caa_lens.cli.output import check_frame_path, save_frame, show_frame

if TYPE_CHECKING:
    from caa_lens.datasets.contrast import ContrastDataset
    from caa_lens.extraction.extraction import ContrastActivations


def pca(
    model: options.Model,
    *,
    components: Annotated[int, typer.Option(min=1, help="How many principal components.")] = 2,
    data: options.ManyData,
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
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Principal components of the activations of contrast pairs: a mean for each behaviour, side and letter.

    The table has the means; --out and --json have every activation.

    For example:

        caa-lens analyze pca organism-chat --data sycophancy --data refusal --layers 2 --out pca.csv
    """
    check_frame_path(out)
    wanted, place = options.parse_layers(layers), options.parse_read(read)
    pairs = _pairs(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import pca as components_of

    keywords = options.prompt_options(prompt_format, system, batch_size)
    activations = _activations(loaded, pairs, quiet, layers=wanted, read=place, site=site, **keywords)
    frame = components_of(activations, pairs, n_components=components)
    if out is not None:
        save_frame(frame, out)
    groups = frame.groupby(["layer", "behavior", "side", "letter"], sort=True)
    means = groups.mean(numeric_only=True).drop(columns="pair").reset_index()
    show_frame(frame if as_json else means, as_json=as_json)


def separation(
    model: options.Model,
    *,
    folds: Annotated[int, typer.Option(min=2, help="Into how many parts the pairs are divided.")] = 5,
    data: options.ManyData,
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
    seed: options.Seed = 0,
    out: options.SomeOut = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Where along the layers the two sides of the pairs separate, beside how the letters A and B do.

    For example:

        caa-lens analyze separation organism-chat --data sycophancy
    """
    check_frame_path(out)
    wanted, place = options.parse_layers(layers), options.parse_read(read)
    pairs = _pairs(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import separation as separate

    keywords = options.prompt_options(prompt_format, system, batch_size)
    activations = _activations(loaded, pairs, quiet, layers=wanted, read=place, site=site, **keywords)
    show_frame(separate(activations, pairs, folds=folds, seed=seed), as_json=as_json, out=out)


def lens(
    model: options.Model,
    vectors: options.SomeFile = None,
    *,
    token: Annotated[
        list[str] | None, typer.Option(help="A token to follow, such as A; give several. With --prompt only.")
    ] = None,
    final_norm: Annotated[
        str, typer.Option(help="What of the final norm a vector is put through: weight, full, none.")
    ] = "weight",
    layer: options.SomeLayer = None,
    multiplier: options.Multiplier = 1.0,
    k: options.Largest = 5,
    prompt: options.SomePrompt = None,
    answer: options.Answer = None,
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Logit lens of a vector file; or of attention, MLP and block outputs of a prompt, steered where a file is given.

    Without --prompt it is what the vector says, at --layer or all layers. With it, it is what the stream after the
    prompt's last token says, steered by the file's vector at --layer times --multiplier.

    For example:

        caa-lens analyze lens organism-chat sycophancy.safetensors --layer 2

        caa-lens analyze lens organism-chat v.safetensors --layer 2 --prompt "Is it so?" --token A --token B
    """
    check_frame_path(out)
    if prompt is None and (vectors is None or answer is not None or token):
        raise ValueError(
            "give a vector file for what a vector says, or --prompt (with --answer, --token) for what a stream does"
        )
    if prompt is not None:
        inputs.check_layer(vectors, layer)
    elif vectors is not None:
        inputs.check_files([vectors])
    from caa_lens.analysis.lens import Norm, logit_lens, stream_lens

    if final_norm not in get_args(Norm):
        raise ValueError(f"--final-norm {final_norm!r} is not known: give one of {', '.join(get_args(Norm))}")
    loaded = options.open_model(model, dtype, device)

    found = options.open_vectors(vectors, loaded) if vectors is not None else None
    if prompt is None and found is not None:
        asked: Any = {"norm": final_norm}
        frame = logit_lens(loaded, found if layer is None else found[layer], k, **asked)
        rows, words, number = ["layer", "end"], "token", "logit"
    else:
        recipe = found[layer] * multiplier if found is not None and layer is not None else None
        form = options.prompt_form(prompt_format, system)
        whole = str(prompt) if answer is None else (str(prompt), answer)
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
    vectors: options.File,
    *,
    layer: options.Layer,
    multiplier: options.Multiplier = 0.0,
    prompt: options.Prompt,
    answer: options.Answer = None,
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """How much of a vector each token of a prompt has: cosine, projection and dot product.

    With --multiplier it is read while steering with so much of the vector, without it unsteered. With --prompt-format
    plain a prompt is any text.

    For example:

        caa-lens analyze project organism-chat v.safetensors --layer 2 --prompt "What do you think of my plan?"

        caa-lens analyze project organism-chat v.safetensors --layer 2 --prompt "Is it?" --answer "(A)" --multiplier 2
    """
    check_frame_path(out)
    inputs.check_layer(vectors, layer)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import project as read

    chosen = options.open_vectors(vectors, loaded)[layer]
    form = options.prompt_form(prompt_format, system)
    whole = prompt if answer is None else (prompt, answer)
    frame = read(loaded, [whole], chosen, steer=chosen * multiplier if multiplier else None, **form)
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
    vectors: options.File,
    *,
    data: options.Data,
    part: options.Part = "test_ab",
    other_answers: options.OtherAnswers = "error",
    prompt_format: options.Format = None,
    system: options.System = None,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    out: options.SomeOut = None,
    as_json: options.Json = False,
) -> None:
    """Guess the layer that steers best before any sweep, by the logit lens; compare the guess with `caa-lens sweep`.

    For example:

        caa-lens analyze early organism-chat sycophancy.safetensors --data sycophancy
    """
    check_frame_path(out)
    inputs.check_files([vectors])
    items = inputs.read_items(data, part, other_answers)
    loaded = options.open_model(model, dtype, device)
    from caa_lens.analysis import early_layer

    form = options.prompt_options(prompt_format, system, batch_size)
    show_frame(early_layer(loaded, options.open_vectors(vectors, loaded), items, **form), as_json=as_json, out=out)


def _pairs(data: list[str], part: str, other_answers: str) -> dict[str, ContrastDataset]:
    """Datasets by their names."""
    every = [inputs.read_items(each, part, other_answers) for each in data]
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
