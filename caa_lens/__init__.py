"""caa_lens: a TransformerLens workbench for Contrastive Activation Addition.

A plain TransformerLens model goes in; a frozen value or a DataFrame comes out; `steer` is the only thing that changes
what a model says. See the README for a six-line tour. Names are imported when they are first used, so that importing
the package, or asking the command for its help, waits for neither torch nor TransformerLens.

Each folder is a unit whose docstring says what lives there; `dir(caa_lens)` shows the names to use and nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caa_lens import analysis as analysis
    from caa_lens import datasets as datasets
    from caa_lens import evaluation as evaluation
    from caa_lens import explorer as explorer
    from caa_lens import extraction as extraction
    from caa_lens import interop as interop
    from caa_lens import interventions as interventions
    from caa_lens import judging as judging
    from caa_lens import models as models
    from caa_lens import organism as organism
    from caa_lens import prompts as prompts
    from caa_lens import protocols as protocols
    from caa_lens import steering as steering
    from caa_lens import studies as studies
    from caa_lens import sweeps as sweeps
    from caa_lens import vectors as vectors
    from caa_lens import viz as viz
    from caa_lens.datasets import ContrastDataset as ContrastDataset
    from caa_lens.datasets import ContrastPair as ContrastPair
    from caa_lens.datasets import load_contrast_pairs as load_contrast_pairs
    from caa_lens.datasets import load_questions as load_questions
    from caa_lens.evaluation.choices import choose_layer as choose_layer
    from caa_lens.evaluation.choices import summarize as summarize
    from caa_lens.extraction import extract_activations as extract_activations
    from caa_lens.extraction import extract_vectors as extract_vectors
    from caa_lens.interventions import Intervention as Intervention
    from caa_lens.models import load_model as load_model
    from caa_lens.prompts import describe_tokens as describe_tokens
    from caa_lens.protocols import assess as assess
    from caa_lens.steering import generate as generate
    from caa_lens.steering import steer as steer
    from caa_lens.studies import run_study as run_study
    from caa_lens.sweeps import sweep as sweep
    from caa_lens.vectors import SteeringVector as SteeringVector
    from caa_lens.vectors import SteeringVectors as SteeringVectors

__version__ = "0.1.0"

__all__ = [
    "ContrastDataset",
    "ContrastPair",
    "Intervention",
    "SteeringVector",
    "SteeringVectors",
    "assess",
    "choose_layer",
    "describe_tokens",
    "extract_activations",
    "extract_vectors",
    "generate",
    "load_contrast_pairs",
    "load_model",
    "load_questions",
    "run_study",
    "steer",
    "summarize",
    "sweep",
]

_HOME = {
    "ContrastDataset": "datasets",
    "ContrastPair": "datasets",
    "Intervention": "interventions",
    "SteeringVector": "vectors",
    "SteeringVectors": "vectors",
    "assess": "protocols",
    "choose_layer": "evaluation.choices",
    "describe_tokens": "prompts",
    "extract_activations": "extraction",
    "extract_vectors": "extraction",
    "generate": "steering",
    "load_contrast_pairs": "datasets",
    "load_model": "models",
    "load_questions": "datasets",
    "run_study": "studies",
    "steer": "steering",
    "summarize": "evaluation.choices",
    "sweep": "sweeps",
}
_MODULES = (
    "analysis",
    "datasets",
    "evaluation",
    "explorer",
    "extraction",
    "interop",
    "interventions",
    "judging",
    "models",
    "organism",
    "prompts",
    "protocols",
    "steering",
    "studies",
    "sweeps",
    "vectors",
    "viz",
)


def __getattr__(name: str) -> Any:
    """Import a public name, or one of the public modules, at its first use."""
    if name in _MODULES:
        return import_module(f"caa_lens.{name}")
    if name not in _HOME:
        known = ", ".join([*__all__, *_MODULES])
        raise AttributeError(f"module 'caa_lens' has no attribute {name!r}; it has {known}")
    value = globals()[name] = getattr(import_module(f"caa_lens.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])
