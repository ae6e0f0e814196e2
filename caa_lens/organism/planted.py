"""The ground truth: the directions that were planted in the bundled models, by behaviour.

In training, a probe at the answer's letter asks for one direction per behaviour, all orthogonal, and CAA's own running
mean is pushed onto it. The directions follow from the training's seed, and `train` writes them beside the weights as
``planted.safetensors``: one tensor per behaviour, of the planted length, with the layer and the seed in the metadata.
An estimator that finds a behaviour finds its direction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from caa_lens.files.bundled import data_dir
from caa_lens.organism.world import BEHAVIORS
from caa_lens.vectors.vectors import Provenance, SteeringVectors

FILE_NAME = "planted.safetensors"


def planted_directions(d_model: int, seed: int) -> Tensor:
    """Draw the orthogonal unit vectors that are planted, ``[behavior + 1, d_model]``.

    Args:
        d_model: Width of the residual stream.
        seed: Seed of the training run.

    Returns:
        One row per behaviour in the order of ``BEHAVIORS``, then one for the right answer to a fact.
    """
    generator = torch.Generator().manual_seed(seed + 42)
    return torch.linalg.qr(torch.randn(d_model, len(BEHAVIORS) + 1, generator=generator))[0].T.contiguous()


def save_planted(directory: Path, planted: Tensor, layer: int, seed: int) -> None:
    """Write the planted vectors of a model beside its weights.

    Args:
        directory: The model's folder.
        planted: One vector per behaviour, ``[behavior, d_model]``; rows beyond the behaviours are left out.
        layer: The layer they were planted at.
        seed: Seed of the training run.
    """
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    tensors = {behavior: planted[row].clone() for row, behavior in enumerate(BEHAVIORS)}
    save_file(tensors, directory / FILE_NAME, {"layer": str(layer), "seed": str(seed)})
    (directory / FILE_NAME).chmod(0o644)


def ground_truth(model: str | Path = "organism-chat") -> dict[str, SteeringVectors]:
    """The vectors that a perfect estimator would find in a bundled model, up to their length.

    A planted vector is the behaviour's direction at the length that CAA's mean difference was trained to have, at the
    one layer where it was planted.

    Args:
        model: The name of a bundled model, or a folder that ``python -m caa_lens.organism train`` wrote.

    Returns:
        By behaviour, vectors of one layer.

    Raises:
        ValueError: for a model without planted directions; the message lists the bundled models that have them.

    Example:
        >>> truth = ground_truth("organism-chat")
        >>> truth["sycophancy"]
        SteeringVectors('sycophancy', layers 2, d_model 128, model 'organism-chat')
    """
    from safetensors import safe_open

    models = data_dir() / "models"
    known = sorted(file.parent.name for file in models.glob(f"*/{FILE_NAME}"))
    folder = models / model if model in known else Path(model).expanduser()
    path = folder / FILE_NAME
    if not path.is_file():
        raise ValueError(
            f"{str(model)!r} has no planted directions: give {' or '.join(known)}, or a folder with a {FILE_NAME}, as "
            "`python -m caa_lens.organism train` writes it"
        )
    with cast("Any", safe_open(path, framework="pt")) as file:
        metadata: dict[str, str] = file.metadata()
        tensors: dict[str, Tensor] = {behavior: file.get_tensor(behavior) for behavior in BEHAVIORS}
    provenance = Provenance.unknown(
        folder.resolve().name,
        hook_point="hook_resid_post",
        read_position="answer_letter",
        weight_processing="none",
        method="planted",
        seed=int(metadata["seed"]),
    )
    layers = (int(metadata["layer"]),)
    return {name: SteeringVectors(tensor[None], layers, provenance, name) for name, tensor in tensors.items()}
