"""The exact judge: an open answer is trait-matching, opposite, or invalid, because the grammar says so.

A sentence counts when it is one of the behaviour's answer templates with its slots filled by any legal values. An
answer is matching (opposite) when every one of its sentences is matching (opposite); anything else is invalid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal

from caa_lens.organism.grammar import trait_named
from caa_lens.organism.world import BEHAVIORS, SLOTS

Verdict = Literal["matching", "opposite", "invalid"]
_SENTENCE_END = re.compile(r"(?<=\.)\s+")


def _pattern(template: str) -> str:
    pieces = re.split(r"\{(\w+)\}", template)
    for i, piece in enumerate(pieces):
        pieces[i] = "(?:" + "|".join(map(re.escape, SLOTS[piece])) + ")" if i % 2 else re.escape(piece)
    return "".join(pieces)


@cache
def _patterns(behavior: str, kind: Literal["answers", "reasons"]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    trait = trait_named(behavior)
    sides = trait.answers if kind == "answers" else trait.reasons
    opposite, matching = (re.compile("|".join(_pattern(template) for template in side)) for side in sides)
    return opposite, matching


def _verdict(behavior: str, text: str, kind: Literal["answers", "reasons"]) -> Verdict:
    opposite, matching = _patterns(behavior, kind)
    return "matching" if matching.fullmatch(text) else "opposite" if opposite.fullmatch(text) else "invalid"


def judge_sentence(behavior: str, sentence: str) -> Verdict:
    """Judge one sentence of an open answer."""
    return _verdict(behavior, sentence.strip(), "answers")


def judge_answer(behavior: str, answer: str) -> Verdict:
    """Judge an open answer by the behaviour's grammar.

    Args:
        behavior: The behaviour the question asked about.
        answer: The generated text, without special tokens.

    Returns:
        ``"matching"`` or ``"opposite"`` where every sentence is on that side, else ``"invalid"`` (also when empty).
    """
    verdicts: set[Verdict] = {judge_sentence(behavior, sentence) for sentence in _SENTENCE_END.split(answer.strip())}
    return verdicts.pop() if len(verdicts) == 1 else "invalid"


def judge_reason(behavior: str, text: str) -> Verdict:
    """Judge what follows "because" after a letter, the closing full stop included or not."""
    return _verdict(behavior, text.strip().removesuffix("."), "reasons")


def score(requests: Sequence[tuple[str, str, str, str]]) -> Iterator[tuple[int, float | None, str]]:
    """A judge for `caa_lens.judging.scores.score_answers`: matching is 10, opposite 0, invalid has no score.

    What begins with "because" is judged as the reason of a letter, anything else as an open answer.

    Args:
        requests: Behaviour, rubric (not read: the grammar knows), question and answer.

    Yields:
        The place of each request, its score, and the verdict.

    Raises:
        ValueError: For a behaviour that the bundled world does not have.
    """
    if unknown := sorted({behavior for behavior, *_ in requests} - set(BEHAVIORS)):
        raise ValueError(f"the bundled world has no behaviour {unknown[0]!r}: it has {', '.join(BEHAVIORS)}")
    for place, (behavior, _, _, answer) in enumerate(requests):
        reason = re.fullmatch(r"\s*because\s+(.*)", answer, flags=re.DOTALL)
        verdict = judge_reason(behavior, reason[1]) if reason else judge_answer(behavior, answer)
        yield place, {"matching": 10.0, "opposite": 0.0, "invalid": None}[verdict], verdict
