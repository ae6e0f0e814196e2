"""Which positions of a pass are steered, and by how much, where all that is known is the pass itself.

`caa_lens.steering.steer` does not make the calls that run inside it. A pass over more than one position is taken to be
over prompts; a pass over a single one is the next step of decoding them with a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from caa_lens.edits import Edit, changes_of
from caa_lens.prompt_additions import PromptAddition

if TYPE_CHECKING:
    from caa_lens.conditions import Verdict

Positions = Literal["prompt_end", "all"] | int | Tensor


def check_positions(positions: Positions) -> None:
    """Refuse an unknown name with a ValueError."""
    if isinstance(positions, str) and positions not in ("prompt_end", "all"):
        raise ValueError(f"positions {positions!r} is not known: give 'prompt_end', 'all', an index, or a boolean mask")


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


class Steered:
    """The edits of one point in a `steer` block; counts the steered tokens of each row as they come."""

    def __init__(self, edits: Sequence[Edit], positions: Positions, verdicts: Mapping[int, Verdict]) -> None:
        """``verdicts`` are those of the edits' conditions, by the conditions' identity."""
        self._edits, self._verdicts = edits, verdicts
        self._positions: Positions = positions
        self._counted = torch.zeros(0, dtype=torch.long)

    def __call__(self, activations: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The activations of a pass afterwards."""
        batch, pos, _ = activations.shape
        steered = where(self._positions, batch, pos).expand(batch, -1).cpu()
        if pos > 1 or len(self._counted) != batch:
            self._counted = torch.zeros(batch, dtype=torch.long)
        number = self._counted.unsqueeze(1) + steered.cumsum(dim=1) - 1
        self._counted = self._counted + steered.sum(dim=1)
        number = torch.where(steered, number, -1).to(activations.device)
        for edit in self._edits:
            allowed = None if edit.when is None else self._verdicts[id(edit.when)].holds
            for change in changes_of([[edit]], activations.device, alike=True):
                activations = change(activations, number, allowed)
        return activations


def added_to_prompt(
    addition: PromptAddition, activations: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos d_model"] | None:
    """What enters a block with the addition in it; None for a step of decoding, which is not changed.

    Raises:
        ValueError: For a pass that is shorter than the addition.
    """
    pos = activations.shape[1]
    if pos == 1:
        return None
    first = addition.first_position(pos, "this pass")
    after = first + len(addition)
    added = activations[:, first:after] + addition.delta.to(activations)
    return torch.cat([activations[:, :first], added, activations[:, after:]], dim=1)
