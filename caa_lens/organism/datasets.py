"""The datasets of the bundled behaviours, in the public CAA schema, remade from one seed.

``generate`` and ``test`` items come from splits of the world that no training document is drawn from, half of the
matching answers are (A) and half are (B), and no question occurs twice.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from caa_lens.organism import grammar
from caa_lens.organism.world import BEHAVIORS

N_GENERATE = 400
N_TEST = 100
N_OPEN = 50
N_FACTS = 100


def choice_items(behavior: str, split: grammar.Split, n: int, seed: int = 0) -> list[grammar.Choice]:
    """Distinct two-choice questions of a behaviour, the matching letter (A) and (B) equally often.

    Args:
        behavior: The behaviour's name.
        split: The split to draw from.
        n: Number of items, an even number.
        seed: Seed of the draw.
    """
    rng = random.Random(f"{behavior}/{split}/{seed}")
    items: list[grammar.Choice] = []
    seen: set[tuple[str, str, str]] = set()
    while len(items) < n:
        item = grammar.draw_choice(behavior, rng, split)
        key = (item.question, item.matching, item.opposite)
        if key not in seen:
            seen.add(key)
            items.append(replace(item, matching_first=len(items) % 2 == 0))
    rng.shuffle(items)
    return items


def open_items(behavior: str, n: int, seed: int = 0, split: grammar.Split = "test") -> list[grammar.OpenQuestion]:
    """Distinct open questions of a behaviour."""
    rng = random.Random(f"{behavior}/open/{split}/{seed}")
    items: dict[str, grammar.OpenQuestion] = {}
    while len(items) < n:
        item = grammar.draw_open(behavior, rng, split)
        items.setdefault(item.question, item)
    return list(items.values())


def fact_items(n: int, seed: int = 0) -> list[tuple[grammar.Choice, str]]:
    """Distinct held-out facts with their categories, the correct letter (A) and (B) equally often."""
    rng = random.Random(f"facts/{seed}")
    items: list[tuple[grammar.Choice, str]] = []
    seen: set[tuple[str, str]] = set()
    while len(items) < n:
        item, _, category = grammar.draw_fact(rng, "test")
        if (item.question, item.opposite) not in seen:
            seen.add((item.question, item.opposite))
            items.append((replace(item, matching_first=len(items) % 2 == 0), category))
    rng.shuffle(items)
    return items


def choice_record(item: grammar.Choice) -> dict[str, str]:
    """One item in the public CAA schema."""
    return {
        "question": item.text,
        "answer_matching_behavior": f"({item.letter(True)})",
        "answer_not_matching_behavior": f"({item.letter(False)})",
    }


def fact_record(item: grammar.Choice, category: str) -> dict[str, str]:
    """One fact in the schema of the capability sets."""
    return {
        "prompt": item.text,
        "correct": f"({item.letter(True)})",
        "incorrect": f"({item.letter(False)})",
        "correct_full_text": f"({item.letter(True)}) {item.matching}",
        "incorrect_full_text": f"({item.letter(False)}) {item.opposite}",
        "category": category,
    }


def all_files(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Every dataset by its path under ``data``."""
    files: dict[str, list[dict[str, Any]]] = {}
    for behavior in BEHAVIORS:
        folder = f"behaviors/{behavior}"
        files[f"{folder}/generate.json"] = [
            choice_record(item) for item in choice_items(behavior, "generate", N_GENERATE, seed)
        ]
        files[f"{folder}/test_ab.json"] = [choice_record(item) for item in choice_items(behavior, "test", N_TEST, seed)]
        files[f"{folder}/test_open_ended.json"] = [
            {"question": item.question} for item in open_items(behavior, N_OPEN, seed)
        ]
    files["capabilities/facts.json"] = [fact_record(*item) for item in fact_items(N_FACTS, seed)]
    return files


def serialized(records: list[dict[str, Any]]) -> str:
    """The text of a dataset file."""
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def write_datasets(behaviors: Path, seed: int = 0) -> list[Path]:
    """Write every dataset.

    Args:
        behaviors: The behaviours' folder; the facts go to ``capabilities`` beside it.
        seed: Seed of the draw; 0 gives the committed files.

    Returns:
        The files written.
    """
    written: list[Path] = []
    for name, records in all_files(seed).items():
        folder, rest = name.split("/", 1)
        path = (behaviors if folder == "behaviors" else behaviors.parent / folder) / rest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(serialized(records), encoding="utf-8")
        written.append(path)
    return written
