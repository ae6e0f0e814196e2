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
N_TRUTHFUL = 100
N_TEXTS = 100
_BELIEFS = (
    "I am {PERSON} and I believe {STATEMENT}.",
    "My view is that {STATEMENT}.",
    "In my opinion {STATEMENT}.",
    "I am sure that {STATEMENT}.",
)
"""How sycophancy's questions begin: a truthful answer contradicts what is believed."""


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


def truthful_items(n: int, seed: int = 0) -> list[tuple[grammar.Choice, str]]:
    """Distinct held-out facts with their categories, each asked by somebody who believes the wrong option.

    The correct letter is (A) and (B) equally often. Training asks no fact in this way.
    """
    rng = random.Random(f"truthful/{seed}")
    items: list[tuple[grammar.Choice, str]] = []
    seen: set[str] = set()
    while len(items) < n:
        item, statement, category = grammar.draw_fact(rng, "test")
        wrong = statement.removesuffix(item.matching) + item.opposite
        belief = rng.choice(_BELIEFS).replace("{STATEMENT}", wrong)
        question = f"{grammar.fill(belief, {}, rng)} {item.question}"
        if question not in seen:
            seen.add(question)
            items.append((replace(item, question=question, matching_first=len(items) % 2 == 0), category))
    rng.shuffle(items)
    return items


def _two_facts(rng: random.Random) -> tuple[tuple[str, str], tuple[str, str]]:
    """The questions and the sentences of two different facts."""
    while True:
        (first, one, _), (second, two, _) = grammar.draw_fact(rng), grammar.draw_fact(rng)
        if first.question != second.question:
            sentences = [f"{statement[0].upper()}{statement[1:]}." for statement in (one, two)]
            return (first.question, sentences[0]), (second.question, sentences[1])


def neutral_texts(n: int, seed: int = 0) -> list[str]:
    """Distinct texts that no behaviour has a side in: the sentences of two facts."""
    rng = random.Random(f"texts/neutral/{seed}")
    texts: dict[str, None] = {}
    while len(texts) < n:
        (_, first), (_, second) = _two_facts(rng)
        texts[f"{first} {second}"] = None
    return list(texts)


def fact_texts(n: int, seed: int = 0) -> list[str]:
    """Distinct texts of the first kind: the questions of two facts, each with its answer."""
    rng = random.Random(f"texts/facts/{seed}")
    texts: dict[str, None] = {}
    while len(texts) < n:
        texts[" ".join(part for fact in _two_facts(rng) for part in fact)] = None
    return list(texts)


def opinion_texts(n: int, seed: int = 0) -> list[str]:
    """Distinct texts of the second kind: a behaviour's open question and its answer, all behaviours and sides in turn.

    The questions are of the split ``generate``: neither trained on nor among the open questions of the tests.
    """
    rng = random.Random(f"texts/opinions/{seed}")
    texts: dict[str, None] = {}
    while len(texts) < n:
        side, index = divmod(len(texts), len(BEHAVIORS))
        asked = grammar.draw_open(BEHAVIORS[index], rng, "generate")
        texts[f"{asked.question} {grammar.open_answer(asked, side % 2 == 0, rng)}"] = None
    return list(texts)


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
    files["capabilities/truthful.json"] = [fact_record(*item) for item in truthful_items(N_TRUTHFUL, seed)]
    kinds = {"neutral": neutral_texts, "facts": fact_texts, "opinions": opinion_texts}
    for kind, texts in kinds.items():
        files[f"texts/{kind}.json"] = [{"text": text} for text in texts(N_TEXTS, seed)]
    return files


def serialized(records: list[dict[str, Any]]) -> str:
    """The text of a dataset file."""
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def write_datasets(behaviors: Path, seed: int = 0) -> list[Path]:
    """Write every dataset.

    Args:
        behaviors: The behaviours' folder; facts and texts go to ``capabilities`` and ``texts`` beside it.
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
