"""A judge behind an OpenAI-compatible ``/chat/completions``: see `caa_lens.judging.chat`.

A reply without a score is asked for again and then recorded as unscored. Scores that came before an error are kept, so
the next run goes on there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from caa_lens.judging.chat import Endpoint, Estimate, Send, check_prices, estimate_requests
from caa_lens.judging.rubrics import INSTRUCTIONS, ask, parse_score
from caa_lens.judging.scores import Request, key_of, read_cache, requests_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class EndpointJudge(Endpoint):
    """A judge for `score_answers`.

    Attributes are those of `Endpoint`; ``temperature`` is 0 and ``max_tokens`` 16 where ``settings`` say nothing.
    """

    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"temperature": 0, "max_tokens": 16})
    role: ClassVar[str] = "judge"
    kept: ClassVar[str] = "scores"

    @property
    def identity(self) -> str:
        """Model, address and a hash of the wording and settings: whatever could change a score."""
        return self.identity_with(INSTRUCTIONS, ask("", "", ""), self.body(("system", INSTRUCTIONS), ("user", "")))

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, float | None, str]]:
        """Score requests as their replies come in.

        Raises:
            ValueError: Before anything is sent, if there is no key; later, for what cannot succeed.
            ConnectionError: If an attempt failed ``retries + 1`` times.
        """
        for place, (score, note) in self.each(requests, self._score):
            yield place, score, note

    def _score(self, request: Request, send: Send) -> tuple[float | None, str]:
        asked = ask(request.rubric, request.question, request.answer)
        body = self.body(("system", INSTRUCTIONS), ("user", asked))
        note = ""
        for _ in range(self.asks):
            reply, finish = send(body)
            score = parse_score(reply)
            if score is not None:
                return score, ""
            said = self.without_key(" ".join(reply.split()))[:80]
            note = f"no score in the reply {said!r}" if said else f"an empty reply ({finish})"
        return None, note


def estimate(
    frame: pd.DataFrame,
    judge: EndpointJudge,
    price_in: float | None = None,
    price_out: float | None = None,
    *,
    rubrics: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> Estimate:
    """What scoring a frame will send and cost, before anything is sent.

    Args:
        frame: As `score_answers` takes it; so are ``rubrics`` and ``cache``.
        judge: The judge.
        price_in: For a million tokens sent.
        price_out: For a million tokens received.
        rubrics: By behaviour.
        cache: What is in it costs nothing.

    Raises:
        ValueError: As `score_answers`, for a negative price, or for one price without the other.
    """
    check_prices(price_in, price_out)
    requests, _ = requests_of(frame, rubrics)
    known = read_cache(cache) if cache is not None else {}
    todo = [each for each in requests if key_of(judge.identity, each) not in known]
    texts = [f"{INSTRUCTIONS}{ask(each.rubric, each.question, each.answer)}" for each in todo]
    return estimate_requests(judge, texts, len(requests) - len(todo), price_in, price_out)
