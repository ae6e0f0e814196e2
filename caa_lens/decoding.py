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
        self._adapter = adapter
        rows = torch.tensor(parents, device=adapter.device)
        ids, mask = left_padded(adapter, [ids[:-1] for ids in prompts])
        if use_cache:
            hooks.at = None
            prefix = adapter.prefill(ids, mask)
            alike = list(parents) == list(range(len(prompts)))
            self._prefix = prefix if alike else adapter.fork(prefix, rows)
        else:
            self._prefix, self._ids, self._mask = None, ids[rows], mask[rows]
        hooks.at = RowPass(adapter, edits, start=0 if use_cache else ids.shape[1]).at

    def step(self, tokens: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_vocab"]:
        """Feed one token to each row and return the logits that follow it."""
        new = tokens.to(self._adapter.device).unsqueeze(1)
        last = torch.zeros(len(new), dtype=torch.long, device=self._adapter.device)
        if self._prefix is not None:
            return self._adapter.extend(self._prefix, new, last)
        self._ids = torch.cat([self._ids, new], dim=1)
        self._mask = torch.cat([self._mask, torch.ones_like(new)], dim=1)
        return self._adapter.forward(self._ids, self._mask, last + self._ids.shape[1] - 1)


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
