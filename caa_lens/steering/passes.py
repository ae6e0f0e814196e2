"""The hooks of a `steer` block: what they do to a pass that somebody else makes.

`caa_lens.steering.positions` says where a pass is steered. Here is how: the edits of one point, an addition to the
prompt, and the conditions, each read from the pass over the prompts before what it decides on is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from caa_lens.engine.edits import Edit, changes_of
from caa_lens.interventions.interventions import Condition
from caa_lens.interventions.prompt_additions import PromptAddition
from caa_lens.steering.conditions import read_prompts
from caa_lens.steering.positions import Positions, prompt_end, where


class ConditionHook:
    """A condition in a `steer` block, decided for the rows of every pass over prompts.

    Attributes:
        holds: ``[row]``, of the last such pass.
    """

    def __init__(self, condition: Condition, positions: Positions) -> None:
        """Nothing is decided yet."""
        self._condition = condition
        self._positions: Positions = positions
        self.holds = torch.zeros(0, dtype=torch.bool)

    def read(self, stream: Float[Tensor, "batch pos d_model"]) -> None:
        """The hook: look at a pass over prompts, and change nothing."""
        batch, pos, _ = stream.shape
        if pos == 1 and len(self.holds) == batch:
            return
        ends = prompt_end(self._positions, batch, pos)
        cosines = self._condition.vector.cosine(
            read_prompts(stream, torch.zeros_like(ends), ends, self._condition.over)
        )
        self.holds = torch.tensor([self._condition.holds(float(cosine)) for cosine in cosines])


class SteeringHook:
    """The edits of one point in a `steer` block; counts the steered tokens of each row as they come."""

    def __init__(self, edits: Sequence[Edit], positions: Positions, conditions: Mapping[int, ConditionHook]) -> None:
        """``conditions`` decide the edits' conditions, by the conditions' identity."""
        self._edits, self._conditions = edits, conditions
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
            allowed = None if edit.when is None else self._conditions[id(edit.when)].holds
            for change in changes_of([[edit]], activations.device, alike=True):
                activations = change(activations, number, allowed)
        return activations


def add_to_prompt(
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
