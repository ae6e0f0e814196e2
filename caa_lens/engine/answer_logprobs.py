"""How likely given answers are, under many ways of steering at once: log-probabilities of every token of an answer.

A question with four choices and three ways of steering is twelve texts with one beginning. Where steering starts at
the last token before the answer, as in CAA (arXiv 2312.06681, section 3), that beginning is the same for all of them:
it is run once, and every prefix of an answer is a branch of it (`caa_lens.engine.branching`). So many branches cost
more than a pass of their own where an answer is long, and they cannot serve where the question is steered too; then
each text is run whole, padded on the right, where causal attention never looks.

The first position of a text is never steered: attention rests on it (see `caa_lens.evaluation.side_effects`), and a
vector added there can break what no real use of the vector breaks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.engine.branching import branch_logits, check_batch_size
from caa_lens.engine.edits import Edit, points_of
from caa_lens.engine.hooking import Hooks, RowPass, hooked
from caa_lens.engine.memory import logit_bytes, most_tokens, prompt_bytes, working_bytes
from caa_lens.engine.packing import Branch
from caa_lens.models.adapters import Adapter, TokenIds, right_padded

Where = Literal["prompt_end", "all"]


@dataclass(frozen=True, slots=True)
class Score:
    """One answer: the sum of its tokens' natural log-probabilities, and whether greedy decoding would have said it."""

    logp: float
    greedy: bool


Steps = list[tuple[float, bool]]
Found = dict[tuple[int, int], Score]  # by way and request


@dataclass(frozen=True, slots=True)
class _Text:
    """What is run of a question and its answer: all but the last token; the last ``len(answer)`` predict the answer."""

    ids: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def start(self) -> int:
        """The last token of the question, which predicts the first of the answer."""
        return len(self.ids) - len(self.answer)

    @property
    def prefix_tokens(self) -> int:
        """Tokens of all prefixes of the answer, each run from the question's last token on."""
        return len(self.answer) * (len(self.answer) + 1) // 2


def answer_logprobs(
    adapter: Adapter,
    requests: Sequence[tuple[TokenIds, TokenIds]],
    ways: Sequence[Sequence[Edit]],
    *,
    positions: Where = "prompt_end",
    batch_size: int | None = None,
    progress: bool | str = False,
) -> list[list[Score]]:
    """Score the answer of every request under every way of steering, ``[way][request]``.

    Args:
        adapter: The model.
        requests: Token ids of a question (at least one) and its answer (at least one). Too long a question is cut on
            the left: the model sees the last ``n_ctx`` tokens before the answer's last.
        ways: What is added, as `edits_of` gives it; an empty one is the unsteered model.
        positions: ``"prompt_end"`` steers from the question's last token on, ``"all"`` everywhere; neither the first
            position of the text.
        batch_size: Prompts, or whole texts, run at once; None chooses by their length and the free memory.
        progress: Show a progress bar, under this text where it is one.

    Raises:
        ValueError: Before the model runs: for a question or answer without tokens, or an answer longer than the model's
            context.
    """
    check_batch_size(batch_size)
    texts = [_text(adapter, index, *request) for index, request in enumerate(requests)]
    branched, whole = list[int](), list[int]()
    for index, text in enumerate(texts):
        shared = positions == "prompt_end" and text.start > 0 and text.prefix_tokens <= len(text.ids)
        (branched if shared else whole).append(index)
    total = len(ways) * sum(len(text.answer) for text in texts)
    name = progress if isinstance(progress, str) else "scoring"
    with tqdm(total=total, desc=name, unit="token", disable=not progress) as bar:
        found = _score_branches(adapter, texts, branched, ways, batch_size, bar)
        found |= _score_whole(adapter, texts, whole, ways, positions, batch_size, bar)
    return [[found[way, index] for index in range(len(texts))] for way in range(len(ways))]


def _text(adapter: Adapter, index: int, question: TokenIds, answer: TokenIds) -> _Text:
    if not len(question) or not len(answer):
        raise ValueError(
            f"request {index} has {len(question)} tokens of context and {len(answer)} of continuation: both need at "
            "least one"
        )
    if len(answer) > adapter.n_ctx:
        raise ValueError(
            f"request {index} has a continuation of {len(answer)} tokens and {adapter.name} holds {adapter.n_ctx}: "
            "shorten it or leave it out"
        )
    ids = [*question, *answer][-(adapter.n_ctx + 1) : -1]
    return _Text(tuple(ids), tuple(answer))


