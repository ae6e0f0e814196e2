"""How many next tokens of two kinds of text a model gets right while a vector is added at every position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from caa_lens.engine.branching import check_batch_size
from caa_lens.engine.memory import logits_at_once, most_tokens
from caa_lens.engine.padding import padded_batches
from caa_lens.extraction.nulls import null_vectors
from caa_lens.files.messages import brief
from caa_lens.interventions.interventions import Intervention
from caa_lens.models.adapters import Adapter, HookedModel, TokenIds, adapt
from caa_lens.protocols.broad_skills.making import KINDS, documents_of
from caa_lens.steering.steering import edits_of, steer
from caa_lens.vectors.vectors import SteeringVector

if TYPE_CHECKING:
    import pandas as pd

COEFFICIENTS = (0.0, -0.5, -1.0, -2.0, -5.0, -10.0, -20.0, -50.0)
"""Away from the target, as far as the paper goes."""


def skill_curve(
    model: HookedModel,
    vector: SteeringVector,
    target: Sequence[str],
    other: Sequence[str],
    *,
    coefficients: Sequence[float] = COEFFICIENTS,
    n_nulls: int = 20,
    keep: float = 0.0,
    max_tokens: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """How many next tokens of both kinds of text the model gets right, at every coefficient.

    The vector is added at every position, the first included, as in the paper; every token but a document's first
    counts, and is right where it is the likeliest.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vector: Such as one of `skill_vectors`.
        target: Documents of the skill that the vector was not made from.
        other: Documents of the other kind, also new.
        coefficients: Any numbers; 0 is added where it is missing. Negative ones take the skill away.
        n_nulls: So many vectors with permuted dimensions go through the same coefficients.
        keep: The stop rule: on either side of 0, coefficients grow until the other text keeps less than this share of
            its unsteered accuracy; larger ones are not tried. 0 tries all.
        max_tokens: Documents are cut to so many tokens; None for none cut.
        seed: Of the permutations.
        batch_size: Documents run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each draw x coefficient x kind of text x document, with ``vector`` (its name), ``kind`` (``vector``,
        or ``permuted``, which has no rows at 0), ``draw`` (of a permuted one, else -1), ``layer``, ``coefficient``,
        ``text_kind`` (``target`` or ``other``), ``document`` (its place), ``n_tokens`` (counted) and ``n_correct``.

    Raises:
        TypeError: If documents are one string.
        ValueError: Before the model runs: for no documents, coefficients that are not finite or are repeated, a
            ``keep`` out of range, no controls, and as `skill_vectors`.

    Source: van der Weij et al., arXiv 2403.05767, on broad skills.
    """
    import pandas as pd

    adapter = adapt(model)
    check_batch_size(batch_size)
    steps = check_curve(coefficients, n_nulls, keep)
    edits_of(adapter, vector)
    texts = {
        kind: [text.ids for text in documents_of(adapter, side, kind, max_tokens)]
        for kind, side in zip(KINDS, (target, other), strict=True)
    }
    nulls = null_vectors(vector.as_set(), n_nulls, kind="permuted", seed=seed)
    every = {-1: vector} | {draw: null[vector.layer] for draw, null in enumerate(nulls)}
    rows: list[dict[str, Any]] = []
    shown = progress if isinstance(progress, str) else "steering"
    with tqdm(desc=shown, unit="pass", disable=not progress) as bar:

        def measure(draw: int, coefficient: float) -> float:
            """Note both kinds' documents, and give the accuracy on the other text."""
            part = Intervention(every[draw], coefficient)
            for kind, side in texts.items():
                correct = _correct(adapter, part, side, batch_size)
                bar.update(1)
                for document, (ids, right) in enumerate(zip(side, correct, strict=True)):
                    row: dict[str, Any] = {"vector": vector.name, "kind": "vector" if draw < 0 else "permuted"}
                    row |= {"draw": draw, "layer": vector.layer, "coefficient": coefficient, "text_kind": kind}
                    row |= {"document": document, "n_tokens": len(ids) - 1, "n_correct": right}
                    rows.append(row)
            of_other = rows[-len(texts["other"]) :]
            return sum(row["n_correct"] for row in of_other) / sum(row["n_tokens"] for row in of_other)

        unsteered = measure(-1, 0.0)
        for side in (-1, 1):
            for coefficient in sorted((step for step in steps if step * side > 0), key=abs):
                accuracy = measure(-1, coefficient)
                for draw in range(n_nulls):
                    measure(draw, coefficient)
                if accuracy < keep * unsteered:
                    break
    return pd.DataFrame(rows).sort_values(["draw", "coefficient", "text_kind", "document"], ignore_index=True)


def check_curve(coefficients: Sequence[float], n_nulls: int, keep: float) -> list[float]:
    """Give the coefficients of a curve as numbers, or refuse its settings.

    Raises:
        ValueError: For coefficients that are not finite or are repeated, no controls, or a ``keep`` out of range.
    """
    steps = [float(each) + 0.0 for each in coefficients]
    if len(set(steps)) < len(steps) or not all(map(math.isfinite, steps)):
        raise ValueError(f"coefficients {brief(list(coefficients))}: give finite numbers, each once")
    if not 0 <= keep <= 1 or n_nulls < 1:
        raise ValueError(
            f"keep {keep}, n_nulls {n_nulls}: keep is a share from 0 to 1, and no accuracy is given without its "
            "control, so n_nulls is 1 or more, as 20"
        )
    return steps


def _correct(adapter: Adapter, part: Intervention, texts: Sequence[TokenIds], batch_size: int | None) -> list[int]:
    """How many tokens of each text are the likeliest ones, with this part added at all positions."""
    right, most = [0] * len(texts), min(most_tokens(adapter.device), logits_at_once(adapter))
    batches = padded_batches(
        adapter, texts, side="right", fits=lambda longest: max(1, most // longest), batch_size=batch_size
    )
    for batch in batches:
        with torch.no_grad(), steer(adapter.model, part, positions="all"):
            logits = adapter.model(batch.ids, attention_mask=batch.mask, return_type="logits")
        hits = (logits[:, :-1].argmax(dim=-1) == batch.ids[:, 1:]).cpu()
        for row, (text, length) in enumerate(zip(batch.texts, batch.lengths, strict=True)):
            right[text] = int(hits[row, : length - 1].sum())
    return right
