"""What a model is steered with: vectors, each with how much, where, how, when and at which tokens.

An `Intervention` is CAA's where nothing is said: the vector times the multiplier is added where it was read. Everything
else is a field with a value of its own: another `site`, another `operation` (`caa_lens.interventions.operations`), a
`Condition` on the prompt, a schedule over the new tokens (`caa_lens.interventions.schedules`). A *recipe* is one of
these or several at once, done in their order where they meet at one place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, get_args

from caa_lens.files.messages import brief
from caa_lens.interventions.operations import Add, Operation
from caa_lens.interventions.prompt_additions import PromptAddition
from caa_lens.interventions.schedules import Schedule, check_schedule
from caa_lens.vectors.vectors import SteeringVector, SteeringVectors

Over = Literal["last", "mean"]


@dataclass(frozen=True, slots=True)
class Condition:
    """Steer only prompts like this: the similarity of a prompt's activation with a vector is above a threshold.

    It is decided once for each prompt, before anything is steered, and holds for all of its continuation. The idea is
    that of conditional activation steering (CAST, Lee et al., arXiv 2409.05907, section 3).

    Attributes:
        vector: The condition vector; the activation is read at its layer and site.
        threshold: A cosine, -1 to 1.
        above: True steers where the cosine is above the threshold, False where it is below.
        over: ``"last"`` reads the last prompt token; ``"mean"`` the mean over the prompt's tokens but the first, whose
            activation (BOS, or the token that takes its part) is far larger than any other.
    """

    vector: SteeringVector
    threshold: float
    above: bool = True
    over: Over = "last"

    def __post_init__(self) -> None:
        """Check the threshold, the way of reading, and that the vector has a direction."""
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold}: it is a cosine, from -1 to 1; find_threshold finds one")
        check_over(self.over)
        self.vector.unit()

    def holds(self, cosine: float) -> bool:
        """Whether a prompt of this similarity is steered."""
        return cosine > self.threshold if self.above else cosine < self.threshold


def check_over(over: str) -> None:
    """Refuse another way of reading a prompt than `Over` has, with a ValueError."""
    if over not in get_args(Over):
        raise ValueError(
            f"over is {brief(over)}: give 'last', the last prompt token, or 'mean', over the prompt's tokens"
        )


@dataclass(frozen=True, slots=True)
class Intervention:
    """A vector and how much of it is done, at `layer`.

    Attributes:
        vector: What to steer with.
        multiplier: How much of the operation is done: times the vector for `Add`; 1 is the whole of any other.
        site: Where in the block; None for where the vector was read, which is ``resid_post`` for CAA's.
        operation: What is done with the vector; see `caa_lens.interventions.operations`.
        when: On which prompts; None for all.
        schedule: How much at the k-th steered token; see `caa_lens.interventions.schedules`. None for all alike.
    """

    vector: SteeringVector
    multiplier: float = 1.0
    _: KW_ONLY
    site: str | None = None
    operation: Operation = Add()
    when: Condition | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        """Check the multiplier and the schedule."""
        object.__setattr__(self, "multiplier", float(self.multiplier))
        if not math.isfinite(self.multiplier):
            raise ValueError(f"multiplier must be a finite number, got {self.multiplier}")
        object.__setattr__(self, "schedule", check_schedule(self.schedule))

    @property
    def layer(self) -> int:
        """The vector's layer."""
        return self.vector.layer


Part = SteeringVector | Intervention | PromptAddition
Recipe = Part | Sequence[Part]
"""What can be steered with: one vector, or several at once, each with its own multiplier and layer."""


def recipe_parts(recipe: Recipe | None) -> tuple[Intervention | PromptAddition, ...]:
    """A recipe as a tuple; None is the empty one.

    Raises:
        TypeError: something else, e.g. `SteeringVectors` without a layer.
    """
    if recipe is None:
        return ()
    parts: Sequence[Any] = recipe if isinstance(recipe, Sequence) else [recipe]
    return tuple(part if isinstance(part, PromptAddition) else _as_intervention(part) for part in parts)


def as_interventions(recipe: Recipe | None) -> tuple[Intervention, ...]:
    """A recipe of interventions only, as a tuple; None is the empty one.

    Raises:
        TypeError: something else, e.g. `SteeringVectors` without a layer, or an addition to a prompt.
    """
    found: list[Intervention] = []
    for part in recipe_parts(recipe):
        if isinstance(part, PromptAddition):
            raise TypeError(
                f"{brief(part)} is added to a prompt's tokens, which are not steered here: it works in steer, generate "
                "and side_effects"
            )
        found.append(part)
    return tuple(found)


def _as_intervention(part: Any) -> Intervention:
    if isinstance(part, Intervention):
        return part
    if isinstance(part, SteeringVector):
        return Intervention(part)
    if isinstance(part, SteeringVectors):
        raise TypeError(f"{brief(part)} has one vector per layer: pick one, e.g. vectors[{part.layers[0]}]")
    raise TypeError(f"steering takes a SteeringVector or Intervention, or a list of them, got {type(part).__name__}")
