"""The vectors of the original CAA repository (nrimsky/CAA), in and out.

One file per layer: `<folder>/<behavior>/vec_layer_{layer}_{model}.pt`, a bare float tensor `[d_model]` that is added to
the output of block `layer`, which TransformerLens calls `blocks.{layer}.hook_resid_post`. `model` is the part of the
Hugging Face name after the last slash. The numbers are the same on both sides.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from caa_lens.files.whole import write_whole
from caa_lens.vectors.vectors import Provenance, SteeringVectors, Vectors, as_vectors, describe_layers

_FILE = re.compile(r"vec_layer_(\d+)_(.+)\.pt")


def load_caa_vectors(folder: str | Path, behavior: str, model_name: str) -> SteeringVectors:
    """Read the vectors of one behaviour and model, all layers that are there, lowest first.

    Layers may be missing; `provenance.operations` then says which. Only tensors are unpickled (`weights_only`).

    Args:
        folder: what CAA calls `vectors/`.
        behavior: a folder in it.
        model_name: e.g. `"Llama-2-7b-chat-hf"`; anything up to the last slash is ignored.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such behaviour or model (the error lists those there are), or a file that is not a vector of
            the same length as the others.
    """
    folder, model = Path(folder), model_name.rsplit("/", 1)[-1]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not (folder / behavior).is_dir():
        known = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise ValueError(f"{folder} has no behaviour {behavior!r}; it has {', '.join(known) or 'none'}")
    found = [(path, match) for path in (folder / behavior).iterdir() if (match := _FILE.fullmatch(path.name))]
    files = {int(match[1]): path for path, match in found if match[2] == model}
    if not files:
        models = sorted({match[2] for _, match in found})
        raise ValueError(
            f"{folder / behavior} has no vectors of {model!r}; it has those of {', '.join(models) or 'none'}"
        )
    layers = tuple(sorted(files))
    tensors = [_load_vector(files[layer]) for layer in layers]
    for layer, tensor in zip(layers, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            raise ValueError(f"{files[layer]} has d_model {len(tensor)}, layer {layers[0]} has {len(tensors[0])}")
    missing = sorted(set(range(layers[-1])) - set(layers))
    provenance = Provenance.unknown(
        model,
        hook_point="hook_resid_post",
        read_position="answer_letter",
        dtype=str(tensors[0].dtype).removeprefix("torch."),
        dataset=behavior,
        method="mean difference",
        operations=(f"without layer {describe_layers(missing)}",) if missing else (),
    )
    return SteeringVectors(torch.stack([tensor.float() for tensor in tensors]), layers, provenance, behavior)


def save_caa_vectors(vectors: Vectors, folder: str | Path, behavior: str, model_name: str) -> None:
    """Write one file per layer, where the CAA code looks for them; existing ones are replaced.

    Raises:
        ValueError: the vectors come from a weight-processed model, whose residual stream is not Hugging Face's, or from
            another site than a block's output, where the CAA code adds them.
    """
    vectors = as_vectors(vectors)
    site = vectors.provenance.hook_point
    if site not in ("hook_resid_post", "unknown", ""):
        raise ValueError(
            f"vectors {vectors.name!r} were read at {site}, and the CAA code adds vectors to the block's output: "
            "extract them again with site='resid_post'"
        )
    processing = vectors.provenance.weight_processing
    if processing not in ("none", "unknown", "folded layer norm", ""):
        raise ValueError(
            f"vectors {vectors.name!r} were read from a model with weight processing {processing!r}: its residual "
            "stream is not Hugging Face's, and they would be wrong elsewhere; extract them again from an unprocessed "
            "model (caa_lens.load_model)"
        )
    for vector in vectors:
        path = Path(folder) / behavior / f"vec_layer_{vector.layer}_{model_name.rsplit('/', 1)[-1]}.pt"
        write_whole(path, partial(torch.save, vector.values))


def _load_vector(path: Path) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on pickle protocols; what matters is what comes out
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a file that is no torch file fails in a dozen ways, whatever its bytes happen to mean
        raise ValueError(f"{path} is not a file of tensors only ({type(error).__name__})") from error
    if not isinstance(loaded, Tensor) or loaded.ndim != 1:
        what = f"shape {list(loaded.shape)}" if isinstance(loaded, Tensor) else type(loaded).__name__
        raise ValueError(f"{path} must hold one tensor of shape [d_model], got {what}")
    return loaded
