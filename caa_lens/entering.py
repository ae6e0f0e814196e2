"""What enters a block at every position of prompts: where additions are made, and what they are as long as."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.adapters import Adapter, TokenIds
from caa_lens.hooking import hooked
from caa_lens.memory import most_tokens
from caa_lens.sites import Point


def entering(adapter: Adapter, layer: int, prompts: Sequence[TokenIds]) -> list[Float[Tensor, "pos d_model"]]:
    """``hook_resid_pre`` of a layer for prompts of any lengths, float32, on the CPU.

    Prompts are padded on the right, where causal attention never looks.
    """
    found: dict[int, Tensor] = {}
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    with hooked(adapter, [(layer, "resid_pre")]) as hooks:
        while order:
            width = len(prompts[order[0]])
            size = max(1, most_tokens(adapter.device) // width)
            batch, order = order[:size], order[size:]
            padded = [[*prompts[index], *[prompts[index][-1]] * (width - len(prompts[index]))] for index in batch]
            ids = torch.tensor(padded, device=adapter.device)

            def keep(point: Point, stream: Tensor, *, batch: list[int] = batch) -> None:
                for row, index in enumerate(batch):
                    found[index] = stream[row, : len(prompts[index])].float().cpu()

            hooks.at = keep
            adapter.forward(ids, torch.ones_like(ids), torch.full((len(batch),), width - 1, device=adapter.device))
    return [found[index] for index in range(len(prompts))]
