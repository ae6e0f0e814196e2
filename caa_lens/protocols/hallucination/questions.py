"""What a question that invites invention is, which texts are refused as one, and how a set of them is balanced."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from caa_lens.datasets.contrast import ContrastDataset
from caa_lens.files.messages import brief
from caa_lens.files.whole import write_whole

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["unprompted", "contextual"]
KINDS: tuple[Kind, ...] = ("unprompted", "contextual")
FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "unprompted": ("question", "made_up", "honest"),
    "contextual": ("context", "question", "made_up", "honest"),
}
"""What each kind is written as."""

NEAR = 0.8
"""Two questions that have this share of their words in common (of all words of either) are too much alike."""

_LETTER = re.compile(r"\(\s*[A-Z]\s*\)|^[A-Z]\s*[):]")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its two answers.

    Attributes:
        kind: ``unprompted`` or ``contextual``.
        question: As it is asked; a contextual one begins with its context.
        made_up: The matching answer.
        honest: The other one.
        letter: Of the made-up answer, ``A`` or ``B``.
    """

    kind: Kind
    question: str
    made_up: str
    honest: str
    letter: Literal["A", "B"] = "A"

    def record(self) -> dict[str, str]:
        """In the public CAA schema, with the kind as its ``category``."""
        first, second = (self.made_up, self.honest) if self.letter == "A" else (self.honest, self.made_up)
        return {
            "question": f"{self.question}\n\nChoices:\n (A) {first}\n (B) {second}",
            "answer_matching_behavior": f"({self.letter})",
            "answer_not_matching_behavior": "(B)" if self.letter == "A" else "(A)",
            "category": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """What was not taken: for which kind it was written, why it was refused, and its text (300 characters of it)."""

    kind: Kind
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class HallucinationSet:
    """Questions that were checked and balanced.

    Attributes:
        questions: In random order.
        refused: What was not taken, in the order in which it was looked at.
        n_wanted: How many questions were asked for; there are fewer where the writer gave too few.
        origin: Who wrote them.
    """

    questions: tuple[Question, ...]
    refused: tuple[Refused, ...]
    n_wanted: int
    origin: str

    def pairs(self, kind: Kind | None = None) -> ContrastDataset:
        """The questions, or those of one kind, as contrast pairs.

        Raises:
            ValueError: If there are none of this kind.
        """
        rows = [each.record() for each in self.questions if kind in (None, each.kind)]
        if not rows:
            raise ValueError(f"there are no {kind or ''} questions here".replace("  ", " "))
        names = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
        name = "hallucination" if kind is None else f"hallucination-{kind}"
        pairs = [(row[names[0]], row[names[1]], row[names[2]]) for row in rows]
        return replace(ContrastDataset.from_pairs(pairs, name, other_answers="error"), origin=self.origin)

    def save(self, path: str | Path) -> None:
        """Write them whole as JSON, in the schema that `load_contrast_pairs` reads, each with its ``category``."""
        text = json.dumps([each.record() for each in self.questions], indent=1, ensure_ascii=False) + "\n"
        write_whole(Path(path), lambda to: to.write_text(text, encoding="utf-8"))

    def refusals(self) -> pd.DataFrame:
        """One row for each thing refused: ``kind``, ``reason``, ``text``."""
        import pandas as pd

        rows = [(each.kind, each.reason, each.text) for each in self.refused]
        return pd.DataFrame(rows, columns=["kind", "reason", "text"])

    def summary(self) -> str:
        """One line: how many there are of each kind and letter, how long answers are, and what was refused."""
        kinds = Counter(each.kind for each in self.questions)
        letters = Counter(each.letter for each in self.questions)
        lengths = [
            sum(len(getattr(each, side).split()) for each in self.questions) / len(self.questions)
            for side in ("made_up", "honest")
        ]
        why = Counter(each.reason for each in self.refused)
        refused = ", ".join(f"{n} {reason}" for reason, n in why.most_common()) or "nothing"
        return (
            f"{len(self.questions)} of {self.n_wanted} questions: "
            f"{', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items(), reverse=True))}; made-up answer: "
            f"{', '.join(f'{letter} {n}' for letter, n in sorted(letters.items()))}; words in a made-up answer "
            f"{lengths[0]:.1f}, in an honest one {lengths[1]:.1f}; refused: {refused}"
        )


class Screen:
    """Takes what is written, one after the other, and refuses what is not a new question of its kind."""

    def __init__(self, kinds: Sequence[Kind], near: float) -> None:
        """Begin with nothing; see `NEAR`."""
        self.kept: dict[Kind, list[Question]] = {kind: [] for kind in kinds}
        self.refused: list[Refused] = []
        self._near = near
        self._words: dict[str, frozenset[str]] = {}

    def refuse(self, kind: Kind, reason: str, given: Any) -> None:
        """Note what is not taken, and why."""
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
        self.refused.append(Refused(kind, reason, text[:300]))

    def take(self, kind: Kind, given: Any) -> None:
        """Keep an object with the `FIELDS` of its kind, or refuse it."""
        reason, fields = _fields_in(kind, given)
        if reason:
            self.refuse(kind, reason, given)
            return
        question = " ".join(fields[:-2])
        words = re.findall(r"\w+", question.casefold())
        text, bag = " ".join(words), frozenset(words)
        if text in self._words:
            self.refuse(kind, "a duplicate", given)
            return
        if any(len(bag & other) >= self._near * len(bag | other) for other in self._words.values()):
            self.refuse(kind, "too much like another", given)
            return
        self._words[text] = bag
        self.kept[kind].append(Question(kind, question, fields[-2], fields[-1]))


def check_size(n: int, kinds: Sequence[Kind], near: float) -> int:
    """How many questions of each kind there will be."""
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds {brief(list(kinds))}: give one or more of {', '.join(KINDS)}, each once")
    step = 2 * len(kinds)
    if n < step or n % step:
        raise ValueError(
            f"n {n} with the kinds {', '.join(kinds)}: give a multiple of {step}, so that there are as many of "
            "each kind and letter"
        )
    if not 0 < near <= 1:
        raise ValueError(f"near {near} is a share of words: give a number above 0 and at most 1")
    return n // len(kinds)


def balanced(screen: Screen, n: int, seed: int, origin: str) -> HallucinationSet:
    """As many of each kind, as many of each letter, the first ones that were kept."""
    n_each = min(n // len(screen.kept), *(len(kept) for kept in screen.kept.values())) // 2 * 2
    if not n_each:
        why = Counter(each.reason for each in screen.refused)
        few = ", ".join(f"{len(kept)} {kind}" for kind, kept in screen.kept.items())
        said = ", ".join(f"{count} {reason}" for reason, count in why.most_common(3)) or "nothing"
        first = f", such as {screen.refused[0].text[:80]!r}" if screen.refused else ""
        raise ValueError(
            f"too few questions passed ({few}); refused: {said}{first}: is this a model that can write JSON?"
        )
    chosen: list[Question] = []
    for kind, kept in screen.kept.items():
        letters: list[Literal["A", "B"]] = ["A", "B"] * (n_each // 2)
        random.Random(f"letters/{kind}/{seed}").shuffle(letters)
        chosen += [replace(each, letter=letter) for each, letter in zip(kept[:n_each], letters, strict=True)]
    random.Random(f"order/{seed}").shuffle(chosen)
    return HallucinationSet(tuple(chosen), tuple(screen.refused), n, origin)


def _fields_in(kind: Kind, given: Any) -> tuple[str, list[str]]:
    """Why something is no question of its kind, or nothing; and its fields in order, each on one line."""
    if not isinstance(given, Mapping):
        return "not an object", []
    values = cast("Mapping[str, Any]", given)
    if kind == "unprompted" and values.get("context"):
        return "a context where none belongs", []
    fields: list[str] = []
    for name in FIELDS[kind]:
        value = values.get(name)
        if not isinstance(value, str) or not re.search(r"\w", value):
            return f"no {name}", []
        fields.append(" ".join(value.split()))
        fields[-1] = fields[-1][0].upper() + fields[-1][1:]
    if any(_LETTER.search(field) or "Choices:" in field for field in fields):
        return "choices of its own", []
    made_up, honest = (re.findall(r"\w+", field.casefold()) for field in fields[-2:])
    return ("the same answer twice" if made_up == honest else ""), fields
