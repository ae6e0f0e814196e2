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
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch
from tqdm.auto import tqdm

from caa_lens.datasets.contrast import ContrastDataset, ContrastPair, Pairs, as_dataset
from caa_lens.engine.branching import branch_answers
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
from caa_lens.vectors.vectors import SteeringVectors, Vectors, as_vectors, random_like

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
class _Row:
    """One vector of the frame: what it is called, what it is there for, and its numbers."""

    vector: str
    kind: str
    draw: int
    vectors: SteeringVectors


class _How(TypedDict):
    """What all cells share: where, and what is done."""

    site: str | None
    operation: Operation
    when: Condition | None


@dataclass(frozen=True, slots=True)
class _Cell:
    """One way of steering: whose vector, where, and how much."""

    row: _Row
    layer: int
    multiplier: float
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class _Behavior:
    """What is run for one behaviour."""

    pairs: ContrastDataset
    items: list[_Item]
    cells: list[_Cell]
    layers: Sequence[int]


Nulls = Mapping[str, Sequence[SteeringVectors]]
"""Nulls of one behaviour's vector: by kind, such as ``shuffled``, its draws."""

OWN_KINDS = ("vector", "compared")
"""Kinds of rows that are no nulls."""


def sweep(
    model: HookedModel,
    vectors: Vectors | Mapping[str, Vectors],
    items: Pairs | Mapping[str, Pairs],
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    n_nulls: int = 20,
    seed: int = 0,
    nulls: Nulls | Mapping[str, Nulls] | None = None,
    compared: Mapping[str, Vectors] | Mapping[str, Mapping[str, Vectors]] | None = None,
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
        vectors: One behaviour's vectors (or the vector of one layer), or several behaviours' by name.
        items: The questions: one dataset, or list of pairs, or one for each behaviour under the same names.
        layers: Layers to steer; None for all that the vectors have.
        multipliers: Any numbers; 0, against which every effect is measured, is added where it is missing.
        n_nulls: So many random vectors of each layer's norm go through the same cells, for each vector that is compared
            as well; 0 for none.
        seed: Of the random vectors.
        nulls: Other nulls that do, by their kind: ``{"permuted": null_vectors(vectors, 20, kind="permuted")}``, see
            `caa_lens.extraction.nulls.null_vectors`. Where ``vectors`` is a mapping, so is this, by behaviour.
        compared: Other vectors that do, by name, which are no nulls: such as those of another method, or of another
            behaviour. Where ``vectors`` is a mapping, so is this, by behaviour.
        operation: What is done with the vectors, the multiplier being how much of it; see
            `caa_lens.interventions.operations`.
        when: Steer only items whose prompt this holds for; it is decided once an item, on the unsteered prompt.
        site: Where in the block to steer; None for where the vectors were read.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each behavior x vector x kind x draw x layer x multiplier x item. ``vector`` is a name: the
        behaviour's for its own vector. ``kind`` is ``vector`` for that one, ``compared`` for those of ``compared``,
        and ``random`` or another kind for a null of the vector that is named; ``draw`` numbers the nulls of a kind, and
        is -1 elsewhere. Only the behaviour's own vector has rows at multiplier 0, at every layer the same unsteered
        run. Further ``letter`` (of the matching answer; None where answers are no letters), ``logp_matching`` and
        ``logp_other`` (natural logarithms, over the whole vocabulary), ``p_matching`` (of the two), ``p_a`` (the share
        of A of the two; NaN where neither answer is (A)) and ``mass`` (the sum of both probabilities).

    Raises:
        TypeError: For vectors or items that are none.
        ValueError: Before the model runs: for names that do not match, layers the vectors lack, a site the model lacks,
            repeated multipliers, or an item whose answers cannot be told apart by one token.
    """
    import pandas as pd

    adapter = adapt(model)
    several = isinstance(vectors, Mapping)
    pairs_of = _by_name(vectors, items)
    if layers is not None:
        layers = check_layers(adapter, layers)
    scale = sorted({0.0, *(float(multiplier) + 0.0 for multiplier in multipliers)})
    if len(set(multipliers)) < len(multipliers):
        raise ValueError(f"multipliers {brief(list(multipliers))}: give each once")
    more_nulls = _of_each(nulls, pairs_of, several, "nulls")
    others = _of_each(compared, pairs_of, several, "compared")
    how: _How = {"site": site, "operation": operation, "when": when}
    work: dict[str, _Behavior] = {}
    for name, (own, pairs) in pairs_of.items():
        rows = _rows(name, own, others[name], n_nulls, seed, more_nulls[name])
        used = own.layers if layers is None else layers
        asked = [_item(adapter, pair, index, prompt_format, system) for index, pair in enumerate(pairs)]
        work[name] = _Behavior(pairs, asked, _cells(adapter, used, scale, rows, how), used)
    total = sum(len(each.items) * len(each.cells) for each in work.values())
    frames: list[pd.DataFrame] = []
    shown = progress if isinstance(progress, str) else "sweeping"
    with tqdm(total=total, desc=shown, unit="cell", disable=not progress) as bar:
        for name, each in work.items():
            frames.append(_frame(name, each, _run(adapter, each, batch_size, bar)))
    return pd.concat(frames, ignore_index=True)


def _by_name(
    vectors: Vectors | Mapping[str, Vectors], items: Pairs | Mapping[str, Pairs]
) -> dict[str, tuple[SteeringVectors, ContrastDataset]]:
    made = as_vectors(vectors)
    if isinstance(made, SteeringVectors) != (not isinstance(items, Mapping)):
        raise ValueError(
            f"vectors are {type(vectors).__name__} and items are {type(items).__name__}: give vectors with a "
            "dataset (or a list of pairs), or a mapping of each with the same names"
        )
    if isinstance(made, SteeringVectors):
        made, items = {made.name: made}, {made.name: cast("Pairs", items)}
    asked = cast("Mapping[str, Pairs]", items)
    if not made:
        raise ValueError("no vectors were given: at least one behaviour is needed")
    if set(made) != set(asked):
        raise ValueError(
            f"vectors are named {brief(sorted(made))} and items {brief(sorted(asked))}: give both under the same names"
        )
    for name, pairs in asked.items():
        if not len(pairs):
            raise ValueError(f"there are no items for {name}: at least one is needed")
    return {name: (each, as_dataset(asked[name], name)) for name, each in made.items()}


def _of_each(given: Mapping[str, Any] | None, names: Mapping[str, Any], several: bool, what: str) -> dict[str, Any]:
    """Nulls, or vectors to compare, of each behaviour; none where none are given."""
    if not several:
        return dict.fromkeys(names, given or {})
    if given is not None and (unknown := [name for name in given if name not in names]):
        raise ValueError(
            f"{what} are given for {unknown}, and vectors for {list(names)}: where vectors are a mapping, give {what} "
            "by behaviour"
        )
    return {name: (given or {}).get(name, {}) for name in names}


def _rows(
    name: str, own: SteeringVectors, compared: Mapping[str, Vectors], n_nulls: int, seed: int, nulls: Nulls
) -> list[_Row]:
    """The behaviour's own vectors, those compared with them, and the nulls of all."""
    if name in compared:
        raise ValueError(f"a compared vector is named {name!r}, as the behaviour is: give it another name")
    if wrong := sorted({*OWN_KINDS, "unsteered"} & set(nulls)):
        raise ValueError(f"nulls of the kind {wrong[0]!r}: that is what rows that are no nulls are called")
    if n_nulls and "random" in nulls:
        raise ValueError(f"nulls has random ones, and n_nulls is {n_nulls}: give n_nulls=0, or leave them out")
    found = [_Row(name, "vector", -1, own)]
    found += [_Row(other, "compared", -1, as_vectors(each)) for other, each in compared.items()]
    for row in tuple(found):
        drawn = random_like(row.vectors, n_nulls, seed) if n_nulls else []
        found += [_Row(row.vector, "random", draw, null) for draw, null in enumerate(drawn)]
    found += [_Row(name, kind, draw, null) for kind, of_kind in nulls.items() for draw, null in enumerate(of_kind)]
    return found


def _item(
    adapter: Adapter, pair: ContrastPair, index: int, prompt_format: PromptFormat | None, system: str | None
) -> _Item:
    matching, other, start, differ = both_answers(
        adapter, pair, f"item {index}", prompt_format=prompt_format, system=system
    )
    return _Item(matching[:start], matching[start:differ], matching[differ], other[differ])


def _cells(
    adapter: Adapter, layers: Sequence[int], multipliers: Sequence[float], rows: Sequence[_Row], how: _How
) -> list[_Cell]:
    """The unsteered cell first, which stands for multiplier 0 at every layer."""
    cells = [_Cell(rows[0], -1, 0.0, ())]
    for row in rows:
        for layer in layers:
            vector = row.vectors[layer]
            for multiplier in multipliers:
                if multiplier != 0:
                    edits, _ = parts_of(adapter, Intervention(vector, multiplier, **how))
                    cells.append(_Cell(row, layer, multiplier, edits))
    return cells


def _run(adapter: Adapter, work: _Behavior, batch_size: int | None, bar: tqdm[Any]) -> torch.Tensor:
    """Log-probabilities of both answers, ``[item, cell, 2]`` in float64 on the CPU."""
    prompts = [(*item.prompt, item.steered[0]) for item in work.items]
    edits = conditional_edits(adapter, {column: cell.edits for column, cell in enumerate(work.cells)}, prompts)
    branches = [
        Branch(index, item.steered, edits[column][index])
        for index, item in enumerate(work.items)
        for column in range(len(work.cells))
    ]
    answers = torch.tensor([[item.matching, item.other] for item in work.items])
    asked = [item.prompt for item in work.items]
    logp, _ = branch_answers(adapter, asked, branches, answers, batch_size=batch_size, progress=bar.update)
    return logp.view(len(work.items), len(work.cells), 2)


def _frame(name: str, work: _Behavior, logp: torch.Tensor) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    pairs, cells, layers = work.pairs, work.cells, work.layers
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
            "vector": np.repeat([cells[column].row.vector for column in columns], n_items),
            "kind": np.repeat([cells[column].row.kind for column in columns], n_items),
            "draw": np.repeat([cells[column].row.draw for column in columns], n_items),
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
