"""The original repository's folder of .pt files, read and written."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from caa_lens.interop.caa_repository import load_caa_vectors, save_caa_vectors
from caa_lens.vectors.vectors import Provenance, SteeringVectors


def make(layers=(0, 1, 2), processing="none") -> SteeringVectors:
    values = torch.randn(len(layers), 4)
    return SteeringVectors(values, layers, Provenance.unknown("toy", weight_processing=processing), "sycophancy")


def test_what_is_written_is_read_again(tmp_path: Path):
    vectors = make(tuple(range(12)))  # so that sorting the names as text would go wrong
    save_caa_vectors(vectors, tmp_path, "sycophancy", "meta-llama/Llama-2-7b-hf")
    assert torch.load(tmp_path / "sycophancy" / "vec_layer_10_Llama-2-7b-hf.pt", weights_only=True).shape == (4,)
    assert len(list((tmp_path / "sycophancy").iterdir())) == 12
    for name in ("Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"):
        back = load_caa_vectors(tmp_path, "sycophancy", name)
        assert torch.equal(back.values, vectors.values)
        assert (back.layers, back.name, back.provenance.model) == (vectors.layers, "sycophancy", "Llama-2-7b-hf")
        assert (back.provenance.hook_point, back.provenance.operations) == ("hook_resid_post", ())


def test_models_are_told_apart_and_missing_layers_noted(tmp_path: Path):
    save_caa_vectors(make((0, 3)), tmp_path, "sycophancy", "m-hf")
    save_caa_vectors(make((1,)), tmp_path, "sycophancy", "m-chat-hf")
    save_caa_vectors(make((1,)), tmp_path, "sycophancy", "chat-m-hf")
    back = load_caa_vectors(tmp_path, "sycophancy", "m-hf")
    assert back.layers == (0, 3)
    assert back.provenance.operations == ("without layer 1-2",)


def test_half_precision_becomes_float32(tmp_path: Path):
    (tmp_path / "b").mkdir()
    torch.save(torch.ones(4, dtype=torch.float16), tmp_path / "b" / "vec_layer_0_m.pt")
    back = load_caa_vectors(tmp_path, "b", "m")
    assert (back.values.dtype, back.provenance.dtype) == (torch.float32, "float16")


@pytest.mark.parametrize("processing", ["none", "unknown", ""])
def test_unprocessed_models_may_be_exported(tmp_path: Path, processing):
    save_caa_vectors(make(processing=processing), tmp_path, "b", "m")


def test_processed_models_may_not(tmp_path: Path):
    message = "weight processing 'centered': its residual stream is not Hugging Face's.*extract them again"
    with pytest.raises(ValueError, match=message):
        save_caa_vectors(make(processing="centered"), tmp_path, "b", "m")
    assert list(tmp_path.iterdir()) == []


def test_vectors_of_another_site_are_refused(tmp_path: Path):
    for site in ("hook_attn_out", "hook_resid_pre"):
        vectors = replace(make(), provenance=replace(make().provenance, hook_point=site))
        with pytest.raises(ValueError, match=f"read at {site}.*extract them again with site='resid_post'"):
            save_caa_vectors(vectors, tmp_path, "b", "m")
    assert not list(tmp_path.iterdir())
    save_caa_vectors(
        replace(make(), provenance=replace(make().provenance, hook_point="hook_resid_post")), tmp_path, "b", "m"
    )


def test_what_is_not_there_is_named_with_what_is(tmp_path: Path):
    save_caa_vectors(make(), tmp_path, "refusal", "m-chat")
    (tmp_path / "sycophancy").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        load_caa_vectors(tmp_path / "nowhere", "refusal", "m")
    with pytest.raises(ValueError, match="has no behaviour 'refusing'; it has refusal, sycophancy"):
        load_caa_vectors(tmp_path, "refusing", "m")
    with pytest.raises(ValueError, match="has no vectors of 'm'; it has those of m-chat"):
        load_caa_vectors(tmp_path, "refusal", "m")
    with pytest.raises(ValueError, match="it has those of none"):
        load_caa_vectors(tmp_path, "sycophancy", "m")


class Surprise:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2, 4), r"vec_layer_1_m.pt must hold one tensor of shape \[d_model\], got shape \[2, 4\]"),
        ({"a": torch.ones(4)}, "got dict"),
        (torch.ones(5), "vec_layer_1_m.pt has d_model 5, layer 0 has 4"),
        (Surprise(), "vec_layer_1_m.pt is not a file of tensors only"),
    ],
)
def test_files_that_are_no_vectors(tmp_path: Path, capsys, content, message):
    save_caa_vectors(make(), tmp_path, "b", "m")
    torch.save(content, tmp_path / "b" / "vec_layer_1_m.pt")
    with pytest.raises(ValueError, match=message):
        load_caa_vectors(tmp_path, "b", "m")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2])])
def test_files_that_are_not_torch_s(tmp_path: Path, content):
    save_caa_vectors(replace(make(), name="b"), tmp_path, "b", "m")
    (tmp_path / "b" / "vec_layer_1_m.pt").write_bytes(content)
    with pytest.raises(
        ValueError, match="vec_layer_1_m.pt (is not a file of tensors only|must hold one tensor .*list)"
    ):
        load_caa_vectors(tmp_path, "b", "m")
