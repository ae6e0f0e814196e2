"""Does a model go on as it has answered? Why a vector read at a letter should say anything about whole sentences.

CAA's vectors are read where a model has just been made to answer (A) or (B), and are used on open text. The paper's
reason (arXiv 2312.06681, appendix on answer conditioning) is that after either letter a model goes on consistently with
it, whatever it would have chosen itself. `after_answers` puts each answer of an item into the model's mouth and lets it
go on, unsteered; a judge (`caa_lens.judging.scores`) scores what follows without seeing the letter; `consistency`
compares the two sides item by item.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from caa_lens.datasets.contrast import Pairs, as_dataset
from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.engine.decoding import Sampler, decoding
from caa_lens.engine.memory import rows_at_once
from caa_lens.evaluation.statistics import resampled
from caa_lens.judging.answers import check_answers
from caa_lens.models.adapters import HookedModel, adapt
from caa_lens.prompts import PromptForm, PromptFormat, format_prompt

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("matching", "other")


def after_answers(
    model: HookedModel,
    items: Pairs,
    *,
    then: str = "",
    max_new_tokens: int = 100,
    prompt_format: PromptFormat | None = None,
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Let the model go on after each answer of each item, greedily and unsteered.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        items: Questions with two answers.
        then: Put after each answer, for models that end there otherwise: such as ``" because"``.
        max_new_tokens: At most.
        prompt_format: See `format_prompt`.
        system: A system prompt for every item.
        batch_size: Rows continued at once, two for each item.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The columns of `caa_lens.judging.answers.answers`, so that any judge takes it, with ``multiplier`` 0 and
        ``layer`` -1 as nothing is steered, and besides: ``item``, ``side`` (``matching`` or ``other``) and ``answer``.
        ``text`` is what follows the answer, without it, and with ``then``.

    Raises:
        ValueError: Before the model runs: for no items, a ``max_new_tokens`` below 1, or an item that does not fit.
    """
    import pandas as pd

    adapter = adapt(model)
    check_batch_size(batch_size)
    items = as_dataset(items)
    if not len(items):
        raise ValueError(f"there are no items in {items.name!r}: at least one is needed")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it is at least 1")
    told = [
        (index, side, pair.prompt, answer)
        for index, pair in enumerate(items)
        for side, answer in zip(SIDES, (pair.positive, pair.negative), strict=True)
    ]
    form: PromptForm = {"prompt_format": prompt_format, "system": system}
    ids = [format_prompt(adapter, prompt, answer + then, **form).ids for _, _, prompt, answer in told]
    lengths = [len(each) + max_new_tokens for each in ids]
    check_context(adapter, lengths)
    size = batch_size or rows_at_once(adapter, max(lengths))
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]), reverse=True)
    stops = torch.tensor(sorted(adapter.stop_ids), dtype=torch.long)
    texts = [""] * len(ids)
    shown = progress if isinstance(progress, str) else "going on"
    with tqdm(total=len(ids), desc=shown, unit="text", disable=not progress) as bar:
        for at in range(0, len(order), size):
            batch = order[at : at + size]
            with decoding(adapter, [ids[row] for row in batch], [() for _ in batch]) as decoder:
                last = torch.tensor([ids[row][-1] for row in batch])
                new = decoder.run(last, Sampler(0.0, 1.0, [0] * len(batch)), max_new_tokens, stops)
            for row, tokens in zip(batch, new, strict=True):
                texts[row] = then + str(adapter.tokenizer.decode(tokens, skip_special_tokens=True))
            bar.update(len(batch))
    behavior = items.name.partition("/")[0]
    rows: list[dict[str, Any]] = []
    for place, ((item, side, prompt, answer), text) in enumerate(zip(told, texts, strict=True)):
        known = hashlib.sha256(repr((behavior, item, side, prompt, answer, text)).encode()).hexdigest()[:12]
        row = {"id": known, "behavior": behavior, "layer": -1, "multiplier": 0.0, "question": place}
        rows.append(row | {"question_text": prompt, "text": text, "item": item, "side": side, "answer": answer})
    return pd.DataFrame(rows)


def consistency(scored: pd.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How much higher what follows the matching answer is scored than what follows the other one, item by item.

    Args:
        scored: `after_answers` with the columns of `caa_lens.judging.scores.score_answers`.
        n_bootstrap: Resamplings of the items, and exchanges of the sides.
        seed: Of both.

    Returns:
        One row a behaviour: ``n_items`` with both sides scored, ``n_unscored`` without; ``after_matching`` and
        ``after_other``, the mean scores; ``difference`` with its 95 % bootstrap interval over items,
        ``difference_low`` and ``difference_high``; ``share_consistent``, items scored higher after the matching answer;
        ``p_exchanged``, how often the difference is as large with the sides of random items exchanged (the null that
        the answer says nothing about what follows). NaN where no item is scored on both sides.

    Raises:
        ValueError: If the frame lacks columns.
    """
    import numpy as np
    import pandas as pd

    check_answers(scored, ("item", "side", "score"))
    rows: list[dict[str, Any]] = []
    for behavior, part in scored.groupby("behavior", sort=False):
        both = part.pivot(index="item", columns="side", values="score").reindex(columns=list(SIDES))
        paired = both.dropna()
        apart = (paired["matching"] - paired["other"]).to_numpy(dtype=float)
        row: dict[str, Any] = {"behavior": behavior, "n_items": len(paired), "n_unscored": len(both) - len(paired)}
        names = ("after_matching", "after_other", "difference", "difference_low", "difference_high")
        row |= dict.fromkeys((*names, "share_consistent", "p_exchanged"), float("nan"))
        if len(paired):
            generator = np.random.default_rng(seed)
            difference = resampled(len(apart), n_bootstrap, generator).mean(apart)
            flips = (apart * generator.choice([-1.0, 1.0], (n_bootstrap, len(apart)))).mean(axis=1)
            as_large = int((np.abs(flips) >= abs(apart.mean()) - 1e-12).sum())
            row |= {"after_matching": paired["matching"].mean(), "after_other": paired["other"].mean()}
            row |= difference.columns("difference")
            row |= {"share_consistent": (apart > 0).mean(), "p_exchanged": (as_large + 1) / (n_bootstrap + 1)}
        rows.append(row)
    return pd.DataFrame(rows)
