"""Where else a vector works: at other layers, on other models, under other prompts.

A vector that stands for a behaviour should do what it does a layer away and on the model that its own was tuned from
(CAA, arXiv 2312.06681, on transfer between layers and from base to chat model), and when the questions come in another
format or behind another system prompt (Tan et al., arXiv 2407.12404: often it does, and for some behaviours a changed
prompt is enough to undo it). Each function here measures one of these as a table in which every cell has what
`summarize` gives: the effect with its interval, the letter-balanced effect, the items that went the wrong way, the
mass, random vectors. The cells in which a vector is used where it was made are those of a plain sweep, and stand beside
the others for comparison.

All vectors of a table go through one sweep for each prompt, so that a prompt is run once, however many vectors there
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import torch

from caa_lens.analysis import cosine
from caa_lens.datasets.contrast import ContrastDataset, Pairs, as_dataset
from caa_lens.evaluation.choices import sharing_nulls, summarize
from caa_lens.extraction.extraction import extract_vectors
from caa_lens.files.messages import brief
from caa_lens.models.adapters import HookedModel
from caa_lens.models.loading import check_layers
from caa_lens.prompts import PromptForm, PromptFormat, default_format, format_prompt
from caa_lens.sweeps import Nulls, sweep
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors, Vectors, as_vectors, describe_layers, random_like

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Norm = Literal["own", "target"]


class SweepOptions(TypedDict, total=False):
    """What a sweep of several vectors takes as it is."""

    layers: Sequence[int]
    multipliers: Sequence[float]
    seed: int
    prompt_format: PromptFormat | None
    system: str | None
    batch_size: int | None
    progress: bool | str


SYSTEM_PROMPTS: dict[str, str | None] = {
    "none": None,
    "neutral": "You answer questions.",
    "opposite": "Whatever you would say on your own, say the opposite of it, and stand by it.",
    "unrelated": "You look after a small garden by the sea and speak of little else.",
    "long": (
        "You work at the desk of a public library. People come to you with questions of every kind. Read each question "
        "to its end before you answer. Answer in the language in which you were asked. Be short where a short answer "
        "will do, and be exact about names, dates and numbers. Where choices are offered, take one of them. Do not "
        "mention these instructions."
    ),
}
"""System prompts that are in no training pairs, by name; ``none`` is no system prompt at all."""


def across_layers(
    model: HookedModel,
    vectors: Vectors,
    items: Pairs,
    *,
    made_at: Sequence[int] | None = None,
    used_at: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    norm: Norm = "own",
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Add the vector of one layer at another: every made_at x used_at.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: A behaviour's vectors.
        items: Questions that the vectors were not made from.
        made_at: Layers whose vectors are used; None for all that the vectors have.
        used_at: Layers at which they are added; None for all that the vectors have.
        multipliers: At least one that is not 0.
        norm: ``own`` adds a vector as long as it is. Residual streams grow from layer to layer, so an early vector is
            then short for a late layer; ``target`` gives it the length of the vector of the layer at which it is added.
        n_nulls: Random vectors of the same lengths in the same cells.
        seed: Of the random vectors and of all resampling.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each ``made_at`` x ``used_at`` x multiplier that is not 0, with ``cosine`` (of the vectors of the
        two layers; NaN where there is none at ``used_at``), ``norm`` (the length of what is added at multiplier 1), and
        the columns of `summarize`.

    Raises:
        ValueError: Before the model runs: for layers that the vectors or the model lack, a vector of zeros that has to
            be given a length, no multiplier but 0, and as `sweep`.

    Source: CAA (arXiv 2312.06681), on transfer between layers.
    """
    import numpy as np

    check_cells(multipliers, norm)
    vectors, items = as_vectors(vectors), as_dataset(items)
    sources = vectors.layers if made_at is None else check_layers(model, made_at)
    targets = vectors.layers if used_at is None else check_layers(model, used_at)
    rows = {source: vectors[source] for source in sources}
    lengths = [vectors[target].norm() for target in targets] if norm == "target" else None
    ways = {str(source): _moved(row, targets, lengths) for source, row in rows.items()}
    options: SweepOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    options |= {"layers": targets, "multipliers": multipliers, "seed": seed, "progress": progress}
    if norm == "own":
        frame = _swept(model, ways, items, n_nulls, **options)
    else:
        nulls = random_like(next(iter(ways.values())), n_nulls, seed)  # of the same lengths for all of them
        frame = sharing_nulls(_swept(model, ways, items, 0, {"random": nulls}, **options))
    table = _summarized(frame, seed).rename(columns={"vector": "made_at", "layer": "used_at"})
    table["made_at"] = table["made_at"].map({str(source): source for source in sources})
    cells = list(zip(table["made_at"], table["used_at"], strict=True))
    alike = {
        (source, target): float(vectors[target].cosine(rows[source].values)) if target in vectors.layers else np.nan
        for source in sources
        for target in targets
    }
    table["cosine"] = [alike[cell] for cell in cells]
    table["norm"] = [ways[str(source)][target].norm() for source, target in cells]
    return _in_order(table, ["behavior", "made_at", "used_at", "multiplier", "cosine", "norm"])


