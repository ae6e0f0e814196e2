"""A chat server on loopback that also fails, stalls and returns nonsense, and a clock that no test waits for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from caa_lens.judging import pacing

KEY = "sk-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Answers each request by the next step of its script; when that is at its end, by `score_of` its last message."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Any] = []
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.score_of: Callable[[str], Any] = lambda text: 7
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append((dict(self.headers.items()), body))
            step = self.server.script.pop(0) if self.server.script else None
        if step is None:
            step = str(self.server.score_of(body["messages"][-1]["content"]))
        if callable(step):
            step(self)
        elif isinstance(step, str):
            self.reply(200, completion(step))
        else:
            self.reply(*step)

    def reply(self, status: int, content: str, headers: dict[str, str] | None = None) -> None:
        data = content.encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def completion(text: str | None, finish: str = "stop") -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})


def stall(handler: Handler) -> None:
    handler.server.release.wait(5)


def drip(handler: Handler) -> None:
    """A reply whose bytes keep coming, each in time, and never end."""
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    while not handler.server.release.wait(0.02):
        handler.wfile.write(b" ")


def hang_up(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "5000")
    handler.end_headers()
    handler.wfile.write(completion("7").encode())
    handler.close_connection = True


def flood(handler: Handler) -> None:
    handler.reply(200, "7" * 2_000_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join(5)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces the clock of all waiting: what would have been slept is noted, and time goes on at once."""
    naps: list[float] = []
    passed = [0.0]
    lock = threading.Lock()

    def nap(stopped: threading.Event, seconds: float) -> None:
        with lock:
            naps.append(seconds)
            passed[0] += seconds

    monkeypatch.setattr(pacing, "pause", nap)
    monkeypatch.setattr(pacing, "monotonic", lambda: time.monotonic() + passed[0])
    return naps
