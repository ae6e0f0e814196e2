"""Texts of different lengths run together: batches of about the same length, padded on one side.

Padded on the left, every text ends in the last column, and a mask hides what stands in front of it. Padded on the
right, causal attention never looks at what stands behind it, and the mask is all ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caa_lens.engine.memory import by_length, prompts_at_once
from caa_lens.models.adapters import Adapter, TokenIds, left_padded, right_padded


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Some texts as one batch.

    Attributes:
        texts: The index of each row's text.
        begins: The column of each row's first token.
        lengths: How many tokens each row has.
        ids: Token ids.
        mask: 1 where there is a token, or everywhere where that makes no difference.
    """

    texts: list[int]
    begins: list[int]
    lengths: list[int]
    ids: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]

    def last_column(self) -> Int[Tensor, " batch"]:
        """The last column for every row: where `Adapter.forward` makes logits."""
        return torch.full((len(self.texts),), self.ids.shape[1] - 1, device=self.ids.device)

    def rows(self, stream: Float[Tensor, "batch pos d_model"]) -> Iterator[tuple[int, Float[Tensor, "pos d_model"]]]:
        """Each text's index with its own columns, without the padding."""
        for row, (text, begin, length) in enumerate(zip(self.texts, self.begins, self.lengths, strict=True)):
            yield text, stream[row, begin : begin + length]


def padded_batches(
    adapter: Adapter,
    texts: Sequence[TokenIds],
    *,
    side: Literal["left", "right"] = "left",
    fits: Callable[[int], int] | None = None,
    batch_size: int | None = None,
) -> Iterator[PaddedBatch]:
    """All texts, the longest first.

    Args:
        adapter: The model.
        texts: Their tokens.
        side: Where they are padded.
        fits: How many texts of a length are run together; None for what the free memory holds.
        batch_size: How many whatever their length; None for ``fits``.
    """
    most = fits or (lambda length: prompts_at_once(adapter, length))
    for batch in by_length([len(ids) for ids in texts], lambda length: batch_size or most(length)):
        lengths = [len(texts[text]) for text in batch]
        if side == "left":
            ids, mask = left_padded(adapter, [texts[text] for text in batch])
            begins = [ids.shape[1] - length for length in lengths]
        else:
            ids = right_padded(adapter, [texts[text] for text in batch])
            mask, begins = torch.ones_like(ids), [0] * len(batch)
        yield PaddedBatch(batch, begins, lengths, ids, mask)
