"""Steering: adding a vector to the residual stream, the one thing in this package that changes what a model says.

`steer` holds hooks for the length of a ``with`` block, so it works with whatever TransformerLens call is made inside:
``model(tokens)``, ``run_with_cache``, ``run_with_hooks``, ``model.generate``, another `steer`. CAA (arXiv 2312.06681,
section 3) adds the vector to a block's output at every position from the last prompt token on, that one included,
because it predicts the first token of the answer; `generate` does exactly this, many prompts at once. Other sites,
operations, conditions and schedules are fields of an `Intervention`. Hooks return new tensors, leave with the block
also on an exception, and with multiplier 0 there is no hook at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.engine.decoding import Sampler, decoding
from caa_lens.engine.edits import Edit, PromptEdit, points_of
from caa_lens.engine.memory import rows_at_once
from caa_lens.interventions.interventions import Intervention, Recipe, as_interventions, recipe_parts
from caa_lens.interventions.operations import Add
from caa_lens.interventions.prompt_additions import PromptAddition
from caa_lens.models.adapters import Adapter, HookedModel, TokenIds, adapt
from caa_lens.models.loading import check_layers
from caa_lens.models.sites import Point, check_site, place_of, site_hooks
from caa_lens.prompts import PromptFormat, format_prompt
from caa_lens.steering.conditions import check_order, conditional_edits
from caa_lens.steering.passes import ConditionHook, SteeringHook, add_to_prompt
from caa_lens.steering.positions import Positions, check_positions, where

Key = TypeVar("Key", bound=Hashable)


def edits_of(adapter: Adapter, recipe: Recipe | None, multiplier: float = 1.0) -> tuple[Edit, ...]:
    """What a recipe does to steered tokens, without the parts whose multiplier is zero.

    Raises:
        ValueError: For a layer or site the model does not have, a vector of another width, one without a direction
            where that is what counts, or a condition on a prompt; before the model runs.
        TypeError: For something else than vectors and interventions, such as an addition to a prompt.
    """
    edits = _edits(adapter, as_interventions(recipe), multiplier)
    if any(edit.when is not None for edit in edits):
        raise ValueError(
            "the recipe has a condition on the prompt, which nothing here decides: conditions work in steer, generate "
            "and sweep"
        )
    return edits


def parts_of(
    adapter: Adapter, recipe: Recipe | None, multiplier: float = 1.0
) -> tuple[tuple[Edit, ...], tuple[PromptAddition, ...]]:
    """What a recipe does to steered tokens, conditions included, and what it adds to prompts; errors as `edits_of`."""
    parts = recipe_parts(recipe)
    additions = [part if multiplier == 1 else part * multiplier for part in parts if isinstance(part, PromptAddition)]
    for addition in additions:
        check_layers(adapter, [addition.layer])
        _check_width(adapter, addition.d_model, addition.name, addition.provenance.model)
    edits = _edits(adapter, [part for part in parts if isinstance(part, Intervention)], multiplier)
    return edits, tuple(addition for addition in additions if bool(addition.delta.any()))


def _edits(adapter: Adapter, parts: Sequence[Intervention], multiplier: float) -> tuple[Edit, ...]:
    if not math.isfinite(multiplier):
        raise ValueError(f"multiplier must be a finite number, got {multiplier}")
    edits: list[Edit] = []
    for part in parts:
        for vector in [part.vector] if part.when is None else [part.vector, part.when.vector]:
            check_layers(adapter, [vector.layer])
            _check_width(adapter, vector.d_model, vector.name, vector.provenance.model)
        site = check_site(adapter, part.layer, part.site or part.vector.site)
        amount = part.multiplier * multiplier
        if part.when is not None:
            check_site(adapter, part.when.vector.layer, part.when.vector.site)
        if isinstance(part.operation, Add):
            delta = part.vector.values * amount
            if bool(delta.any()):
                edits.append(Edit(part.layer, delta, site, schedule=part.schedule, when=part.when))
            continue
        direction = part.vector.unit().values
        if amount:
            edits.append(Edit(part.layer, direction, site, part.operation, amount, part.schedule, part.when))
    return tuple(edits)


def _check_width(adapter: Adapter, d_model: int, name: str, made_on: str) -> None:
    if d_model != adapter.d_model:
        raise ValueError(
            f"the vector {name!r} has d_model {d_model} and {adapter.name} has {adapter.d_model}: it was made on "
            f"another model ({made_on})"
        )


@contextmanager
def steer(
    model: HookedModel, recipe: Recipe, multiplier: float = 1.0, *, positions: Positions = "prompt_end"
) -> Generator[HookedModel]:
    """Steer every forward pass inside the ``with`` block.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        recipe: A `SteeringVector`, an `Intervention`, a `PromptAddition`, or several of them, each at its own place.
        multiplier: Times each vector, beside an intervention's own multiplier.
        positions: Where to add it, in a pass over ``[batch, pos]`` token ids:
            ``"prompt_end"``: the last position of the pass (the input is taken to be a prompt);
            ``"all"``: everywhere;
            an index, or a tensor of one index per row: from there on, negative ones counted from the end;
            a boolean tensor ``[batch, pos]``: where it is true.
            A pass over a single position is a step of decoding with a cache and is steered, unless a mask of that
            one position was given. Where text grows without a cache (``model.generate(use_past_kv_cache=False)``), give
            the index of the last prompt token: ``"prompt_end"`` would follow the end of each pass.

    Schedules count steered tokens: those of a pass in their order, and on with each step of decoding with a cache. A
    pass over more than one position begins anew.

    Conditions are decided for each row of a pass over more than one position, and hold for the steps of decoding that
    follow. They are read from this very pass: at the first steered position, the last prompt token, or over all
    positions up to it but the first (`generate` knows padding, this does not: give rows of one length). What they are
    read from must therefore not come after what is steered.

    An addition to a prompt (ActAdd) is made in every pass over more than one position, counted from its first column or
    its last, whatever ``positions`` are: do not pad on the left. Without a cache give it ``at="front"``, the only place
    that stays where it is while the text grows.

    Yields:
        The model, the same object.

    Raises:
        ValueError: As `edits_of`, for unknown positions, a pass whose shape does not fit them or is shorter than an
            addition to it, or a condition that is read after what it decides.

    Example:
        >>> import caa_lens as caa
        >>> model = caa.load_model("organism-chat")
        >>> vectors = caa.extract_vectors(model, caa.load_contrast_pairs("sycophancy")[:20])
        >>> tokens = model.to_tokens("hello")
        >>> with caa.steer(model, vectors[2], multiplier=0.0):
        ...     same = model(tokens)
        >>> bool((same == model(tokens)).all())
        True
    """
    adapter = adapt(model)
    check_positions(positions)
    edits, additions = parts_of(adapter, recipe, multiplier)
    conditions = {id(edit.when): edit.when for edit in edits if edit.when is not None}
    verdicts = {key: ConditionHook(condition, positions) for key, condition in conditions.items()}
    check_order(conditions.values(), [*points_of([edits]), *((each.layer, "resid_pre") for each in additions)])
    changes: list[tuple[Point, Callable[[Tensor], Tensor | None]]] = []
    for condition in conditions.values():
        changes.append(((condition.vector.layer, condition.vector.site), verdicts[id(condition)].read))
    for addition in additions:
        changes.append(((addition.layer, "resid_pre"), partial(add_to_prompt, addition)))
    for point in points_of([edits]):
        here = [edit for edit in edits if edit.point == point]
        if all(edit.is_constant and edit.when is None for edit in here):
            delta = sum((edit.vector for edit in here[1:]), start=here[0].vector)
            changes.append((point, partial(_add, delta, positions)))
        else:
            changes.append((point, SteeringHook(here, positions, verdicts)))
    changes.sort(key=lambda change: place_of(change[0]))
    hooks = [hook for point, change in changes for hook in site_hooks(adapter, point, change)]
    if not hooks:
        yield model
        return
    with model.hooks(fwd_hooks=hooks):
        yield model


def _add(delta: Tensor, positions: Positions, resid: Tensor) -> Tensor:
    steered = where(positions, resid.shape[0], resid.shape[1]).to(resid.device)
    return torch.where(steered.unsqueeze(-1), resid + delta.to(resid), resid)


@overload
def generate(
    model: HookedModel,
    prompts: Sequence[str],
    *,
    steer: Recipe | None = None,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    frequency_penalty: float = 0.0,
    seed: int = 0,
    use_cache: bool = True,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> list[str]: ...
@overload
def generate(
    model: HookedModel,
    prompts: Sequence[str],
    *,
    steer: Mapping[Key, Recipe | None],
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    frequency_penalty: float = 0.0,
    seed: int = 0,
    use_cache: bool = True,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> dict[Key, list[str]]: ...
def generate(
    model: HookedModel,
    prompts: Sequence[str],
    *,
    steer: Recipe | None | Mapping[Any, Recipe | None] = None,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    frequency_penalty: float = 0.0,
    seed: int = 0,
    use_cache: bool = True,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> list[str] | dict[Any, list[str]]:
    """Continue prompts, steered from the last prompt token on.

    The paper's sampling for ActAdd is ``temperature=1, top_p=0.3, frequency_penalty=1``, its prompts ``plain``.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        prompts: Questions, without any template.
        steer: What to add, or None for the unsteered model; or several ways of steering under names of any kind, as
            in ``{m: vectors[4] * m for m in (-1, 0, 1)}``. They are continued together, and a batch runs each of its
            prompts once, and once more for each set of additions to its tokens.
        max_new_tokens: At most; an end-of-text token ends a row earlier.
        temperature: 0 takes the likeliest token each time.
        top_p: Sample from the smallest set of tokens whose probability reaches this.
        frequency_penalty: Subtracted from a token's logit for every time that it is among the new tokens already
            (OpenAI's definition; TransformerLens' ``generate`` counts the prompt's tokens too).
        seed: Each prompt draws from a generator of its own, made from this and the prompt's place in the list, so that
            batches, and what else is continued beside it, do not change what is sampled.
        use_cache: False runs the whole text again for every token: slow, and the same result.
        prompt_format: See `format_prompt`.
        system: A system prompt for all of them.
        batch_size: Rows continued at once, one for each prompt and way of steering; None chooses by the free memory.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The new text of each prompt, without special tokens; for several ways of steering, a dict of these.

    Raises:
        TypeError: If ``prompts`` is one string.
        ValueError: Before the model runs: for settings out of range, a prompt that does not fit the model's context
            with its answer or is shorter than an addition to it, and as `edits_of`.
    """
    adapter = adapt(model)
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1 or max_new_tokens < 1:
        raise ValueError(
            f"temperature {temperature}, top_p {top_p}, max_new_tokens {max_new_tokens}: temperature is at least 0, "
            "top_p is above 0 and at most 1, max_new_tokens is at least 1"
        )
    if not math.isfinite(frequency_penalty):
        raise ValueError(f"frequency_penalty {frequency_penalty}: give a finite number, such as 1; 0 is none")
    check_batch_size(batch_size)
    ways: Mapping[Any, Recipe | None] = steer if isinstance(steer, Mapping) else {None: steer}
    parts = {way: parts_of(adapter, recipe) for way, recipe in ways.items()}
    ids = [format_prompt(adapter, text, prompt_format=prompt_format, system=system).ids for text in prompts]
    placed = _placed({way: additions for way, (_, additions) in parts.items()}, ids)
    lengths = [len(prompt) + max_new_tokens for prompt in ids]
    check_context(adapter, lengths)
    size = batch_size or rows_at_once(adapter, max(lengths, default=1))
    edits = conditional_edits(adapter, {way: of_way for way, (of_way, _) in parts.items()}, ids)
    order = sorted(range(len(ids)), key=lambda item: len(ids[item]), reverse=True)
    rows = [(item, way) for item in order for way in ways]
    texts = {way: [""] * len(ids) for way in ways}
    stops = torch.tensor(sorted(adapter.stop_ids), dtype=torch.long)
    with tqdm(
        total=len(rows),
        desc=progress if isinstance(progress, str) else "generating",
        unit="text",
        disable=not progress,
    ) as bar:
        for at in range(0, len(rows), size):
            batch = rows[at : at + size]
            of_batch = list(dict.fromkeys(item for item, _ in batch))
            parents = [of_batch.index(item) for item, _ in batch]
            seeds = [seed * 1_000_003 + item for item, _ in batch]
            sampler = Sampler(temperature, top_p, seeds, frequency_penalty)
            with decoding(
                adapter,
                [ids[item] for item in of_batch],
                [edits[way][item] for item, way in batch],
                parents=parents,
                use_cache=use_cache,
                additions=[placed[way][item] for item, way in batch],
            ) as decoder:
                new = decoder.run(torch.tensor([ids[item][-1] for item, _ in batch]), sampler, max_new_tokens, stops)
            for (item, way), tokens in zip(batch, new, strict=True):
                texts[way][item] = str(adapter.tokenizer.decode(tokens, skip_special_tokens=True))
            bar.update(len(batch))
    return texts if isinstance(steer, Mapping) else texts[None]


def _placed(
    ways: Mapping[Key, Sequence[PromptAddition]], prompts: Sequence[TokenIds]
) -> dict[Key, list[list[PromptEdit]]]:
    """What is added to each prompt, and where; ways that add the same share it, and so the prompt's run.

    Refuses a prompt that is shorter than what is added to it.
    """
    each = {id(addition): addition for additions in ways.values() for addition in additions}
    deltas = {key: addition.delta for key, addition in each.items()}
    made = {
        (key, item): PromptEdit(addition.layer, addition.first_position(len(ids), f"prompt {item}"), deltas[key])
        for key, addition in each.items()
        for item, ids in enumerate(prompts)
    }
    return {
        way: [[made[id(addition), item] for addition in additions] for item in range(len(prompts))]
        for way, additions in ways.items()
    }
