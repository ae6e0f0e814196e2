"""Loading a model, and what is worth knowing of one before it is steered.

Weights are loaded unprocessed, so that ``blocks.{layer}.hook_resid_post`` is Hugging Face's residual stream and a
vector made here works unchanged elsewhere. Centred weights, the default of ``HookedTransformer.from_pretrained``,
change that stream on LayerNorm models by more than ten per cent: `ModelInfo.weight_processing` says so, and goes into
every vector's provenance. A model of the user's own, of either class, serves wherever one from `load_model` does.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from caa_lens.files.bundled import data_dir
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, HookedModel, adapt

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a provenance records of a model.

    Attributes:
        name: The hub id, or the folder's name for a local directory.
        fingerprint: 16 hexadecimal digits over the shape and 64 values of every weight: models that were trained apart
            differ here, and so does one model in another dtype or class.
        class_name: ``TransformerBridge`` or ``HookedTransformer``.
        n_layers: Number of blocks.
        d_model: Width of the residual stream.
        d_vocab: Size of the vocabulary.
        n_ctx: Longest sequence in tokens.
        dtype: Such as ``float32``.
        device: Where token ids have to be.
        weight_processing: ``none``, ``folded layer norm``, ``centered writing weights``, or both joined by ``+``.
    """

    name: str
    fingerprint: str
    class_name: str
    n_layers: int
    d_model: int
    d_vocab: int
    n_ctx: int
    dtype: str
    device: str
    weight_processing: str


def weight_processing(adapter: Adapter) -> str:
    """Find out from the weights and the config whether a model was processed after loading.

    Centring the writing weights leaves an embedding whose every row has mean zero; folding the layer norms shows in the
    config (``LNPre``, ``RMSPre``). Only the first changes the residual stream.
    """
    found: list[str] = []
    folded = str(getattr(adapter.cfg, "normalization_type", "") or "").endswith("Pre")
    if folded or bool(getattr(adapter.cfg, "layer_norm_folding", False)):
        found.append("folded layer norm")
    rows: Tensor = cast(Any, adapter.model).W_E[:64].detach().double()
    tolerance = max(1e-5, torch.finfo(adapter.dtype).eps)  # what rounding leaves of a mean of zero
    if bool((rows.mean(dim=-1).abs() < tolerance * (rows.std(dim=-1) + 1e-30)).all()):
        found.append("centered writing weights")
    return " + ".join(found) or "none"


def model_info(model: HookedModel) -> ModelInfo:
    """Describe a model for a provenance, without running it."""
    adapter = adapt(model)
    digest = hashlib.sha256()
    for name, parameter in sorted(adapter.named_parameters()):
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return ModelInfo(
        name=adapter.name,
        fingerprint=digest.hexdigest()[:16],
        class_name=type(adapter.model).__name__,
        n_layers=adapter.n_layers,
        d_model=adapter.d_model,
        d_vocab=int(adapter.cfg.d_vocab),
        n_ctx=adapter.n_ctx,
        dtype=str(adapter.dtype).removeprefix("torch."),
        device=str(adapter.device),
        weight_processing=weight_processing(adapter),
    )


def check_layers(model: HookedModel | Adapter, layers: Iterable[int] | None) -> tuple[int, ...]:
    """Return the layers asked for, in ascending order; all of them for None.

    Raises:
        ValueError: For a layer that the model does not have, a repeated one, or an empty list.
    """
    adapter = adapt(model)
    if layers is None:
        return tuple(range(adapter.n_layers))
    try:
        asked = sorted(operator.index(layer) for layer in layers)
    except TypeError:
        raise ValueError(
            f"layers {brief(layers)}: give whole numbers in a list, such as [2, 3], or None for all"
        ) from None
    for layer in asked:
        if not 0 <= layer < adapter.n_layers:
            raise ValueError(f"layer {layer} is out of range for {adapter.name} (layers 0-{adapter.n_layers - 1})")
    if not asked or len(set(asked)) < len(asked):
        raise ValueError(f"layers {asked}: give at least one layer, each once, or None for all of them")
    return tuple(asked)


def bundled_models() -> tuple[str, ...]:
    """The names of the models that come with the package."""
    return tuple(sorted(folder.parent.name for folder in (data_dir() / "models").glob("*/config.json")))


def load_model(
    name_or_path: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    device_map: str | dict[str, str | int] | None = None,
) -> HookedModel:
    """Load an unprocessed TransformerBridge, in evaluation mode.

    Args:
        name_or_path: A bundled name (`bundled_models`), a Hugging Face directory, or a hub id.
        dtype: Of the weights: ``float32``, ``float16``, ``bfloat16``, or the torch dtype itself.
        device: Such as ``cpu`` or ``cuda``; None chooses CUDA where there is one. Not together with ``device_map``.
        device_map: Hugging Face's device map, for a model over several devices.

    Raises:
        ValueError: For an unknown dtype, an unknown name, or a directory without a tokenizer, or
            a device that is not there.
        FileNotFoundError: For a path that is not a Hugging Face directory.
    """
    if not isinstance(name_or_path, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"the model is {brief(name_or_path)}: give one name or path, such as {_names()}")
    if not isinstance(dtype, torch.dtype) and dtype not in DTYPES:
        raise ValueError(f"dtype {brief(dtype)} is not known: give one of {', '.join(DTYPES)}")
    given = str(name_or_path)
    bundled = given in bundled_models()
    folder = data_dir() / "models" / given if bundled else Path(given).expanduser()
    local = bundled or folder.is_dir()
    if local:
        _check_folder(folder)
    elif isinstance(name_or_path, Path) or given.startswith((".", "/", "~")) or given.count("/") > 1:
        raise FileNotFoundError(
            f"there is no folder {given}: give a Hugging Face directory, a hub id, or one of {_names()}"
        )
    from safetensors import SafetensorError
    from transformer_lens.model_bridge import TransformerBridge

    try:
        model = TransformerBridge.boot_transformers(
            str(folder) if local else given,
            dtype=DTYPES[dtype] if isinstance(dtype, str) else dtype,
            device=device,
            device_map=device_map,
        )
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        if local:
            raise ValueError(f"cannot load the model in {folder}: {reason}") from error
        raise ValueError(
            f"cannot load {brief(given)}: it is none of the bundled models ({_names()}), no local directory, and "
            f"Hugging Face could not give it ({reason})"
        ) from error
    except (RuntimeError, AssertionError) as error:  # torch's, for a device that is not there
        reason = str(error).strip().splitlines()[0]
        where = f" on device {str(device)!r}" if device is not None else ""
        raise ValueError(f"cannot load {brief(given)}{where}: {reason}") from error
    if getattr(model, "tokenizer", None) is None:
        raise ValueError(f"{given} has no tokenizer: save one into the directory with tokenizer.save_pretrained(...)")
    return cast(HookedModel, model.eval())


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: give a directory written by model.save_pretrained(...)")
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab.*")):
        raise ValueError(f"{folder} has no tokenizer: save one into the directory with tokenizer.save_pretrained(...)")


def _names() -> str:
    return ", ".join(bundled_models()) or "no bundled models"
