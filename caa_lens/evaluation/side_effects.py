"""What steering does besides what it is for: how far it moves the model on text that has nothing to do with it.

A vector that changes every next-token distribution has done damage, whatever it does to the behaviour. The measure is
KL(steered || unsteered) per token of neutral running text; beside it stand the loss of the text itself and whether the
likeliest token is still the same. Two layers or methods are comparable at the multipliers where they do equal damage:
more effect at the same KL is a better vector, more effect at a larger multiplier is not.

Steered is every position of a text but the first, and counted are the predictions made from those positions: tokens 2,
3, ... of the text, counted from 0. The first position is BOS, or the text's first token where the model has no BOS.
Attention uses it as a place to rest, with a residual stream far larger than any other position's; no generation steers
it, a vector added there can break what no real use of the vector breaks, and what it predicts is no text yet. The last
position predicts nothing of the text and is not counted either. An addition to a prompt (ActAdd) is made at the front
of each text; the positions that it covers are masked out, for all recipes alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from caa_lens.engine.edits import Edit, PromptEdit, points_of
from caa_lens.engine.hooking import hooked
from caa_lens.engine.text_logprobs import RunningTexts, TokenScores, check_texts
from caa_lens.interventions.interventions import Intervention, Recipe
from caa_lens.models.adapters import Adapter, HookedModel, TokenIds, adapt
from caa_lens.prompts import format_prompt
from caa_lens.steering.steering import edits_of, parts_of
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors, Vectors, as_vectors

if TYPE_CHECKING:
    import pandas as pd

FIRST = 2
"""The first token that counts: the first that is predicted from a steered position."""


def side_effects(
    model: HookedModel,
    recipes: Mapping[str, Recipe | None],
    texts: Sequence[str],
    *,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """How far each recipe moves the model along each text, token by token.

    The texts are run as they are (format ``plain``, with BOS where the model has one), steered and counted as the
    module says. A recipe that adds nothing (multiplier 0, None) gives exactly 0. Log-probabilities are taken in float64
    from logits of the model's dtype; in bfloat16 rounding alone was a KL of 1e-4 a token on the bundled model.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        recipes: What to steer with, by name, as for `steer`, but without conditions, since there are no prompts.
        texts: Neutral running text, not prompts; at least three tokens each.
        batch_size: Rows run at once, one for each text and recipe; None chooses by their length and the free memory.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each recipe x text, with ``vector`` (the recipe's name), ``document`` (its place in the
        list), ``n_tokens`` (counted);
        ``kl_mean``, ``kl_p95``, ``kl_max``: KL(steered || unsteered) over the counted tokens, in nats;
        ``nll_unsteered``, ``nll_steered``: mean negative log-likelihood of the counted tokens, in nats (perplexity is
        exp of it); ``top1_agreement``: share of them where both models have the same likeliest token.

    Raises:
        TypeError: If ``texts`` is one string, or ``recipes`` are not under names.
        ValueError: Before the model runs: for no texts or recipes, a text too short or too long, a recipe that does not
            fit the model, or one with a condition or an addition elsewhere than at the front.

    Sources: KL per token on neutral text as the measure of damage: the steering-lite library; loss on unrelated text:
    ActAdd (arXiv 2308.10248).
    """
    import numpy as np
    import pandas as pd

    adapter = adapt(model)
    if not isinstance(recipes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"recipes are {type(recipes).__name__}: give them under names, such as {{'x 1': vectors[13] * 1.0}}"
        )
    if not recipes:
        raise ValueError("no recipes were given: at least one is needed, such as {'x 1': vectors[13] * 1.0}")
    ways = [_along_text(adapter, recipe) for recipe in recipes.values()]
    covered = max((len(edit.values) for way in ways for edit in way if isinstance(edit, PromptEdit)), default=0)
    first = max(FIRST, covered + 1)
    ids = _running(adapter, texts, first)
    check_texts(adapter, ids, batch_size)
    with hooked(adapter, points_of(ways)) as hooks, _bar(progress, "side effects", len(ids) * len(ways)) as bar:
        runs = RunningTexts(adapter, hooks, ids, [first] * len(ids), batch_size=batch_size)
        found = runs.scores(ways, bar)
    rows = [
        {
            "vector": name,
            "document": text,
            "n_tokens": len(scores.kl),
            "kl_mean": float(scores.kl.mean()),
            "kl_p95": float(np.quantile(scores.kl.numpy(), 0.95)),
            "kl_max": float(scores.kl.max()),
            "nll_unsteered": float(scores.nll_unsteered.mean()),
            "nll_steered": float(scores.nll.mean()),
            "top1_agreement": float(scores.agrees.double().mean()),
        }
        for name, of_recipe in zip(recipes, found, strict=True)
        for text, scores in enumerate(of_recipe)
    ]
    return pd.DataFrame(rows)


def at_equal_damage(
    model: HookedModel,
    vectors: Vectors | Mapping[str, SteeringVector],
    texts: Sequence[str],
    budget: float,
    *,
    sign: int = 1,
    quantile: float = 0.95,
    smallest: float = 1 / 64,
    largest: float = 64.0,
    tolerance: float = 0.01,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """The multiplier at which each layer, or each vector, does the same damage.

    Damage is a quantile of KL(steered || unsteered) over all counted tokens of all texts together, steered and counted
    as the module says. It need not grow with the multiplier everywhere, so what is sought is the first crossing: the
    multiplier doubles from ``smallest`` until the budget is reached, then the last interval is halved. A crossing and
    its return between two doublings are not seen. All vectors go on together in the same passes, and each stops when
    its own search is done.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vectors: A vector for each layer, one vector, or single vectors by name.
        texts: Neutral running text; at least three tokens each.
        budget: In nats, such as 0.1; well above what rounding does (see `side_effects`).
        sign: 1 steers along the vectors, -1 against them; the two are not symmetric.
        quantile: Of the KL per token; 0.95 leaves one token in twenty above the budget.
        smallest: The first multiplier that is tried, without its sign.
        largest: The last.
        tolerance: The search ends when the interval is this small a part of the multiplier.
        batch_size: Rows run at once, one for each text and vector.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each vector, with ``vector`` (its name), ``layer``, ``multiplier`` (with its sign), ``added_norm``
        (the length of what is added at each position), ``kl`` (the quantile there: at or just above the budget),
        ``kl_mean``, ``reached`` (whether the budget was), ``largest`` (the largest multiplier allowed) and
        ``n_evaluations``. Where the budget is not reached, ``reached`` is False, ``multiplier`` and ``added_norm`` are
        NaN, and ``kl`` and ``kl_mean`` are those at the largest multiplier.

    Raises:
        TypeError: If ``texts`` is one string, or ``vectors`` are neither of the two kinds.
        ValueError: Before the model runs: for settings out of range, and as `side_effects`.

    Source: comparison of steering methods at a fixed KL: the steering-lite library.
    """
    import numpy as np
    import pandas as pd

    adapter = adapt(model)
    named = _named(vectors)
    check_budget(budget, sign, quantile, smallest, largest, tolerance)
    ids = _running(adapter, texts)
    for _, vector in named:
        edits_of(adapter, vector)
    check_texts(adapter, ids, batch_size)
    searches = [Search(budget, smallest, largest, tolerance) for _ in named]
    points = {(vector.layer, vector.site) for _, vector in named}
    with hooked(adapter, points) as hooks, _bar(progress, "equal damage", None) as bar:
        runs = RunningTexts(adapter, hooks, ids, [FIRST] * len(ids), batch_size=batch_size, keep=True)
        while going := [index for index, search in enumerate(searches) if not search.done]:
            ways = [
                edits_of(adapter, Intervention(named[index][1], sign * searches[index].multiplier)) for index in going
            ]
            for index, of_way in zip(going, runs.scores(ways, bar), strict=True):
                kl = _pooled(of_way).numpy()
                searches[index].take(float(np.quantile(kl, quantile)), float(kl.mean()))
    rows: list[dict[str, Any]] = []
    for (name, vector), search in zip(named, searches, strict=True):
        multiplier = sign * search.high if search.high is not None else math.nan
        rows.append(
            {
                "vector": name,
                "layer": vector.layer,
                "multiplier": multiplier,
                "added_norm": abs(multiplier) * vector.norm(),
                "kl": search.kl,
                "kl_mean": search.kl_mean,
                "reached": search.high is not None,
                "largest": sign * largest,
                "n_evaluations": search.n_evaluations,
            }
        )
    return pd.DataFrame(rows)


@dataclass(slots=True)
class Search:
    """The search for the first multiplier that reaches the budget: what to try next, and what was found.

    Attributes:
        budget: The KL to be reached.
        multiplier: What to try next, then to be told of by `take`; begins with the smallest.
        largest: The last that is tried.
        tolerance: See `at_equal_damage`.
        low: The largest tried multiplier below the crossing.
        high: The smallest tried that reaches the budget; None while there is none.
        kl: The quantile at ``high``, or at the largest tried while there is none.
        kl_mean: The mean there.
        n_evaluations: Multipliers tried.
        done: Nothing is left to try.
    """

    budget: float
    multiplier: float
    largest: float
    tolerance: float
    low: float = 0.0
    high: float | None = None
    kl: float = math.nan
    kl_mean: float = math.nan
    n_evaluations: int = 0
    done: bool = False

    def take(self, kl: float, kl_mean: float) -> None:
        """Note the damage at ``multiplier`` and choose the next."""
        self.n_evaluations += 1
        reached = not kl < self.budget  # NaN, from logits that overflowed, is damage too
        if reached or self.high is None:
            self.kl, self.kl_mean = kl, kl_mean
        if reached:
            self.high = self.multiplier
        else:
            self.low = self.multiplier
        if self.high is None:
            self.done = self.multiplier >= self.largest
            self.multiplier = min(2 * self.multiplier, self.largest)
        else:
            # Below 1e-9 there is only rounding, which a budget can be smaller than.
            self.done = self.high - self.low <= self.tolerance * self.high or self.high < 1e-9
            self.multiplier = (self.low + self.high) / 2


def _pooled(of_way: Sequence[TokenScores]) -> torch.Tensor:
    return torch.cat([scores.kl for scores in of_way])


def _named(vectors: Vectors | Mapping[str, SteeringVector]) -> list[tuple[str, SteeringVector]]:
    if isinstance(vectors, SteeringVector | SteeringVectors):
        return [(vectors.name, vector) for vector in as_vectors(vectors)]
    if not isinstance(vectors, Mapping) or any(not isinstance(each, SteeringVector) for each in vectors.values()):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"vectors are {type(vectors).__name__}: give SteeringVectors, or a mapping of names to single vectors, "
            "such as {'mean': vectors[13]}"
        )
    if not vectors:
        raise ValueError("no vectors were given: at least one is needed")
    return list(vectors.items())


def check_budget(
    budget: float,
    sign: int = 1,
    quantile: float = 0.95,
    smallest: float = 1 / 64,
    largest: float = 64.0,
    tolerance: float = 0.01,
) -> None:
    """Refuse settings of `at_equal_damage` that are out of range, with a ValueError."""
    if not 0 < budget < math.inf or not 0 <= quantile <= 1 or sign not in (-1, 1):
        raise ValueError(
            f"budget {budget}, quantile {quantile}, sign {sign}: budget is a positive number of nats, quantile is from "
            "0 to 1, sign is 1 or -1"
        )
    if not 0 < smallest <= largest < math.inf or not 0 < tolerance < 1:
        raise ValueError(
            f"smallest {smallest}, largest {largest}, tolerance {tolerance}: smallest is positive and at most largest, "
            "tolerance is between 0 and 1; the direction is given by sign"
        )


def _along_text(adapter: Adapter, recipe: Recipe | None) -> list[Edit | PromptEdit]:
    edits, additions = parts_of(adapter, recipe)
    for edit in edits:
        if edit.when is not None:
            raise ValueError(
                f"the condition {edit.when.vector.name!r} is decided on a prompt, and running text has none: leave it "
                "out here"
            )
    for addition in additions:
        if addition.at != "front":
            raise ValueError(f"{addition!r}: in running text an addition is made at the front: give at='front'")
    return [*edits, *(PromptEdit(addition.layer, 0, addition.delta) for addition in additions)]


def _running(adapter: Adapter, texts: Sequence[str], first: int = FIRST) -> list[TokenIds]:
    if isinstance(texts, str):
        raise TypeError(f"texts is one string: give a list, such as [{texts[:20]!r}]")
    if not len(texts):
        raise ValueError("no texts were given: at least one is needed")
    ids = [format_prompt(adapter, text, prompt_format="plain").ids for text in texts]
    for index, tokens in enumerate(ids):
        if len(tokens) <= first:
            covered = "the first is not steered and does not count"
            if first > FIRST:
                covered = f"the first {first - 1} are added to and do not count"
            raise ValueError(
                f"text {index} has {len(tokens)} tokens, {texts[index]!r}: at least {first + 1} are needed, since "
                f"{covered}; give running text"
            )
    return list(ids)


def _bar(progress: bool | str, text: str, total: int | None) -> tqdm[Any]:
    return tqdm(total=total, desc=progress if isinstance(progress, str) else text, unit="row", disable=not progress)
