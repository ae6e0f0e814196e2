"""Girl and boy stories for the 1 MB model of children's stories: a study whose result is known.

A pair is one story told of a girl and of a boy, ending in ``.``; the items are stories of a child whose sex is not
said, and the question is whether " She" or " He" goes on. `write(folder)` puts both down as JSON in the CAA schema.
"""

from __future__ import annotations

import json
from pathlib import Path

from caa_lens import ContrastDataset, ContrastPair

OPENINGS = (
    "Once upon a time, there was a little",
    "One day, a",
    "In a small house, there lived a little",
    "There was a",
)
GIRLS = ("Lily", "Mia", "Anna", "Sara", "Lucy")
BOYS = ("Tim", "Tom", "Ben", "Max", "Jack")
ENDINGS = (
    "liked to play in the park.",
    "had a big red ball.",
    "went to the garden with a dog.",
    "saw a bird in a tree.",
    "wanted to eat a cake.",
    "found a toy in the box.",
)
CHILDREN = ("a little child", "a kid", "a happy child", "a small kid", "a good child", "a little kid")
EVENTS = (
    "The child went to the park.",
    "The child saw a cat.",
    "The kid had a big smile.",
    "The child played with a ball.",
    "The kid wanted to go home.",
)


def pairs() -> ContrastDataset:
    """120 pairs, read at the end of the answer."""
    told = [
        ContrastPair(opening, f" girl named {girl}. She {ending}", f" boy named {boy}. He {ending}")
        for opening in OPENINGS
        for girl, boy in zip(GIRLS, BOYS, strict=True)
        for ending in ENDINGS
    ]
    return ContrastDataset.from_pairs(told, name="girl-boy")


def items() -> ContrastDataset:
    """30 stories without a hint, and how they could go on."""
    told = [
        ContrastPair(f"Once upon a time, there was {child}. {event}", " She", " He")
        for child in CHILDREN
        for event in EVENTS
    ]
    return ContrastDataset.from_pairs(told, name="girl-boy")


def write(folder: Path) -> dict[str, Path]:
    """Write ``generate.json``, ``dev.json`` (10 items) and ``test_ab.json`` (the other 20) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"generate": pairs(), "dev": items()[:10], "test_ab": items()[10:]}
    for name, dataset in parts.items():
        rows = [
            {"question": p.prompt, "answer_matching_behavior": p.positive, "answer_not_matching_behavior": p.negative}
            for p in dataset
        ]
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1))
    return {name: folder / f"{name}.json" for name in parts}
