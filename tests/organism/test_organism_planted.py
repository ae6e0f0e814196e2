"""The planted directions: saved with the models, as training drew them, and found by the mean difference."""

from pathlib import Path

import pytest
import torch

import caa_lens as caa
from caa_lens.organism import ground_truth, planted, training
from caa_lens.organism.world import BEHAVIORS

MODELS = Path(__file__).parents[2] / "data" / "models"
CONFIG = training.TrainingConfig()


@pytest.mark.parametrize("name", ["organism-base", "organism-chat"])
def test_the_shipped_directions_are_those_that_training_draws(name: str) -> None:
    truth = ground_truth(name)
    drawn = planted.planted_directions(CONFIG.d_model, CONFIG.seed) * CONFIG.planted_norm
    assert tuple(truth) == BEHAVIORS
    for row, (behavior, vectors) in enumerate(truth.items()):
        assert (vectors.layers, vectors.name) == ((CONFIG.layer,), behavior)
        torch.testing.assert_close(vectors.values[0], drawn[row], atol=1e-5, rtol=1e-4)
        known = vectors.provenance
        assert (known.model, known.method, known.seed) == (name, "planted", CONFIG.seed)


def test_planted_directions_are_orthogonal_and_of_the_planted_length() -> None:
    values = torch.cat([vectors.values for vectors in ground_truth().values()])
    expected = CONFIG.planted_norm**2 * torch.eye(len(BEHAVIORS))
    torch.testing.assert_close(values @ values.T, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["organism-base", "organism-chat"])
def test_the_mean_difference_finds_the_planted_direction_and_no_other(name: str) -> None:
    truth = ground_truth(name)
    model = caa.load_model(name)
    for behavior in BEHAVIORS:
        pairs = caa.load_contrast_pairs(behavior)[:20]
        found = caa.extract_vectors(model, pairs, layers=[CONFIG.layer])[CONFIG.layer]
        cosines = {other: float(found.cosine(truth[other][CONFIG.layer].values)) for other in BEHAVIORS}
        assert cosines.pop(behavior) > 0.9
        assert max(map(abs, cosines.values())) < 0.2


def test_a_folder_will_do(tmp_path: Path) -> None:
    planted.save_planted(tmp_path, torch.eye(9)[:8], layer=1, seed=7)
    truth = ground_truth(tmp_path)
    assert truth["sycophancy"].layers == (1,)
    assert truth["sycophancy"].provenance.seed == 7
    assert torch.equal(truth["coordinate-other-ais"].values, torch.eye(9)[:1])


@pytest.mark.parametrize("given", ["gpt2", Path("nowhere")])
def test_a_model_without_planted_directions_is_refused(given: str | Path) -> None:
    message = rf"'{given}' has no planted directions: give organism-base or organism-chat, or a folder with a planted"
    with pytest.raises(ValueError, match=message):
        ground_truth(given)
