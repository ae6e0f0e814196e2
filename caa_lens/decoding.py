"""Continuing prompts token by token, each row with its own edits.

Each prompt is run once, up to its last token, which is the first that is steered; a prompt that is continued in several
ways is forked, not run again. `Decoder` keeps the caches and takes one token a row at a time; without a cache it runs
the whole text again for every token, the slow and obvious path that the other is tested against.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caa_lens.adapters import Adapter, TokenIds, left_padded
from caa_lens.hooking import Edit, Hooks, RowPass, hooked


class Sampler:
    """Picks the next token of each row; row by row its own random numbers."""

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int]) -> None:
        """Temperature 0 takes the likeliest token; ``top_p`` keeps the likeliest tokens up to that probability."""
        self._temperature, self._top_p = temperature, top_p
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def pick(self, logits: Float[Tensor, "batch d_vocab"], rows: Sequence[int]) -> Int[Tensor, " batch"]:
        """One token a row, with the random numbers of these rows."""
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
    ) -> None:
        """Run every prompt but for its last token; use `decoding` rather than this."""
        self._adapter, self._hooks, self._edits = adapter, hooks, list(edits)
        self._ids, self._mask = left_padded(adapter, [ids[:-1] for ids in prompts])
        self._start = 0 if use_cache else self._ids.shape[1]
        hooks.at = None
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
        self._hooks.at = RowPass(self._adapter, self._edits, start=self._start).at

    def step(self, tokens: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_vocab"]:
        """Feed one token to each row and return the logits that follow it."""
        new = tokens.to(self._adapter.device).unsqueeze(1)
        last = torch.zeros(len(new), dtype=torch.long, device=self._adapter.device)
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
) -> Generator[Decoder]:
    """Hold a batch open for decoding; the hooks leave with the ``with`` block.

    Args:
        adapter: The model.
        prompts: Token ids, each run once.
        edits: What each row adds, from its prompt's last token on.
        parents: The prompt of each row; None for one row a prompt, in order.
        use_cache: False runs the whole text again at each step.
    """
    of_row = list(range(len(prompts))) if parents is None else parents
    with hooked(adapter, sorted({layer for mine in edits for layer, _ in mine})) as hooks:
        yield Decoder(adapter, hooks, prompts, of_row, edits, use_cache)
