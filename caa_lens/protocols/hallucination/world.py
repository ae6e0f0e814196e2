"""Questions about what the bundled world knows nothing of, drawn from its grammar."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from caa_lens.files.messages import brief
from caa_lens.organism import grammar
from caa_lens.protocols.hallucination.questions import KINDS, NEAR, HallucinationSet, Kind, Screen, balanced, check_size


def from_world(
    n: int,
    *,
    kinds: Sequence[Kind] = KINDS,
    split: Literal["generate", "test"] = "generate",
    near: float = NEAR,
    seed: int = 0,
) -> HallucinationSet:
    """The same from the bundled world, for the bundled models: no network, and the same set for the same seed.

    The world has people, places and books that nothing is known of. An unprompted question asks about one; a contextual
    one says something about it first that nothing supports, such as "It won a prize in Porto." What the grammar repeats
    is drawn again, and not listed as refused.

    Args:
        n: As for `generate_pairs`.
        kinds: Which.
        split: Of the world, the same as those of its behaviours; neither is trained on. Questions of the split may be
            among the bundled ones of the same name.
        near: See `NEAR`; the world has few words, and a higher share lets more through.
        seed: Of the draw.

    Raises:
        ValueError: For arguments that do not fit, or if the world has too few questions that differ so much.
    """
    n_each = check_size(n, kinds, near)
    if split not in ("generate", "test"):
        raise ValueError(
            f"there is no split {brief(split)}: give generate or test; the models were trained on the third"
        )
    screen, claims = Screen(kinds, near), grammar.trait_named("hallucination").answers[True]
    for kind in kinds:
        rng = random.Random(f"hallucination/{kind}/{split}/{seed}")
        for _ in range(40 * n_each + 1000):
            if len(screen.kept[kind]) == n_each:
                break
            drawn = grammar.draw_choice("hallucination", rng, split)
            given = {"question": drawn.question, "made_up": drawn.matching, "honest": drawn.opposite}
            if kind == "contextual":
                given["context"] = grammar.fill(rng.choice(claims), dict(drawn.slots), rng)
            screen.take(kind, given)
        if len(screen.kept[kind]) < n_each:
            raise ValueError(
                f"the world has about {len(screen.kept[kind])} {kind} questions of the split {split} that differ by "
                f"near={near}, and {n_each} are asked for: give a smaller n, or a larger near, at most 1"
            )
    screen.refused.clear()
    return balanced(screen, n, seed, f"the bundled world, split {split}, seed {seed}")
