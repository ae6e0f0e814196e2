"""What a provenance takes from the model that a vector is made on, and from the packages that make it."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Unpack

from caa_lens.models.adapters import HookedModel
from caa_lens.models.loading import model_info
from caa_lens.vectors.provenance import KnownFields, Provenance


def provenance_on(model: HookedModel, **known: Unpack[KnownFields]) -> Provenance:
    """A provenance with the model's name, fingerprint, weight processing and dtype; ``known`` sets the other fields."""
    info = model_info(model)
    of_model: KnownFields = {
        "model_fingerprint": info.fingerprint,
        "weight_processing": info.weight_processing,
        "dtype": info.dtype,
        "versions": package_versions(),
    }
    return replace(Provenance.unknown(info.name, **of_model), **known)


def package_versions() -> dict[str, str]:
    """The versions that a provenance records."""
    found: dict[str, str] = {}
    for package in ("caa_lens", "torch", "transformers", "transformer-lens"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[package] = "unknown"
    return found
