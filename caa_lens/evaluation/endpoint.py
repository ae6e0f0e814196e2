"""A judge behind an OpenAI-compatible ``/chat/completions``: a hosted model, or vLLM, llama.cpp, Ollama on one's desk.

The key is read from an environment variable each time a request is signed and is held nowhere: not in the judge, its
``repr``, the cache or an error. What fails in passing (429, 5xx, a timeout, a broken connection, a body that is no
completion) is tried again, later each time, and no sooner than the server asks; what cannot succeed (400, 401, 403,
404) ends the run at once with one clear error. Scores that came before it are kept, so the next run goes on there. A
reply without a score is asked for again and then recorded as unscored.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from caa_lens.evaluation.judging import Request, key_of, read_cache, requests_of
from caa_lens.evaluation.pacing import Pace, PassingError, Stopped, retry_after
from caa_lens.evaluation.rubrics import INSTRUCTIONS, ask, parse_score

if TYPE_CHECKING:
    import httpx
    import pandas as pd

OPENAI = "https://api.openai.com/v1"
DEFAULTS: Mapping[str, Any] = MappingProxyType({"temperature": 0, "max_tokens": 16})
LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more ends the run."""
LARGEST_BODY = 1_000_000
"""Bytes; more is no score."""


@dataclass(frozen=True, slots=True)
class EndpointJudge:
    """A judge for `score_answers`.

    Attributes:
        model: The model's name at the endpoint.
        base_url: Up to and including ``/v1``; None takes ``OPENAI_BASE_URL``, or OpenAI's own.
        key_from: The *name* of the environment variable with the key; None sends none, for servers that want none.
        settings: Merged into each request's body over ``temperature`` 0 and ``max_tokens`` 16; None takes one out. A
            model that thinks before it answers needs ``{"max_tokens": None, "max_completion_tokens": 2000}``.
        timeout: Seconds for a request, from its beginning to the last byte of the reply.
        retries: More attempts after a failure that may pass.
        asks: Times that one answer is asked about until a score comes.
        per_minute: Requests a minute, evenly spaced, retries included; None does not limit them.
        concurrency: Requests under way at once.

    Raises:
        ValueError: For settings out of range, or a ``base_url`` that is none or that holds a password or a query.
    """

    model: str
    base_url: str | None = None
    key_from: str | None = "OPENAI_API_KEY"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout: float = 60.0
    retries: int = 6
    asks: int = 3
    per_minute: float | None = None
    concurrency: int = 4

    def __post_init__(self) -> None:
        """Check the settings, and settle the address."""
        object.__setattr__(self, "base_url", _checked_address(self.base_url or os.environ.get("OPENAI_BASE_URL")))
        if not self.model.strip():
            raise ValueError("the judge's model has no name: give the one that the endpoint knows it by")
        if self.key_from is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", self.key_from):
            raise ValueError("key_from must be the name of an environment variable, such as OPENAI_API_KEY")
        if reserved := {"model", "messages", "stream", "n"} & set(self.settings):
            raise ValueError(f"settings cannot hold {', '.join(sorted(reserved))}: the judge sets these itself")
        per_minute = math.inf if self.per_minute is None else self.per_minute
        if min(self.timeout, per_minute) <= 0 or self.retries < 0 or min(self.asks, self.concurrency) < 1:
            raise ValueError(
                f"timeout {self.timeout}, per_minute {self.per_minute}, retries {self.retries}, asks {self.asks}, "
                f"concurrency {self.concurrency}: the first two are above 0, retries are 0 or more, asks and "
                "concurrency at least 1"
            )

    @property
    def identity(self) -> str:
        """Model, address and a hash of the wording and settings: whatever could change a score."""
        wording = json.dumps([INSTRUCTIONS, ask("", "", ""), self._body("")], sort_keys=True, default=str)
        return f"{self.model} at {self.base_url} ({hashlib.sha256(wording.encode()).hexdigest()[:8]})"

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[int, float | None, str]]:
        """Score requests as their replies come in.

        Raises:
            ValueError: Before anything is sent, if there is no key; later, for what cannot succeed.
            ConnectionError: If an attempt failed ``retries + 1`` times.
        """
        import httpx

        self.check_key()
        pace = Pace(self.per_minute)
        failure: BaseException | None = None
        with (
            httpx.Client(timeout=self.timeout, auth=self._sign if self.key_from else None) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            place_of = {pool.submit(self._judge, client, pace, each): place for place, each in enumerate(requests)}
            try:
                for future in as_completed(place_of):
                    error = future.exception()
                    if error is None:
                        score, note = future.result()
                        yield place_of[future], score, note
                    elif failure is None and not isinstance(error, Stopped):
                        failure = error  # replies under way are still taken in: they have been paid for
            finally:
                pace.stop()
                pool.shutdown(cancel_futures=True)
        if failure is not None:
            raise failure

    def _judge(self, client: httpx.Client, pace: Pace, request: Request) -> tuple[float | None, str]:
        """Score one request. A failure stops all others, in this thread, before the next one could leave."""
        try:
            return self._score(client, pace, request)
        except Exception:
            pace.stop()
            raise

    def _score(self, client: httpx.Client, pace: Pace, request: Request) -> tuple[float | None, str]:
        body = self._body(ask(request.rubric, request.question, request.answer))
        note = ""
        for _ in range(self.asks):
            reply, finish = self._attempts(client, pace, body)
            score = parse_score(reply)
            if score is not None:
                return score, ""
            said = self._without_key(" ".join(reply.split()))[:80]
            note = f"no score in the reply {said!r}" if said else f"an empty reply ({finish})"
        return None, note

    def _attempts(self, client: httpx.Client, pace: Pace, body: dict[str, Any]) -> tuple[str, str]:
        import tenacity

        growing = tenacity.wait_exponential_jitter(initial=1, max=60)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(growing(state), getattr(error, "wait", 0.0))

        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.retries + 1),
            wait=wait,
            retry=tenacity.retry_if_exception_type(PassingError),
            sleep=pace.sleep,
            reraise=True,
        )
        try:
            return attempts(self._send, client, pace, body)
        except PassingError as error:
            failed = f"{self._url} failed {self.retries + 1} times, at last with: {error}. "
        raise ConnectionError(f"{failed}Scores that have come are kept in the cache: run it again to go on")

    def _send(self, client: httpx.Client, pace: Pace, body: dict[str, Any]) -> tuple[str, str]:
        """One request: the reply's text and why it ended."""
        import httpx

        pace.wait_for_turn()
        try:
            response, content = self._exchange(client, body)
        except httpx.TimeoutException:
            problem = f"no reply within {self.timeout:g} s"
        except httpx.HTTPError as error:
            problem = self._without_key(str(error)) or type(error).__name__
        else:
            self._check_status(response, content, pace)
            return self._text_of(content)
        raise PassingError(problem)  # out here, so that no request, which carries the key, hangs on the error

    def _exchange(self, client: httpx.Client, body: dict[str, Any]) -> tuple[httpx.Response, bytes]:
        ends = time.monotonic() + self.timeout  # the client's own timeout begins anew with every byte
        content = b""
        with client.stream("POST", self._url, json=body) as response:
            for part in response.iter_bytes():
                content += part
                if time.monotonic() > ends:
                    raise PassingError(f"no whole reply within {self.timeout:g} s")
                if len(content) > LARGEST_BODY:
                    raise PassingError(f"a reply of more than {LARGEST_BODY} bytes")
        return response, content

    def _check_status(self, response: httpx.Response, content: bytes, pace: Pace) -> None:
        status = response.status_code
        if status == 200:
            return
        said = self._without_key(" ".join(content.decode("utf-8", "replace").split()))[:200]
        text = f"HTTP {status}{f': {said}' if said else ''}"
        if status == 429 or status >= 500 or status == 408:
            wait = retry_after(response.headers.get("retry-after"))
            if wait > LONGEST_WAIT:
                raise ValueError(
                    f"{self._url} asks to wait {wait:.0f} s ({text}): run it again then; scores that have come are "
                    "kept in the cache"
                )
            if wait:
                pace.hold(wait)
            raise PassingError(text, wait)
        key = f"the key in {self.key_from}" if self.key_from else "this run, which sends no key (see key_from),"
        what = {
            401: f"is {key} right for this address?",
            403: f"may {key} use the model {self.model!r}?",
            404: f"does the address end before /chat/completions, and does it know the model {self.model!r}?",
            400: "does the model take these settings? some want max_completion_tokens, or no temperature",
            422: "does the server take these settings?",
        }.get(status, "is base_url the address of an OpenAI-compatible API?")
        raise ValueError(f"{self._url} answered {text}; {what}")

    def _text_of(self, content: bytes) -> tuple[str, str]:
        try:
            choice: Any = json.loads(content)["choices"][0]
            text: Any = choice["message"].get("content")
            finish = str(choice.get("finish_reason"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            said = self._without_key(" ".join(content.decode("utf-8", "replace").split()))[:80]
            raise PassingError(f"a reply that is no chat completion: {said!r}") from None
        return (text if isinstance(text, str) else ""), self._without_key(finish)[:40]

    def check_key(self) -> None:
        """Raise ValueError where there is no key that could be sent; nothing is sent."""
        self._key()

    @property
    def _url(self) -> str:
        return f"{self.base_url}/chat/completions"

    def _body(self, text: str) -> dict[str, Any]:
        sendable = text.encode("utf-8", "replace").decode()
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": sendable}]
        merged = {"model": self.model, "messages": messages, **DEFAULTS, **self.settings}
        return {name: value for name, value in merged.items() if value is not None}

    def _key(self) -> str:
        """The key; a ValueError where there is none that a header could hold."""
        if self.key_from is None:
            return ""
        key = os.environ.get(self.key_from, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {self.key_from} is not set: put the key for {self.base_url} there, name "
                "another variable, or give key_from=None for a server that wants no key"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(f"what is in {self.key_from} is no key: it has spaces or characters that no header takes")
        return key

    def _sign(self, request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {self._key()}"
        return request

    def _without_key(self, text: str) -> str:
        """A server may repeat what it was sent."""
        key = os.environ.get(self.key_from, "").strip() if self.key_from else ""
        return text.replace(key, "[key]") if key else text


def _checked_address(given: str | None) -> str:
    text = given or OPENAI
    if {"@", "?", "#"} & set(text):  # not shown: it may be a secret
        raise ValueError(
            "base_url holds more than an address (one of @, ? and #): a key or password belongs in the environment "
            "variable that key_from names"
        )
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"base_url {text!r} is no address: give one such as {OPENAI}")
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will send. Tokens are guessed at four bytes each; ``cost`` is None without prices."""

    n_requests: int
    n_cached: int
    tokens_in: int
    tokens_out: int
    cost: float | None

    def __str__(self) -> str:
        """One line for people."""
        cost = "unknown without prices" if self.cost is None else f"about {self.cost:.2g}, in the prices' currency"
        return (
            f"{self.n_requests} requests ({self.n_cached} more are in the cache), about {self.tokens_in} tokens in, "
            f"at most {self.tokens_out} out; cost {cost}, and more where replies have to be asked for again"
        )


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
    if (price_in is None) != (price_out is None) or min(price_in or 0.0, price_out or 0.0) < 0:
        raise ValueError(f"price_in {price_in}, price_out {price_out}: give both, for a million tokens, or neither")
    requests, _ = requests_of(frame, rubrics)
    known = read_cache(cache) if cache is not None else {}
    todo = [each for each in requests if key_of(judge.identity, each) not in known]
    bodies = [f"{INSTRUCTIONS}{ask(each.rubric, each.question, each.answer)}" for each in todo]
    tokens_in = sum(math.ceil(len(body.encode("utf-8", "replace")) / 4) + 10 for body in bodies)
    settings = {**DEFAULTS, **judge.settings}
    longest = settings.get("max_completion_tokens") or settings.get("max_tokens") or 500
    tokens_out = len(todo) * int(longest)
    cost = None if price_in is None or price_out is None else (tokens_in * price_in + tokens_out * price_out) / 1e6
    return Estimate(len(todo), len(requests) - len(todo), tokens_in, tokens_out, cost)
