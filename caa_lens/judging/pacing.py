"""When the next request to a server may leave: not too many a minute, and not before the server said."""

from __future__ import annotations

import math
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class PassingError(Exception):
    """A failure that may be gone at the next attempt."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        """Note what happened, and for how many seconds the server asked to be left alone."""
        super().__init__(text)
        self.wait = wait


class Stopped(Exception):
    """The run has ended before this request could leave."""


class Pace:
    """One for all threads of a run."""

    def __init__(self, per_minute: float | None) -> None:
        """Space requests evenly, so many a minute; None does not limit them."""
        self._gap = 60 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = monotonic()
        self._stopped = threading.Event()

    def wait_for_turn(self) -> None:
        """Sleep until a request may leave; it then has to."""
        while not self._stopped.is_set():
            with self._lock:
                left = self._next - monotonic()
                if left <= 0:
                    self._next = monotonic() + self._gap
                    return
            self.sleep(left)
        raise Stopped

    def hold(self, seconds: float) -> None:
        """Let no request leave for so long."""
        with self._lock:
            self._next = max(self._next, monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, or wake up when the run is stopped."""
        pause(self._stopped, seconds)

    def stop(self) -> None:
        """Wake up whoever sleeps, and let no request leave again."""
        self._stopped.set()


def monotonic() -> float:
    """Seconds; the clock of all waiting here."""
    return time.monotonic()


def pause(stopped: threading.Event, seconds: float) -> None:
    """Wait, unless the run is stopped."""
    stopped.wait(seconds)


def retry_after(text: str | None) -> float:
    """What a ``Retry-After`` header says, in seconds or as a date, as seconds from now; 0 where it says nothing."""
    said = (text or "").strip()
    try:
        seconds = float(said)
    except ValueError:
        try:
            when = parsedate_to_datetime(said)
        except (ValueError, TypeError):
            return 0.0
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
