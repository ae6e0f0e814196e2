"""Adding a vector to the residual stream: the one thing in this package that changes what a model says.

`steer` holds hooks on ``hook_resid_post`` for the length of a ``with`` block, so it works with whatever TransformerLens
call is made inside: ``model(tokens)``, ``run_with_cache``, ``run_with_hooks``, ``model.generate``, another `steer`. CAA
(arXiv 2312.06681, section 3) adds the vector at every position from the last prompt token on, that one included,
because it predicts the first token of the answer; `generate` does exactly this, many prompts at once. Hooks return new
tensors, leave with the block also on an exception, and with multiplier 0 there is no hook at all.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.adapters import Adapter, HookedModel, adapt
from caa_lens.branching import check_batch_size, check_context
from caa_lens.decoding import Sampler, decoding
from caa_lens.hooking import Edit
from caa_lens.memory import rows_at_once
from caa_lens.models import check_layers
from caa_lens.prompts import PromptFormat, format_prompt
from caa_lens.vectors import Recipe, as_interventions

Positions = Literal["prompt_end", "all"] | int | Tensor
Key = TypeVar("Key", bound=Hashable)


def edits_of(adapter: Adapter, recipe: Recipe | None, multiplier: float = 1.0) -> tuple[Edit, ...]:
    """What a recipe adds at each layer, without the parts whose multiplier is zero.

    Raises:
        ValueError: For a layer the model does not have, or a vector of another width; before the model runs.
    """
    if not math.isfinite(multiplier):
        raise ValueError(f"multiplier must be a finite number, got {multiplier}")
    edits: list[Edit] = []
    for part in as_interventions(recipe):
        check_layers(adapter, [part.layer])
        if len(part.vector.value) != adapter.d_model:
            raise ValueError(
                f"the vector {part.vector.name!r} has d_model {len(part.vector.value)} and {adapter.name} has "
                f"{adapter.d_model}: it was made on another model ({part.vector.provenance.model})"
            )
        delta = part.vector.value * (part.multiplier * multiplier)
        if bool(delta.any()):
            edits.append((part.layer, delta))
    return tuple(edits)


@contextmanager
def steer(
    model: HookedModel, recipe: Recipe, multiplier: float = 1.0, *, positions: Positions = "prompt_end"
) -> Generator[HookedModel]:
    """Steer every forward pass inside the ``with`` block.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        recipe: A `SteeringVector`, an `Intervention`, or several of them, each added at its own layer.
        multiplier: Times each vector, beside an intervention's own multiplier.
        positions: Where to add it, in a pass over ``[batch, pos]`` token ids:
            ``"prompt_end"``: the last position of the pass (the input is taken to be a prompt);
            ``"all"``: everywhere;
            an index, or a tensor of one index per row: from there on, negative ones counted from the end;
            a boolean tensor ``[batch, pos]``: where it is true.
            A pass over a single position is a step of decoding with a cache and is steered, unless a mask of that
            one position was given. Where text grows without a cache (``model.generate(use_past_kv_cache=False)``), give
            the index of the last prompt token: ``"prompt_end"`` would follow the end of each pass.

    Yields:
        The model, the same object.

    Raises:
        ValueError: For a layer the model does not have, a vector of another width, unknown positions, or a pass whose
            shape does not fit them.

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
    if isinstance(positions, str) and positions not in ("prompt_end", "all"):
        raise ValueError(f"positions {positions!r} is not known: give 'prompt_end', 'all', an index, or a boolean mask")
    per_layer: dict[int, Tensor] = {}
    for layer, delta in edits_of(adapter, recipe, multiplier):
        per_layer[layer] = per_layer[layer] + delta if layer in per_layer else delta
    if not per_layer:
        yield model
        return
    hooks = [(adapter.hook_name(layer), partial(_add, delta, positions)) for layer, delta in per_layer.items()]
    with model.hooks(fwd_hooks=hooks):
        yield model


def _add(delta: Tensor, positions: Positions, resid: Float[Tensor, "batch pos d_model"], hook: Any = None) -> Tensor:
    where = _where(positions, resid.shape[0], resid.shape[1]).to(resid.device)
    return torch.where(where.unsqueeze(-1), resid + delta.to(resid), resid)


