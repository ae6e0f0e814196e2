"""Loading: what comes out is unprocessed, and every mistake is one clear message."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import caa_lens as caa
from caa_lens.models.loading import bundled_models, check_layers, model_info


def test_a_local_directory_loads_as_hugging_face_has_it(tiny_path: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_path("gpt2")
    model: Any = caa.load_model(folder)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    ids = torch.tensor([[1, 8, 9, 10]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference.eval()(ids).logits, atol=1e-5, rtol=1e-5)
    info = model_info(model)
    assert (info.name, info.class_name, info.weight_processing) == ("gpt2", "TransformerBridge", "none")
    assert (info.n_layers, info.d_model, info.dtype) == (3, 32, "float32")


def test_dtype_by_name_and_itself(tiny_path: Callable[[str], Path]) -> None:
    by_name: Any = caa.load_model(str(tiny_path("llama")), dtype="bfloat16")
    assert model_info(by_name).dtype == "bfloat16"
    assert (
        model_info(caa.load_model(tiny_path("llama"), dtype=torch.bfloat16)).fingerprint
        == model_info(by_name).fingerprint
    )


def test_bfloat16_models_are_steered_and_read_in_float32(tiny_path: Callable[[str], Path]) -> None:
    model: Any = caa.load_model(tiny_path("llama"), dtype="bfloat16")
    pairs = [caa.ContrastPair("Is it so?\n (A) yes\n (B) no", "(A)", "(B)")]
    vectors = caa.extract_vectors(model, pairs)
    assert vectors.values.dtype == torch.float32 and vectors.provenance.dtype == "bfloat16"
    exact = caa.extract_vectors(caa.load_model(tiny_path("llama")), pairs)
    assert torch.cosine_similarity(vectors.values, exact.values).min() > 0.99
    frame = caa.sweep(model, vectors, caa.ContrastDataset.from_pairs(pairs))
    assert frame["logp_matching"].notna().all()
    assert caa.generate(model, ["hello"], steer=vectors[1], max_new_tokens=3)


def test_a_fingerprint_tells_weights_apart(bridge: Any, tiny_path: Callable[[str], Path]) -> None:
    again: Any = caa.load_model(tiny_path("llama"))
    assert model_info(again).fingerprint == model_info(bridge("llama")).fingerprint
    with torch.no_grad():
        next(iter(again.original_model.parameters())).mul_(1.01)
    assert model_info(again).fingerprint != model_info(bridge("llama")).fingerprint


def test_every_bundled_model_loads_and_has_a_tokenizer() -> None:
    assert {"organism-base", "organism-chat"} <= set(bundled_models())
    for name in bundled_models():
        model: Any = caa.load_model(name)
        assert model_info(model).name == name
        assert model.tokenizer is not None


def test_what_cannot_be_loaded_is_one_clear_message(tmp_path: Path, tiny_path: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="dtype 'float99' is not known: give one of float32, float16, bfloat16"):
        caa.load_model("organism-chat", dtype="float99")
    with pytest.raises(
        ValueError, match="cannot load 'no-such-model': it is none of the bundled models .*organism-chat"
    ):
        caa.load_model("no-such-model")
    with pytest.raises(
        FileNotFoundError, match="there is no folder ./nowhere: give a Hugging Face directory, a hub id"
    ):
        caa.load_model("./nowhere")
    with pytest.raises(FileNotFoundError, match="has no config.json: give a directory written by"):
        caa.load_model(tmp_path)
    shutil.copytree(tiny_path("llama"), tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    with pytest.raises(ValueError, match="has no tokenizer: save one into the directory"):
        caa.load_model(tmp_path / "bare")


def test_a_device_that_is_not_there_is_one_clear_message(tiny_path: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="cannot load '.*' on device 'nowhere': "):
        caa.load_model(tiny_path("llama"), device="nowhere")


def test_layers_are_checked_against_the_model(bridge: Any) -> None:
    model = bridge("llama")
    assert check_layers(model, None) == (0, 1, 2, 3) and check_layers(model, [2, 0]) == (0, 2)
    for layers in ([4], [-1]):
        with pytest.raises(ValueError, match=r"is out of range for llama \(layers 0-3\)"):
            check_layers(model, layers)
    with pytest.raises(ValueError, match=r"layers \[\]: give at least one layer"):
        check_layers(model, [])


def test_processed_weights_are_detected(processed_hooked: Any, hooked: Any) -> None:
    assert model_info(processed_hooked).weight_processing.endswith("centered writing weights")
    assert model_info(hooked("gpt2")).weight_processing == "none"
    assert model_info(hooked("gpt2")).class_name == "HookedTransformer"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_processed_weights_are_detected_in_half_precision(processed_hooked: Any, bridge: Any, dtype: Any) -> None:
    half = copy.deepcopy(processed_hooked).to(dtype)
    assert model_info(half).dtype == str(dtype).removeprefix("torch.")
    assert "centered writing weights" in model_info(half).weight_processing
    assert model_info(copy.deepcopy(bridge("gpt2")).to(dtype)).weight_processing == "none"


def test_a_bridge_in_compatibility_mode_is_detected(tiny_path: Callable[[str], Path]) -> None:
    model: Any = caa.load_model(tiny_path("gpt2"))
    model.enable_compatibility_mode()
    assert "centered writing weights" in model_info(model).weight_processing
