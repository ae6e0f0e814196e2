"""Steering vectors: directions in the residual stream, one per layer, that know where they came from.

`SteeringVectors` is what extraction returns: one row per layer and a `Provenance`. `vectors[13]` is the
`SteeringVector` of layer 13, which is what steering takes. Both are values: arithmetic returns new ones, notes what it
did in `provenance.operations`, and never touches a tensor in place. Tensors are copied at construction, to float32 on
the CPU, and are never written to afterwards. Norms and cosines are accumulated in float64.

>>> import torch
>>> vectors = SteeringVectors(torch.eye(2), layers=(0, 1), provenance=Provenance.unknown("toy"), name="kind")
>>> vectors[1] * 1.5
SteeringVector('kind', layer 1, d_model 2, norm 1.5, model 'toy', x 1.5)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TypeVar, overload

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.files.messages import brief
from caa_lens.vectors import files as vector_files
from caa_lens.vectors.provenance import Provenance as Provenance
from caa_lens.vectors.provenance import describe_layers as describe_layers
from caa_lens.vectors.provenance import seeded_generator

T = TypeVar("T", bound="_Linear")


class _Linear:
    """What both kinds of vector share: adding, scaling, negating. Subclasses say which tensor and layers."""

    __slots__ = ()
    __array_ufunc__ = None  # so that `numpy_scalar * vectors` comes to `__rmul__` instead of being broadcast over rows
    name: str
    provenance: Provenance

    def _tensor(self) -> Tensor:
        raise NotImplementedError

    def _layers(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _changed(self: T, tensor: Tensor, operation: str) -> T:
        raise NotImplementedError

    def require_same_shape(self: T, other: T) -> None:
        """ValueError where the other has other layers or another d_model."""
        mine, theirs = [(describe_layers(v._layers()), v._tensor().shape[-1]) for v in (self, other)]
        if mine != theirs:
            raise ValueError(
                f"{self.name!r} has layer {mine[0]} and d_model {mine[1]}, {other.name!r} has layer {theirs[0]} and "
                f"d_model {theirs[1]}: they must be the same"
            )

    def __eq__(self, other: object) -> bool:
        """Same numbers, layers, name and provenance."""
        if not isinstance(other, _Linear) or type(other) is not type(self):
            return NotImplemented
        mine, theirs = [(v._layers(), v.name, v.provenance) for v in (self, other)]
        return mine == theirs and torch.equal(self._tensor(), other._tensor())

    def __add__(self: T, other: T) -> T:
        """Sum, layer by layer; keeps this one's name."""
        if type(other) is not type(self):
            return NotImplemented
        self.require_same_shape(other)
        return self._changed(self._tensor() + other._tensor(), f"+ {_label(other)}")

    def __sub__(self: T, other: T) -> T:
        """Difference, layer by layer; keeps this one's name."""
        if type(other) is not type(self):
            return NotImplemented
        self.require_same_shape(other)
        return self._changed(self._tensor() - other._tensor(), f"- {_label(other)}")

    def __mul__(self: T, scalar: float | Real) -> T:
        """Every layer times one number."""
        if not isinstance(scalar, Real):
            return NotImplemented
        return self._changed(self._tensor() * float(scalar), f"x {float(scalar):g}")

    def __rmul__(self: T, scalar: float | Real) -> T:
        """Every layer times one number."""
        return self * scalar

    def __truediv__(self: T, scalar: float | Real) -> T:
        """Every layer divided by one number."""
        if not isinstance(scalar, Real):
            return NotImplemented
        return self._changed(self._tensor() / float(scalar), f"/ {float(scalar):g}")

    def __neg__(self: T) -> T:
        """The opposite direction."""
        return self._changed(-self._tensor(), "x -1")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SteeringVector(_Linear):
    """A steering vector: one direction in the residual stream, at one layer.

    Attributes:
        values: float32, CPU, contiguous; a copy of what was given.
        layer: the layer it was read from and is added to.
        provenance: where it came from, and what was done to it since.
        name: usually the behaviour.

    Raises:
        ValueError: a tensor that is not 1-D or not finite, or a negative layer.
    """

    values: Float[Tensor, " d_model"]
    layer: int
    provenance: Provenance
    name: str

    def __post_init__(self) -> None:
        """Copy the tensor and check it."""
        object.__setattr__(self, "values", _frozen_copy(self.values))
        if self.values.ndim != 1 or not len(self.values):
            raise ValueError(f"vector {self.name!r} must have shape [d_model], got {list(self.values.shape)}")
        if self.layer < 0:
            raise ValueError(f"vector {self.name!r}: layer must be 0 or more, got {self.layer}")
        if not bool(self.values.isfinite().all()):
            raise ValueError(f"{self!r} is not finite")

    def __repr__(self) -> str:
        """Name, layer, size, norm, model and operations; not the numbers."""
        facts = f"layer {self.layer}, d_model {self.d_model}, norm {self.norm():.4g}"
        return f"SteeringVector({self.name!r}, {facts}, {_origin(self)})"

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.values.shape[0]

    @property
    def site(self) -> str:
        """Where in the block it was read, and is used where nothing else is said; see `Provenance.site`."""
        return self.provenance.site

    def norm(self) -> float:
        """Euclidean length."""
        return float(_norms(self.values))

    def unit(self) -> SteeringVector:
        """The same direction with norm 1. A zero vector has none: ValueError."""
        if self.norm() == 0:
            raise ValueError(f"vector {self.name!r} is zero at layer {self.layer}: it has no direction")
        return self._changed(self.values.double() / self.norm(), "unit norm")

    def as_set(self) -> SteeringVectors:
        """The same vector as a set with one layer, for what takes sets."""
        return SteeringVectors(self.values[None], (self.layer,), self.provenance, self.name)

    def at_layer(self, layer: int) -> SteeringVector:
        """The same numbers, to be used at another layer (transfer between layers, CAA section 8)."""
        moved = self.provenance.then(f"layer {self.layer} -> {layer}")
        return replace(self, layer=layer, provenance=moved)

    def project(self, activations: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Dot product of each activation with the unit vector, in units of the activations.

        Computed in float64 where the device has it, returned in float32 on the activations' device.

        Raises:
            ValueError: the last axis is not d_model, or this vector is zero.
        """
        wide = _wide(self._checked(activations))
        return (wide @ self.unit().values.to(wide)).float()

    def cosine(self, activations: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Cosine of each activation with this vector, -1 to 1; NaN where either is zero.

        Raises:
            ValueError: the last axis is not d_model.
        """
        wide = _wide(self._checked(activations))
        return (wide @ self.values.to(wide) / (_norms(wide) * self.norm())).float()

    def _checked(self, activations: Tensor) -> Tensor:
        if activations.shape[-1:] != self.values.shape:
            shape = list(activations.shape)
            raise ValueError(f"activations have shape {shape}; the last axis must be d_model {self.d_model}")
        return activations

    def _tensor(self) -> Tensor:
        return self.values

    def _layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def _changed(self, tensor: Tensor, operation: str) -> SteeringVector:
        return replace(self, values=tensor, provenance=self.provenance.then(operation))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SteeringVectors(_Linear):
    """Steering vectors, one direction per layer; `vectors[13]` is the `SteeringVector` of layer 13.

    Attributes:
        values: float32, CPU, contiguous, one row per layer; a copy of what was given.
        layers: the layer of each row, strictly increasing.
        provenance: where they came from, and what was done to them since.
        name: usually the behaviour.

    Raises:
        ValueError: a tensor that is not 2-D or not finite, or layers that do not fit it.
    """

    values: Float[Tensor, "layer d_model"]
    layers: tuple[int, ...]
    provenance: Provenance
    name: str

    def __post_init__(self) -> None:
        """Copy the tensor and check it."""
        object.__setattr__(self, "values", _frozen_copy(self.values))
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"vectors {self.name!r} must have shape [layer, d_model], got {list(self.values.shape)}")
        if len(self.layers) != len(self.values):
            raise ValueError(f"vectors {self.name!r}: {len(self.values)} rows but {len(self.layers)} layers")
        if self.layers[0] < 0 or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(f"vectors {self.name!r}: layers must be 0 or more and increasing, got {self.layers}")
        broken = [layer for layer, row in zip(self.layers, self.values, strict=True) if not bool(row.isfinite().all())]
        if broken:
            raise ValueError(f"{self!r} is not finite at layer {describe_layers(broken)}")

    def __getitem__(self, layer: int) -> SteeringVector:
        """The vector of a layer, by the layer's number. A layer that is not here is a ValueError."""
        if layer not in self.layers:
            raise ValueError(f"layer {brief(layer)} is not in these vectors (layers {describe_layers(self.layers)})")
        return SteeringVector(self.values[self.layers.index(layer)], layer, self.provenance, self.name)

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[SteeringVector]:
        """One `SteeringVector` per layer, lowest first."""
        return (self[layer] for layer in self.layers)

    def __repr__(self) -> str:
        """Name, layers, size, model and operations; not the numbers."""
        facts = f"layers {describe_layers(self.layers)}, d_model {self.d_model}"
        return f"SteeringVectors({self.name!r}, {facts}, {_origin(self)})"

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.values.shape[1]

    def norms(self) -> Float[Tensor, " layer"]:
        """Euclidean length per layer, float32."""
        return _norms(self.values).float()

    def unit(self) -> SteeringVectors:
        """The same directions, each with norm 1. A zero vector has none: ValueError."""
        return _rescaled(self, torch.ones(len(self), dtype=torch.float64), "unit norm")

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: one tensor `layer_{i}` per layer, the provenance as JSON in the metadata.

        Written under another name in the same folder and renamed, so that `path` is never half a file.
        """
        vector_files.write(Path(path), self.values, self.layers, self.name, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> SteeringVectors:
        """Read what `save` wrote; the numbers come back bit for bit.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a safetensors file, not one of ours, a newer format, or tensors missing.
        """
        return cls(*vector_files.read(Path(path)))

    def _tensor(self) -> Tensor:
        return self.values

    def _layers(self) -> tuple[int, ...]:
        return self.layers

    def _changed(self, tensor: Tensor, operation: str) -> SteeringVectors:
        return replace(self, values=tensor, provenance=self.provenance.then(operation))


Vectors = SteeringVector | SteeringVectors
"""One layer's vector, or a set of layers."""


