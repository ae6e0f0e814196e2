"""Where a vector came from, in explicit fields that are saved with it.

A steering vector is a few thousand numbers; without the model, hook point, read position and prompt format they were
read with they mean nothing. `Provenance` keeps those facts next to the numbers, through arithmetic and on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypedDict, Unpack, cast

import torch


class KnownFields(TypedDict, total=False):
    """The fields of a `Provenance` but the model's name, any of which may not be known."""

    model_fingerprint: str
    hook_point: str
    read_position: str
    prompt_format: str
    system_prompt: str | None
    weight_processing: str
    dtype: str
    dataset: str
    dataset_hash: str
    n_pairs: int
    method: str
    seed: int | None
    versions: dict[str, str]
    operations: tuple[str, ...]
    dataset_origin: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a vector was made. Strings are `"unknown"` where nobody knows (see `Provenance.unknown`).

    Attributes:
        model: name of the model, e.g. `"Llama-2-7b-chat-hf"`.
        model_fingerprint: hash that tells two models of the same name apart.
        hook_point: site the activations were read from, without its layer: `"hook_resid_post"`.
        read_position: role or index of the token that was read, e.g. `"answer_letter"`.
        prompt_format: how pairs became text: `"chat"`, `"llama2"`, `"base"`, `"plain"`.
        system_prompt: the system prompt, or None.
        weight_processing: `"none"` for weights as published; anything else (`"centered"`, ...) changes the residual
            stream, and such vectors are not exported to other tools.
        dtype: dtype the model ran in.
        dataset: name of the contrast pairs.
        dataset_hash: their `ContrastDataset.hash`.
        n_pairs: number of pairs averaged (0: unknown, or not made from pairs).
        method: e.g. `"mean difference"`, `"random"`.
        seed: seed of every random choice made, or None where there was none.
        versions: package name -> version.
        operations: arithmetic done since, oldest first, e.g. `("x 1.5", "+ refusal")`.
        dataset_origin: where the pairs came from: the file, and the split with its seed.
    """

    model: str
    model_fingerprint: str
    hook_point: str
    read_position: str
    prompt_format: str
    system_prompt: str | None
    weight_processing: str
    dtype: str
    dataset: str
    dataset_hash: str
    n_pairs: int
    method: str
    seed: int | None
    versions: dict[str, str]
    operations: tuple[str, ...] = ()
    dataset_origin: str = "unknown"

    @classmethod
    def unknown(cls, model: str = "unknown", **known: Unpack[KnownFields]) -> Provenance:
        """A provenance that admits what it does not know, for vectors from elsewhere; `known` sets fields.

        >>> Provenance.unknown("gpt2", method="mean difference").hook_point
        'unknown'
        """
        blank = cls(
            model=model,
            model_fingerprint="unknown",
            hook_point="unknown",
            read_position="unknown",
            prompt_format="unknown",
            system_prompt=None,
            weight_processing="unknown",
            dtype="unknown",
            dataset="unknown",
            dataset_hash="unknown",
            n_pairs=0,
            method="unknown",
            seed=None,
            versions={},
        )
        return replace(blank, **known)

    @property
    def site(self) -> str:
        """The hook point without its prefix, such as ``"resid_post"``, which is also where it is unknown."""
        return "resid_post" if self.hook_point == "unknown" else self.hook_point.removeprefix("hook_")

    def then(self, operation: str) -> Provenance:
        """The same, with one more operation at the end."""
        return replace(self, operations=(*self.operations, operation))

    def to_json(self) -> str:
        """One JSON object, its keys the field names."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The reverse of `to_json`.

        Raises:
            ValueError: `text` is not a JSON object with exactly these fields.
        """
        try:
            data: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"provenance is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ValueError(f"provenance must be a JSON object, got {type(data).__name__}")
        values = cast("dict[str, Any]", data)
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            missing, extra = sorted(names - values.keys()), sorted(values.keys() - names)
            raise ValueError(f"provenance has the wrong fields: missing {missing}, not known {extra}")
        operations = tuple(values.pop("operations"))
        return cls(**values, operations=operations)


def describe_layers(layers: Sequence[int]) -> str:
    """Layers as people write them: `"0-7"`, `"3"`, `"0-3, 5"`.

    >>> describe_layers((0, 1, 2, 3, 5))
    '0-3, 5'
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def seeded_generator(key: str) -> torch.Generator:
    """Random numbers of their own for every key, which holds the seed; the same on every machine."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))
