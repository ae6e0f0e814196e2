"""A local model as judge: the mean of the scores it holds possible, not the one number it would say first.

The probability of each whole score 0 to 10 as the answer to the judge's prompt is computed exactly, and the score is
their mean, weighted by probability. That needs no text to be parsed, uses more of what the model knows than its
likeliest digit, and gives the same number every time; it is the better choice for small models, which often say one
favourite number (scores weighted by probability: G-Eval, arXiv 2303.16634). Where little probability is on any score
the model is doing something else, and the answer counts as unscored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch

from caa_lens.engine.branching import branch_logits, check_batch_size, check_context
from caa_lens.engine.packing import Branch
from caa_lens.judging.rubrics import INSTRUCTIONS, ask
from caa_lens.judging.scores import Request
from caa_lens.models.adapters import Adapter, HookedModel, adapt
from caa_lens.models.loading import model_info
from caa_lens.prompts import PromptFormat, common_prefix, format_prompt

SCORES = tuple(range(11))


class LocalJudge:
    """A judge for `score_answers`; the model is any TransformerBridge or HookedTransformer."""

    def __init__(
        self,
        model: HookedModel,
        *,
        prompt_format: PromptFormat | None = None,
        least_mass: float = 0.5,
        batch_size: int | None = None,
    ) -> None:
        """Take the model as it is; nothing is run yet.

        Args:
            model: The judge, best not the model that wrote the answers.
            prompt_format: See `format_prompt`.
            least_mass: The probability that must be on the eleven scores together for their mean to count.
            batch_size: Prompts run at once; None chooses by their length and the free memory.

        Raises:
            ValueError: For settings out of range.
        """
        if not 0 <= least_mass <= 1:
            raise ValueError(f"least_mass {least_mass} is a probability: give a number from 0 to 1")
        self._adapter, self._least_mass = adapt(model), least_mass
        self._format: PromptFormat | None = prompt_format
        self._batch_size = check_batch_size(batch_size)
        info = model_info(model)
        wording = f"{INSTRUCTIONS}{ask('', '', '')}{prompt_format}{least_mass}"
        digest = hashlib.sha256(wording.encode()).hexdigest()[:8]
        self.identity = f"{info.name} here ({info.fingerprint}, {info.dtype}, {digest})"

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, float | None, str]]:
        """Score requests, the longest first, a batch at a time.

        Raises:
            ValueError: Before the model runs: for a prompt longer than its context, or a tokenizer that cannot tell the
                scores apart.
        """
        laid_out = [_lay_out(self._adapter, request, self._format) for request in requests]
        check_context(self._adapter, [max(map(len, ids)) for ids in laid_out])
        order = sorted(range(len(requests)), key=lambda place: len(laid_out[place][0]), reverse=True)
        size = self._batch_size or 64  # of which branch_logits runs as many at once as fit
        for at in range(0, len(order), size):
            chunk = order[at : at + size]
            for place, logp in zip(chunk, self._log_probabilities([laid_out[place] for place in chunk]), strict=True):
                weights = logp.exp()
                mass = float(weights.sum())
                note = f"{mass:.2f} of the probability is on a score"
                if mass < self._least_mass or not mass:
                    yield place, None, note
                else:
                    yield place, min(10.0, float((weights @ torch.arange(11.0).double()) / mass)), note

    def _log_probabilities(self, laid_out: Sequence[Sequence[tuple[int, ...]]]) -> list[torch.Tensor]:
        """Natural logarithm of the probability of each score, ``[11]`` float64, for each request."""
        prompts: list[tuple[int, ...]] = []
        branches: list[Branch] = []
        asked: dict[tuple[int, tuple[int, ...]], int] = {}  # what goes before a token of a score: its branch
        for number, scores in enumerate(laid_out):
            shared = len(_shared(scores)) - 1  # the last shared token is run in each branch
            prompts.append(scores[0][:shared])
            for ids in scores:
                for end in range(shared + 1, len(ids)):
                    if (number, ids[:end]) not in asked:
                        asked[number, ids[:end]] = len(branches)
                        branches.append(Branch(number, ids[shared:end]))
        wanted: list[dict[int, float]] = [{} for _ in branches]
        for (number, before), branch in asked.items():
            for ids in laid_out[number]:
                if len(ids) > len(before) and ids[: len(before)] == before:
                    wanted[branch][ids[len(before)]] = 0.0

        def receive(chunk: list[int], logits: torch.Tensor) -> None:
            for branch, row in zip(chunk, logits, strict=True):
                logp = row.double().log_softmax(-1) if row.device.type != "mps" else row.float().log_softmax(-1)
                wanted[branch] = {token: float(logp[token]) for token in wanted[branch]}

        branch_logits(self._adapter, prompts, branches, receive, batch_size=self._batch_size)
        found: list[torch.Tensor] = []
        for number, scores in enumerate(laid_out):
            first = len(_shared(scores))
            logp = [sum(wanted[asked[number, ids[:end]]][ids[end]] for end in range(first, len(ids))) for ids in scores]
            found.append(_apart(torch.tensor(logp, dtype=torch.float64), scores))
        return found


def _lay_out(adapter: Adapter, request: Request, prompt_format: PromptFormat | None) -> list[tuple[int, ...]]:
    """The token ids of the prompt with each score as its answer."""
    text = f"{INSTRUCTIONS}\n\n{ask(request.rubric, request.question, request.answer)}"
    scores = [format_prompt(adapter, text, str(score), prompt_format=prompt_format).ids for score in SCORES]
    shared = len(_shared(scores))
    if len(set(scores)) < len(scores) or any(len(ids) == shared for ids in scores) or not shared:
        raise ValueError(
            f"the tokenizer of {adapter.name} cannot tell the scores 0 to 10 apart: this model cannot be a judge"
        )
    return scores


def _shared(scores: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The tokens that all begin with."""
    shared = scores[0]
    for ids in scores[1:]:
        shared = shared[: common_prefix(shared, ids)]
    return shared


def _apart(logp: torch.Tensor, scores: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Take 10 out of the 1 that begins it, where digits are tokens of their own."""
    one, ten = scores[1], scores[10]
    if ten[: len(one)] == one:
        logp = logp.clone()
        logp[1] = (logp[1].exp() - logp[10].exp()).clamp(min=0).log()
    return logp
