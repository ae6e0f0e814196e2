"""Additions that mean nothing, with the norm of the real one at each position: what any of that size would have done.

A *random* addition has a random direction at each position. A *nonsense* one is made as real ones are, from two strings
of as many random tokens, and then scaled to the real one's norms: it has all that activations have in common, such as
their few huge coordinates, and no meaning. Where the real one is zero (at BOS, which cancels), both are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.engine.block_inputs import block_inputs
from caa_lens.interventions.prompt_additions import PromptAddition
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import check_layers
from caa_lens.prompts import token_texts
from caa_lens.steering.steering import parts_of
from caa_lens.vectors.provenance import seeded_generator

Additions = PromptAddition | Sequence[PromptAddition]
"""One addition, or several that are made at once."""

Ways = dict[tuple[str, int], tuple[PromptAddition, ...]]
"""What is added, by kind and draw: nothing under ``("unsteered", -1)``, the additions under ``("vector", -1)``."""

KINDS = ("random", "nonsense")


def random_like(addition: PromptAddition, n: int, seed: int = 0) -> list[PromptAddition]:
    """Additions with a random direction at each position, and the norm that the given one has there.

    They differ by name, layer and index, not by coefficient, so that the cells of a sweep over coefficients share them.

    Args:
        addition: What they are compared with.
        n: How many; named ``random-0`` and so on.
        seed: Of the drawing.

    Raises:
        ValueError: If ``n`` is negative.
    """
    _check_number(n)
    found: list[PromptAddition] = []
    for index in range(n):
        generator = seeded_generator(f"{seed}/{addition.name}/{addition.layer}/{index}")
        noise = torch.randn(addition.values.shape, generator=generator, dtype=torch.float64)
        found.append(_control(addition, noise, "random", index, seed, ()))
    return found


def nonsense(model: HookedModel, addition: PromptAddition, n: int, *, seed: int = 0) -> list[PromptAddition]:
    """Additions made from random tokens: as long as the given one, and with its norm at each position.

    Each is the difference of two strings of tokens drawn from the whole vocabulary but for special tokens, BOS in front
    where the model has one, read where the given one was; of one string where that was made from a single prompt. The
    two never have the same token at the same place.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        addition: What they are compared with.
        n: How many; named ``nonsense-0`` and so on.
        seed: Of the drawing.

    Raises:
        ValueError: If ``n`` is negative, for a layer that the model does not have, or where the given addition is not
            zero at a position at which they are.
    """
    _check_number(n)
    adapter = adapt(model)
    check_layers(adapter, [addition.layer])
    _check_first(adapter, addition)
    n_sides = 1 if len(addition.tokens) == 1 else 2
    strings = [string for index in range(n) for string in _strings(adapter, addition, n_sides, index, seed)]
    sides = block_inputs(adapter, addition.layer, strings)
    found: list[PromptAddition] = []
    for index in range(n):
        mine = slice(n_sides * index, n_sides * (index + 1))
        values = sides[mine][0] if n_sides == 1 else sides[mine][0] - sides[mine][1]
        tokens = tuple(tuple(token_texts(adapter, ids)) for ids in strings[mine])
        found.append(_control(addition, values.double(), "nonsense", index, seed, tokens))
    return found


def with_controls(model: HookedModel, additions: Additions, *, n_nulls: int = 20, seed: int = 0) -> Ways:
    """Nothing, the additions, and so many controls of each kind, by kind and draw, for `generate`.

    Of several additions each has a control of its own in each way.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        additions: One, or several that are made at once.
        n_nulls: So many random ones and so many of nonsense; 1 or more.
        seed: Of the drawing.

    Raises:
        TypeError: For something else than additions.
        ValueError: For no controls, no additions, or as `edits_of`; before the model runs.
    """
    parts = check_additions(adapt(model), additions, n_nulls)
    drawn = {
        "random": [random_like(part, n_nulls, seed) for part in parts],
        "nonsense": [nonsense(model, part, n_nulls, seed=seed) for part in parts],
    }
    controls = {
        (kind, draw): tuple(of_part[draw] for of_part in drawn[kind]) for kind in KINDS for draw in range(n_nulls)
    }
    return {("unsteered", -1): (), ("vector", -1): parts, **controls}


def named_way(parts: Sequence[PromptAddition], kind: str, draw: int) -> dict[str, Any]:
    """The columns of a frame that say what was added: ``vector``, ``kind`` and ``draw``."""
    name = kind if kind == "unsteered" else " + ".join(part.name for part in parts)
    return {"vector": name, "kind": kind, "draw": draw}


def check_additions(adapter: Adapter, additions: Additions, n_nulls: int | None) -> tuple[PromptAddition, ...]:
    """Additions as a tuple, checked against the model and, unless ``n_nulls`` is None, for having controls.

    Errors as `with_controls`.
    """
    several: Any = additions if isinstance(additions, list | tuple) else (additions,)
    parts: tuple[Any, ...] = tuple(several)
    if wrong := [part for part in parts if not isinstance(part, PromptAddition)]:
        raise TypeError(
            f"{wrong[0]!r} is no addition to a prompt: give what caa_lens.steering.addition returns, or several of them"
        )
    if not parts:
        raise ValueError("there are no additions: give at least one")
    parts_of(adapter, parts)
    if n_nulls is not None:
        if n_nulls < 1:
            raise ValueError(f"n_nulls is {n_nulls}: no effect is given without its null, so give 1 or more, as 20")
        for part in parts:
            _check_first(adapter, part)
    return parts


def _strings(adapter: Adapter, addition: PromptAddition, n_sides: int, index: int, seed: int) -> list[list[int]]:
    """Token ids of the sides of one nonsense addition, BOS included."""
    tokenizer = adapter.tokenizer
    bos: int | None = tokenizer.bos_token_id if adapter.prepends_bos else None
    head = [] if bos is None else [bos]
    special = set(tokenizer.all_special_ids)
    known = min(len(tokenizer), int(adapter.cfg.d_vocab))
    vocabulary = [token for token in range(known) if token not in special]
    generator = seeded_generator(f"{seed}/nonsense/{addition.name}/{addition.layer}/{index}")
    n = len(addition) - len(head)
    first = torch.randint(len(vocabulary), (n,), generator=generator)
    apart = torch.randint(1, len(vocabulary), (n,), generator=generator)
    sides = [first, (first + apart) % len(vocabulary)][:n_sides]
    return [[*head, *(vocabulary[place] for place in side.tolist())] for side in sides]


def _control(
    addition: PromptAddition,
    values: Float[Tensor, "pos d_model"],
    kind: str,
    index: int,
    seed: int,
    tokens: tuple[tuple[str, ...], ...],
) -> PromptAddition:
    """The values with the addition's norm at each position."""
    norms, own = addition.values.double().norm(dim=1), values.norm(dim=1)
    if bool(((own == 0) & (norms > 0)).any()):
        raise ValueError(
            f"{kind}-{index} is zero where {addition.name} is not: its two tokens there are the same to the model; "
            "give another seed"
        )
    scaled = values * torch.where(own > 0, norms / own.clamp(min=1e-300), 0.0).unsqueeze(1)
    made = replace(addition.provenance, method=kind, seed=seed, operations=(f"norms of {addition.name}",))
    return replace(addition, values=scaled, tokens=tokens, provenance=made, name=f"{kind}-{index}")


def _check_first(adapter: Adapter, addition: PromptAddition) -> None:
    """Refuse a difference that is not zero at BOS, where that of nonsense strings is: they cannot be given its norm."""
    norm = float(addition.values[0].norm())
    if norm and len(addition.tokens) != 1 and adapter.prepends_bos and adapter.tokenizer.bos_token_id is not None:
        raise ValueError(
            f"nonsense additions are zero at position 0, which is BOS, and {addition.name} has norm {norm:.4g} there: "
            "they cannot be given its norm; was it made by hand?"
        )


def _check_number(n: int) -> None:
    if n < 0:
        raise ValueError(f"the number of controls must be 0 or more, got {n}")
