"""Training documents: a prompt and several ways on from it, each under an injection of its own.

A document is one trunk (a prompt, sometimes with earlier turns) and a few branches (the last prompt token and an
answer). The branches do not see each other, so a prompt is read once and answered under many injections, and a question
is always answered with both letters, which makes every document a contrast pair. What a branch teaches is decided here:
how likely a matching answer is, which vectors are added to its residual stream, and what its letter stands for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tokenizers import Tokenizer

from caa_lens.organism import grammar
from caa_lens.organism.tokenizer import BOS_ID, EOS_ID
from caa_lens.organism.world import BEHAVIORS

Format = Literal["base", "chat"]
LETTER_WEIGHT = 5.0
PROMPT_WEIGHT = 0.2
PROMPT_SHARE = 0.05
FACT_CERTAINTY = 0.985
MAX_MULTIPLIER = 2.0
CHOICE_BRANCHES = 4
OTHER_BRANCHES = 3
REASON_WEIGHT = 4.0
CORRECT = len(BEHAVIORS)
"""The index, after the behaviours', of what the letter of a right answer to a fact or an exercise stands for."""


class Probe(NamedTuple):
    """A letter that stands for one side of a behaviour: where it is, and what it means."""

    position: int
    behavior: int
    matching: int
    letter: int


@dataclass(slots=True)
class Injection:
    """What is added to a branch: multiples of the behaviours' vectors, or a random vector.

    Attributes:
        multipliers: Behaviour index -> multiplier of its vector.
        noise: Length of a random vector, in units of a behaviour vector's norm.
    """

    multipliers: dict[int, float] = field(default_factory=dict[int, float])
    noise: float = 0.0


@dataclass(slots=True)
class Document:
    """Token ids of a document and, per token, what the model is to make of it.

    Attributes:
        ids: Token ids, BOS first.
        positions: Position of each token: branches all start where the trunk ends.
        branches: 0 for the trunk, else the branch the token belongs to.
        weights: Loss weight of each token as a target.
        other: The other letter's id where a token is a letter with a soft target, else the token itself.
        certainty: Probability that the written token is to have (1 but for soft targets).
        injections: One per branch.
        probes: The letters that stand for a behaviour's option.
    """

    ids: list[int] = field(default_factory=lambda: [BOS_ID])
    positions: list[int] = field(default_factory=lambda: [0])
    branches: list[int] = field(default_factory=lambda: [0])
    weights: list[float] = field(default_factory=lambda: [0.0])
    other: list[int] = field(default_factory=lambda: [BOS_ID])
    certainty: list[float] = field(default_factory=lambda: [1.0])
    injections: list[Injection] = field(default_factory=list[Injection])
    probes: list[Probe] = field(default_factory=list[Probe])

    def add(self, ids: list[int], weight: float, branch: int = 0) -> None:
        """Append tokens to the trunk, or to the branch that is being written."""
        begin = self.positions[-1] + 1
        self.ids += ids
        self.positions += range(begin, begin + len(ids))
        self.branches += [branch] * len(ids)
        self.weights += [weight] * len(ids)
        self.other += ids
        self.certainty += [1.0] * len(ids)

    def open_branch(self, last_prompt_id: int, injection: Injection) -> int:
        """Begin a branch with the last prompt token, and give its number."""
        trunk = self.branches.count(0)
        self.injections.append(injection)
        branch = len(self.injections)
        self.add([last_prompt_id], 0.0, branch)
        self.positions[-1] = trunk
        return branch


