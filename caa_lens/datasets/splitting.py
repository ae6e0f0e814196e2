"""How pairs are dealt into the parts of a split."""

from __future__ import annotations

import random
from collections.abc import Sequence


def share_out(
    groups: list[list[int]], letters: Sequence[str], fractions: Sequence[float], seed: int
) -> list[list[int]]:
    """Deal groups of indices into parts, letter by letter, each to the part that lacks most; no part stays empty."""
    generator = random.Random(seed)
    generator.shuffle(groups)
    groups.sort(key=lambda group: sorted(letters[index] for index in group))
    parts: list[list[list[int]]] = [[] for _ in fractions]
    sizes = [0] * len(parts)
    for group in groups:
        total = sum(sizes) + len(group)
        neediest = max(range(len(parts)), key=lambda part: fractions[part] * total - sizes[part])
        parts[neediest].append(group)
        sizes[neediest] += len(group)
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return [[index for group in part for index in group] for part in parts]
