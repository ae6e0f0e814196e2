"""Scores from 0 to 10 for open answers, by a judge who does not know what was done to the model.

A judge is any callable that takes a sequence of `Request` and yields ``(place, score, note)`` for each of them in any
order: the place in that sequence, a number from 0 to 10 or None, and a short remark. It is shown a rubric, a question
and an answer; never a multiplier, a layer or a vector. Requests are shuffled, and an answer that occurs twice is asked
about once, so that no two equal answers get different scores (judge of CAA, arXiv 2312.06681, section 4; blind rating
and agreement between judges: Pres et al., arXiv 2410.17245).

A judge may cost money or be interrupted, so its scores can be kept in a cache: a file of JSON lines that is only ever
added to. What is in it is not asked again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tqdm.auto import tqdm

from caa_lens.files.lines import add_line, open_lines, read_lines
from caa_lens.judging.answers import check_answers
from caa_lens.judging.rubrics import choose_rubrics

if TYPE_CHECKING:
    import pandas as pd

SCORE_COLUMNS = ("score", "note", "judge")
_CACHE = "judge's cache"


class Request(NamedTuple):
    """What a judge is shown."""

    behavior: str
    rubric: str
    question: str
    answer: str


Judge = Callable[[Sequence[Request]], Iterable[tuple[int, float | None, str]]]
"""Takes requests, yields ``(place, score, note)``. Its ``identity`` (see `identity_of`) goes into cache and frame."""


def score_answers(
    frame: pd.DataFrame,
    judge: Judge,
    *,
    rubrics: Mapping[str, str] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: bool | str = False,
) -> pd.DataFrame:
    """Have every answer scored.

    Args:
        frame: As `answers` returns it.
        judge: Such as `EndpointJudge`, `LocalJudge`, `caa_lens.organism.judge.score`, or a function of your own.
        rubrics: By behaviour; those that are missing come from `caa_lens.judging.rubrics.RUBRICS`.
        seed: Of the order in which answers are shown to the judge.
        cache: A file of JSON lines, begun where it is missing. A run that was interrupted goes on where it stopped.
        progress: Show a progress bar, under this text where it is one.

    Returns:
        The frame with three more columns: ``score`` (0 to 10; NaN where there is none), ``note`` (what the judge
        remarked) and ``judge`` (its identity).

    Raises:
        ValueError: Before anything is asked: for a frame that is not one of `answers`, a behaviour without a rubric, or
            a cache that is something else. Later: for a judge that breaks its contract.
    """
    requests, places = requests_of(frame, rubrics)
    identity = identity_of(judge, kept=cache is not None)
    keys = [key_of(identity, request) for request in requests]
    found: dict[str, tuple[float | None, str]] = {}
    file: IO[bytes] | None = None
    if cache is not None:
        found = {key: verdict for key, verdict in read_cache(cache).items() if key in set(keys)}
    todo = [place for place, key in enumerate(keys) if key not in found]
    random.Random(seed).shuffle(todo)
    try:
        if cache is not None and todo:
            file = open_lines(cache, _CACHE)
        with tqdm(
            total=len(todo),
            desc=progress if isinstance(progress, str) else "judging",
            unit="answer",
            disable=not progress,
        ) as bar:
            open_places = set(range(len(todo)))
            for place, score, note in judge([requests[each] for each in todo]) if todo else ():
                _check_verdict(identity, place, score, open_places)
                open_places.remove(place)
                key = keys[todo[place]]
                found[key] = (score, note)
                if file is not None:
                    add_line(file, key, score=score, note=note, judge=identity)
                bar.update(1)
    finally:
        if file is not None:
            file.close()
    if open_places:
        raise ValueError(f"the judge {identity} said nothing about {len(open_places)} of {len(todo)} answers")
    verdicts = [found[keys[place]] for place in places]
    scores = [float("nan") if score is None else float(score) for score, _ in verdicts]
    return frame.assign(score=scores, note=[note for _, note in verdicts], judge=identity)


def requests_of(frame: pd.DataFrame, rubrics: Mapping[str, str] | None = None) -> tuple[list[Request], list[int]]:
    """The different requests of a frame of `answers`, and for each of its rows the place of its own.

    Raises:
        ValueError: As `score_answers`.
    """
    check_answers(frame)
    chosen = choose_rubrics(map(str, frame["behavior"]), rubrics)
    place_of: dict[Request, int] = {}
    places: list[int] = []
    for behavior, question, answer in zip(frame["behavior"], frame["question_text"], frame["text"], strict=True):
        if not isinstance(question, str) or not isinstance(answer, str):
            raise ValueError(
                f"a question or an answer is no text ({question!r}, {answer!r}): read the file with read_answers(), "
                "which keeps empty answers"
            )
        request = Request(str(behavior), chosen[str(behavior)], question, answer)
        places.append(place_of.setdefault(request, len(place_of)))
    return list(place_of), places


def identity_of(judge: Judge, *, kept: bool = False) -> str:
    """What tells this judge from others: its attribute ``identity``, or the full name of a function.

    Raises:
        ValueError: If scores are to be ``kept`` and the name could mean several judges, as ``<lambda>`` does.
    """
    given: Any = getattr(judge, "identity", None)
    if isinstance(given, str) and given:
        return given
    named: Any = judge if hasattr(judge, "__qualname__") else type(judge)
    name = f"{named.__module__}.{named.__qualname__}"
    if kept and ("<" in name or named is not judge):
        raise ValueError(
            f"the judge {name} has no name of its own to keep scores under: give it an attribute 'identity', a text "
            "that changes whenever its scores could"
        )
    return name


def key_of(identity: str, request: Request) -> str:
    """SHA-256 (hex) of the judge and of all that it is shown."""
    return hashlib.sha256(json.dumps([identity, *request]).encode()).hexdigest()


def read_cache(path: Path) -> dict[str, tuple[float | None, str]]:
    """Scores and notes by key; empty where there is no file. A last line that was torn off is left out.

    Raises:
        ValueError: If the file is something else, with the line.
    """
    return read_lines(path, _CACHE, _verdict_in)


def _verdict_in(entry: Any) -> tuple[float | None, str]:
    score, note = entry["score"], entry["note"]
    if score is not None and not 0 <= score <= 10:
        raise ValueError
    return score, str(note)


def _check_verdict(identity: str, place: Any, score: Any, open_places: set[int]) -> None:
    if place not in open_places:
        raise ValueError(f"the judge {identity} scored place {place!r}, which it was not asked about or had scored")
    if score is not None and not (isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 10):
        raise ValueError(f"the judge {identity} gave the score {score!r}: a number from 0 to 10, or None, is expected")
