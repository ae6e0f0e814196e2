"""A matrix that is added to the tokens of a prompt: ActAdd's steering vector, as a value.

Where CAA has one direction, added from the last prompt token on, ActAdd (arXiv 2308.10248) has one for each position of
a pair of short prompts, added to as many positions of the prompt that is to be steered, and to none of the new tokens.
`caa_lens.steering.addition` makes these.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.files.whole import write_whole
from caa_lens.vectors.provenance import Provenance

At = Literal["front", "middle", "back"]
FORMAT_VERSION = "1"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PromptAddition:
    """What is added to the ``hook_resid_pre`` of one layer, position by position.

    Attributes:
        values: float32, CPU; a copy of what was given. What is added is the coefficient times this.
        layer: ActAdd's: it is added to what enters this block, which is what leaves the block before.
        coefficient: Times the values.
        at: Where in the prompt: its first tokens (``front``, the paper's), its last ones (``back``), or between.
        tokens: The padded prompts, token by token: the positive one, and the negative one where there is one.
        provenance: Where it came from.
        name: Such as ``'Love' - 'Hate'``.

    Raises:
        ValueError: For a tensor that is not 2-D or not finite, a negative layer, a coefficient that is no finite
            number, or an unknown place.
    """

    values: Float[Tensor, "pos d_model"]
    layer: int
    coefficient: float
    at: At
    tokens: tuple[tuple[str, ...], ...]
    provenance: Provenance
    name: str

    def __post_init__(self) -> None:
        """Copy the tensor and check the rest."""
        object.__setattr__(self, "values", self.values.detach().to("cpu", torch.float32).clone())
        object.__setattr__(self, "coefficient", float(self.coefficient))
        if self.values.ndim != 2 or 0 in self.values.shape or not bool(self.values.isfinite().all()):
            raise ValueError(
                f"{self.name}: values are finite and of shape [pos, d_model], got {list(self.values.shape)}"
            )
        if self.layer < 0 or not math.isfinite(self.coefficient):
            raise ValueError(
                f"{self.name}: layer {self.layer}, coefficient {self.coefficient}: the layer is 0 or more, the "
                "coefficient a finite number"
            )
        if self.at not in get_args(At):
            raise ValueError(f"{self.name}: at {self.at!r} is not known: give one of {', '.join(get_args(At))}")

    def __repr__(self) -> str:
        """Name, layer, coefficient, length and place; not the numbers."""
        facts = f"layer {self.layer}, x {self.coefficient:g}, {len(self)} positions at the {self.at}"
        return f"PromptAddition({self.name}, {facts}, model {self.provenance.model!r})"

    def __len__(self) -> int:
        """Number of positions."""
        return len(self.values)

    def __mul__(self, scalar: float | Real) -> PromptAddition:
        """The coefficient times a number."""
        if not isinstance(scalar, Real):
            return NotImplemented
        return replace(self, coefficient=self.coefficient * float(scalar))

    def __rmul__(self, scalar: float | Real) -> PromptAddition:
        """The coefficient times a number."""
        return self * scalar

    def __neg__(self) -> PromptAddition:
        """The opposite: what `addition` makes of the prompts exchanged."""
        return self * -1.0

    @property
    def delta(self) -> Float[Tensor, "pos d_model"]:
        """What is added: the coefficient times the values."""
        return self.values * self.coefficient

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.values.shape[1]

    def norms(self) -> Float[Tensor, " pos"]:
        """Euclidean length of what is added at each position."""
        return self.delta.double().norm(dim=1).float()

    def first_position(self, n_tokens: int, prompt: str = "this prompt") -> int:
        """The first position of a prompt of so many tokens that is added to.

        Raises:
            ValueError: For a prompt with fewer tokens than there are values, with both lengths.
        """
        if n_tokens < len(self):
            raise ValueError(
                f"{prompt} has {n_tokens} tokens and {self.name} has {len(self)} positions: give a prompt of at least "
                f"{len(self)} tokens, or make the addition from shorter prompts"
            )
        room = n_tokens - len(self)
        return {"front": 0, "middle": room // 2, "back": room}[self.at]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the tensor `values`, everything else as strings in the metadata."""
        from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

        facts = {"layer": self.layer, "coefficient": self.coefficient, "at": self.at, "name": self.name}
        metadata = {
            "caa_lens_prompt_addition": FORMAT_VERSION,
            "facts": json.dumps(facts | {"tokens": self.tokens}),
            "provenance": self.provenance.to_json(),
        }
        write_whole(Path(path), lambda to: save_file({"values": self.values}, to, metadata))

    @classmethod
    def load(cls, path: str | Path) -> PromptAddition:
        """Read what `save` wrote; the numbers come back bit for bit.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a safetensors file, not one of these, or a damaged one.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            with cast("Any", safe_open(path, framework="pt")) as file:
                metadata: dict[str, str] = file.metadata() or {}
                values = file.get_tensor("values") if "values" in file.keys() else None
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({error})") from error
        version = metadata.get("caa_lens_prompt_addition")
        if version is None or values is None:
            raise ValueError(f"{path} is no prompt addition: was it written by PromptAddition.save?")
        if version != FORMAT_VERSION:
            raise ValueError(f"{path} has format {version}, this caa_lens reads {FORMAT_VERSION}: upgrade caa_lens")
        try:
            facts: dict[str, Any] = json.loads(metadata["facts"])
            tokens = tuple(tuple(map(str, each)) for each in facts.pop("tokens"))
            return cls(values=values, tokens=tokens, provenance=Provenance.from_json(metadata["provenance"]), **facts)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: its metadata cannot be read ({error!r})") from error
