"""Options that several commands share, named after the Python parameters, and how their texts are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from caa_lens.vectors.vectors import SteeringVectors

Model = Annotated[str, typer.Argument(help="A bundled model, a local directory, or a Hugging Face id.")]
Layers = Annotated[str | None, typer.Option(help="Such as 3, 0-7 or 3,5,8-11; all where left out.")]
Multipliers = Annotated[str, typer.Option(help="Comma-separated numbers; 0 is always measured too.")]
Read = Annotated[
    str, typer.Option(help="Where to read: a role of the prompt (see `tokens`), or a position such as -2.")
]
Site = Annotated[
    str, typer.Option(help="Where in each block: resid_pre, attn_out, resid_mid, mlp_out or resid_post (CAA).")
]
Format = Annotated[str | None, typer.Option(help="chat, llama2, base or plain; by the tokenizer where left out.")]
System = Annotated[str | None, typer.Option(help="A system prompt for every prompt.")]
OtherAnswers = Annotated[str, typer.Option(help="What to do with answers other than (A) and (B): error, keep or drop.")]
Part = Annotated[str, typer.Option(help="Which file of a bundled behaviour: generate or test_ab.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Prompts run at once; chosen by length where left out.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda; CUDA where there is one, if left out.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of every random choice.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """``"3,5,8-11"`` as layers; None and ``"all"`` are None.

    Raises:
        ValueError: For anything else.
    """
    if text is None or text == "all":
        return None
    layers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not found:
            raise ValueError(f"layers {text!r} cannot be read: give numbers and ranges, such as 3 or 0-7 or 3,5,8-11")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"layers {text!r}: {part.strip()} runs backwards, write {last}-{first}")
        layers += range(first, last + 1)
    if again := sorted({layer for layer in layers if layers.count(layer) > 1}):
        raise ValueError(f"layers {text!r}: {again[0]} is in it twice, give each layer once")
    return tuple(layers)


def parse_multipliers(text: str) -> tuple[float, ...]:
    """``"-1,0,1.5"`` as numbers.

    Raises:
        ValueError: For anything else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"multipliers {text!r} cannot be read: give comma-separated numbers, such as -1,0,1") from None


def parse_read(text: str) -> str | int:
    """A role's name, or a position where it is a whole number."""
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def open_model(name: str, dtype: str, device: str | None) -> Any:
    """Load a model without the chatter of the libraries below."""
    quiet_libraries()
    from caa_lens.models.loading import load_model

    return load_model(name, dtype=dtype, device=device)


def open_vectors(path: Path, model: Any) -> SteeringVectors:
    """Read a vector file, and say on stderr where its vectors come from another model than this one."""
    from caa_lens.models.loading import model_info
    from caa_lens.vectors.vectors import SteeringVectors

    vectors = SteeringVectors.load(path)
    info = model_info(model)
    if vectors.provenance.model_fingerprint not in (info.fingerprint, "unknown"):
        typer.echo(f"note: {path} was made on {vectors.provenance.model}, and this is {info.name}", err=True)
    return vectors


def quiet_libraries() -> None:
    """Silence loading bars and warnings of transformers, transformer-lens and the hub."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for name in ("transformer_lens", "huggingface_hub", "kaleido", "choreographer"):
        logging.getLogger(name).setLevel(logging.ERROR)
