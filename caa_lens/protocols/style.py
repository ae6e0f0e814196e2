"""A writer's style as a vector: the own texts, minus what the model itself would have answered.

Who writes an answer to a prompt decides *what* to say and *how*. The model's own answers to the same prompts say much
the same in nobody's style, so the mean difference of the two keeps the style (StyleVector, arXiv 2503.05213). Added to
every token of an answer, it should bring answers nearer to what the same person wrote to other prompts.

Of the paper its abstract and summaries were at hand: the contrast with style-free answers, the mean difference, and
similarity to held-out texts as the measure. That a text's last token is read is taken from its account of two passes a
text, and could not be checked against its section on the method.

    vectors = style_vectors(model, written[:80])
    texts = caa.generate(model, prompts, steer=vectors[13] * 1.5)
    table = style_effect(model, vectors[13], written[80:])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from caa_lens.evaluation.statistics import NOTHING, against_nulls, resampled
from caa_lens.extraction.extraction import check_places
from caa_lens.extraction.origin import provenance_on
from caa_lens.files.messages import brief
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.prompts import FormattedPrompt, PromptForm, PromptFormat, PromptOptions, default_format, format_prompt
from caa_lens.steering.steering import generate
from caa_lens.steering.streams import run_texts
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors, random_like

if TYPE_CHECKING:
    import pandas as pd

Written = Sequence[tuple[str, str]]
"""Prompts, each with what the writer answered."""

Measure = Callable[[str, str], float]
"""How alike a writer's text and a generated one are: larger is more alike. Given in this order."""


