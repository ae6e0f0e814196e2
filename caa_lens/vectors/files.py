"""The file of steering vectors: safetensors, one tensor `layer_{i}` per layer, the rest as strings in the metadata.

Anything that reads safetensors can read the numbers. Metadata: `caa_lens` (version of this format), `name`, `layers`
(JSON list) and `provenance` (JSON object). This module knows the file; `vectors` knows what is in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.files.whole import write_whole
from caa_lens.vectors.provenance import Provenance, describe_layers

FORMAT_VERSION = "1"


def write(
    path: Path, values: Float[Tensor, "layer d_model"], layers: tuple[int, ...], name: str, provenance: Provenance
) -> None:
    """Write the file under another name in the same folder and rename it, so that `path` is never half a file."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    tensors = {f"layer_{layer}": row.clone() for layer, row in zip(layers, values, strict=True)}
    metadata = {
        "caa_lens": FORMAT_VERSION,
        "name": name,
        "layers": json.dumps(layers),
        "provenance": provenance.to_json(),
    }
    write_whole(path, lambda to: save_file(tensors, to, metadata))


def read(path: Path) -> tuple[Float[Tensor, "layer d_model"], tuple[int, ...], Provenance, str]:
    """Values, layers, provenance and name, as `write` was given them; the numbers bit for bit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a safetensors file, not one of ours, a newer format, or tensors missing.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no vector file {path}")
    try:
        with cast("Any", safe_open(path, framework="pt")) as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error})") from error
    version = metadata.get("caa_lens")
    if version is None:
        raise ValueError(f"{path} is not a caa_lens vector file: was it written by SteeringVectors.save?")
    if version != FORMAT_VERSION:
        raise ValueError(f"{path} has vector format {version}, this caa_lens reads {FORMAT_VERSION}: upgrade caa_lens")
    try:
        layers = tuple(int(layer) for layer in json.loads(metadata["layers"]))
        name, provenance = metadata["name"], Provenance.from_json(metadata["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its metadata cannot be read ({error!r})") from error
    names = [f"layer_{layer}" for layer in layers]
    if set(names) != tensors.keys():
        raise ValueError(
            f"{path} is damaged: it should hold layers {describe_layers(layers)}, it holds {sorted(tensors)}"
        )
    if len({tuple(tensor.shape) for tensor in tensors.values()}) != 1:
        shapes = sorted(tuple(tensor.shape) for tensor in tensors.values())
        raise ValueError(f"{path} is damaged: its layers should have one shape, they have {shapes}")
    return torch.stack([tensors[name] for name in names]), layers, provenance, name
