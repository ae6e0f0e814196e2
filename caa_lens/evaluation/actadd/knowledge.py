"""The next word of given texts. Does a steered model still know the facts, and which of two words does it prefer?

A good addition changes the topic and keeps the facts: the answer should be among the likeliest next tokens as often as
before. P@K is the share of facts whose answer is among the K likeliest, and is asked of one prediction, without
sampling. Two-choice questions are in `caa_lens.evaluation.capabilities`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.datasets.records import Problems, check_record, read_records
from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.engine.decoding import decoding
from caa_lens.engine.edits import PromptEdit
from caa_lens.engine.memory import rows_at_once
from caa_lens.evaluation.actadd.controls import Additions, Ways, check_additions, named_way, with_controls
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.prompts import PromptForm, PromptFormat, format_prompt

if TYPE_CHECKING:
    import pandas as pd

Fact = tuple[str, str]
"""A text and how it goes on: ``("The capital of Peru is", " Lima")``."""


def last_words(sentences: Sequence[str]) -> list[Fact]:
    """Facts from sentences: the last word is the answer. Equal ones are kept once.

    Raises:
        ValueError: For a sentence of one word.

    Example:
        >>> last_words(["The capital of Peru is Lima.", "The capital of Peru is Lima."])
        [('The capital of Peru is', ' Lima')]
    """
    found: dict[Fact, None] = {}
    for sentence in sentences:
        words = sentence.strip().rstrip(".!?").split(" ")
        if len(words) < 2:
            raise ValueError(f"{sentence!r} has one word: give sentences whose last word can be asked for")
        found[" ".join(words[:-1]), f" {words[-1]}"] = None
    return list(found)


def load_facts(path: str | Path) -> list[Fact]:
    """Facts from a .json, .jsonl or .csv with the fields ``prompt`` and ``answer``.

    Spaces at a prompt's end are left out, and an answer that begins with a letter or a digit gets the one in front
    that a next word has.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: For a file that cannot be read, or items that lack a field, with the first few of them.
    """
    rows = read_records(Path(path))
    problems = Problems(str(path), len(rows))
    for index, row in enumerate(rows):
        check_record(problems, index, row, ("prompt", "answer"))
    problems.raise_if_any()
    answers = [f" {row['answer']}" if row["answer"][0].isalnum() else row["answer"] for row in rows]
    return [(row["prompt"].rstrip(), answer) for row, answer in zip(rows, answers, strict=True)]


def knowledge_kept(
    model: HookedModel,
    additions: Additions,
    facts: Sequence[Fact],
    *,
    k: Sequence[int] = (1, 5, 10, 100),
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = "plain",
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Whether a fact's answer is among the K likeliest next tokens, unsteered, steered, and with controls.

    Asked is the answer's first token, after the fact's text with the additions in it. An answer that shares its first
    token with a wrong one counts as right with it.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        additions: One, or several at once, anywhere in the text.
        facts: Texts with their answers; a next word begins with its space.
        k: Each K.
        n_nulls: So many controls of each kind; see `with_controls`.
        seed: Of the controls.
        prompt_format: See `format_prompt`; None chooses by the tokenizer.
        system: A system prompt.
        batch_size: Rows run at once, one for each fact and way.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each way x fact x K, with ``vector`` (the additions' name), ``kind`` (``vector``, ``unsteered``,
        ``random`` or ``nonsense``), ``draw`` (of a control, else -1), ``item`` (the fact's place), ``k``, ``rank`` (so
        many tokens are as likely as the answer, itself included, or likelier: 1 is the likeliest), ``logp`` (of the
        answer, in nats) and ``hit`` (1 where the rank is K or better, else 0). `beside_controls` takes it with
        ``"hit"``, whose means are P@K.

    Raises:
        TypeError: As `with_controls`.
        ValueError: Before the model runs: for no facts, a fact of fewer tokens than an addition or too long, an answer
            without a token, a K below 1 or given twice, and as `with_controls`.

    Source: P@K on ConceptNet, ActAdd (arXiv 2308.10248), after LAMA (Petroni et al., arXiv 1909.01066).
    """
    import pandas as pd

    adapter = adapt(model)
    check_batch_size(batch_size)
    parts = check_additions(adapter, additions, n_nulls)
    if not len(facts):
        raise ValueError("there are no facts: give at least one, such as ('The capital of Peru is', ' Lima')")
    if not k or min(k) < 1 or len(set(k)) < len(k):
        raise ValueError(f"k is {list(k)}: give numbers of 1 or more, each once, such as (1, 5, 10)")
    asked: list[tuple[tuple[int, ...], int]] = []
    for place, (text, answer) in enumerate(facts):
        whole = format_prompt(adapter, text, answer, prompt_format=prompt_format, system=system)
        start = whole.spans.get("answer", (0, 0))[0]
        if not start:
            raise ValueError(f"fact {place}, {(text, answer)!r}: no token comes from the text, or from the answer")
        asked.append((whole.ids[:start], whole.ids[start]))
        for part in parts:
            part.first_position(start, f"fact {place}")
    check_context(adapter, [len(ids) for ids, _ in asked])
    ways = with_controls(model, additions, n_nulls=n_nulls, seed=seed)
    name = progress if isinstance(progress, str) else "facts"
    with tqdm(total=len(ways) * len(asked), desc=name, unit="fact", disable=not progress) as bar:
        found = _ranks(adapter, asked, ways, batch_size, bar)
    rows = [
        {**named_way(parts, *way), "item": item, "k": each, "rank": rank, "logp": logp, "hit": float(rank <= each)}
        for way in ways
        for item, (rank, logp) in enumerate(found[way, item] for item in range(len(asked)))
        for each in k
    ]
    return pd.DataFrame(rows)


