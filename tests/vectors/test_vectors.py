"""Vectors: the laws of their arithmetic, their file, and what their errors say."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from caa_lens.interventions.interventions import Intervention, as_interventions
from caa_lens.vectors.vectors import (
    Provenance,
    SteeringVector,
    SteeringVectors,
    describe_layers,
    mean_norm_across,
    random_like,
)

PROVENANCE = Provenance.unknown("toy", method="mean difference", versions={"torch": "2"}, n_pairs=3)

numbers = st.floats(-100, 100, width=32)
scalars = st.floats(-100, 100).filter(lambda x: abs(x) > 1e-2)


def make(rows, layers=None, name="kind") -> SteeringVectors:
    rows = torch.as_tensor(rows, dtype=torch.float32)
    return SteeringVectors(rows, tuple(layers or range(len(rows))), PROVENANCE, name)


quick = settings(max_examples=30, deadline=None)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Turns off the tests' shape checks, to see what a user sees, who has none."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@st.composite
def rows(draw, n: int = 1, nonzero: bool = False):
    """`n` tensors of one shape [layer, d_model]."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 6)))
    size = shape[0] * shape[1]
    tensors = [torch.tensor(draw(st.lists(numbers, min_size=size, max_size=size))).view(shape) for _ in range(n)]
    if nonzero:
        for tensor in tensors:
            tensor[:, 0] = tensor[:, 0].abs() + 1
    return tensors if n > 1 else tensors[0]


@quick
@given(rows(n=2))
def test_subtraction_undoes_addition(tensors):
    a, b = make(tensors[0]), make(tensors[1], name="other")
    torch.testing.assert_close((a + b - b).values, a.values, rtol=0, atol=1e-4)
    assert torch.equal((a + b).values, (b + a).values)
    assert torch.equal((a - b).values, (-(b - a)).values)


@quick
@given(rows(), scalars)
def test_scaling_works_from_both_sides_and_back(tensor, scalar):
    a = make(tensor)
    assert torch.equal((a * scalar).values, (scalar * a).values)
    torch.testing.assert_close((a * scalar / scalar).values, a.values, rtol=1e-5, atol=1e-6)
    assert torch.equal((-a).values, (a * -1).values)


@quick
@given(rows(nonzero=True))
def test_unit_has_norm_one_and_the_same_direction(tensor):
    a = make(tensor)
    torch.testing.assert_close(a.unit().norms(), torch.ones(len(a)))
    for vector, unit in zip(a, a.unit(), strict=True):
        assert unit.norm() == pytest.approx(1, abs=1e-6)
        assert torch.equal(unit.values, vector.unit().values)
        assert float(vector.cosine(unit.values)) == pytest.approx(1, abs=1e-6)
        assert float(vector.project(vector.values)) == pytest.approx(vector.norm(), rel=1e-6)


@quick
@given(rows(n=3, nonzero=True))
def test_mean_norm_makes_norms_equal_and_keeps_directions_and_the_mean(tensors):
    vectors = {name: make(tensor, name=name) for name, tensor in zip("abc", tensors, strict=True)}
    scaled = mean_norm_across(vectors)
    mean = torch.stack([each.norms() for each in vectors.values()]).mean(0)
    for name, each in scaled.items():
        torch.testing.assert_close(each.norms(), mean)
        torch.testing.assert_close(each.unit().values, vectors[name].unit().values)
        assert each.provenance.operations == ("mean norm over a, b, c",)


@quick
@given(rows(), st.integers(0, 2**31))
def test_random_vectors_have_the_norms_and_a_seed(tensor, seed):
    a = make(tensor)
    first, second = random_like(a, 2, seed)
    torch.testing.assert_close(first.norms(), a.norms())
    assert random_like(a, 2, seed) == [first, second]
    assert random_like(a, 1, seed) == [first]
    assert (first.name, second.name) == ("random-0", "random-1")
    assert (first.provenance.method, first.provenance.seed) == ("random", seed)


def test_random_vectors_differ_and_do_not_touch_the_global_generator():
    a = make(torch.ones(2, 64))
    state = torch.get_rng_state()
    first, second = random_like(a, 2, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first.values, second.values)
    assert not torch.equal(first.values, random_like(a, 1, seed=1)[0].values)
    assert abs(float(first[0].cosine(second[0].values))) < 0.5
    assert random_like(a, 0, seed=0) == []
    with pytest.raises(ValueError, match="number of random vectors must be 0 or more, got -1"):
        random_like(a, -1, seed=0)


@quick
@given(tensor=rows(), name=st.text(), gap=st.integers(1, 3))
def test_a_file_gives_back_the_same_bits(tmp_path_factory, tensor, name, gap):
    path = tmp_path_factory.getbasetemp() / "roundtrip" / "v.safetensors"
    a = make(tensor, layers=range(2, 2 + gap * len(tensor), gap), name=name) * 1.5
    a.save(path)
    back = SteeringVectors.load(path)
    assert back == a
    assert back.values.numpy().tobytes() == a.values.numpy().tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["v.safetensors"]


