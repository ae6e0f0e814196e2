"""The fixtures must deserve trust: same residual stream as Hugging Face, in every class and style."""

from __future__ import annotations

import pytest
import tiny_models
import torch


def _ids(model, n_tokens=30):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(6, model.cfg.d_vocab, (2, n_tokens), generator=generator)


def _relative_errors(model, hf_model):
    ids = _ids(model)
    expected = tiny_models.hugging_face_residuals(hf_model, ids)
    with torch.no_grad():
        _, cache = model.run_with_cache(ids)
    assert len(expected) == model.cfg.n_layers
    return [
        float((cache["resid_post", layer] - value).abs().max() / value.abs().max())
        for layer, value in enumerate(expected)
    ]


@pytest.mark.parametrize(("kind", "style"), tiny_models.model_cases())
def test_every_residual_is_hugging_faces(kind, style, tiny_path, request):
    model = request.getfixturevalue(kind)(style)
    errors = _relative_errors(model, tiny_models.load_hugging_face(tiny_path(style)))
    assert max(errors) < 1e-5


def test_a_processed_model_is_told_apart(processed_hooked, tiny_path):
    errors = _relative_errors(processed_hooked, tiny_models.load_hugging_face(tiny_path("gpt2")))
    assert min(errors) > 1e-2


@pytest.mark.parametrize("style", ["mistral", "gemma2", "gemma3"])
def test_the_sliding_window_is_shorter_than_a_prompt(style, bridge):
    """With a window that never bites, nothing would notice a mask that forgets it."""
    model = bridge(style)
    ids = _ids(model)
    changed = ids.clone()
    changed[:, 0] = changed[:, 0] + 1
    with torch.no_grad():
        first_block = [model.run_with_cache(tokens)[1]["resid_post", 0] for tokens in (ids, changed)]
    differs = (first_block[0] != first_block[1]).any(-1).any(0)
    assert differs[: tiny_models.SLIDING_WINDOW].all()
    assert not differs[tiny_models.SLIDING_WINDOW :].any()


def test_letters_are_tokens_of_their_own(model):
    for text in ("(A)", "I choose (A)"):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [model.tokenizer.decode([token])[-1:] for token in ids[-3:]] == ["(", "A", ")"]
