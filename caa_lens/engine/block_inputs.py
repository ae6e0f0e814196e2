"""What enters a block at every position of prompts: where additions are made, and what they are as long as."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.engine.hooking import hooked
from caa_lens.engine.memory import by_length, most_tokens
from caa_lens.models.adapters import Adapter, TokenIds, right_padded
from caa_lens.models.sites import Point


def block_inputs(adapter: Adapter, layer: int, prompts: Sequence[TokenIds]) -> list[Float[Tensor, "pos d_model"]]:
    """``hook_resid_pre`` of a layer for prompts of any lengths, float32, on the CPU.

    Prompts are padded on the right, where causal attention never looks.
    """
    found: dict[int, Tensor] = {}
    lengths = [len(ids) for ids in prompts]
    with hooked(adapter, [(layer, "resid_pre")]) as hooks:
        for batch in by_length(lengths, lambda longest: max(1, most_tokens(adapter.device) // longest)):
            ids = right_padded(adapter, [prompts[index] for index in batch])

            def keep(point: Point, stream: Tensor, *, batch: list[int] = batch) -> None:
                for row, index in enumerate(batch):
                    found[index] = stream[row, : len(prompts[index])].float().cpu()

            hooks.at = keep
            ends = torch.full((len(batch),), ids.shape[1] - 1, device=adapter.device)
            adapter.forward(ids, torch.ones_like(ids), ends)
    return [found[index] for index in range(len(prompts))]