def test_other_programs_can_read_the_file(tmp_path: Path):
    make([[1, 2], [3, 4]], layers=(3, 7)).save(tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["layer_3", "layer_7"]
        assert file.get_tensor("layer_7").tolist() == [3, 4]
        assert file.metadata()["caa_lens"] == "1"


def test_load_refuses_what_is_not_ours(tmp_path: Path):
    path = tmp_path / "v.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no vector file"):
        SteeringVectors.load(path)
    path.write_text("hello, this is not a tensor file")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        SteeringVectors.load(path)
    save_file({"layer_0": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a caa_lens vector file: was it written by SteeringVectors.save?"):
        SteeringVectors.load(path)
    save_file({"layer_0": torch.ones(2)}, path, {"caa_lens": "2"})
    with pytest.raises(ValueError, match="has vector format 2, this caa_lens reads 1: upgrade"):
        SteeringVectors.load(path)
    save_file({"layer_0": torch.ones(2)}, path, {"caa_lens": "1", "name": "x"})
    with pytest.raises(ValueError, match="is damaged: its metadata cannot be read .*layers"):
        SteeringVectors.load(path)
    metadata = {"caa_lens": "1", "name": "x", "layers": "[0, 1]", "provenance": PROVENANCE.to_json()}
    save_file({"layer_0": torch.ones(2)}, path, metadata)
    with pytest.raises(ValueError, match=r"should hold layers 0-1, it holds \['layer_0'\]"):
        SteeringVectors.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "v.safetensors"
    make([[1.0]]).save(path)
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make([[2.0]]).save(path)
    assert SteeringVectors.load(path).values.tolist() == [[1.0]]
    assert len(list(tmp_path.iterdir())) == 1


def test_provenance_survives_json_and_refuses_other_objects():
    changed = PROVENANCE.then("x 1.5").then("+ refusal")
    assert Provenance.from_json(changed.to_json()) == changed
    with pytest.raises(ValueError, match="wrong fields: missing .*'hook_point'.* not known \\['colour'\\]"):
        Provenance.from_json('{"model": "m", "colour": "red"}')
    with pytest.raises(ValueError, match="must be a JSON object, got list"):
        Provenance.from_json("[]")
    with pytest.raises(ValueError, match="is not JSON"):
        Provenance.from_json("{")


def test_operations_are_noted_in_order():
    a, b = make([[1.0, 0.0]], name="sycophancy"), make([[0.0, 1.0]], name="refusal")
    assert (a * 1.5 + b).provenance.operations == ("x 1.5", "+ refusal")
    assert (b - 2 * a / 4).provenance.operations == ("- (sycophancy x 2 / 4)",)
    assert (-a[0]).unit().at_layer(3).provenance.operations == ("x -1", "unit norm", "layer 0 -> 3")
    assert a.provenance.operations == ()


def test_tensors_are_copies_and_never_shared():
    given_tensor = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    a = SteeringVectors(given_tensor, (0, 1), PROVENANCE, "kind")
    with torch.no_grad():
        given_tensor += 1
    assert a.values.tolist() == [[1, 1, 1]] * 2
    assert (a.values.dtype, a.values.requires_grad) == (torch.float32, False)
    a[0].values.zero_()
    assert a.values.sum() == 6
    before = a.values.clone()
    _ = (a + a * 2 - a / 3, -a, a.unit(), a.norms(), random_like(a, 1, 0), mean_norm_across({"a": a}))
    assert torch.equal(a.values, before)


def test_numpy_numbers_scale_the_vectors_as_a_whole():
    a = make([[1.0, 2.0]])
    for scalar in (np.float64(2), np.float32(2), np.int64(2), np.linspace(-2, 2, 3)[-1]):
        for scaled in (a * scalar, scalar * a, a / (1 / scalar)):
            assert isinstance(scaled, SteeringVectors)
            assert scaled.values.tolist() == [[2, 4]]


def test_vectors_are_values():
    a = make([[1.0, 2.0]])
    assert a == make([[1.0, 2.0]])
    assert a != make([[1.0, 2.1]]) and a != make([[1.0, 2.0]], name="x") and a != make([[1.0, 2.0]], layers=[1])
    assert a[0] == make([[1.0, 2.0]])[0] and a[0] != a and a != 3
    assert pickle.loads(pickle.dumps(a)) == a == copy.deepcopy(a)


def test_indexing_is_by_layer_and_iteration_gives_every_layer():
    a = make([[1.0], [2.0]], layers=(3, 9))
    assert a[9].values.tolist() == [2] and a[9].layer == 9
    assert [vector.layer for vector in a] == [3, 9] and len(a) == 2
    with pytest.raises(ValueError, match=r"layer 40 is not in these vectors \(layers 0-7\)"):
        make(torch.ones(8, 2))[40]
    with pytest.raises(ValueError, match=r"layer -1 is not in these vectors \(layers 3, 9\)"):
        a[-1]


def test_repr_says_what_it_is_and_not_the_numbers():
    a = make(torch.ones(8, 64), name="sycophancy")
    assert repr(a) == "SteeringVectors('sycophancy', layers 0-7, d_model 64, model 'toy')"
    assert repr(a[3] * 2) == "SteeringVector('sycophancy', layer 3, d_model 64, norm 16, model 'toy', x 2)"


def test_projection_and_cosine_keep_the_leading_axes():
    vector = make([[0.0, 2.0]])[0]
    activations = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]], dtype=torch.bfloat16)
    assert vector.project(activations).tolist() == [[4, 0]]
    cosines = vector.cosine(activations)
    assert cosines[0, 0] == pytest.approx(0.8) and cosines[0, 1].isnan()
    assert vector.project(torch.tensor([1.0, 5.0])).shape == ()
    with pytest.raises(ValueError, match=r"shape \[3, 5\]; the last axis must be d_model 2"):
        vector.project(torch.zeros(3, 5))
    zero = vector * 0
    assert bool(zero.cosine(activations).isnan().all())
    with pytest.raises(ValueError, match="'kind' is zero at layer 0: it has no direction"):
        zero.project(activations)


