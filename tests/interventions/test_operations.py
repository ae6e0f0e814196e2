"""The laws of each operation, on any activations and any direction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from caa_lens.interventions.operations import (
    Ablate,
    Add,
    Clamp,
    Operation,
    Rotate,
    SetProjection,
    ablate,
    add,
    clamp,
    parse_operation,
    rotate,
    set_projection,
)

OPERATIONS = [Add(), Ablate(), SetProjection(2.5), Clamp(-0.5, 0.5), Clamp(high=-1.0), Rotate(30.0), Rotate(180.0)]
numbers = st.floats(-50, 50, width=32)


@st.composite
def activations_and_vector(draw: Any) -> tuple[Tensor, Tensor]:
    """Three positions of four dimensions, and a direction that is not zero."""
    rows = draw(st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=3, max_size=3))
    vector = draw(st.lists(numbers, min_size=4, max_size=4).filter(lambda v: math.hypot(*v) > 1e-2))
    return torch.tensor(rows), torch.tensor(vector)


def along(activations: Tensor, vector: Tensor) -> Tensor:
    return activations.double() @ (vector.double() / vector.double().norm())


def across(activations: Tensor, vector: Tensor) -> Tensor:
    unit = vector.double() / vector.double().norm()
    return activations.double() - along(activations, vector).unsqueeze(-1) * unit


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
@settings(max_examples=60, deadline=None)
@given(case=activations_and_vector())
def test_multiplier_zero_is_bitwise_nothing_as_a_number_and_in_a_tensor(
    operation: Operation, case: tuple[Tensor, Tensor]
) -> None:
    activations, vector = case
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        given_ = activations.to(dtype)
        assert torch.equal(operation(given_, vector, 0.0), given_)
        amounts = torch.tensor([[0.0], [1.0], [0.0]])
        done = operation(given_, vector, amounts)
        assert done.dtype == dtype and torch.equal(done[[0, 2]], given_[[0, 2]])
        assert torch.equal(done[1], operation(given_, vector)[1]), "1 is the whole operation, said in either way"


@settings(max_examples=100, deadline=None)
@given(case=activations_and_vector(), multiplier=st.floats(-4, 4, width=32))
def test_add_is_the_sum_bit_for_bit(case: tuple[Tensor, Tensor], multiplier: float) -> None:
    activations, vector = case
    assert torch.equal(add(activations, vector, multiplier), activations + vector * multiplier)
    half = activations.to(torch.bfloat16)
    assert torch.equal(add(half, vector, multiplier), half + (vector * multiplier).to(half) if multiplier else half)


@settings(max_examples=150, deadline=None)
@given(case=activations_and_vector(), multiplier=st.floats(-2, 3), value=numbers)
def test_projections_go_as_far_as_the_multiplier_says_and_the_rest_stays(
    case: tuple[Tensor, Tensor], multiplier: float, value: float
) -> None:
    activations, vector = case
    before = along(activations, vector)
    for done, target in (
        (ablate(activations, vector, multiplier), torch.zeros_like(before)),
        (set_projection(activations, vector, value, multiplier), torch.full_like(before, value)),
        (clamp(activations, vector, -1.0, 2.0, multiplier), before.clamp(-1.0, 2.0)),
    ):
        torch.testing.assert_close(along(done, vector), before + multiplier * (target - before), atol=2e-3, rtol=0)
        torch.testing.assert_close(across(done, vector), across(activations, vector), atol=2e-3, rtol=0)


@settings(max_examples=100, deadline=None)
@given(case=activations_and_vector(), value=numbers, factor=st.floats(0.01, 100))
def test_done_twice_is_done_once_and_only_the_direction_counts(
    case: tuple[Tensor, Tensor], value: float, factor: float
) -> None:
    activations, vector = case
    for operation in (Ablate(), SetProjection(value), Clamp(-1.0, 2.0), Rotate(180.0)):
        once = operation(activations, vector)
        torch.testing.assert_close(operation(once, vector), once, atol=2e-3, rtol=0)
        torch.testing.assert_close(operation(activations, vector * factor), once, atol=2e-3, rtol=0)


@settings(max_examples=100, deadline=None)
@given(case=activations_and_vector())
def test_clamp_leaves_what_is_inside_bit_for_bit(case: tuple[Tensor, Tensor]) -> None:
    activations, vector = case
    within = along(activations, vector).abs().max().item() + 1.0
    for dtype in (torch.float32, torch.bfloat16):
        wide = within + 1.0
        assert torch.equal(clamp(activations.to(dtype), vector, -wide, wide), activations.to(dtype))


@settings(max_examples=200, deadline=None)
@given(case=activations_and_vector(), degrees=st.floats(1, 180), multiplier=st.floats(-1.5, 1.5))
def test_rotate_keeps_the_norm_and_turns_by_the_angle_in_the_plane(
    case: tuple[Tensor, Tensor], degrees: float, multiplier: float
) -> None:
    activations, vector = case
    turned = rotate(activations, vector, degrees, multiplier)
    torch.testing.assert_close(turned.norm(dim=-1), activations.norm(dim=-1), atol=1e-4, rtol=1e-5)
    for before, after in zip(activations, turned, strict=True):
        aside, length = across(before, vector).norm(), before.double().norm()
        if aside < 1e-3 * length or length < 1e-3:
            continue
        angle = math.atan2(aside, along(before, vector))
        expected = min(max(angle - multiplier * math.radians(degrees), 0.0), math.pi)
        found = math.atan2(across(after, vector).norm(), along(after, vector))
        assert abs(found - expected) < 2e-3
        plane = torch.linalg.matrix_rank(torch.stack([before, after, vector]).double(), rtol=1e-3)
        assert plane <= 2


def test_what_lies_along_the_vector_has_no_plane_and_stays() -> None:
    east = torch.tensor([2.0, 0.0, 0.0])
    still = torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(rotate(still, east, 45.0), still)
    quarter = rotate(torch.tensor([[0.0, 3.0, 0.0]]), east, 90.0)
    torch.testing.assert_close(quarter, torch.tensor([[3.0, 0.0, 0.0]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("operation", OPERATIONS[1:], ids=repr)
def test_a_zero_vector_has_no_direction_and_changes_nothing(operation: Operation) -> None:
    activations = torch.randn(3, 4)
    assert torch.equal(operation(activations, torch.zeros(4)), activations)


def test_half_precision_is_computed_in_float32() -> None:
    """What is left of an ablated direction is the rounding of the result, not of the steps on the way."""
    activations, vector = torch.randn(200, 64).bfloat16(), torch.randn(64)
    left = along(ablate(activations, vector), vector).abs()
    rounding = (ablate(activations.float(), vector).abs() * 2.0**-8).norm(dim=-1)
    assert bool((left <= rounding).all())


def test_each_row_may_have_its_own_vector() -> None:
    activations, vectors = torch.randn(3, 5, 4), torch.randn(3, 1, 4)
    for operation in OPERATIONS:
        together = operation(activations, vectors, torch.tensor([[[1.0]], [[0.5]], [[-1.0]]]))
        for row, amount in enumerate((1.0, 0.5, -1.0)):
            torch.testing.assert_close(together[row], operation(activations[row], vectors[row, 0], amount))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetProjection(math.nan), r"SetProjection\(nan\): the value is a finite number"),
        (lambda: Clamp(2.0, 1.0), r"Clamp\(low=2.0, high=1.0\): low is at most high"),
        (lambda: Clamp(), "at least one of them is a finite"),
        (lambda: Clamp(math.nan, 1.0), "low is at most high"),
        (lambda: Rotate(0.0), r"Rotate\(0.0\): the angle is above 0 and at most 180 degrees; a negative multiplier"),
        (lambda: Rotate(math.nan), "above 0 and at most 180"),
        (lambda: parse_operation("subtract"), "operation 'subtract' cannot be read: give add, ablate, set:VALUE"),
        (lambda: parse_operation("set"), "'set' cannot be read"),
        (lambda: parse_operation("set:much"), "'set:much' cannot be read"),
        (lambda: parse_operation("clamp:3:1"), "low is at most high"),
        (lambda: parse_operation("rotate:200"), "at most 180 degrees"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_operations_are_read_as_they_are_written() -> None:
    written = ["add", "ablate", "set:2.5", "clamp:-0.5:0.5", "clamp::-1", "rotate:30", "rotate:180"]
    assert [parse_operation(text) for text in written] == OPERATIONS
