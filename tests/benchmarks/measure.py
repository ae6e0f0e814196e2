"""Timing by ratio: everything that is compared runs in turns in one process, so that a slow minute slows all of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROUNDS = 5


@dataclass(frozen=True)
class Times:
    """Seconds of each round, by name; the rounds of all names were interleaved."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Seconds."""
        return median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Median over rounds of one name's time by another's in the same round."""
        return median(a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True))

    def spread(self, name: str, to: str) -> str:
        """The smallest and the largest ratio of a round."""
        ratios = [a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True)]
        return f"{min(ratios):.2f}-{max(ratios):.2f}"


def interleaved(jobs: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, *, warm: bool = False) -> Times:
    """Run each job once to warm up, unless all is warm, then all of them in turn, in an order that rotates."""
    for job in () if warm else jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for at in range(rounds):
        for name in names[at % len(names) :] + names[: at % len(names)]:
            start = time.perf_counter()
            jobs[name]()
            seconds[name].append(time.perf_counter() - start)
    return Times(seconds)


def fastest(job: Callable[[int], object], sizes: list[int], rounds: int = 2) -> int:
    """The batch size at which a job is fastest, by the best of a few interleaved runs."""
    times = interleaved({str(size): (lambda size=size: job(size)) for size in sizes}, rounds)
    return min(sizes, key=lambda size: min(times.seconds[str(size)]))


def machine() -> str:
    """The processor, the threads that torch uses, and the versions that matter."""
    from importlib.metadata import version

    import torch

    names = ("torch", "transformers", "transformer-lens")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{_processor()}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
