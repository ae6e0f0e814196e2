"""Layers x multipliers x items: the experiment that every CAA study turns on, as one tidy frame.

Each item is a question with two answers. Its prompt is run once; every cell of the sweep is then a branch of one or two
steered tokens (`caa_lens.engine.branching`), and what is kept of it are the log-probabilities of the two answers at the
first token where they differ: for ``(A)`` and ``(B)``, the letter (CAA, arXiv 2312.06681, section 4). The one minus the
other is the logit difference of the two answers, which is their log odds. Norm-matched random vectors go through the
same cells. `caa_lens.summarize` turns the frame into effects and intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from caa_lens.datasets.contrast import ContrastDataset, ContrastPair
from caa_lens.engine.branching import branch_logits
from caa_lens.engine.edits import Edit
from caa_lens.engine.packing import Branch
from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Condition, Intervention
from caa_lens.interventions.operations import Add, Operation
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import check_layers
from caa_lens.prompts import PromptFormat, both_answers
from caa_lens.steering.conditions import conditional_edits
from caa_lens.steering.steering import parts_of
from caa_lens.vectors.vectors import SteeringVectors, random_like

if TYPE_CHECKING:
    import pandas as pd


ADD = Add()


@dataclass(frozen=True, slots=True)
class _Item:
    """A question whose two answers are compared: the prompt, what is run of the answers, and the two next tokens."""

    prompt: tuple[int, ...]
    steered: tuple[int, ...]
    matching: int
    other: int


@dataclass(frozen=True, slots=True)
class _Cell:
    """One way of steering: whose vector, where, and how much."""

    vector: str
    layer: int
    multiplier: float
    edits: tuple[Edit, ...]


def sweep(
    model: HookedModel,
    vectors: SteeringVectors | Mapping[str, SteeringVectors],
    items: ContrastDataset | Mapping[str, ContrastDataset],
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    n_nulls: int = 0,
    nulls: Sequence[SteeringVectors] | Mapping[str, Sequence[SteeringVectors]] = (),
    seed: int = 0,
    operation: Operation = ADD,
    when: Condition | None = None,
    site: str | None = None,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Measure every layer at every multiplier on every item.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: One behaviour's vectors, or several by name.
        items: The questions: one dataset, or one for each behaviour under the same names.
        layers: Layers to steer; None for all that the vectors have.
        multipliers: Any numbers; 0, against which every effect is measured, is added where it is missing.
        n_nulls: So many random vectors of each layer's norm go through the same cells.
        nulls: Other vectors that do, such as `caa_lens.extraction.null_vectors` gives, under their own names; for
            several behaviours, a mapping by behaviour.
        seed: Of the random vectors.
        operation: What is done with the vectors, the multiplier being how much of it; see
            `caa_lens.interventions.operations`.
        when: Steer only items whose prompt this holds for; it is decided once an item, on the unsteered prompt.
        site: Where in the block to steer; None for where the vectors were read.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each behavior x vector x layer x multiplier x item, with ``vector`` (``"behavior"``, or
        ``"random-0"`` and so on, which have no rows at multiplier 0), ``letter`` (of the matching answer; None where
        answers are no letters), ``logp_matching`` and ``logp_other`` (natural logarithms, over the whole vocabulary),
        ``p_matching`` (of the two), ``p_a`` (the share of A of the two; NaN where neither answer is (A)) and ``mass``
        (the sum of both probabilities).

    Raises:
        ValueError: Before the model runs: for names that do not match, layers the vectors lack, a site the model lacks,
            repeated multipliers, or an item whose answers cannot be told apart by one token.
    """
    import pandas as pd

    adapter = adapt(model)
    pairs_of = _by_name(vectors, items)
    if layers is not None:
        layers = check_layers(adapter, layers)
    scale = sorted({0.0, *(float(multiplier) + 0.0 for multiplier in multipliers)})
    if len(set(multipliers)) < len(multipliers):
        raise ValueError(f"multipliers {brief(list(multipliers))}: give each once")
    extra = nulls if isinstance(nulls, Mapping) else {name: nulls for name in pairs_of}
    if len(pairs_of) > 1 and not isinstance(nulls, Mapping) and len(nulls):
        raise ValueError(
            f"there are {len(pairs_of)} behaviours: give nulls as a mapping by behaviour, {list(pairs_of)}"
        )
    how: Any = {"site": site, "operation": operation, "when": when}
    work = {
        name: (
            [_item(adapter, pair, index, prompt_format, system) for index, pair in enumerate(pairs)],
            _cells(adapter, mine, layers, scale, _kinds(mine, n_nulls, seed, extra.get(name, ())), how),
        )
        for name, (mine, pairs) in pairs_of.items()
    }
    total = sum(len(prepared) * len(cells) for prepared, cells in work.values())
    frames: list[pd.DataFrame] = []
    with tqdm(
        total=total, desc=progress if isinstance(progress, str) else "sweeping", unit="cell", disable=not progress
    ) as bar:
        for name, (prepared, cells) in work.items():
            logp = _run(adapter, prepared, cells, batch_size, bar)
            pairs = pairs_of[name][1]
            frames.append(_frame(name, pairs, cells, logp, pairs_of[name][0].layers if layers is None else layers))
    return pd.concat(frames, ignore_index=True)