def style_vectors(
    model: HookedModel,
    texts: Written,
    neutral: Sequence[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    over: Literal["last", "mean"] = "last",
    site: str = "resid_post",
    name: str = "style",
    max_new_tokens: int = 100,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> SteeringVectors:
    """The mean over texts of the stream under the own text minus that under the neutral one, a vector for each layer.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        texts: Prompts with the own texts. A pair may have texts of any two lengths.
        neutral: An answer in no style to each prompt; None lets the model give its own, greedily.
        layers: None for all.
        over: ``last`` reads the last token of each text, which has seen all of it; ``mean`` the mean over the text's
            tokens, of which a long text has a steadier one.
        site: Where in each block to read, and so where the vectors are used; see `extract_vectors`.
        name: Of the vectors.
        max_new_tokens: Length of the neutral answers that the model gives. An answer that is cut off in the middle ends
            unlike an own text that is whole, which shows in what ``last`` reads: give room enough for whole answers.
        prompt_format: See `format_prompt`.
        system: A system prompt for every prompt.
        batch_size: Texts run at once.
        progress: Show a progress bar while the model answers.

    Raises:
        TypeError: If ``texts`` are no pairs of strings.
        ValueError: Before the model runs: for no texts, an empty one, a number of neutral answers that is not that of
            the texts, or layers or a site the model lacks. Later: for a prompt to which the model says nothing, or
            where nothing is left of the difference.
    """
    adapter, asked = adapt(model), check_places(model, layers, site)
    if over not in ("last", "mean"):
        raise ValueError(f"over {brief(over)} is not known: give 'last' or 'mean'")
    prompts = _check_texts(texts)
    form: PromptForm = {"prompt_format": prompt_format, "system": system}
    own = [format_prompt(adapter, prompt, text, **form) for prompt, text in texts]
    if neutral is not None:
        answers, said = neutral, "given"
    else:
        bar = "neutral answers" if progress else False
        answers = generate(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=bar, **form)
        said = f"the model's own, {max_new_tokens} tokens at most"
    if isinstance(answers, str) or len(answers) != len(texts):
        count = "one string" if isinstance(answers, str) else str(len(answers))
        raise ValueError(f"neutral answers: {count} for {len(texts)} texts: give one for each, in the same order")
    if empty := [place for place, text in enumerate(answers) if not (text or "").strip()]:
        raise ValueError(
            f"there is no neutral answer to prompt {empty[0]}, {prompts[empty[0]][:60]!r}: leave it out, or give "
            "neutral= with an answer to each prompt"
        )
    plain = [format_prompt(adapter, prompt, text, **form) for prompt, text in zip(prompts, answers, strict=True)]
    names = {adapter.hook_name(layer, site): column for column, layer in enumerate(asked)}
    total = torch.zeros(len(asked), adapter.d_model, dtype=torch.float64)
    for texts_of_side, sign in ((own, 1), (plain, -1)):

        def add(
            index: int, hook: str, stream: Tensor, *, side: Sequence[FormattedPrompt] = texts_of_side, sign: int = sign
        ) -> None:
            first, after = side[index].spans["answer"]
            part = stream[after - 1 : after] if over == "last" else stream[first:after]
            total[names[hook]] += sign * part.to("cpu", torch.float64).mean(dim=0)

        run_texts(adapter, texts_of_side, list(names), add, batch_size=batch_size)
    if not bool(total.any(dim=1).all()):
        raise ValueError("the own texts are the neutral ones: give texts that the model would not write by itself")
    rows = [[prompt, text, other] for (prompt, text), other in zip(texts, answers, strict=True)]
    provenance = provenance_on(
        model,
        hook_point=f"hook_{site}",
        read_position="answer_end" if over == "last" else "answer_mean",
        prompt_format=prompt_format or default_format(model),
        system_prompt=system,
        dataset="own texts",
        dataset_hash=hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest(),
        dataset_origin=f"texts given in Python; neutral answers: {said}",
        n_pairs=len(texts),
        method="style",
    )
    return SteeringVectors((total / len(texts)).float(), asked, provenance, name)


def style_effect(
    model: HookedModel,
    vector: SteeringVector,
    texts: Written,
    *,
    multipliers: Sequence[float] = (0.5, 1.0, 2.0),
    n_nulls: int = 20,
    measure: Measure | None = None,
    max_new_tokens: int = 100,
    n_bootstrap: int = 2000,
    seed: int = 0,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """How much nearer steered answers come to what the writer wrote, beside random vectors of the same norm.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        vector: Of `style_vectors`.
        texts: Prompts with the own texts, none of which the vector was made from.
        multipliers: Which; 0 is always there.
        n_nulls: Random vectors, at least 1.
        measure: See `Measure`; None for `rouge_l`.
        max_new_tokens: Length of the answers.
        n_bootstrap: Resamplings of the texts.
        seed: Of the random vectors and the resampling.
        prompt_format: See `format_prompt`.
        system: A system prompt for every prompt.
        batch_size: Rows continued at once.
        progress: Show a progress bar.

    Returns:
        One row for each multiplier: ``layer``, ``multiplier``, ``n_texts``; mean ``similarity`` and its
        ``similarity_change`` against the unsteered answers, both with bootstrap intervals over texts, ``_low`` to
        ``_high``, of 95 %; ``n_random``, ``random_low`` and ``random_high``: the 2.5 and 97.5 % quantiles of the random
        vectors' changes; ``above_random``: the share of them that changed less upwards, at negative multipliers too;
        ``prompt``, ``own_text``, ``unsteered_text`` and ``steered_text``: where the similarity rose most.
        Changes and what compares them are NaN at multiplier 0.

    Raises:
        ImportError: If `rouge_l` is used and not installed.
        ValueError: For no texts, no random vectors, or no multiplier that is not 0, and as `generate` says; before the
            model runs.
    """
    import numpy as np
    import pandas as pd

    scale = sorted({float(multiplier) for multiplier in multipliers if multiplier != 0})
    prompts = _check_texts(texts)
    if not scale or n_nulls < 1:
        raise ValueError(
            f"multipliers {brief(list(multipliers))}, n_nulls {n_nulls}: give a multiplier that is not 0, and at least "
            "one random vector, without which a change says nothing"
        )
    compare = measure or rouge_l
    compare(texts[0][1], texts[0][1])  # fails now where its library is not installed
    tried = [vector, *(null[vector.layer] for null in random_like(vector.as_set(), n_nulls, seed))]
    ways = {(place, step): each * step for place, each in enumerate(tried) for step in scale}
    form: PromptOptions = {"prompt_format": prompt_format, "system": system, "batch_size": batch_size}
    bar = "answering" if progress else False
    told = generate(model, prompts, steer={(0, 0.0): None, **ways}, max_new_tokens=max_new_tokens, progress=bar, **form)
    alike = {
        way: np.array([compare(own, text) for (_, own), text in zip(texts, said, strict=True)])
        for way, said in told.items()
    }
    drawn = resampled(len(texts), n_bootstrap, seed)
    base = alike[0, 0.0]
    rows: list[dict[str, Any]] = []
    for step in sorted([0.0, *scale]):
        similarity, change = alike[0, step], alike[0, step] - base
        row: dict[str, Any] = {"layer": vector.layer, "multiplier": step, "n_texts": len(texts)}
        row |= drawn.mean(similarity).columns("similarity")
        moved = [float((alike[place, step] - base).mean()) for place in range(1, len(tried))] if step else []
        nearer = drawn.mean(change) if step else NOTHING
        row |= nearer.columns("similarity_change") | against_nulls(nearer.value, moved).columns("random", "above")
        most = int(change.argmax())
        row |= {"prompt": prompts[most], "own_text": texts[most][1], "unsteered_text": told[0, 0.0][most]}
        rows.append(row | {"steered_text": told[0, step][most]})
    return pd.DataFrame(rows)


def rouge_l(own: str, text: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, 0 to 1 (Lin 2004), by Google's ``rouge_score``.

    Words are runs of the letters a to z and digits, without case: punctuation and other scripts count for nothing. For
    those there is `chrf`.

    Raises:
        ImportError: If ``rouge_score`` is not installed: ``pip install "caa_lens[evals]"``.
    """
    return float(_rouge_scorer().score(own, text)["rougeL"].fmeasure)


def chrf(own: str, text: str) -> float:
    """chrF: F-score of common runs of 1 to 6 characters, case and punctuation included, 0 to 1 (Popovic 2015).

    Raises:
        ImportError: If ``sacrebleu`` is not installed: ``pip install "caa_lens[evals]"``.
    """
    try:
        from sacrebleu import sentence_chrf
    except ImportError as error:
        raise ImportError('sacrebleu is not installed: pip install "caa_lens[evals]", or give a measure=') from error
    return float(sentence_chrf(text, [own]).score) / 100


@cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError('rouge_score is not installed: pip install "caa_lens[evals]", or give a measure=') from error
    made: Any = RougeScorer
    return made(["rougeL"])


def _check_texts(texts: Written) -> list[str]:
    """The prompts."""
    for place, pair in enumerate(texts):
        parts: Any = pair
        if not isinstance(parts, tuple) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise TypeError(f"text {place} is {brief(pair)}: give a tuple of a prompt and what was written")
        if not parts[1].strip():
            raise ValueError(f"text {place} is empty: leave it out")
    if not len(texts):
        raise ValueError("there are no texts: give tuples of a prompt and what was written")
    return [prompt for prompt, _ in texts]
