"""Steering only the prompts that are like this: is the activation of the prompt similar enough to a vector?

A `Condition` is a vector, a threshold on the cosine, and how the prompt is read. It is decided once for each prompt, on
an unsteered read of it, before anything is continued. `find_threshold` chooses the threshold on prompts of both kinds;
choose on dev prompts and report on others. The idea is that of conditional activation steering (CAST, Lee et al., arXiv
2409.05907, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.engine.edits import Edit
from caa_lens.engine.hooking import hooked
from caa_lens.engine.padding import padded_batches
from caa_lens.interventions.interventions import Condition as Condition
from caa_lens.interventions.interventions import Over, check_over
from caa_lens.models.adapters import Adapter, HookedModel, TokenIds, adapt
from caa_lens.models.loading import check_layers
from caa_lens.models.sites import Point, check_site, place_of
from caa_lens.prompts import PromptFormat, PromptOptions, format_prompt
from caa_lens.vectors.vectors import SteeringVector

if TYPE_CHECKING:
    import pandas as pd

Key = TypeVar("Key")


def similarities(
    model: HookedModel,
    vector: SteeringVector,
    prompts: Sequence[str],
    *,
    over: Over = "last",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, " prompt"]:
    """The cosine of each prompt's activation with the vector, at the vector's layer and site; float32, on the CPU.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vector: The condition vector.
        prompts: Without any template.
        over: See `Condition`.
        prompt_format: See `format_prompt`.
        system: A system prompt for all of them.
        batch_size: Prompts run at once; None chooses by their length and the free memory.

    Raises:
        TypeError: If ``prompts`` is one string.
        ValueError: Before the model runs: for a layer or site that the model does not have, a vector of another width,
            an unknown ``over``, or a prompt that does not fit the model's context.
    """
    adapter = adapt(model)
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    check_over(over)
    check_layers(adapter, [vector.layer])
    check_site(adapter, vector.layer, vector.site)
    if vector.d_model != adapter.d_model:
        raise ValueError(
            f"the vector {vector.name!r} has d_model {vector.d_model} and {adapter.name} has {adapter.d_model}: it was "
            f"made on another model ({vector.provenance.model})"
        )
    ids = [format_prompt(adapter, text, prompt_format=prompt_format, system=system).ids for text in prompts]
    return _cosines(adapter, vector, ids, over, batch_size)


def thresholds(
    positive: Float[Tensor, " positive"], negative: Float[Tensor, " negative"], *, above: bool = True
) -> pd.DataFrame:
    """Every threshold that tells these similarities apart in another way, and which is chosen.

    Thresholds lie half way between neighbouring similarities, and one outside each end. Chosen is the one with the best
    balanced accuracy; among equals the one in the widest gap, which leaves most room on both sides; among those the
    lowest.

    Returns:
        One row a threshold, ascending, with ``threshold``, ``tpr`` (the share of the positive that would be steered),
        ``fpr`` (of the negative), ``balanced_accuracy`` (``(tpr + 1 - fpr) / 2``), ``gap`` (how far the neighbouring
        similarities are apart; 0 at the ends) and ``chosen``.

    Raises:
        ValueError: If either is empty or not finite.
    """
    import numpy as np
    import pandas as pd

    yes, no = (np.asarray(side, dtype=np.float64) for side in (positive, negative))
    if not len(yes) or not len(no) or not (np.isfinite(yes).all() and np.isfinite(no).all()):
        raise ValueError(
            f"{len(yes)} positive and {len(no)} negative similarities: give at least one of each, all of them finite"
        )
    values = np.unique(np.concatenate([yes, no]))
    between = (values[1:] + values[:-1]) / 2
    ends = [(values[0] - 1) / 2, (values[-1] + 1) / 2]
    steps = np.concatenate([ends[:1], between, ends[1:]])
    tpr, fpr = (((side > steps[:, None]) if above else (side < steps[:, None])).mean(axis=1) for side in (yes, no))
    frame = pd.DataFrame({"threshold": steps, "tpr": tpr, "fpr": fpr, "balanced_accuracy": (tpr + 1 - fpr) / 2})
    frame["gap"] = np.concatenate([[0.0], np.diff(values), [0.0]])
    best = frame.sort_values(["balanced_accuracy", "gap", "threshold"], ascending=[False, False, True]).index[0]
    frame["chosen"] = frame.index == best
    return frame


def find_threshold(
    model: HookedModel,
    vector: SteeringVector,
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    above: bool = True,
    over: Over = "last",
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
) -> tuple[Condition, pd.DataFrame]:
    """The condition that tells two kinds of prompts apart best, and how well every threshold does.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vector: The condition vector.
        positives: Dev prompts that are to be steered.
        negatives: Dev prompts that are not.
        above: Whether those to be steered are the more similar ones.
        over: See `Condition`.
        prompt_format: See `format_prompt`.
        system: A system prompt for all of them.
        batch_size: Prompts run at once.

    Returns:
        The condition with the chosen threshold, and the frame of `thresholds`.

    Raises:
        TypeError: If the prompts are one string.
        ValueError: As `similarities` and `thresholds`.
    """
    if not len(positives) or not len(negatives):
        raise ValueError(
            f"{len(positives)} prompts to be steered and {len(negatives)} not to be: give at least one of each"
        )
    options: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    both = [similarities(model, vector, prompts, over=over, **options) for prompts in (positives, negatives)]
    frame = thresholds(*both, above=above)
    return Condition(vector, float(frame.loc[frame["chosen"], "threshold"].item()), above, over), frame


def conditional_edits(
    adapter: Adapter,
    ways: Mapping[Key, Sequence[Edit]],
    prompts: Sequence[TokenIds],
) -> dict[Key, list[tuple[Edit, ...]]]:
    """The edits of each way for each prompt, ``[way][prompt]``: conditions are decided, on unsteered prompts."""
    conditions = {id(edit.when): edit.when for edits in ways.values() for edit in edits if edit.when is not None}
    holds = {
        key: [
            condition.holds(cosine)
            for cosine in _cosines(adapter, condition.vector, prompts, condition.over, None).tolist()
        ]
        for key, condition in conditions.items()
    }
    return {
        way: [tuple(edits)] * len(prompts)
        if all(edit.when is None for edit in edits)
        else [
            tuple(edit for edit in edits if edit.when is None or holds[id(edit.when)][prompt])
            for prompt in range(len(prompts))
        ]
        for way, edits in ways.items()
    }


def _cosines(
    adapter: Adapter, vector: SteeringVector, prompts: Sequence[TokenIds], over: Over, batch_size: int | None
) -> Tensor:
    check_batch_size(batch_size)
    check_context(adapter, [len(ids) for ids in prompts])
    found, point = torch.empty(len(prompts)), (vector.layer, vector.site)
    with hooked(adapter, [point]) as hooks:
        for batch in padded_batches(adapter, prompts, batch_size=batch_size):
            begins, ends = torch.tensor(batch.begins), batch.last_column()
            read: list[Tensor] = []

            def look(
                point: Point, stream: Tensor, *, begins: Tensor = begins, ends: Tensor = ends, read: list[Tensor] = read
            ) -> None:
                read.append(read_prompts(stream, begins, ends, over))

            hooks.at = look
            adapter.forward(batch.ids, batch.mask, ends)
            found[batch.texts] = vector.cosine(read[0]).cpu()
    return found


def read_prompts(stream: Tensor, begins: Tensor, ends: Tensor, over: Over) -> Float[Tensor, "row d_model"]:
    """The activation of each row's prompt, which is in the columns from ``begins`` to ``ends``, that one included."""
    rows = torch.arange(len(stream), device=stream.device)
    begins, ends = begins.to(stream.device), ends.to(stream.device)
    if over == "last":
        return stream[rows, ends].float()
    columns = torch.arange(stream.shape[1], device=stream.device)
    first = torch.minimum(begins + 1, ends).unsqueeze(1)  # without the first token, unless it is the only one
    inside = ((columns >= first) & (columns <= ends.unsqueeze(1))).unsqueeze(2)
    return (stream.float() * inside).sum(dim=1) / inside.sum(dim=1)


def check_order(conditions: Iterable[Condition], edited: Sequence[Point]) -> None:
    """Refuse a condition that would be read, in the pass that it decides on, after something was steered.

    Raises:
        ValueError: With both places.
    """
    for condition in conditions:
        point = condition.vector.layer, condition.vector.site
        lowest = min(edited, key=place_of)
        if place_of(point) > place_of(lowest):
            raise ValueError(
                f"the condition {condition.vector.name!r} is read at {point[1]} of layer {point[0]} and steering "
                f"begins at {lowest[1]} of layer {lowest[0]}, before it: steer cannot look ahead. Use generate or "
                "sweep, which read prompts first, or a condition vector of a lower layer"
            )
