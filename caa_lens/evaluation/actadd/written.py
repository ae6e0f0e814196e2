"""What a model writes with an addition: its topic, its sentiment, and what the unsteered model makes of it.

Text is generated once, in every way of steering (`continuations`), and the frame is then measured as often as one
likes. Each place in a frame draws from the same random numbers in all ways, so that ways differ by what is added alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

from caa_lens.engine.branching import check_context
from caa_lens.evaluation.actadd.controls import Additions, check_additions, named_way, with_controls
from caa_lens.evaluation.fluency import perplexity
from caa_lens.interventions.interventions import Recipe
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.prompts import PromptForm, PromptFormat, format_prompt
from caa_lens.steering.steering import generate

if TYPE_CHECKING:
    import pandas as pd

PAPER_SAMPLING: Mapping[str, float] = {"temperature": 1.0, "top_p": 0.3, "frequency_penalty": 1.0}
"""How ActAdd samples (arXiv 2308.10248)."""

Scorer = Callable[[list[str]], Sequence[float | None]]
"""Takes texts and gives each a number, or None where it has none to give."""


class _Sampling(TypedDict, total=False):
    """Some of the settings of `generate`."""

    temperature: float
    top_p: float
    frequency_penalty: float


def continuations(
    model: HookedModel,
    additions: Additions,
    prompts: Sequence[str],
    *,
    n_samples: int = 1,
    max_new_tokens: int = 40,
    sampling: Mapping[str, float] = PAPER_SAMPLING,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = "plain",
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Continue prompts unsteered, steered, and with controls, for the measures below.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        additions: One, or several at once, anywhere in the prompt.
        prompts: As they are; ActAdd uses no template.
        n_samples: How often each is continued; more than once is for sampling with a temperature.
        max_new_tokens: At most.
        sampling: ``temperature``, ``top_p`` and ``frequency_penalty`` of `generate`; the paper's where left out,
            ``{"temperature": 0}`` for the likeliest text.
        n_nulls: So many controls of each kind, each of which writes as much as the addition does.
        seed: Of the controls and of sampling.
        prompt_format: See `format_prompt`; None chooses by the tokenizer.
        system: A system prompt.
        batch_size: Rows continued at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each way x prompt x sample, with ``vector`` (the additions' name), ``kind`` (``vector``,
        ``unsteered``, ``random`` or ``nonsense``), ``draw`` (of a control, else -1), ``item`` (what is resampled for
        intervals: the prompt's place, or the sample's where there is one prompt), ``sample``, ``prompt`` and ``text``
        (what was written).

    Raises:
        TypeError: If ``prompts`` is one string, and as `with_controls`.
        ValueError: Before the model runs: for no prompts or samples, several samples at temperature 0, a prompt shorter
            than an addition or too long, settings that `generate` refuses, and as `with_controls`.
    """
    import pandas as pd

    adapter = adapt(model)
    parts = check_additions(adapter, additions, n_nulls)
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    if not len(prompts) or n_samples < 1:
        raise ValueError(f"{len(prompts)} prompts, n_samples {n_samples}: give at least one of each")
    if unknown := sorted(set(sampling) - set(PAPER_SAMPLING)):
        raise ValueError(f"sampling has {', '.join(unknown)}: it takes {', '.join(PAPER_SAMPLING)}")
    if n_samples > 1 and not sampling.get("temperature", 0.0):
        raise ValueError(
            f"n_samples is {n_samples} at temperature 0: all of a prompt's texts would be the same; give more prompts, "
            "or a temperature"
        )
    form: PromptForm = {"prompt_format": prompt_format, "system": system}
    settings = cast("_Sampling", dict(sampling))

    def write(prompts: Sequence[str], steer: Mapping[Any, Recipe | None], progress: bool | str) -> dict[Any, list[str]]:
        return generate(
            model, prompts, steer=steer, max_new_tokens=max_new_tokens, seed=seed, batch_size=batch_size,
            progress=progress, **form, **settings,
        )  # fmt: skip

    write((), {"unsteered": None}, False)  # nothing to write: it checks the settings
    lengths = [len(format_prompt(adapter, prompt, **form).ids) for prompt in prompts]
    for place, length in enumerate(lengths):
        for part in parts:
            part.first_position(length, f"prompt {place}")
    check_context(adapter, [length + max_new_tokens for length in lengths])
    ways = with_controls(model, additions, n_nulls=n_nulls, seed=seed)
    asked = [prompt for prompt in prompts for _ in range(n_samples)]
    told = write(asked, {way: ways[way] or None for way in ways}, progress)
    rows = [
        {
            **named_way(parts, *way),
            "item": place // n_samples if len(prompts) > 1 else place,
            "sample": place % n_samples,
            "prompt": asked[place],
            "text": text,
        }
        for way, texts in told.items()
        for place, text in enumerate(texts)
    ]
    return pd.DataFrame(rows)