@overload
def as_vectors(vectors: Vectors) -> SteeringVectors: ...
@overload
def as_vectors(vectors: Vectors | Mapping[str, Vectors]) -> SteeringVectors | dict[str, SteeringVectors]: ...
def as_vectors(vectors: Vectors | Mapping[str, Vectors]) -> SteeringVectors | dict[str, SteeringVectors]:
    """A single vector as a set of one layer, and a set as it is; of a mapping, each of them under its name.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(vectors, SteeringVector):
        return vectors.as_set()
    if isinstance(vectors, SteeringVectors):
        return vectors
    if isinstance(vectors, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        return {name: as_vectors(each) for name, each in vectors.items()}
    raise TypeError(
        f"{type(vectors).__name__} {brief(vectors)} is no vector: give a SteeringVector, SteeringVectors, or a "
        "mapping of names to these"
    )


def mean_norm_across(vectors: Mapping[str, Vectors]) -> dict[str, SteeringVectors]:
    """Per layer, rescale every behaviour's vector to the mean norm over the behaviours at that layer (CAA, section 3).

    Makes one multiplier mean the same size for every behaviour. Layers keep their different norms.

    Raises:
        ValueError: no vectors, vectors of different layers or d_model, or a zero vector.
    """
    if not vectors:
        raise ValueError("mean_norm_across needs at least one behaviour's vectors, got none")
    sets = {behavior: as_vectors(each) for behavior, each in vectors.items()}
    first = next(iter(sets.values()))
    for other in sets.values():
        first.require_same_shape(other)
    mean = torch.stack([_norms(each.values) for each in sets.values()]).mean(0)
    operation = f"mean norm over {', '.join(sorted(vectors))}"
    return {behavior: _rescaled(each, mean, operation) for behavior, each in sets.items()}


def random_like(vectors: Vectors, n: int, seed: int) -> list[SteeringVectors]:
    """Random directions with the norms of `vectors`, per layer: what any vector of that size would do.

    Uniform on the sphere, drawn for each name, layer and index apart: every behaviour has nulls of its own.

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"the number of random vectors must be 0 or more, got {n}")
    vectors = as_vectors(vectors)
    made = replace(vectors.provenance, method="random", seed=seed, operations=(f"norms of {_label(vectors)}",))

    def draw(index: int) -> SteeringVectors:
        noise = torch.stack([_noise(f"{seed}/{vectors.name}/{layer}/{index}", vectors) for layer in vectors.layers])
        noise *= (_norms(vectors.values) / _norms(noise))[:, None]
        return SteeringVectors(noise, vectors.layers, made, f"random-{index}")

    return [draw(index) for index in range(n)]


def _noise(key: str, like: SteeringVectors) -> Float[Tensor, " d_model"]:
    return torch.randn(like.d_model, generator=seeded_generator(key), dtype=torch.float64)


def _frozen_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)


def _norms(tensor: Tensor) -> Tensor:
    return _wide(tensor).square().sum(-1).sqrt()


def _wide(tensor: Tensor) -> Tensor:  # float64 where the device has it
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def _rescaled(vectors: SteeringVectors, norms: Tensor, operation: str) -> SteeringVectors:
    old = _norms(vectors.values)
    zero = [layer for layer, norm in zip(vectors.layers, old, strict=True) if not norm]
    if zero:
        raise ValueError(f"vectors {vectors.name!r} are zero at layer {describe_layers(zero)}: they have no direction")
    scaled = vectors.values.double() * (norms / old)[:, None]
    return replace(vectors, values=scaled, provenance=vectors.provenance.then(operation))


def _label(vector: _Linear) -> str:
    operations = vector.provenance.operations
    return f"({' '.join((vector.name, *operations))})" if operations else vector.name


def _origin(vector: _Linear) -> str:
    return ", ".join((f"model {vector.provenance.model!r}", *vector.provenance.operations))
