"""Is a steered answer still language? Two measures that need no judge.

A vector pushed too far gives word salad, or the same phrase again and again. The first is improbable text: its
perplexity under the *unsteered* model rises (under the steered one it may not). The second is the opposite, text that
every model finds probable, and only counting words shows it. Neither is enough alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import cast

from tqdm.auto import tqdm

from caa_lens.engine.hooking import hooked
from caa_lens.engine.text_logprobs import RunningTexts, check_texts
from caa_lens.files.messages import brief
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.prompts import PromptFormat, format_prompt


def perplexity(
    model: HookedModel,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    *,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> list[float]:
    """Perplexity of given texts under the model as it is, which for steered generations is the unsteered one.

    That is exp of the mean negative log-likelihood per token. Of a pair ``(prompt, completion)`` only the completion
    counts, given the prompt in the format that `generate` would use. Of a single text, run as it is, every token counts
    but the first: BOS, or the text's first token where the model has no BOS.

    Args:
        model: A TransformerBridge or a HookedTransformer; inside a `steer` block it is the steered one.
        texts: Texts, or pairs of a prompt without any template and its completion; the kinds may be mixed.
        prompt_format: Of pairs; see `format_prompt`.
        system: A system prompt, for pairs.
        batch_size: Texts run at once; None chooses by their length and the free memory.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One number for each text, at least 1; NaN where no token counts, as for an empty completion.

    Raises:
        TypeError: If ``texts`` is one string, or one of them is neither a text nor a pair.
        ValueError: For a text that does not fit the model's context; before the model runs.

    Source: perplexity of steered completions, ActAdd (arXiv 2308.10248).
    """
    adapter = adapt(model)
    if isinstance(texts, str):
        raise TypeError(f"texts is one string: give a list, such as [{texts[:20]!r}]")
    laid_out = [_laid_out(adapter, text, index, prompt_format, system) for index, text in enumerate(texts)]
    check_texts(adapter, [ids for ids, _ in laid_out], batch_size)
    counted = [index for index, (ids, first) in enumerate(laid_out) if first < len(ids)]
    found = [math.nan] * len(laid_out)
    name = progress if isinstance(progress, str) else "perplexity"
    with hooked(adapter, []) as hooks, tqdm(total=len(counted), desc=name, unit="text", disable=not progress) as bar:
        ids, first = [laid_out[index][0] for index in counted], [laid_out[index][1] for index in counted]
        runs = RunningTexts(adapter, hooks, ids, first, batch_size=batch_size)
        for index, nll in zip(counted, runs.likelihoods(bar), strict=True):
            found[index] = float(nll.mean().exp())
    return found


def diversity(texts: Sequence[str], *, loop_times: int = 3) -> dict[str, float]:
    """How varied texts are, by their words (what stands between spaces, as it is).

    Args:
        texts: Such as the steered answers to many prompts.
        loop_times: A text ends in a loop where its last n words, for some n, stand at its end this many times in a row.

    Returns:
        ``distinct_1``, ``distinct_2``, ``distinct_3``: different n-grams of all texts together, divided by all their
        n-grams (no n-gram goes over the end of a text); NaN where there is none. More and longer texts have a lower
        share whatever they say: compare equal numbers of texts of like length.
        ``mean_words``: words per text. ``loop_share``: share of the texts that end in a loop. ``n_texts``.

    Raises:
        TypeError: If ``texts`` is one string.
        ValueError: If there are no texts, or ``loop_times`` is below 2.

    Source: distinct-n, Li et al. (arXiv 1510.03055).

    Example:
        >>> found = diversity(["yes yes yes", "a good day"])
        >>> round(found["distinct_1"], 3), found["loop_share"]
        (0.667, 0.5)
    """
    if isinstance(texts, str):
        raise TypeError(f"texts is one string: give a list, such as [{texts[:20]!r}]")
    if not len(texts) or loop_times < 2:
        raise ValueError(f"{len(texts)} texts, loop_times {loop_times}: give at least one text and two times")
    words = [text.split() for text in texts]
    shares: dict[str, float] = {}
    for n in (1, 2, 3):
        grams = [tuple(own[at : at + n]) for own in words for at in range(len(own) - n + 1)]
        shares[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else math.nan
    return shares | {
        "mean_words": fmean(len(own) for own in words),
        "loop_share": fmean(_ends_in_a_loop(own, loop_times) for own in words),
        "n_texts": float(len(texts)),
    }


def _ends_in_a_loop(words: Sequence[str], times: int) -> bool:
    """For some n the last ``times * n`` words are the same n words again and again."""
    return any(
        all(words[-at] == words[-at - n] for at in range(1, (times - 1) * n + 1))
        for n in range(1, len(words) // times + 1)
    )


def _laid_out(
    adapter: Adapter, text: object, index: int, prompt_format: PromptFormat | None, system: str | None
) -> tuple[tuple[int, ...], int]:
    """Token ids, and the first of them that counts."""
    if isinstance(text, str):
        return (format_prompt(adapter, text, prompt_format="plain").ids if text else ()), 1
    parts = cast("tuple[object, ...]", text)
    if not isinstance(text, tuple) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"text {index} is {brief(text)}: give a string, or a tuple of a prompt and its completion")
    prompt, completion = cast("tuple[str, str]", text)
    formatted = format_prompt(adapter, prompt, completion, prompt_format=prompt_format, system=system)
    return formatted.ids, max(1, formatted.spans.get("answer", (len(formatted.ids), 0))[0])