def topic_words(written: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """Whether each text has any word of a topic; the mean of ``hit`` is the share of texts that do.

    Args:
        written: As `continuations` returns it.
        words: Whole words, or several with spaces between; capital letters make no difference. ``wed`` is not found in
            ``wedding``: give every form.

    Returns:
        The same frame with ``hit``, 1 or 0.

    Raises:
        TypeError: If ``words`` is one string.
        ValueError: For no words, an empty one, or another frame.

    Source: topic steering, ActAdd (arXiv 2308.10248): share of completions with a word of the topic. Counting words
    sees neither what is said of the topic nor whether it is language: read some, and look at `completion_loss`.
    """
    if isinstance(words, str):
        raise TypeError(f"words is one string: give a list, such as [{words!r}]")
    if not words or not all(word.strip() for word in words):
        raise ValueError(f"words are {list(words)}: give at least one, and none that is empty")
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(word.strip()) for word in words)})(?!\w)", re.IGNORECASE)
    texts = _texts(written)
    return written.assign(hit=[float(pattern.search(text) is not None) for text in texts])


def sentiment_shift(written: pd.DataFrame, scorer: Scorer) -> pd.DataFrame:
    """A score of each text, by any scorer; `beside_controls` says how far it shifts.

    Args:
        written: As `continuations` returns it.
        scorer: A callable that takes a list of texts and returns a number for each, such as a classifier's probability
            of "positive", a count of words, or the bundled world's judge. None, or NaN, is a text without a score; such
            texts are left out, so look at how many there are.

    Returns:
        The same frame with ``score``.

    Raises:
        ValueError: For another frame, or a scorer that returns another number of scores, or an infinite one.

    Source: sentiment steering, ActAdd (arXiv 2308.10248), there with a classifier of film reviews.
    """
    texts = _texts(written)
    scores = [math.nan if score is None else float(score) for score in scorer(texts)]
    if len(scores) != len(texts):
        raise ValueError(f"the scorer gave {len(scores)} scores for {len(texts)} texts: it must give one for each")
    if any(math.isinf(score) for score in scores):
        raise ValueError("the scorer gave an infinite score: give finite numbers, or None where there is none")
    return written.assign(score=scores)


def completion_loss(
    model: HookedModel,
    written: pd.DataFrame,
    *,
    prompt_format: PromptFormat | None = "plain",
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """The *unsteered* model's loss on what was written, given the prompt: does it still read like the model's own text?

    Sampling from a few likely tokens makes all text more probable than people's, so what counts is the difference from
    the unsteered model's own texts, and from the controls'. Text that repeats itself has a low loss too.

    Args:
        model: The model that wrote it; call this outside of any `steer` block.
        written: As `continuations` returns it.
        prompt_format: As it was given there.
        system: As it was given there.
        batch_size: Texts run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The same frame with ``loss``, the mean negative log-likelihood per token, in nats; NaN for an empty text.

    Raises:
        ValueError: For another frame, or a text that does not fit the model's context.

    Source: ActAdd (arXiv 2308.10248) reports losses of completions under the unsteered model. The loss of given text
    under the steered model is `perplexity_ratio`.
    """
    pairs = list(zip(written["prompt"], _texts(written), strict=True))
    form: PromptForm = {"prompt_format": prompt_format, "system": system}
    found = perplexity(model, pairs, batch_size=batch_size, progress=progress, **form)
    return written.assign(loss=[math.log(value) for value in found])


def _texts(written: pd.DataFrame) -> list[str]:
    if missing := sorted({"kind", "draw", "item", "prompt", "text"} - set(written.columns)):
        raise ValueError(f"the frame lacks the columns {', '.join(missing)}: give what continuations() returns")
    return [str(text) for text in written["text"]]
