"""Two-choice questions under any ways of steering, several vectors at a time, and what comes of them.

`caa_lens.sweep` moves one vector over layers and multipliers. Here a way of steering is any recipe, and besides the two
answers' probabilities it is noted whether the model would have said one of them at all: a model that is pushed too far
answers with something else, and the share of one answer among the two still looks fine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from tqdm.auto import tqdm

from caa_lens.datasets.contrast import Pairs, as_dataset
from caa_lens.engine.branching import branch_answers
from caa_lens.engine.packing import Branch
from caa_lens.evaluation.statistics import Resampled, resampled
from caa_lens.interventions.interventions import Recipe
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.prompts import PromptFormat, both_answers
from caa_lens.steering.steering import edits_of

if TYPE_CHECKING:
    import pandas as pd

UNSTEERED = "unsteered"
_NEEDED = ("behavior", "vector", "kind", "draw", "item", "letter", "p_matching", "log_odds", "mass", "outside")


class Way(NamedTuple):
    """One way of steering, as a frame names it: whose vector, what it is there for, and which null of its kind."""

    vector: str
    kind: str = "vector"
    draw: int = -1


NO_WAY = Way(UNSTEERED, UNSTEERED)


def ask(
    model: HookedModel,
    vectors: Mapping[str, Recipe | None] | Mapping[Way, Recipe | None],
    items: Pairs,
    *,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Ask every item under every way of steering; each prompt is run once for all of them.

    Steered, and read, where `caa_lens.sweep` does it: from the last prompt token on, at the first token where the two
    answers differ.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: What is added, by name (or by `Way`). The unsteered model is asked too, under the name ``unsteered``.
        items: The questions.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Prompts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each vector x item, with ``behavior`` (the items' name, without the name of a split), ``vector``,
        ``kind`` (``vector``, ``unsteered``, or that of a `Way`), ``draw``, ``item``, ``letter`` (of the matching
        answer; None where answers are no letters), ``log_odds`` (the logit difference: natural logarithm of p(matching)
        / p(other)), ``p_matching`` (of the two), ``mass`` (the sum of both probabilities over the whole vocabulary) and
        ``outside`` (whether the likeliest next token is neither answer's). Where logits overflow, the numbers are NaN
        and ``outside`` is true.

    Raises:
        ValueError: Before the model runs: for no items, a vector named ``unsteered``, a recipe that does not fit the
            model, or an item whose answers cannot be told apart by one token.
    """
    import pandas as pd

    adapter, items = adapt(model), as_dataset(items)
    if not len(items):
        raise ValueError(f"there are no items in {items.name!r}: at least one is needed")
    named = {way if isinstance(way, Way) else Way(way): recipe for way, recipe in vectors.items()}
    if any(way.vector == UNSTEERED for way in named):
        raise ValueError(f"a vector is named {UNSTEERED!r}, as the model without any is: give it another name")
    every: dict[Way, Recipe | None] = {NO_WAY: None, **named}
    edits = [edits_of(adapter, recipe) for recipe in every.values()]
    asked = [
        both_answers(adapter, pair, f"item {index}", prompt_format=prompt_format, system=system)
        for index, pair in enumerate(items)
    ]
    prompts = [matching[:start] for matching, _, start, _ in asked]
    branches = [
        Branch(index, matching[start:differ], of_way)
        for index, (matching, _, start, differ) in enumerate(asked)
        for of_way in edits
    ]
    answers = torch.tensor([[matching[differ], other[differ]] for matching, other, _, differ in asked])
    shown = progress if isinstance(progress, str) else "asking"
    with tqdm(total=len(branches), desc=shown, unit="cell", disable=not progress) as bar:
        logp, outside = branch_answers(
            adapter, prompts, branches, answers, likeliest=True, batch_size=batch_size, progress=bar.update
        )
    broken = ~logp.isfinite().all(dim=1)
    logp, outside = logp.masked_fill(broken[:, None], torch.nan), outside | broken
    n = len(items)
    by_way = logp.view(n, len(edits), 2).transpose(0, 1).reshape(-1, 2).numpy()
    odds = by_way[:, 0] - by_way[:, 1]
    ways = [way for way in every for _ in range(n)]
    return pd.DataFrame(
        {
            "behavior": items.name.partition("/")[0],
            "vector": [way.vector for way in ways],
            "kind": [way.kind for way in ways],
            "draw": [way.draw for way in ways],
            "item": [*range(n)] * len(edits),
            "letter": [pair.letter for pair in items] * len(edits),
            "log_odds": odds,
            "p_matching": torch.from_numpy(odds).sigmoid().numpy(),
            "mass": torch.from_numpy(by_way).exp().sum(dim=1).numpy(),
            "outside": outside.view(n, len(edits)).T.reshape(-1).numpy(),
        }
    )


