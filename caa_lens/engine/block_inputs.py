"""What enters a block at every position of prompts: where additions are made, and what they are as long as."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from caa_lens.engine.hooking import hooked
from caa_lens.engine.memory import most_tokens
from caa_lens.engine.padding import PaddedBatch, padded_batches
from caa_lens.models.adapters import Adapter, TokenIds
from caa_lens.models.sites import Point


def block_inputs(adapter: Adapter, layer: int, prompts: Sequence[TokenIds]) -> list[Float[Tensor, "pos d_model"]]:
    """``hook_resid_pre`` of a layer for prompts of any lengths, float32, on the CPU.

    Prompts are padded on the right, where causal attention never looks.
    """
    found: dict[int, Tensor] = {}

    def most(longest: int) -> int:
        return max(1, most_tokens(adapter.device) // longest)

    with hooked(adapter, [(layer, "resid_pre")]) as hooks:
        for batch in padded_batches(adapter, prompts, side="right", fits=most):

            def keep(point: Point, stream: Tensor, *, batch: PaddedBatch = batch) -> None:
                found.update((index, own.float().cpu()) for index, own in batch.rows(stream))

            hooks.at = keep
            adapter.forward(batch.ids, batch.mask, batch.last_column())
    return [found[index] for index in range(len(prompts))]