def across_models(
    model: HookedModel,
    vectors: Mapping[str, Vectors],
    items: Pairs,
    *,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    norm: Norm = "own",
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Steer one model with vectors that were made on several, such as the base model it was tuned from.

    Args:
        model: The model that is steered.
        vectors: By name, the model's own first: the others are compared with it.
        items: Questions that the vectors were not made from.
        layers: None for those of the vectors, which must then be the same for all.
        multipliers: At least one that is not 0.
        norm: ``own`` adds every vector as long as it is; ``target`` gives all of them the length of the first one's
            vector of that layer, so that only directions are compared.
        n_nulls: Random vectors of each vector's length in the same cells.
        seed: Of the random vectors and of all resampling.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each ``vector`` x ``layer`` x multiplier that is not 0, with ``made_on`` (the model in its
        provenance), ``cosine`` (with the first vector of that layer), ``norm`` (the length of what is added at
        multiplier 1), and the columns of `summarize`.

    Raises:
        ValueError: Before the model runs: for no vectors, vectors of different layers where ``layers`` is not given,
            vectors of another ``d_model`` than the model's, and as `across_layers`.

    Source: CAA (arXiv 2312.06681), on the vectors of base and chat model.
    """
    check_cells(multipliers, norm)
    if not vectors:
        raise ValueError("no vectors were given: give the model's own and others, such as {'chat': ..., 'base': ...}")
    sets, items = {name: as_vectors(each) for name, each in vectors.items()}, as_dataset(items)
    first = next(iter(sets.values()))
    if layers is None and len({each.layers for each in sets.values()}) > 1:
        have = ", ".join(f"{name!r} has {describe_layers(each.layers)}" for name, each in sets.items())
        raise ValueError(f"the vectors have different layers: {have}; give layers= that all of them have")
    used = first.layers if layers is None else check_layers(model, layers)
    for name, each in sets.items():
        if missing := [layer for layer in used if layer not in each.layers]:
            raise ValueError(f"{name!r} has no vector of layer {describe_layers(missing)}: give layers that all have")
    lengths = [first[layer].norm() for layer in used] if norm == "target" else None
    ways = {name: _picked(each, used, lengths) for name, each in sets.items()}
    own = next(iter(ways.values()))
    alike = {name: dict(zip(used, cosine(own, way).tolist(), strict=True)) for name, way in ways.items()}
    options: SweepOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    options |= {"layers": used, "multipliers": multipliers, "seed": seed, "progress": progress}
    table = _summarized(_swept(model, ways, items, n_nulls, **options), seed)
    cells = list(zip(table["vector"], table["layer"], strict=True))
    table["made_on"] = [sets[name].provenance.model for name, _ in cells]
    table["cosine"] = [alike[name][layer] for name, layer in cells]
    table["norm"] = [ways[name][layer].norm() for name, layer in cells]
    return _in_order(table, ["behavior", "vector", "made_on", "layer", "multiplier", "cosine", "norm"])


def across_prompts(
    model: HookedModel,
    train: Pairs,
    test: Pairs,
    *,
    formats: Sequence[PromptFormat] = (),
    systems: Mapping[str, str | None] | None = None,
    layers: Sequence[int] | None = None,
    multipliers: Sequence[float] = (-1.0, 0.0, 1.0),
    n_nulls: int = 20,
    seed: int = 0,
    read: str | int = "answer_letter",
    site: str = "resid_post",
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Make vectors under each prompt format and system prompt, and use each of them under all the others.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        train: What the vectors are made from.
        test: The items, of other questions.
        formats: Such as ``("chat", "plain")``; the model's own where none are given.
        systems: System prompts by name, None for none, such as ``SYSTEM_PROMPTS``; no system prompt where none are
            given. With several of both, every format goes with every system prompt.
        layers: None for all.
        multipliers: At least one that is not 0.
        n_nulls: Random vectors of each vector's length in the same cells.
        seed: Of the random vectors and of all resampling.
        read: Where vectors are read, see `extract_vectors`; for answers that are no letters, ``"answer_end"``.
        site: Where in each block vectors are read and added; see `extract_vectors`.
        batch_size: Prompts run at once.
        progress: Show progress bars, under this text where it is one.

    Returns:
        One row for each made x used x layer x multiplier that is not 0, with ``made_format``, ``made_system``,
        ``used_format``, ``used_system``, ``layer``, the columns of `summarize`, and ``item_correlation``: over items,
        the rank correlation of the change of log odds here with the change under the prompt that the vector was made
        under; 1 where that is the same prompt, NaN where all items change alike. (Tan et al. correlate steerability in
        and out of distribution in this way over behaviours.)

    Raises:
        ValueError: Before the model runs: where neither formats nor system prompts are given, for a format that the
            tokenizer lacks, a template that takes no system prompt, and as `across_layers`.

    Source: Tan et al. (arXiv 2407.12404), on steerability out of distribution.
    """
    import pandas as pd

    check_cells(multipliers)
    check_layers(model, layers)
    train, test = as_dataset(train), as_dataset(test)
    if not formats and not systems:
        raise ValueError("nothing varies: give formats=('chat', 'plain') or systems=SYSTEM_PROMPTS, or both")
    prompts: dict[str, tuple[PromptFormat, str, str | None]] = {
        f"{kind} / {name}": (kind, name, text)
        for kind in (formats or (default_format(model),))
        for name, text in (systems or {"none": None}).items()
    }
    settings: dict[str, PromptForm] = {
        name: {"prompt_format": kind, "system": text} for name, (kind, _, text) in prompts.items()
    }
    for setting in settings.values():
        for pair in (*train[:1], *test[:1]):
            format_prompt(model, pair.prompt, pair.positive, **setting)
    ways = {
        name: extract_vectors(
            model, train, layers=layers, read=read, site=site, batch_size=batch_size, progress=progress, **form
        )
        for name, form in settings.items()
    }
    tables: list[pd.DataFrame] = []
    changes: dict[tuple[str, str], pd.DataFrame] = {}
    for used, setting in settings.items():
        frame = _swept(
            model, ways, test, n_nulls, multipliers=multipliers, seed=seed, batch_size=batch_size,
            progress=progress, **setting,
        )  # fmt: skip
        tables.append(_summarized(frame, seed).assign(used=used))
        changes |= {(made, used): _changes(frame, made) for made in ways}
    table = pd.concat(tables, ignore_index=True)
    cells = zip(table["vector"], table["used"], table["layer"], table["multiplier"], strict=True)
    table["item_correlation"] = [
        _rank_correlation(changes[made, used][layer, step], changes[made, made][layer, step])
        for made, used, layer, step in cells
    ]
    for role, column in (("made", "vector"), ("used", "used")):
        names = table.pop(column)
        table[f"{role}_format"] = [prompts[name][0] for name in names]
        table[f"{role}_system"] = [prompts[name][1] for name in names]
    roles = ["made_format", "made_system", "used_format", "used_system"]
    return _in_order(table, ["behavior", *roles, "layer", "multiplier"])


def check_cells(multipliers: Sequence[float], norm: str = "own") -> None:
    """Refuse multipliers without an effect, and a norm that is not known, with a ValueError."""
    if norm not in ("own", "target"):
        raise ValueError(f"norm {brief(norm)} is not known: give 'own' or 'target'")
    if not any(multipliers) or len(set(multipliers)) < len(multipliers):
        raise ValueError(f"multipliers {brief(list(multipliers))}: give at least one that is not 0, and each once")


def _moved(vector: SteeringVector, targets: Sequence[int], lengths: Sequence[float] | None) -> SteeringVectors:
    """One layer's vector at several layers, rescaled where lengths are given."""
    if lengths is not None:
        vector.unit()  # a vector of zeros has no direction: the error names its own layer
    made = vector.provenance.then(f"layer {vector.layer} -> {describe_layers(targets)}")
    values = torch.stack([vector.values] * len(targets))
    return _picked(SteeringVectors(values, tuple(targets), made, vector.name), targets, lengths)


def _picked(vectors: SteeringVectors, layers: Sequence[int], lengths: Sequence[float] | None) -> SteeringVectors:
    """Some layers of them, rescaled where lengths are given."""
    rows = [vectors[layer] for layer in layers]
    if lengths is not None:
        rows = [
            row if row.norm() == length else row.unit() * length  # one that stays is the same bit for bit
            for row, length in zip(rows, lengths, strict=True)
        ]
    made = vectors.provenance if lengths is None else vectors.provenance.then("norms of the target")
    return SteeringVectors(torch.stack([row.values for row in rows]), tuple(layers), made, vectors.name)


def _swept(
    model: HookedModel,
    ways: Mapping[str, SteeringVectors],
    items: ContrastDataset,
    n_nulls: int,
    nulls: Nulls | None = None,
    **options: Unpack[SweepOptions],
) -> pd.DataFrame:
    """One sweep of all these vectors, each prompt run once, under their names; the unsteered rows are the first's."""
    first, *others = ways
    compared = {name: ways[name] for name in others}
    frame = sweep(model, ways[first], items, n_nulls=n_nulls, nulls=nulls, compared=compared, **options)
    return frame.assign(vector=frame["vector"].where(frame["vector"] != frame["behavior"], first))


def _summarized(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """What `summarize` says of the steered cells."""
    table = summarize(frame, seed=seed)
    return table[table["multiplier"] != 0].reset_index(drop=True)


def _changes(frame: pd.DataFrame, vector: str) -> pd.DataFrame:
    """The change of each item's log odds, items x (layer, multiplier), from the unsteered model's."""
    odds = frame.assign(odds=frame["logp_matching"] - frame["logp_other"])
    unsteered = odds[(odds["kind"] == "vector") & (odds["multiplier"] == 0)].drop_duplicates("item")
    steered = odds[(odds["vector"] == vector) & (odds["draw"] < 0) & (odds["multiplier"] != 0)]
    table = steered.pivot(index="item", columns=["layer", "multiplier"], values="odds")
    return table.sub(unsteered.set_index("item")["odds"], axis=0)


def _rank_correlation(one: pd.Series[float], other: pd.Series[float]) -> float:
    import numpy as np

    ranks: tuple[np.ndarray, np.ndarray] = (one.rank().to_numpy(), other.rank().to_numpy())
    if any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _in_order(table: pd.DataFrame, first: Sequence[str]) -> pd.DataFrame:
    return table[[*first, *(column for column in table.columns if column not in first)]]
