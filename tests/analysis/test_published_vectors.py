"""The published Llama-2-7b vectors by subspace, and their huge dimensions (CAA, section 7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from caa_lens import analysis
from caa_lens.interop.caa_repository import load_caa_vectors
from caa_lens.vectors.vectors import SteeringVectors

MASSIVE = [1415, 2533]


def load(shared_data: Path, model: str) -> dict[str, SteeringVectors]:
    folder = shared_data / "data" / "caa" / "vectors"
    if not folder.is_dir():
        pytest.skip(f"needs CAA's published vectors in {folder}")
    return {path.name: load_caa_vectors(folder, path.name, model) for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def chat(shared_data: Path) -> dict[str, SteeringVectors]:
    return load(shared_data, "Llama-2-7b-chat-hf")


@pytest.fixture(scope="module")
def base(shared_data: Path) -> dict[str, SteeringVectors]:
    return load(shared_data, "Llama-2-7b-hf")


def test_base_and_chat_share_a_subspace_for_longer_than_directions(base, chat) -> None:
    frame = analysis.subspace_overlap(base, chat).query("angle == 1").set_index("layer")
    assert (frame["rank_a"] == 7).all() and (frame["rank_b"] == 7).all()
    assert frame.loc[0, "overlap"] == pytest.approx(0.898, abs=1e-3)
    assert frame.loc[0, "overlap"] > frame.loc[11, "overlap"] > frame.loc[31, "overlap"] > 20 * frame.loc[31, "chance"]


def test_the_huge_dimensions_do_not_carry_these_vectors(base, chat) -> None:
    """In the code vectors of arXiv 2403.05767 two dimensions hold 93 %; a difference at one letter has little of it."""
    shares = analysis.massive_dimensions(chat, k=20).query("dimension in @MASSIVE").groupby(["behavior", "layer"])
    assert shares["share"].sum().max() < 0.005
    for behavior in chat:
        left_out = [analysis.without_dimensions(each[behavior], MASSIVE) for each in (base, chat)]
        change = analysis.cosine(*left_out) - analysis.cosine(base[behavior], chat[behavior])
        assert float(change.abs().max()) < 0.005
