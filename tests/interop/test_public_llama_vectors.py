"""The published Llama-2-7b vectors give the published numbers (CAA, sections 7 to 9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from caa_lens import analysis
from caa_lens.interop.caa_repository import load_caa_vectors
from caa_lens.vectors.vectors import SteeringVectors, mean_norm_across

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "caa" / "vectors"
BEHAVIORS = (
    "coordinate-other-ais",
    "corrigible-neutral-HHH",
    "hallucination",
    "myopic-reward",
    "refusal",
    "survival-instinct",
    "sycophancy",
)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"needs CAA's published vectors in {FOLDER}")


def load(model: str) -> dict[str, SteeringVectors]:
    return {behavior: load_caa_vectors(FOLDER, behavior, model) for behavior in BEHAVIORS}


@pytest.fixture(scope="module")
def chat() -> dict[str, SteeringVectors]:
    return load("Llama-2-7b-chat-hf")


@pytest.fixture(scope="module")
def base() -> dict[str, SteeringVectors]:
    return load("Llama-2-7b-hf")


def test_they_have_32_layers_of_4096(chat, base):
    for vectors in (*chat.values(), *base.values()):
        assert (vectors.layers, vectors.d_model) == (tuple(range(32)), 4096)
        assert vectors.provenance.operations == ()


@pytest.mark.parametrize(("layer", "low", "high"), [(0, 0.96, 0.99), (11, 0.81, 0.93), (31, 0.30, 0.47)])
def test_base_and_chat_part_with_depth(chat, base, layer, low, high):
    cosines = [float(analysis.cosine(base[behavior], chat[behavior])[layer]) for behavior in BEHAVIORS]
    assert (round(min(cosines), 2), round(max(cosines), 2)) == (low, high)


def test_cosines_between_behaviours(chat):
    matrix = analysis.cosine_matrix(chat, layer=13)
    assert round(matrix.loc["coordinate-other-ais", "corrigible-neutral-HHH"], 2) == 0.73
    assert round(matrix.loc["hallucination", "refusal"], 2) == -0.74


@pytest.mark.parametrize(("layer", "low", "high"), [(12, 0.79, 0.93), (31, 0.15, 0.32)])
def test_cosines_between_layers(chat, layer, low, high):
    cosines = [analysis.cross_layer(vectors).loc[13, layer] for vectors in chat.values()]
    assert (round(min(cosines), 2), round(max(cosines), 2)) == (low, high)


def test_the_mean_norm_is_the_same_for_all_and_leaves_the_directions(chat):
    scaled = mean_norm_across(chat)
    at_13 = analysis.norms(scaled).query("layer == 13")["norm"]
    assert at_13.to_numpy() == pytest.approx(analysis.norms(chat).query("layer == 13")["norm"].mean())
    for behavior in BEHAVIORS:
        assert analysis.cosine(scaled[behavior], chat[behavior]).numpy() == pytest.approx(1, abs=1e-6)
