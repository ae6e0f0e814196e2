"""A chat model behind an OpenAI-compatible ``/chat/completions``: a hosted one, or vLLM, llama.cpp, Ollama at home.

The key is read from an environment variable each time a request is signed and is held nowhere: not in the endpoint, its
``repr``, a cache or an error. What fails in passing (429, 5xx, a timeout, a broken connection, a body that is no
completion) is tried again, later each time, and no sooner than the server asks; what cannot succeed (400, 401, 403,
404) ends the run at once with one clear error. Replies that came before it are handed over first, so that who keeps
them can go on there. `EndpointJudge` has answers rated this way, `EndpointWriter` has texts written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from caa_lens.judging.pacing import Pace, PassingError, Stopped, retry_after

if TYPE_CHECKING:
    import httpx

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Send = Callable[[dict[str, Any]], tuple[str, str]]
"""Posts a body, as often as it takes; gives the reply's text and why it ended."""

OPENAI = "https://api.openai.com/v1"
LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more ends the run."""
LARGEST_BODY = 1_000_000
"""Bytes; no reply that is waited for is so long."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a chat model is, and how it is asked; what it is asked for is up to the classes that are one.

    Attributes:
        model: The model's name at the endpoint.
        base_url: Up to and including ``/v1``; None takes ``OPENAI_BASE_URL``, or OpenAI's own.
        key_from: The *name* of the environment variable with the key; None sends none, for servers that want none.
        settings: Merged into each request's body over the class's own defaults; None takes one out. A model that thinks
            before it answers needs ``{"max_tokens": None, "max_completion_tokens": 2000}``.
        timeout: Seconds for a request, from its beginning to the last byte of the reply.
        retries: More attempts after a failure that may pass.
        asks: Times that one thing is asked for until the reply can be used.
        per_minute: Requests a minute, evenly spaced, retries included; None does not limit them.
        concurrency: Requests under way at once.

    Raises:
        ValueError: For settings out of range, or a ``base_url`` that is none or that holds a password or a query.
    """

    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    role: ClassVar[str] = "endpoint"
    kept: ClassVar[str] = "replies"

    model: str
    base_url: str | None = None
    key_from: str | None = "OPENAI_API_KEY"
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout: float = 120.0
    retries: int = 6
    asks: int = 3
    per_minute: float | None = None
    concurrency: int = 4

    def __post_init__(self) -> None:
        """Check the settings, and settle the address."""
        object.__setattr__(self, "base_url", _checked_address(self.base_url or os.environ.get("OPENAI_BASE_URL")))
        if not self.model.strip():
            raise ValueError(f"the {self.role}'s model has no name: give the one that the endpoint knows it by")
        if self.key_from is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", self.key_from):
            raise ValueError("key_from must be the name of an environment variable, such as OPENAI_API_KEY")
        if reserved := {"model", "messages", "stream", "n"} & set(self.settings):
            raise ValueError(f"settings cannot hold {', '.join(sorted(reserved))}: the {self.role} sets these itself")
        per_minute = math.inf if self.per_minute is None else self.per_minute
        if min(self.timeout, per_minute) <= 0 or self.retries < 0 or min(self.asks, self.concurrency) < 1:
            raise ValueError(
                f"timeout {self.timeout}, per_minute {self.per_minute}, retries {self.retries}, asks {self.asks}, "
                f"concurrency {self.concurrency}: the first two are above 0, retries are 0 or more, asks and "
                "concurrency at least 1"
            )

    def each(self, asked: Sequence[Asked], answer: Callable[[Asked, Send], Answer]) -> Iterator[tuple[int, Answer]]:
        """Answer all that is asked, several at once, as the replies come in; with the place of each.

        Args:
            asked: What is asked for.
            answer: Makes one answer of one of them, with as many requests as it takes; run in threads.

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

            def send(body: dict[str, Any]) -> tuple[str, str]:
                return self._attempts(client, pace, body)

            def one(each: Asked) -> Answer:
                try:
                    return answer(each, send)
                except Exception:
                    pace.stop()  # in this thread, before the next request could leave
                    raise

            place_of = {pool.submit(one, each): place for place, each in enumerate(asked)}
            try:
                for future in as_completed(place_of):
                    error = future.exception()
                    if error is None:
                        yield place_of[future], future.result()
                    elif failure is None and not isinstance(error, Stopped):
                        failure = error  # replies under way are still taken in: they have been paid for
            finally:
                pace.stop()
                pool.shutdown(cancel_futures=True)
        if failure is not None:
            raise failure

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
        raise ConnectionError(
            f"{failed}{self.kept.capitalize()} that have come are in the cache, if one was given: run it again to go on"
        )

    def _send(self, client: httpx.Client, pace: Pace, body: dict[str, Any]) -> tuple[str, str]:
        """One request: the reply's text and why it ended."""
        import httpx

        pace.wait_for_turn()
        try:
            response, content = self._exchange(client, body)
        except httpx.TimeoutException:
            problem = f"no reply within {self.timeout:g} s"
        except httpx.HTTPError as error:
            problem = self.without_key(str(error)) or type(error).__name__
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
        said = self.without_key(" ".join(content.decode("utf-8", "replace").split()))[:200]
        text = f"HTTP {status}{f': {said}' if said else ''}"
        if status == 429 or status >= 500 or status == 408:
            wait = retry_after(response.headers.get("retry-after"))
            if wait > LONGEST_WAIT:
                raise ValueError(
                    f"{self._url} asks to wait {wait:.0f} s ({text}): run it again then; {self.kept} that have "
                    "come are in the cache, if one was given"
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
            said = self.without_key(" ".join(content.decode("utf-8", "replace").split()))[:80]
            raise PassingError(f"a reply that is no chat completion: {said!r}") from None
        return (text if isinstance(text, str) else ""), self.without_key(finish)[:40]

    def check_key(self) -> None:
        """Raise ValueError where there is no key that could be sent; nothing is sent."""
        self._key()

    @property
    def _url(self) -> str:
        return f"{self.base_url}/chat/completions"

    def body(self, *messages: tuple[str, str]) -> dict[str, Any]:
        """What is posted for messages of ``(role, text)``."""
        sent = [{"role": role, "content": text.encode("utf-8", "replace").decode()} for role, text in messages]
        merged = {"model": self.model, "messages": sent, **self.defaults, **self.settings}
        return {name: value for name, value in merged.items() if value is not None}

    @property
    def longest_reply(self) -> int:
        """Tokens that a reply has at most, by the settings; 500 where they do not say."""
        settings = {**self.defaults, **self.settings}
        return int(settings.get("max_completion_tokens") or settings.get("max_tokens") or 500)

    def identity_with(self, *wording: Any) -> str:
        """Model, address and a hash of how it is asked: whatever could change a reply."""
        asked = json.dumps(wording, sort_keys=True, default=str)
        return f"{self.model} at {self.base_url} ({hashlib.sha256(asked.encode()).hexdigest()[:8]})"

    def _key(self) -> str:
        """The key; a ValueError where there is none that a header could hold."""
        if self.key_from is None:
            return ""
        key = os.environ.get(self.key_from, "").strip()
        if not key:
            raise ValueError(
                f"the environment variable {self.key_from} is not set: put the key for {self.base_url} there, name "
                "another variable, or give key_from=None (--no-key) for a server that wants no key"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(f"what is in {self.key_from} is no key: it has spaces or characters that no header takes")
        return key

    def _sign(self, request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {self._key()}"
        return request

    def without_key(self, text: str) -> str:
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
class EndpointWriter(Endpoint):
    """A writer: takes prompts, yields the place of each and the text that it got, as they come in.

    Attributes are those of `Endpoint`; ``temperature`` is 1 and ``max_tokens`` 1000 where ``settings`` say nothing.
    """

    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"temperature": 1, "max_tokens": 1000})
    role: ClassVar[str] = "writer"

    @property
    def identity(self) -> str:
        """Model, address and a hash of the settings: whatever could change what is written."""
        return self.identity_with(self.body(("user", "")))

    def __call__(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Have a text written for each prompt; an empty one is asked for again.

        Raises:
            ValueError: Before anything is sent, if there is no key; later, for what cannot succeed.
            ConnectionError: If an attempt failed ``retries + 1`` times.
        """
        return self.each(prompts, self._write)

    def _write(self, prompt: str, send: Send) -> str:
        for _ in range(self.asks):
            text, _ = send(self.body(("user", prompt)))
            if text.strip():
                return self.without_key(text)
        return ""


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


def estimate_requests(
    endpoint: Endpoint,
    texts: Sequence[str],
    n_cached: int,
    price_in: float | None = None,
    price_out: float | None = None,
) -> Estimate:
    """What sending these texts, one a request, will cost.

    Args:
        endpoint: Where they go.
        texts: All that is said in each request.
        n_cached: Requests that are not among them, as their replies are kept.
        price_in: For a million tokens sent.
        price_out: For a million tokens received.

    Raises:
        ValueError: As `check_prices`.
    """
    check_prices(price_in, price_out)
    tokens_in = sum(math.ceil(len(text.encode("utf-8", "replace")) / 4) + 10 for text in texts)
    tokens_out = len(texts) * endpoint.longest_reply
    cost = None if price_in is None or price_out is None else (tokens_in * price_in + tokens_out * price_out) / 1e6
    return Estimate(len(texts), n_cached, tokens_in, tokens_out, cost)


def check_prices(price_in: float | None, price_out: float | None) -> None:
    """Refuse a negative price, or one price without the other.

    Raises:
        ValueError: With both.
    """
    if (price_in is None) != (price_out is None) or min(price_in or 0.0, price_out or 0.0) < 0:
        raise ValueError(f"price_in {price_in}, price_out {price_out}: give both, for a million tokens, or neither")