def _score_branches(
    adapter: Adapter,
    texts: Sequence[_Text],
    members: Sequence[int],
    ways: Sequence[Sequence[Edit]],
    batch_size: int | None,
    bar: tqdm[Any],
) -> Found:
    """Every prefix of every answer as a branch of its question; equal ones are run once."""
    prompts: dict[tuple[int, ...], int] = {}
    wanted: dict[tuple[int, tuple[int, ...], int], list[tuple[int, int]]] = {}  # texts, and the token that is predicted
    for index in members:
        text = texts[index]
        prompt = prompts.setdefault(text.ids[: text.start], len(prompts))
        for step, token in enumerate(text.answer):
            for way in range(len(ways)):
                key = (prompt, text.ids[text.start : text.start + step + 1], way)
                wanted.setdefault(key, []).append((index, token))
    branches = [Branch(prompt, tokens, tuple(ways[way])) for prompt, tokens, way in wanted]
    jobs_of = [[(way, index, token) for index, token in jobs] for (_, _, way), jobs in wanted.items()]
    steps: dict[tuple[int, int], Steps] = {}

    def receive(chunk: list[int], logits: Tensor) -> None:
        jobs = [(row, job) for row, branch in enumerate(chunk) for job in jobs_of[branch]]
        for at in range(0, len(jobs), 256):  # a part at a time: a copy of all logits would take more than the model
            some = jobs[at : at + 256]
            rows = torch.tensor([row for row, _ in some], device=logits.device)
            predicted = _of_tokens(logits[rows], [token for _, (_, _, token) in some])
            for (_, (way, index, _)), step in zip(some, predicted, strict=True):
                steps.setdefault((way, index), []).append(step)
        bar.update(len(jobs))

    branch_logits(adapter, list(prompts), branches, receive, batch_size=batch_size)
    return {key: _score(of_text) for key, of_text in steps.items()}


def _score_whole(
    adapter: Adapter,
    texts: Sequence[_Text],
    members: Sequence[int],
    ways: Sequence[Sequence[Edit]],
    positions: Where,
    batch_size: int | None,
    bar: tqdm[Any],
) -> Found:
    """Every text and way of steering as a row of its own."""
    found: Found = {}
    order = sorted(members, key=lambda index: len(texts[index].ids), reverse=True)
    rows = [(way, index) for index in order for way in range(len(ways))]
    with hooked(adapter, points_of(ways)) as hooks:
        while rows:
            width = len(texts[rows[0][1]].ids)
            per_row = width * logit_bytes(adapter) + prompt_bytes(adapter, width, 1)
            fits = min(most_tokens(adapter.device) // width, working_bytes(adapter.device) // per_row)
            size = batch_size or max(1, fits)
            batch, rows = rows[:size], rows[size:]
            of_batch = [texts[index] for _, index in batch]
            logits = _whole_pass(adapter, hooks, of_batch, [ways[way] for way, _ in batch], positions)
            for row, (key, text) in enumerate(zip(batch, of_batch, strict=True)):
                found[key] = _score(_of_tokens(logits[row, text.start : len(text.ids)], text.answer))
                bar.update(len(text.answer))
            del logits
    return found


def _whole_pass(
    adapter: Adapter, hooks: Hooks, texts: Sequence[_Text], edits: Sequence[Sequence[Edit]], positions: Where
) -> Tensor:
    """Logits ``[row, pos, d_vocab]`` in the model's dtype; each row with its own edits from its own start."""
    ids = right_padded(adapter, [text.ids for text in texts])
    first = torch.tensor([max(1, text.start) if positions == "prompt_end" else 1 for text in texts])
    hooks.at, hooks.before = RowPass(adapter, edits, start=first).at, None
    # A mask of ones: without one, HookedTransformer may take tokens that look like padding for padding.
    return adapter.model(ids, attention_mask=torch.ones_like(ids), return_type="logits")


def _of_tokens(logits: Tensor, tokens: Sequence[int]) -> Steps:
    """Log-probability of a token under each row of logits, and whether it is the likeliest."""
    wanted = torch.tensor(list(tokens), device=logits.device)
    logp = logits.float().log_softmax(dim=-1).gather(1, wanted.unsqueeze(1))[:, 0]
    return list(zip(logp.tolist(), (logits.argmax(dim=-1) == wanted).tolist(), strict=True))


def _score(steps: Steps) -> Score:
    return Score(math.fsum(logp for logp, _ in steps), all(greedy for _, greedy in steps))
