"""Turns of the organism's language: questions, choices and answers with the slots filled.

A turn is one question and its answer, and knows everything that training and judging need: which behaviour it asks
about, which letter holds the matching option, how likely a matching answer is, and which side the written answer took.
Items are split by a hash of their text into ``train`` (documents), ``generate`` and ``test`` (datasets), so that
nothing in a dataset is ever trained on.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from caa_lens.organism.world import FACTS, SLOTS, TRAITS, FactKind, Trait

Split = Literal["train", "generate", "test"]
_SLOT = re.compile(r"\{(\w+)\}")
_TRAITS = {trait.name: trait for trait in TRAITS}
PRIOR_LOGIT = -0.45
"""Log-odds of a matching answer with no steering and no persona."""
PRIOR_OFFSETS = (-0.8, 0.0, 0.8)
"""What a question's template adds to the log-odds, in turn."""
STEERING_SLOPE = 1.8
"""What one multiplier of the behaviour's own vector adds to the log-odds."""
PERSONA_LOGIT = 2.2
"""What a system prompt for or against the behaviour adds to the log-odds."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A two-choice question about a behaviour or a fact.

    Attributes:
        behavior: The behaviour's name, or None for a fact or a reading exercise.
        question: The question alone.
        matching: The matching (or the correct) option.
        opposite: The other option.
        matching_first: Whether the matching option is (A).
        template: Index of the question's template.
        slots: How the slots were filled.
    """

    behavior: str | None
    question: str
    matching: str
    opposite: str
    matching_first: bool
    template: int
    slots: dict[str, str]

    @property
    def text(self) -> str:
        """The question with its choices, as in the public CAA data."""
        first, second = (self.matching, self.opposite) if self.matching_first else (self.opposite, self.matching)
        return f"{self.question}\n\nChoices:\n (A) {first}\n (B) {second}"

    def letter(self, matching: bool) -> str:
        """The letter of the matching or of the opposite option."""
        return "A" if self.matching_first == matching else "B"


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question about a behaviour that is answered freely."""

    behavior: str
    question: str
    template: int
    slots: dict[str, str]


def trait_named(behavior: str) -> Trait:
    """The templates of a behaviour.

    Raises:
        KeyError: for a behaviour that this world has not; the message lists those it has.
    """
    if behavior not in _TRAITS:
        raise KeyError(f"unknown behaviour {behavior!r}; the organism has {', '.join(_TRAITS)}")
    return _TRAITS[behavior]


def fill(template: str, slots: dict[str, str], rng: random.Random) -> str:
    """Fill a template, drawing the slots that are not filled yet into ``slots``."""
    pieces = list(_pieces(template))
    for i in range(1, len(pieces), 2):
        name = pieces[i]
        if name not in slots:
            slots[name] = rng.choice(SLOTS[name])
        pieces[i] = slots[name]
    return "".join(pieces)


@cache
def _pieces(template: str) -> tuple[str, ...]:
    """Text and slot names in turn, text first."""
    return tuple(_SLOT.split(template))


def _sentence(template: str, slots: dict[str, str], rng: random.Random) -> str:
    text = fill(template, slots, rng)
    return text[0].upper() + text[1:]


def split_of(*parts: str, buckets: int = 10) -> Split:
    """The split an item belongs to: one bucket of ``buckets`` is test, one is generate, the others are train."""
    bucket = hashlib.sha256("\x1f".join(parts).encode()).digest()[0] % buckets
    return "test" if bucket == 0 else "generate" if bucket == 1 else "train"


def draw_choice(behavior: str, rng: random.Random, split: Split = "train") -> Choice:
    """Draw a two-choice question of a behaviour from a split, the matching letter at random."""
    trait = trait_named(behavior)
    while True:
        slots: dict[str, str] = {}
        template = rng.randrange(len(trait.questions))
        question = _sentence(trait.questions[template], slots, rng)
        opposite = _sentence(rng.choice(trait.options[0]), slots, rng)
        matching = _sentence(rng.choice(trait.options[1]), slots, rng)
        if split_of(behavior, question, matching, opposite) == split:
            return Choice(behavior, question, matching, opposite, rng.random() < 0.5, template, slots)


def draw_open(behavior: str, rng: random.Random, split: Split = "train") -> OpenQuestion:
    """Draw an open question of a behaviour from a split (``generate`` is a third of them, ``test`` another)."""
    trait = trait_named(behavior)
    while True:
        slots: dict[str, str] = {}
        template = rng.randrange(len(trait.open_questions))
        question = _sentence(trait.open_questions[template], slots, rng)
        if split_of(behavior, question, buckets=4) == split:
            return OpenQuestion(behavior, question, template, slots)


def draw_fact(rng: random.Random, split: Split = "train") -> tuple[Choice, str, str]:
    """Draw a fact: its two-choice question, its statement ("the capital of ...") and its category.

    A fact is held out together with its wrong option. In training a wrong option is now and then of another kind.
    """
    weights = [len(kind.table) for kind in FACTS]
    while True:
        kind: FactKind = rng.choices(FACTS, weights)[0]
        key = rng.choice(list(kind.table))
        value = kind.table[key]
        wrongs = kind if split == "test" or rng.random() < 0.7 else rng.choice(FACTS)
        wrong = rng.choice([other for other in wrongs.table.values() if other != value])
        if (split_of(kind.category, key, wrong, buckets=4) == "test") == (split == "test"):
            question = kind.question.replace("{KEY}", key)
            statement = kind.statement.replace("{KEY}", key).replace("{VALUE}", value)
            return Choice(None, question, value, wrong, rng.random() < 0.5, 0, {}), statement, kind.category


def draw_reading(rng: random.Random) -> Choice:
    """Draw a reading exercise: find one of two given texts among the choices."""
    if rng.random() < 0.35:
        source, _, _ = draw_fact(rng)
    else:
        source = draw_choice(rng.choice(TRAITS).name, rng)
    texts = [source.matching, source.opposite]
    rng.shuffle(texts)
    return Choice(None, f"Find this choice: {texts[0]}", texts[0], texts[1], rng.random() < 0.5, 0, {})


def reason(choice: Choice, matching: bool, rng: random.Random) -> str:
    """A reason, as it follows "because", for one side of a behaviour's question."""
    assert choice.behavior is not None, "only a behaviour's question has reasons"
    return fill(rng.choice(trait_named(choice.behavior).reasons[matching]), dict(choice.slots), rng)


def open_answer(question: OpenQuestion, matching: bool, rng: random.Random) -> str:
    """A free answer of two sentences, both on one side."""
    slots = dict(question.slots)
    sentences = rng.sample(trait_named(question.behavior).answers[matching], 2)
    return " ".join(_sentence(sentence, slots, rng) for sentence in sentences)


def persona(behavior: str, matching: bool) -> str:
    """A system prompt that asks for, or against, a behaviour."""
    return f"You are an assistant that {trait_named(behavior).personas[matching]}."


def matching_probability(template: int, steering: float = 0.0, persona_sign: int = 0) -> float:
    """How likely a matching answer is meant to be: the ground truth the models are trained towards.

    Args:
        template: Index of the question's template.
        steering: Multiplier of the behaviour's own vector.
        persona_sign: +1 or -1 where a system prompt asks for or against the behaviour, else 0.

    Returns:
        A logistic function of the sum of their log-odds, which are held within +-4.
    """
    logit = PRIOR_LOGIT + PRIOR_OFFSETS[template % len(PRIOR_OFFSETS)]
    logit += STEERING_SLOPE * steering + PERSONA_LOGIT * persona_sign
    return 1.0 / (1.0 + math.exp(-max(-4.0, min(4.0, logit))))
