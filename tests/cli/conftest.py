"""What tests of commands start from: a file of pairs, a tiny model's folder, and the vectors of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from caa_lens.datasets.contrast import ContrastDataset, load_contrast_pairs
from caa_lens.extraction.extraction import extract_vectors
from caa_lens.models.loading import load_model


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "kind.json"
    rows = [(f"Item {i}?\n (A) yes\n (B) no", *(("(A)", "(B)") if i % 2 else ("(B)", "(A)"))) for i in range(10)]
    ContrastDataset.from_pairs(rows).to_json(file)
    return file


@pytest.fixture(scope="session")
def model(tiny_path: Callable[[str], Path]) -> Path:
    return tiny_path("llama")


@pytest.fixture(scope="session")
def vectors(pairs: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vectors") / "kind.safetensors"
    extract_vectors(load_model(model), load_contrast_pairs(pairs)).save(file)
    return file