def compared(frame: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """What each way of steering does to a behaviour's items, against the unsteered model.

    Args:
        frame: As `ask` returns it; of several behaviours, such frames one below the other.
        n_bootstrap: Resamplings of the items; each keeps the number of A and B items.
        seed: Of the resampling.

    Returns:
        One row for each behavior x vector x kind x draw, unsteered too, with ``n_items``, ``effect_even``,
        ``effect_even_low`` and ``effect_even_high`` (the change of p(matching) with its 95 % interval), the same of
        the log odds as ``log_odds_change``, ``log_odds_change_low`` and ``log_odds_change_high``, ``mass`` (mean) and
        ``share_outside`` (of items). Changes are letter-balanced as `caa_lens.summarize` balances them, and plain where
        that is not possible. NaN where a number of an item is.

    Raises:
        ValueError: If the frame is not one of `ask`, or lacks the unsteered rows or items of a way.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for behavior, values in changes(frame).items():
        part = frame[frame["behavior"] == behavior]
        items = items_of(part, n_bootstrap, seed)
        shares = part.groupby([*Way._fields], sort=False)[["mass", "outside"]].mean()
        for place, key in enumerate(values["p_matching"].columns):
            row: dict[str, Any] = {"behavior": behavior, **dict(zip(Way._fields, key, strict=True))}
            row |= {"n_items": len(values["p_matching"])}
            for name, column in (("effect_even", "p_matching"), ("log_odds_change", "log_odds")):
                row |= items.balanced_or_plain(values[column].iloc[:, place].to_numpy()).columns(name)
            row |= {"mass": shares.loc[key, "mass"], "share_outside": float(shares["outside"][key])}
            rows.append(row)
    return pd.DataFrame(rows)


def changes(frame: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """By behaviour, the changes since the unsteered model of ``p_matching`` and ``log_odds``: items, by `Way`.

    Raises:
        ValueError: As `compared`.
    """
    import pandas as pd

    if missing := sorted(set(_NEEDED) - set(frame.columns)):
        raise ValueError(f"this is not a frame of ask() or sweep_together(): it lacks the columns {', '.join(missing)}")
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for behavior, part in frame.groupby("behavior", sort=False):
        ways = part[[*Way._fields]].drop_duplicates()
        if UNSTEERED not in set(part["kind"]):
            raise ValueError(
                f"the frame of {behavior} has no rows of the kind {UNSTEERED!r}, against which effects are"
            )
        if part.duplicated([*Way._fields, "item"]).any() or len(part) != len(ways) * part["item"].nunique():
            raise ValueError(f"the frame of {behavior} does not have every item once under each way: was it cut?")
        order = pd.MultiIndex.from_frame(ways)
        found[str(behavior)] = {
            column: (table := part.pivot(index="item", columns=[*Way._fields], values=column)[order]).sub(
                table[tuple(NO_WAY)], axis=0
            )
            for column in ("p_matching", "log_odds")
        }
    return found


def items_of(part: pd.DataFrame, n_bootstrap: int, seed: int) -> Resampled:
    """One behaviour's items, drawn again; the same draws serve all that is compared."""
    letters = part.drop_duplicates("item").sort_values("item")["letter"].fillna("").astype(str).to_numpy()
    return resampled(letters, n_bootstrap, seed)
