"""Guessing the layer to steer before any sweep, from what the logit lens shows.

Billa (arXiv 2604.15557, "Linear Accessibility Profile") finds that a mean difference steers best where the answer can
already be read off the stream by the model's own head: its A_lin, the share of prompts whose likeliest token through
the logit lens is the right answer, ranks layers as their steering effect does (Spearman .63 to .92 on Pythia, Gemma,
Qwen and Llama models). It also reads the direction itself, normed and unembedded, at the target token. Its concepts are
families of prompts with one-word answers. The definitions here were taken from the paper's abstract and its public
repository; the paper's own text was not at hand.

What is known of these guesses here. Girl against boy on a small model of stories, asked for as " She" against " He":
`readout` ranks the five layers exactly as a sweep does. The bundled model's behaviours, asked for by the letters A and
B: `readout` cannot say anything; `a_lin` ranks the five layers at .63 to .70, but never exceeds `constant`, so it found
a letter, not an answer; `decided` ranks them at -.89 for all seven, as steering works up to the layer after which the
model decides. A sweep on held-out items is the measurement, and costs three passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from caa_lens.analysis.lens import Norm, direction_logits, stream_logits
from caa_lens.analysis.tokens import token_ids
from caa_lens.datasets.contrast import ContrastDataset, ContrastPair, Pairs, as_dataset
from caa_lens.engine.branching import branch_residuals
from caa_lens.engine.packing import Branch
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import check_layers
from caa_lens.prompts import PromptFormat, both_answers
from caa_lens.steering.steering import edits_of
from caa_lens.vectors.vectors import Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["layer", "a_lin", "constant", "decided", "readout", "readout_unit"]


def early_layer(
    model: HookedModel,
    vectors: Vectors,
    answers: Pairs | Sequence[tuple[str, str]],
    *,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Predictors of the layer at which a vector will steer best; nothing is steered.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One a layer.
        answers: The items that would be swept: their prompts are run once, unsteered. Or only pairs of tokens' texts,
            towards and away, such as ``[(" She", " He")]``: then no prompt is run and the first three figures are NaN.
        prompt_format: See `format_prompt`.
        system: A system prompt for all items.
        batch_size: Prompts run at once.

    Returns:
        One row for each `layer` of the vectors:
        `a_lin`: share of items whose likeliest token of the whole vocabulary, by the logit lens of the stream where the
        answers part, is the matching answer's (Billa's A_lin, with the matching answer as the right one); larger is
        better, where it exceeds `constant`;
        `constant`: the share that naming the same token for every item could reach at most; the same at all layers;
        `decided`: share of items in which the lens already prefers the answer, of the two, that the model prefers at
        its end, so 1 at the last layer (ours); where it has risen it may be too late to steer;
        `readout`: the logit of the matching answer's token less the other's when the vector goes through the final
        norm's linear part and the unembedding, averaged over items: what steering adds to the log odds on the direct
        way, up to one factor for all layers; larger is better. NaN where answers are letters: a vector is added to
        every prompt alike and can speak for A or for B, not for whichever matches;
        `readout_unit`: the same through the whole norm, in which a vector's length does not count (Billa's C(d)).

    Raises:
        ValueError: Before the model runs: for no answers, answers that cannot be told apart by one token, texts that
            are not one token, or vectors that are not this model's.

    Example:
        The paper picks `a_lin`'s best layer; a sweep's summary tells how good a pick that was:
        ``early_layer(model, vectors, dev).set_index("layer")["a_lin"].idxmax()``
    """
    import pandas as pd

    adapter, vectors = adapt(model), as_vectors(vectors)
    layers = check_layers(adapter, vectors.layers)
    for vector in vectors:
        edits_of(adapter, vector)
    if not len(answers):
        raise ValueError("there are no answers to predict: give items, or pairs of tokens such as [(' She', ' He')]")
    frame = pd.DataFrame({"layer": layers}).reindex(columns=COLUMNS)
    lettered = False
    items = _as_items(answers)
    if items is not None:
        prompts, targets = _items(adapter, items, prompt_format, system)
        lettered = any(pair.letter for pair in items)
        right, prefers = _read_off(adapter, prompts, targets, layers, batch_size)
        frame["a_lin"] = right.double().mean(dim=0).tolist()
        frame["constant"] = int(targets[:, 0].bincount().max()) / len(targets)
        frame["decided"] = (prefers[:, :-1] == prefers[:, -1:]).double().mean(dim=0).tolist()
    else:
        flat = token_ids(adapter, [token for pair in cast("Sequence[tuple[str, str]]", answers) for token in pair])
        targets = torch.tensor(flat).view(-1, 2)
    parts: dict[str, Norm] = {} if lettered else {"readout": "weight", "readout_unit": "full"}
    for column, norm in parts.items():
        logits = direction_logits(adapter, vectors.values, norm).double()
        frame[column] = (logits[:, targets[:, 0]] - logits[:, targets[:, 1]]).mean(dim=1).tolist()
    return frame


def _as_items(answers: Pairs | Sequence[tuple[str, str]]) -> ContrastDataset | None:
    """Contrast pairs in any of their forms as a dataset; None for pairs of tokens' texts, which have no prompt."""
    if isinstance(answers, ContrastDataset) or isinstance(answers[0], ContrastPair) or len(answers[0]) == 3:
        return as_dataset(cast("Pairs", answers))
    return None


def _items(
    adapter: Adapter, items: ContrastDataset, prompt_format: PromptFormat | None, system: str | None
) -> tuple[list[tuple[int, ...]], Tensor]:
    """What comes before the token at which the two answers part, and that token of both, ``[item, 2]``."""
    prompts: list[tuple[int, ...]] = []
    targets: list[tuple[int, int]] = []
    for index, pair in enumerate(items):
        matching, other, _, part = both_answers(
            adapter, pair, f"item {index}", prompt_format=prompt_format, system=system
        )
        prompts.append(matching[:part])
        targets.append((matching[part], other[part]))
    return prompts, torch.tensor(targets)


def _read_off(
    adapter: Adapter,
    prompts: Sequence[tuple[int, ...]],
    targets: Tensor,
    layers: tuple[int, ...],
    batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """By the lens: is the matching token the likeliest ``[item, layer]``; is it preferred, ``[item, layer + 1]``.

    The last column of the second is the model's own preference, at its last layer.
    """
    final = adapter.n_layers - 1
    read = layers if final in layers else (*layers, final)
    right = torch.empty(len(prompts), len(read), dtype=torch.bool)
    prefers = torch.empty(len(prompts), len(read), dtype=torch.bool)

    def look(chunk: list[int], residuals: Tensor) -> None:
        for index, streams in zip(chunk, residuals, strict=True):
            logits = stream_logits(adapter, streams)
            matching, other = cast(tuple[int, int], tuple(targets[index].tolist()))
            right[index] = logits.argmax(dim=-1) == matching
            prefers[index] = logits[:, matching] > logits[:, other]

    branches = [Branch(index, ids[-1:]) for index, ids in enumerate(prompts)]
    branch_residuals(adapter, [ids[:-1] for ids in prompts], branches, read, look, batch_size=batch_size)
    own = prefers[:, read.index(final)]
    return right[:, : len(layers)], torch.cat([prefers[:, : len(layers)], own[:, None]], dim=1)