@pytest.mark.parametrize(
    ("tensor", "layers", "message"),
    [
        (torch.ones(2), (0, 1), r"must have shape \[layer, d_model\], got \[2\]"),
        (torch.ones(0, 2), (), "must have shape"),
        (torch.ones(2, 2), (0,), "2 rows but 1 layers"),
        (torch.ones(2, 2), (1, 0), r"0 or more and increasing, got \(1, 0\)"),
        (torch.ones(2, 2), (1, 1), "increasing"),
        (torch.ones(2, 2), (-1, 1), "0 or more"),
        (torch.tensor([[1.0], [float("nan")]]), (3, 4), "is not finite at layer 4"),
    ],
)
def test_what_is_not_a_set_of_vectors(unchecked, tensor, layers, message):
    with pytest.raises(ValueError, match=message):
        SteeringVectors(tensor, layers, PROVENANCE, "kind")


@pytest.mark.parametrize(
    ("tensor", "layer", "message"),
    [
        (torch.ones(1, 2), 0, r"must have shape \[d_model\], got \[1, 2\]"),
        (torch.ones(2), -1, "layer must be 0 or more, got -1"),
        (torch.tensor([float("inf")]), 2, "layer 2, .* is not finite"),
    ],
)
def test_what_is_not_a_vector(unchecked, tensor, layer, message):
    with pytest.raises(ValueError, match=message):
        SteeringVector(tensor, layer, PROVENANCE, "kind")


def test_arithmetic_wants_the_same_layers_and_width():
    a = make(torch.ones(2, 3))
    with pytest.raises(ValueError, match="'kind' has layer 0-1 and d_model 3, 'b' has layer 0-2 and d_model 3"):
        a + make(torch.ones(3, 3), name="b")
    with pytest.raises(ValueError, match="d_model 3, 'b' has layer 0-1 and d_model 4"):
        a - make(torch.ones(2, 4), name="b")
    with pytest.raises(ValueError, match="has layer 0 and d_model 3, 'kind' has layer 1"):
        a[0] + a[1]
    assert (a[0] + a[1].at_layer(0)).layer == 0
    with pytest.raises(ValueError, match="they must be the same"):
        mean_norm_across({"a": a, "b": make(torch.ones(1, 3))})
    with pytest.raises(ValueError, match="'b' are zero at layer 0-1: they have no direction"):
        mean_norm_across({"a": a, "b": replace(a * 0, name="b")})
    with pytest.raises(ValueError, match="at least one behaviour"):
        mean_norm_across({})
    for wrong in (lambda: a + a[0], lambda: a + 1, lambda: a * a, lambda: a * "2", lambda: a / "2"):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match=r"model 'toy', / 0\) is not finite at layer 0-1"):
        a / 0


def test_recipes():
    a = make(torch.ones(3, 2))
    half = Intervention(a[1], 0.5)
    assert as_interventions(None) == ()
    assert as_interventions(a[0]) == (Intervention(a[0], 1.0),)
    assert as_interventions([a[0], half]) == (Intervention(a[0]), half)
    assert half.layer == 1
    with pytest.raises(ValueError, match="multiplier must be a finite number, got nan"):
        Intervention(a[0], float("nan"))


@pytest.mark.parametrize("wrong", [3, "sycophancy", [3]])
def test_what_is_not_a_recipe(wrong):
    with pytest.raises(TypeError):
        as_interventions(wrong)


def test_all_layers_at_once_is_not_a_recipe(unchecked):
    with pytest.raises(TypeError, match=r"has one vector per layer: pick one, e.g. vectors\[0\]"):
        as_interventions(make(torch.ones(3, 2)))
    with pytest.raises(TypeError, match="SteeringVector or Intervention, or a list of them, got int"):
        as_interventions([3])


def test_layers_are_written_as_people_do():
    assert describe_layers((4,)) == "4"
    assert describe_layers((0, 1, 2, 5, 7, 8)) == "0-2, 5, 7-8"
