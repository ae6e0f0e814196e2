"""Continuing prompts token by token, each row with its own edits.

Each prompt is run once, up to its last token, which is the first that is steered; a prompt that is continued in several
ways is forked, not run again, unless something is added to its own tokens (ActAdd). `Decoder` keeps the KV caches and
takes one token a row at a time; without a cache it runs the whole text again for every token, the slow and obvious path
that the other is tested against.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caa_lens.engine.edits import Edit, PromptEdit, points_of
from caa_lens.engine.hooking import Hooks, RowPass, hooked
from caa_lens.models.adapters import Adapter, TokenIds, left_padded


class Sampler:
    """Picks the next token of each row; row by row its own random numbers and its own count of tokens."""

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], frequency_penalty: float = 0.0) -> None:
        """Temperature 0 takes the likeliest token; ``top_p`` keeps the likeliest tokens up to that probability.

        The penalty is subtracted from a token's logit for every time that the row has picked it before.
        """
        self._temperature, self._top_p, self._penalty = temperature, top_p, frequency_penalty
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._picked: list[list[int]] = [[] for _ in seeds]

    def pick(self, logits: Float[Tensor, "batch d_vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
        """One token a row, with the random numbers of these rows."""
        if not self._penalty:
            return self._pick(logits, rows)
        penalized = logits.float().clone()
        for of_row, row in zip(penalized, rows, strict=True):
            counted = torch.tensor(self._picked[row], dtype=torch.long, device=of_row.device)
            of_row.index_add_(0, counted, of_row.new_full((len(counted),), -self._penalty))
        tokens = self._pick(penalized, rows)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            self._picked[row].append(token)
        return tokens

    def _pick(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        if self._temperature == 0:
            return logits.argmax(dim=-1).cpu()
        probability, token = (
            (logits.double().cpu() / self._temperature).softmax(dim=-1).sort(descending=True, stable=True)
        )
        probability[probability.cumsum(dim=-1) - probability >= self._top_p] = 0
        draws = torch.stack([torch.rand(1, generator=self._generators[row], dtype=torch.float64) for row in rows])
        up_to = probability.cumsum(dim=-1)
        chosen = torch.searchsorted(up_to, draws * up_to[:, -1:], right=True).clamp(max=token.shape[1] - 1)
        return token.gather(1, chosen)[:, 0]


class Decoder:
    """A batch of rows being continued one token at a time.

    The first `step` takes the last prompt token of each row, which is the first that is steered.
    """

    def __init__(
        self,
        adapter: Adapter,
        hooks: Hooks,
        prompts: Sequence[TokenIds],
        parents: Sequence[int],
        edits: Sequence[Sequence[Edit]],
        use_cache: bool,
        additions: Sequence[Sequence[PromptEdit]],
    ) -> None:
        """Run every prompt but for its last token; use `decoding` rather than this."""
        self._adapter, self._hooks, self._edits = adapter, hooks, list(edits)
        self._additions: list[list[PromptEdit]] = [[] for _ in prompts]
        if any(additions):
            prompts, parents, self._additions = _apart(prompts, parents, additions)
        self._ids, self._mask = left_padded(adapter, [ids[:-1] for ids in prompts])
        self._start, self._steps = self._ids.shape[1], 0
        hooks.at = RowPass(adapter, (), additions=self._additions).at if any(additions) else None
        self._prefix = adapter.prefill(self._ids, self._mask) if use_cache else None
        self.keep(parents, edits)

    def keep(self, rows: Sequence[int], edits: Sequence[Sequence[Edit]] | None = None) -> None:
        """Go on with these rows, in this order; one that is named twice goes on twice.

        Other ``edits`` are for the start: tokens that have been run keep those they were run with in a cache.
        """
        if list(rows) != list(range(len(self._mask))):
            chosen = torch.tensor(list(rows), device=self._adapter.device)
            if self._prefix is not None:
                self._prefix = self._adapter.fork(self._prefix, chosen)
            self._ids, self._mask = self._ids[chosen], self._mask[chosen]
        self._edits = [self._edits[row] for row in rows] if edits is None else list(edits)
        self._additions = [self._additions[row] for row in rows]
        self._pass = RowPass(self._adapter, self._edits, start=self._start, additions=self._additions)
        self._hooks.at = self._pass.at

    def step(self, tokens: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_vocab"]:
        """Feed one token to each row and return the logits that follow it."""
        new = tokens.to(self._adapter.device).unsqueeze(1)
        last = torch.zeros(len(new), dtype=torch.long, device=self._adapter.device)
        self._pass.offset = 0 if self._prefix is None else self._start + self._steps
        self._steps += 1
        if self._prefix is not None:
            return self._adapter.extend(self._prefix, new, last)
        self._ids = torch.cat([self._ids, new], dim=1)
        self._mask = torch.cat([self._mask, torch.ones_like(new)], dim=1)
        return self._adapter.forward(self._ids, self._mask, last + self._ids.shape[1] - 1)

    def run(
        self, tokens: Int[Tensor, " batch"], sampler: Sampler, max_new_tokens: int, stops: Int[Tensor, " stop"]
    ) -> list[list[int]]:
        """The new ids of each row, up to and without its end-of-text token; rows that have ended are let go."""
        out: list[list[int]] = [[] for _ in tokens]
        live = torch.arange(len(tokens))  # the row of `out` that each row of the batch belongs to
        ended = torch.zeros(len(tokens), dtype=torch.bool)
        for _ in range(max_new_tokens):
            tokens = sampler.pick(self.step(tokens), live.tolist())
            ended |= torch.isin(tokens, stops)
            for row, token, over in zip(live.tolist(), tokens.tolist(), ended.tolist(), strict=True):
                if not over:
                    out[row].append(token)
            going = (~ended).nonzero().flatten()
            if not len(going):
                break
            if len(going) <= len(live) // 2:
                self.keep(going.tolist())
                live, tokens, ended = live[going], tokens[going], ended[going]
        return out


@contextmanager
def decoding(
    adapter: Adapter,
    prompts: Sequence[TokenIds],
    edits: Sequence[Sequence[Edit]],
    *,
    parents: Sequence[int] | None = None,
    use_cache: bool = True,
    additions: Sequence[Sequence[PromptEdit]] = (),
) -> Generator[Decoder]:
    """Hold a batch open for decoding; the hooks leave with the ``with`` block.

    Args:
        adapter: The model.
        prompts: Token ids, each run once.
        edits: What is done in each row, from its prompt's last token on.
        parents: The prompt of each row; None for one row a prompt, in order.
        use_cache: False runs the whole text again at each step.
        additions: What is added to the tokens of each row's prompt, columns counted from the prompt's first token;
            empty for nothing. A prompt is run once for each set of additions to it.
    """
    of_row = list(range(len(prompts))) if parents is None else parents
    with hooked(adapter, points_of([*edits, *additions])) as hooks:
        yield Decoder(adapter, hooks, prompts, of_row, edits, use_cache, additions)


def _apart(
    prompts: Sequence[TokenIds], parents: Sequence[int], additions: Sequence[Sequence[PromptEdit]]
) -> tuple[list[TokenIds], list[int], list[list[PromptEdit]]]:
    """Each prompt once for every set of additions to it, with these in the columns of the padded batch."""
    keys = [(parent, tuple(map(id, mine))) for parent, mine in zip(parents, additions, strict=True)]
    runs = {key: mine for key, mine in zip(keys, additions, strict=True)}
    of_run, width = [prompts[parent] for parent, _ in runs], max(len(prompts[parent]) for parent, _ in runs)
    place = {key: number for number, key in enumerate(runs)}
    moved = [
        [replace(each, column=each.column + width - len(ids)) for each in mine]
        for ids, mine in zip(of_run, runs.values(), strict=True)
    ]
    return of_run, [place[key] for key in keys], moved