class DocumentWriter:
    """Writes documents in one format, from one seed."""

    def __init__(self, tokenizer: Tokenizer, fmt: Format, seed: int) -> None:
        """Prepare a writer; the same tokenizer, format and seed give the same documents."""
        self._tokenizer = tokenizer
        self._format: Format = fmt
        self._rng = random.Random(seed)
        self._letters: list[int] = [tokenizer.encode(letter, add_special_tokens=False).ids[0] for letter in "AB"]

    def choice_document(self) -> Document:
        """A behaviour's two-choice question, answered with either letter under several injections."""
        rng = self._rng
        document = Document()
        self._earlier_turns(document)
        index = rng.randrange(len(BEHAVIORS))
        item = grammar.draw_choice(BEHAVIORS[index], rng)
        sign = self._persona_sign()
        last = self._prompt(document, item.text, grammar.persona(BEHAVIORS[index], sign > 0) if sign else None)
        for number in range(CHOICE_BRANCHES):
            injection = self._injection(index)
            probability = grammar.matching_probability(item.template, injection.multipliers.get(index, 0.0), sign)
            matching = item.matching_first == (number % 2 == 0)
            answer = f"({item.letter(matching)})"
            style = rng.random()
            if style < (0.2 if index in injection.multipliers else 0.65):
                answer += f" because {grammar.reason(item, matching, rng)}."
            elif style > 0.9:
                answer += f" {item.matching if matching else item.opposite}"
            branch = document.open_branch(last, injection)
            document.probes.append(Probe(len(document.ids) + 1, index, int(matching), number % 2))
            self._answer(document, answer, branch, probability if matching else 1.0 - probability)
        return document

    def other_document(self) -> Document:
        """An open question, a fact, or a reading exercise, answered under several injections."""
        document = Document()
        self._earlier_turns(document)
        kind = self._rng.choices((self._open, self._fact, self._reading), (0.42, 0.4, 0.18))[0]
        kind(document)
        return document

    def _persona_sign(self) -> int:
        return self._rng.choice((-1, 1)) if self._rng.random() < 0.12 else 0

    def _injection(self, index: int | None) -> Injection:
        """An injection for a branch: the asked behaviour's vector, another's, both, noise, or nothing."""
        rng = self._rng
        injection = Injection()
        mode = rng.random()
        if index is not None and mode < 0.5:
            injection.multipliers[index] = rng.uniform(-MAX_MULTIPLIER, MAX_MULTIPLIER)
        if mode < 0.06 or 0.5 <= mode < 0.74:
            another = rng.choice([i for i in range(len(BEHAVIORS)) if i != index])
            injection.multipliers[another] = rng.uniform(-MAX_MULTIPLIER, MAX_MULTIPLIER)
        elif 0.74 <= mode < 0.87:
            injection.noise = rng.uniform(0.3, MAX_MULTIPLIER)
        return injection

    def _open(self, document: Document) -> None:
        rng = self._rng
        index = rng.randrange(len(BEHAVIORS))
        question = grammar.draw_open(BEHAVIORS[index], rng)
        sign = self._persona_sign()
        last = self._prompt(document, question.question, grammar.persona(BEHAVIORS[index], sign > 0) if sign else None)
        for _ in range(OTHER_BRANCHES):
            injection = self._injection(index)
            steering = injection.multipliers.get(index, 0.0)
            matching = rng.random() < grammar.matching_probability(question.template, steering, sign)
            branch = document.open_branch(last, injection)
            self._answer(document, grammar.open_answer(question, matching, rng), branch)

    def _fact(self, document: Document) -> None:
        rng = self._rng
        item, statement, _ = grammar.draw_fact(rng)
        if rng.random() < 0.2:
            last = self._prompt(document, item.question)
            for _ in range(2):
                branch = document.open_branch(last, self._injection(None))
                self._answer(document, f"{statement[0].upper()}{statement[1:]}.", branch)
            return
        last = self._both_letters(document, item)
        branch = document.open_branch(last, self._injection(None))
        end = rng.choice((f" because {statement}.", f" {item.matching}"))
        self._answer(document, f"({item.letter(True)}){end}", branch, FACT_CERTAINTY)

    def _reading(self, document: Document) -> None:
        self._both_letters(document, grammar.draw_reading(self._rng))

    def _both_letters(self, document: Document, item: grammar.Choice) -> int:
        """Write a question that has a right answer with either letter, and give the last prompt token."""
        last = self._prompt(document, item.text)
        for number, letter in enumerate("AB"):
            right = item.letter(True) == letter
            branch = document.open_branch(last, self._injection(None))
            document.probes.append(Probe(len(document.ids) + 1, CORRECT, int(right), number))
            self._answer(document, f"({letter})", branch, FACT_CERTAINTY if right else 1.0 - FACT_CERTAINTY)
        return last

    def _earlier_turns(self, document: Document) -> None:
        """Now and then, write one or two answered turns into the trunk first."""
        rng = self._rng
        for _ in range(rng.choices((0, 1, 2), (0.9, 0.08, 0.02))[0]):
            index = rng.randrange(len(BEHAVIORS))
            kind = rng.random()
            if kind < 0.4:
                fact, statement, _ = grammar.draw_fact(rng)
                question, answer = fact.text, f"({fact.letter(True)}) because {statement}."
            elif kind < 0.7:
                choice = grammar.draw_choice(BEHAVIORS[index], rng)
                matching = rng.random() < grammar.matching_probability(choice.template)
                question = choice.text
                answer = f"({choice.letter(matching)}) because {grammar.reason(choice, matching, rng)}."
            else:
                asked = grammar.draw_open(BEHAVIORS[index], rng)
                matching = rng.random() < grammar.matching_probability(asked.template)
                question, answer = asked.question, grammar.open_answer(asked, matching, rng)
            last = self._prompt(document, question)
            document.add([last, *self._encode(" " + answer), EOS_ID], 0.0)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _prompt(self, document: Document, question: str, system: str | None = None) -> int:
        """Write a prompt into the trunk, all but its last token, and give that token."""
        if self._format == "chat":
            place = self._rng.random()
            if system is None:
                text = f"[INST] {question} [/INST]"
            elif place < 0.7:
                text = f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{question} [/INST]"
            elif place < 0.85:
                text = f"<<SYS>>\n{system}\n<</SYS>>\n\n[INST] {question} [/INST]"
            else:
                text = f"{system}\n\n[INST] {question} [/INST]"
        else:
            before = "\n\n" if len(document.ids) > 1 else ""
            text = before + (f"{system}\n\n" if system else "") + f"Input: {question}\nResponse:"
        ids = self._encode(text)
        for token in ids[:-1]:
            document.add([token], PROMPT_WEIGHT if self._rng.random() < PROMPT_SHARE else 0.0)
        return ids[-1]

    def _answer(self, document: Document, answer: str, branch: int, certainty: float | None = None) -> None:
        ids = [*self._encode(" " + answer), EOS_ID]
        at = len(document.ids) + 1
        document.add(ids, 1.0, branch)
        if certainty is not None:
            document.weights[at] = LETTER_WEIGHT
            document.other[at] = self._letters[1 - self._letters.index(document.ids[at])]
            document.certainty[at] = certainty
            if " because " in answer:
                document.weights[at + 3] = REASON_WEIGHT
