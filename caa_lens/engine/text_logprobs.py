"""What a model says along given text: one pass shows the distribution after every token of it.

Text that is given, not generated, is the same whatever the model would have said, so two models, or one model with and
without a vector, can be compared on it token by token. Texts of different lengths are padded on the right, where causal
attention never looks: every text then begins in column 0, and what is steered is the same columns in every row. Logits
of all positions are the largest thing there is. A pass has as many rows as fit, its logits stay in the model's dtype,
and they become log-probabilities in float64 for a few positions at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from caa_lens.engine.branching import check_batch_size, check_context
from caa_lens.engine.edits import Edit, PromptEdit
from caa_lens.engine.hooking import Hooks, RowPass
from caa_lens.engine.memory import by_length, logit_bytes, most_tokens, prompt_bytes, working_bytes
from caa_lens.models.adapters import Adapter, TokenIds, right_padded


@dataclass(frozen=True, slots=True)
class TokenScores:
    """One text under one way of steering; each tensor ``[token]``, over the tokens that count, on the CPU.

    Attributes:
        kl: KL(steered || unsteered) of the distributions that predict the token, in nats; float64, 0 or more.
        nll: Negative log-probability of the token under the steered model, in nats; float64.
        nll_unsteered: The same under the unsteered model.
        agrees: Whether both models have the same likeliest token there.
    """

    kl: Float[Tensor, " token"]
    nll: Float[Tensor, " token"]
    nll_unsteered: Float[Tensor, " token"]
    agrees: Bool[Tensor, " token"]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the counted tokens of a pass are predicted: row, column, and the token itself; ``[place]`` each."""

    rows: Int[Tensor, " place"]
    columns: Int[Tensor, " place"]
    tokens: Int[Tensor, " place"]
    per_row: list[int]