def _by_name(
    vectors: SteeringVectors | Mapping[str, SteeringVectors], items: ContrastDataset | Mapping[str, ContrastDataset]
) -> dict[str, tuple[SteeringVectors, ContrastDataset]]:
    if isinstance(vectors, SteeringVectors) and isinstance(items, ContrastDataset):
        found = {vectors.name: (vectors, items)}
    elif isinstance(vectors, Mapping) and isinstance(items, Mapping):
        if set(vectors) != set(items):
            raise ValueError(
                f"vectors are named {brief(sorted(vectors))} and items {brief(sorted(items))}: give both under the "
                "same names"
            )
        found = {name: (vectors[name], items[name]) for name in vectors}
    else:
        raise ValueError(
            f"vectors are {type(vectors).__name__} and items are {type(items).__name__}: give SteeringVectors with a "
            "ContrastDataset (ContrastDataset.from_pairs(...) makes one), or a mapping of each with the same names"
        )
    for name, (_, pairs) in found.items():
        if not len(pairs):
            raise ValueError(f"there are no items for {name}: at least one is needed")
    if not found:
        raise ValueError("no vectors were given: at least one behaviour is needed")
    return found


def _item(
    adapter: Adapter, pair: ContrastPair, index: int, prompt_format: PromptFormat | None, system: str | None
) -> _Item:
    matching, other, start, differ = both_answers(
        adapter, pair, f"item {index}", prompt_format=prompt_format, system=system
    )
    return _Item(matching[:start], matching[start:differ], matching[differ], other[differ])


def _kinds(
    vectors: SteeringVectors, n_nulls: int, seed: int, nulls: Sequence[SteeringVectors]
) -> dict[str, SteeringVectors]:
    """The behaviour's own vectors and all that are compared with them, by the name they have in the frame."""
    kinds = {"behavior": vectors}
    for null in [*(random_like(vectors, n_nulls, seed) if n_nulls else ()), *nulls]:
        if null.name in kinds:
            raise ValueError(f"there are two nulls named {null.name!r}: give each a name of its own")
        kinds[null.name] = null
    return kinds


def _cells(
    adapter: Adapter,
    vectors: SteeringVectors,
    layers: Sequence[int] | None,
    multipliers: Sequence[float],
    kinds: Mapping[str, SteeringVectors],
    how: dict[str, Any],
) -> list[_Cell]:
    """The unsteered cell first, which stands for multiplier 0 at every layer."""
    cells = [_Cell("behavior", -1, 0.0, ())]
    for kind, of_kind in kinds.items():
        for layer in vectors.layers if layers is None else layers:
            vector = of_kind[layer]
            for multiplier in multipliers:
                if multiplier != 0:
                    edits, _ = parts_of(adapter, Intervention(vector, multiplier, **how))
                    cells.append(_Cell(kind, layer, multiplier, edits))
    return cells


def _run(
    adapter: Adapter, items: Sequence[_Item], cells: Sequence[_Cell], batch_size: int | None, bar: tqdm[Any]
) -> torch.Tensor:
    """Log-probabilities of both answers, ``[item, cell, 2]`` in float64 on the CPU."""
    prompts = [(*item.prompt, item.steered[0]) for item in items]
    edits = conditional_edits(adapter, {column: cell.edits for column, cell in enumerate(cells)}, prompts)
    branches = [
        Branch(index, item.steered, edits[column][index])
        for index, item in enumerate(items)
        for column in range(len(cells))
    ]
    answers = torch.tensor([[item.matching, item.other] for item in items])
    out = torch.empty(len(branches), 2, dtype=torch.float64)

    def receive(chunk: list[int], logits: torch.Tensor) -> None:
        rows = torch.tensor(chunk)
        wanted = answers[rows // len(cells)].to(logits.device)
        for part, own, of_answers in zip(rows.split(256), logits.split(256), wanted.split(256), strict=True):
            own = own.float()  # a part at a time: a copy of all logits would take more memory than the model
            out[part] = (own.gather(1, of_answers) - own.logsumexp(dim=-1, keepdim=True)).double().cpu()
        bar.update(len(chunk))

    branch_logits(adapter, [item.prompt for item in items], branches, receive, batch_size=batch_size)
    return out.view(len(items), len(cells), 2)


def _frame(
    name: str, pairs: ContrastDataset, cells: Sequence[_Cell], logp: torch.Tensor, layers: Sequence[int]
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    # The unsteered cell is one run and one row per layer: multiplier 0 is the same at all of them.
    rows = [(column, layer) for column, cell in enumerate(cells) for layer in (layers if column == 0 else [cell.layer])]
    columns = [column for column, _ in rows]
    n_items = len(pairs)
    letters = [pair.letter for pair in pairs]
    matching = logp[:, columns, 0].T.reshape(-1).numpy()
    other = logp[:, columns, 1].T.reshape(-1).numpy()
    p_matching = 1 / (1 + np.exp(other - matching))
    letter = np.tile(np.array(letters, dtype=object), len(rows))
    a_matches = np.tile([pair.letter == "A" for pair in pairs], len(rows))
    a_is_other = np.tile([pair.swapped().letter == "A" for pair in pairs], len(rows))
    return pd.DataFrame(
        {
            "behavior": name,
            "vector": np.repeat([cells[column].vector for column in columns], n_items),
            "layer": np.repeat([layer for _, layer in rows], n_items),
            "multiplier": np.repeat([cells[column].multiplier for column in columns], n_items),
            "item": np.tile(np.arange(n_items), len(rows)),
            "letter": letter,
            "logp_matching": matching,
            "logp_other": other,
            "p_matching": p_matching,
            "p_a": np.where(a_matches, p_matching, np.where(a_is_other, 1 - p_matching, np.nan)),
            "mass": np.exp(matching) + np.exp(other),
        }
    )
