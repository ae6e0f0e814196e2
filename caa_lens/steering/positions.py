"""Which positions of a pass are steered, and by how much, where all that is known is the pass itself.

`caa_lens.steer` does not make the calls that run inside it. A pass over more than one position is taken to be
over prompts; a pass over a single one is the next step of decoding them with a cache.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from caa_lens.files.messages import brief

Positions = Literal["prompt_end", "all"] | int | Tensor


def check_positions(positions: Positions) -> None:
    """Refuse an unknown name with a ValueError."""
    if isinstance(positions, str) and positions not in ("prompt_end", "all"):
        raise ValueError(
            f"positions {brief(positions)} is not known: give 'prompt_end', 'all', an index, or a boolean mask"
        )


def where(positions: Positions, batch: int, pos: int) -> Bool[Tensor, "rows pos"]:
    """Which positions of a pass are steered; one row where all rows are alike.

    Raises:
        ValueError: If the pass's shape does not fit the positions.
    """
    mask = positions if isinstance(positions, Tensor) and positions.dtype == torch.bool else None
    decoding_step = pos == 1 and (mask is None or mask.shape[-1] != 1)
    if decoding_step or (isinstance(positions, str) and positions == "all"):
        return torch.ones(1, pos, dtype=torch.bool)
    if mask is not None:
        if mask.ndim != 2 or mask.shape[0] not in (1, batch) or mask.shape[1] != pos:
            raise ValueError(
                f"the mask has shape {tuple(mask.shape)} and this pass has (batch {batch}, pos {pos}): give one "
                "boolean for each position of the pass"
            )
        return mask
    starts = torch.as_tensor(-1 if isinstance(positions, str) else positions).reshape(-1, 1).cpu()
    if len(starts) not in (1, batch) or bool((starts >= pos).any()) or bool((starts < -pos).any()):
        raise ValueError(
            f"steering starts at {starts.flatten().tolist()} and this pass has (batch {batch}, pos {pos}): give one "
            f"index for all rows or one for each, from {-pos} to {pos - 1}"
        )
    return torch.arange(pos) >= torch.where(starts < 0, starts + pos, starts)


def prompt_end(positions: Positions, batch: int, pos: int) -> Int[Tensor, " rows"]:
    """The last prompt token of each row: the first steered position, or the last of all where everything is steered."""
    steered = where(positions, batch, pos).expand(batch, -1)
    first = steered.int().argmax(dim=1)
    everywhere = (isinstance(positions, str) and positions == "all") | ~steered.any(dim=1)
    return torch.where(everywhere, pos - 1, first)