class RunningTexts:
    """Texts that are run, many rows at a time, inside a `hooked` block."""

    def __init__(
        self,
        adapter: Adapter,
        hooks: Hooks,
        texts: Sequence[TokenIds],
        first: Sequence[int],
        *,
        batch_size: int | None = None,
        keep: bool = False,
    ) -> None:
        """Plan the passes.

        Args:
            adapter: The model.
            hooks: As `hooked` yields them, with the layers of all edits to come.
            texts: Token ids.
            first: The first token of each text that counts; at least 1, since nothing predicts token 0.
            batch_size: Rows of a pass; None chooses by their length and the free memory.
            keep: Keep the unsteered logits, where all of them fit, for texts that are scored again and again.
        """
        self._adapter, self._hooks, self._texts, self._first = adapter, hooks, texts, first
        self._batch_size = batch_size
        self._wide = torch.float32 if adapter.device.type == "mps" else torch.float64  # which Apple's GPUs lack
        room = working_bytes(adapter.device)
        self._room, self._slice = room, max(1, room // (32 * logit_bytes(adapter)))
        self._groups = list(by_length([len(ids) for ids in texts], self._rows))
        columns = sum(len(group) * len(texts[group[0]]) for group in self._groups)
        self._keeps = keep and columns * logit_bytes(adapter) <= room // 2
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def likelihoods(self, bar: tqdm[Any]) -> list[Float[Tensor, " token"]]:
        """Negative log-probability of every counted token of every text, in nats, unsteered."""
        found = [torch.empty(0, dtype=torch.float64)] * len(self._texts)
        for number, group in enumerate(self._groups):
            nll = self._unsteered(number)[1]
            for text, own in zip(group, nll.split(self._places(group).per_row), strict=True):
                found[text] = own
            bar.update(len(group))
        return found

    def scores(self, ways: Sequence[Sequence[Edit | PromptEdit]], bar: tqdm[Any]) -> list[list[TokenScores]]:
        """Compare ways of steering with the unsteered model, ``[way][text]``.

        Every edit holds at all positions but the first; a schedule counts from the second. What is added to prompts
        is added at the columns that it names. A way without edits is the unsteered run itself: KL exactly 0.
        """
        found: list[list[TokenScores | None]] = [[None] * len(self._texts) for _ in ways]
        for number, group in enumerate(self._groups):
            unsteered, flat_nll = self._unsteered(number)
            nll = flat_nll.split(self._places(group).per_row)
            rows = [(row, way) for row in range(len(group)) for way in range(len(ways)) if ways[way]]
            for row, text in enumerate(group):
                same = TokenScores(
                    torch.zeros_like(nll[row]), nll[row], nll[row], torch.ones_like(nll[row], dtype=torch.bool)
                )
                for way in range(len(ways)):
                    if not ways[way]:
                        found[way][text] = same
                        bar.update(1)
            size = self._rows(len(self._texts[group[0]]))
            for at in range(0, len(rows), size):
                chunk = rows[at : at + size]
                members = [group[row] for row, _ in chunk]
                places = self._places(members)
                steered = self._logits(members, [ways[way] for _, way in chunk])
                parents = torch.tensor([row for row, _ in chunk])
                parts = [part.split(places.per_row) for part in self._compared(steered, unsteered, parents, places)]
                for (row, way), kl, own, agrees in zip(chunk, *parts, strict=True):
                    found[way][group[row]] = TokenScores(kl, own, nll[row], agrees)
                bar.update(len(chunk))
                del steered
        return [[scores for scores in of_way if scores is not None] for of_way in found]

    def _rows(self, width: int) -> int:
        """How many texts of this length are run together, beside as many unsteered ones whose logits are kept."""
        per_row = 2 * (width * logit_bytes(self._adapter) + prompt_bytes(self._adapter, width, 1))
        fits = min(most_tokens(self._adapter.device) // width, self._room // per_row)
        return self._batch_size or max(1, fits)

    def _unsteered(self, number: int) -> tuple[Tensor, Tensor]:
        """A group's logits ``[row, column, d_vocab]``, and the likelihoods of its counted tokens."""
        if number in self._kept:
            return self._kept[number]
        group = self._groups[number]
        logits = self._logits(group, None)
        found = logits, self._likelihood(logits, self._places(group))
        if self._keeps:
            self._kept[number] = found
        return found

    def _logits(self, members: Sequence[int], edits: Sequence[Sequence[Edit | PromptEdit]] | None) -> Tensor:
        """One pass, ``[row, column, d_vocab]`` in the model's dtype."""
        ids = right_padded(self._adapter, [self._texts[text] for text in members])
        self._hooks.at = None
        if edits is not None:
            steered = [[edit for edit in of_row if isinstance(edit, Edit)] for of_row in edits]
            added = [[edit for edit in of_row if isinstance(edit, PromptEdit)] for of_row in edits]
            self._hooks.at = RowPass(self._adapter, steered, start=1, additions=added).at
        # A mask of ones: without one, HookedTransformer may take tokens that look like padding for padding.
        return self._adapter.model(ids, attention_mask=torch.ones_like(ids), return_type="logits")

    def _places(self, members: Sequence[int]) -> _Places:
        spans = [range(self._first[text], len(self._texts[text])) for text in members]
        rows = [row for row, span in enumerate(spans) for _ in span]
        columns = [token - 1 for span in spans for token in span]
        tokens = [self._texts[text][token] for text, span in zip(members, spans, strict=True) for token in span]
        return _Places(torch.tensor(rows), torch.tensor(columns), torch.tensor(tokens), [len(span) for span in spans])

    def _slices(self, places: _Places) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        parts = (part.split(self._slice) for part in (places.rows, places.columns, places.tokens))
        return zip(*parts, strict=True)

    def _log_softmax(self, logits: Tensor, rows: Tensor, columns: Tensor) -> Float[Tensor, "place d_vocab"]:
        chosen = logits[rows.to(logits.device), columns.to(logits.device)]
        return chosen.to(self._wide).log_softmax(dim=-1)

    def _likelihood(self, logits: Tensor, places: _Places) -> Float[Tensor, " place"]:
        parts = [
            -self._log_softmax(logits, rows, columns).gather(1, tokens.to(logits.device).unsqueeze(1))[:, 0]
            for rows, columns, tokens in self._slices(places)
        ]
        return torch.cat(parts).cpu().double()

    def _compared(
        self, steered: Tensor, unsteered: Tensor, parents: Tensor, places: _Places
    ) -> tuple[Tensor, Tensor, Tensor]:
        """KL, likelihood under the steered model, and agreement, ``[place]`` each; a slice of places at a time."""
        kl: list[Tensor] = []
        nll: list[Tensor] = []
        agrees: list[Tensor] = []
        for rows, columns, tokens in self._slices(places):
            after = self._log_softmax(steered, rows, columns)
            before = self._log_softmax(unsteered, parents[rows], columns)
            nll.append(-after.gather(1, tokens.to(after.device).unsqueeze(1))[:, 0].cpu().double())
            agrees.append((after.argmax(dim=-1) == before.argmax(dim=-1)).cpu())
            share = after.exp()
            terms = torch.where(share > 0, share * (after - before), 0)  # a token that cannot come adds nothing
            kl.append(terms.sum(dim=-1).clamp(min=0).cpu().double())
        return torch.cat(kl), torch.cat(nll), torch.cat(agrees)


def check_texts(adapter: Adapter, texts: Sequence[TokenIds], batch_size: int | None) -> None:
    """Refuse, before the model runs, what it cannot hold.

    Raises:
        ValueError: For a text longer than the model's context, or a batch size below 1.
    """
    check_batch_size(batch_size)
    check_context(adapter, [len(ids) for ids in texts])