def word_odds(
    model: HookedModel,
    additions: Additions,
    prompts: Sequence[str],
    word: str,
    other: str,
    *,
    n_nulls: int = 20,
    seed: int = 0,
    prompt_format: PromptFormat | None = "plain",
    system: str | None = None,
    batch_size: int | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """How much likelier one next word is than another, unsteered, steered, and with controls.

    One prediction a prompt, without sampling: what sampled texts show with hundreds, this shows with a few. Read the
    addition and its opposite: a change that both make alike has nothing to do with their direction.

    Args:
        model: A TransformerBridge or a HookedTransformer.
        additions: One, or several at once, anywhere in the prompt.
        prompts: Texts that end where the word would begin.
        word: With its space, such as ``" happy"``; its first token counts.
        other: What it is compared with; must begin with another token.
        n_nulls: So many controls of each kind; see `with_controls`.
        seed: Of the controls.
        prompt_format: See `format_prompt`; None chooses by the tokenizer.
        system: A system prompt.
        batch_size: Rows run at once.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        One row for each way x prompt, with ``vector``, ``kind`` and ``draw`` as `knowledge_kept` has them, ``item``
        (the prompt's place), ``logp``, ``logp_other`` (in nats) and ``log_odds``, their difference. `beside_controls`
        takes it with ``"log_odds"``.

    Raises:
        TypeError: If ``prompts`` is one string, and as `with_controls`.
        ValueError: Before the model runs: for no prompts, or words that begin with the same token, and as
            `knowledge_kept`.
    """
    adapter = adapt(model)
    parts = check_additions(adapter, additions, n_nulls)
    if isinstance(prompts, str):
        raise TypeError(f"prompts is one string: give a list, such as [{prompts[:20]!r}]")
    if not len(prompts):
        raise ValueError("there are no prompts: give at least one")
    form: PromptForm = {"prompt_format": prompt_format, "system": system}
    for place, prompt in enumerate(prompts):
        both = [format_prompt(adapter, prompt, each, **form) for each in (word, other)]
        tokens = [text.ids[text.spans["answer"][0]] for text in both if "answer" in text.spans]
        if len(tokens) == 2 and tokens[0] == tokens[1]:
            raise ValueError(f"{word!r} and {other!r} begin with the same token after {prompt!r}: give other words")
        for part in parts:
            part.first_position(min(text.spans["prompt"][1] for text in both), f"prompt {place}")
    facts = [(prompt, each) for each in (word, other) for prompt in prompts]
    frame = knowledge_kept(
        model, additions, facts, k=(1,), n_nulls=n_nulls, seed=seed, batch_size=batch_size, progress=progress, **form
    )
    one, two = frame[frame["item"] < len(prompts)], frame[frame["item"] >= len(prompts)]
    found = one[["vector", "kind", "draw", "item", "logp"]].reset_index(drop=True)
    found["logp_other"] = two["logp"].to_numpy()
    return found.assign(log_odds=found["logp"] - found["logp_other"])


def _ranks(
    adapter: Adapter,
    asked: Sequence[tuple[tuple[int, ...], int]],
    ways: Ways,
    batch_size: int | None,
    bar: tqdm[Any],
) -> dict[tuple[tuple[str, int], int], tuple[int, float]]:
    """Rank and log-probability of each answer's token, by way and fact."""
    deltas = {way: [(part, part.delta) for part in ways[way]] for way in ways}
    answers: dict[tuple[int, ...], list[int]] = {}  # a text that has several answers is run once
    for item, (ids, _) in enumerate(asked):
        answers.setdefault(ids, []).append(item)
    rows = [(ids, way) for ids in sorted(answers, key=len, reverse=True) for way in ways]
    size = batch_size or rows_at_once(adapter, len(rows[0][0]))
    found: dict[tuple[tuple[str, int], int], tuple[int, float]] = {}
    for at in range(0, len(rows), size):
        batch = rows[at : at + size]
        added = [
            [PromptEdit(part.layer, part.first_position(len(ids)), delta) for part, delta in deltas[way]]
            for ids, way in batch
        ]
        with decoding(adapter, [ids for ids, _ in batch], [()] * len(batch), additions=added) as decoder:
            logits = decoder.step(torch.tensor([ids[-1] for ids, _ in batch])).float().cpu()
        for of_row, (ids, way) in zip(logits, batch, strict=True):
            for item in answers[ids]:
                found[way, item] = _rank(of_row, asked[item][1])
            bar.update(len(answers[ids]))
    return found


def _rank(logits: Tensor, token: int) -> tuple[int, float]:
    """Rank and log-probability of a token; the last rank where the logits are no numbers."""
    logp = logits[token].double() - logits.double().logsumexp(dim=-1)
    return int((~(logits < logits[token])).sum()), float(logp)