def _where(positions: Positions, batch: int, pos: int) -> Bool[Tensor, "rows pos"]:
    """Which positions of a pass are steered; one row where all rows are alike."""
    mask = positions if isinstance(positions, Tensor) and positions.dtype == torch.bool else None
    decoding_step = pos == 1 and (mask is None or mask.shape[-1] != 1)
    if decoding_step or (isinstance(positions, str) and positions == "all"):
        return torch.ones(1, pos, dtype=torch.bool)
    if mask is not None:
        if mask.ndim != 2 or mask.shape[0] not in (1, batch) or mask.shape[1] != pos:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)} and this pass has (batch {batch}, pos {pos}): give one "
                "boolean for each position of the pass"
            )
        return mask
    starts = torch.as_tensor(-1 if isinstance(positions, str) else positions).reshape(-1, 1).cpu()
    if len(starts) not in (1, batch) or bool((starts >= pos).any()) or bool((starts < -pos).any()):
        raise ValueError(
            f"steering starts at {starts.flatten().tolist()} and this pass has (batch {batch}, pos {pos}): give one "
            f"index for all rows or one for each, from {-pos} to {pos - 1}"
        )
    return torch.arange(pos) >= torch.where(starts < 0, starts + pos, starts)


@overload
def generate(
    model: HookedModel,
    prompts: Sequence[str],
    *,
    steer: Recipe | None = None,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    use_cache: bool = True,
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
    seed: int = 0,
    batch_size: int | None = None,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    use_cache: bool = True,
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
    seed: int = 0,
    batch_size: int | None = None,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    use_cache: bool = True,
    progress: bool | str = False,
) -> list[str] | dict[Any, list[str]]:
    """Continue prompts, steered from the last prompt token on.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        prompts: Questions, without any template.
        steer: What to add, or None for the unsteered model; or several ways of steering under names of any kind, as
            in ``{m: vectors[4] * m for m in (-1, 0, 1)}``. They are continued together, and a batch runs each of its
            prompts once.
        max_new_tokens: At most; an end-of-text token ends a row earlier.
        temperature: 0 takes the likeliest token each time.
        top_p: Sample from the smallest set of tokens whose probability reaches this.
        seed: Each prompt draws from a generator of its own, made from this and the prompt's place in the list, so that
            batches, and what else is continued beside it, do not change what is sampled.
        batch_size: Rows continued at once, one for each prompt and way of steering; None chooses by the free memory.
        prompt_format: See `format_prompt`.
        system: A system prompt for all of them.
        use_cache: False runs the whole text again for every token: slow, and the same result.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The new text of each prompt, without special tokens; for several ways of steering, a dict of these.

    Raises:
        TypeError: If ``prompts`` is one string.
        ValueError: For settings out of range, or a prompt that does not fit the model's context with its answer.
    """
    adapter = adapt(model)
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1 or max_new_tokens < 1:
        raise ValueError(
            f"temperature {temperature}, top_p {top_p}, max_new_tokens {max_new_tokens}: temperature is at least 0, "
            "top_p is above 0 and at most 1, max_new_tokens is at least 1"
        )
    check_batch_size(batch_size)
    ways: Mapping[Any, Recipe | None] = steer if isinstance(steer, Mapping) else {None: steer}
    edits = {way: edits_of(adapter, recipe) for way, recipe in ways.items()}
    ids = [format_prompt(adapter, text, prompt_format=prompt_format, system=system).ids for text in prompts]
    lengths = [len(prompt) + max_new_tokens for prompt in ids]
    check_context(adapter, lengths)
    size = batch_size or rows_at_once(adapter, max(lengths, default=1))
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
            sampler = Sampler(temperature, top_p, [seed * 1_000_003 + item for item, _ in batch])
            with decoding(
                adapter,
                [ids[item] for item in of_batch],
                [edits[way] for _, way in batch],
                parents=parents,
                use_cache=use_cache,
            ) as decoder:
                new = decoder.run(torch.tensor([ids[item][-1] for item, _ in batch]), sampler, max_new_tokens, stops)
            for (item, way), tokens in zip(batch, new, strict=True):
                texts[way][item] = str(adapter.tokenizer.decode(tokens, skip_special_tokens=True))
            bar.update(len(batch))
    return texts if isinstance(steer, Mapping) else texts[None]
