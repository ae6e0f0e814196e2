"""Peak memory of a job by the number of pairs and of cells: it should not grow.

    python tests/benchmarks/bench_memory.py

Every figure is one process: the model is loaded and run once on one token, and then the rise of resident memory to its
peak during the job is read. What is compared is that rise, without the weights and the libraries. The allocator places
freed blocks differently from process to process, so a rise is the median of several processes. A pass over a longer
prompt takes more, so the smaller set is every tenth pair of the larger one by length, the longest among them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from statistics import median
from typing import Any

import subjects
from measure import ROUNDS

JOBS: dict[str, list[tuple[str, int, int]]] = {  # what grows: (job, pairs or items, random vectors)
    "extraction, 100 and 1,000 pairs": [("extract", 100, 0), ("extract", 1000, 0)],
    "sweep, 13 cells, 100 and 1,000 items": [("sweep", 100, 0), ("sweep", 1000, 0)],
    "sweep, 50 items, 133 and 1,333 cells": [("sweep", 50, 10), ("sweep", 50, 110)],
}


def run(rounds: int) -> list[dict[str, Any]]:
    """One row a job: what the larger run takes beside the loaded model, by what the smaller one takes."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = subjects.write_model(Path(scratch) / "small")
        for job, cases in JOBS.items():
            both = [[_in_a_process(folder, *case) for case in cases] for _ in range(rounds)]
            small, large = ([pair[side] for pair in both] for side in (0, 1))
            ratio = _own(large) / _own(small)
            ratios = [_own([more]) / _own([fewer]) for fewer, more in both]
            found.append(
                {
                    "job": f"peak memory, {job}",
                    "measured": ratio,
                    "spread": f"{min(ratios):.2f}-{max(ratios):.2f}",
                    "target": "at most 1.1",
                    "met": ratio <= 1.1,
                    "mib": [round(median(peak["peak"] for peak in peaks) / 2**20) for peaks in (small, large)],
                    "own_mib": [round(_own(peaks) / 2**20) for peaks in (small, large)],
                }
            )
    return found


def _own(peaks: list[dict[str, int]]) -> float:
    return median(peak["peak"] - peak["before"] for peak in peaks)


def _in_a_process(folder: Path, job: str, n: int, n_nulls: int) -> dict[str, int]:
    command = [sys.executable, __file__, "--measure", str(folder), job, str(n), str(n_nulls)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure(folder: str, job: str, n: int, n_nulls: int) -> dict[str, int]:
    """Resident bytes before the job and at its peak, sampled every 2 ms."""
    import pandas  # noqa: F401 -- loaded before, not during
    import psutil
    import torch

    import caa_lens as caa

    model: Any = caa.load_model(folder)
    pairs = _by_length(n)
    model(torch.tensor([[1]]))
    vectors = made_up_vectors(model)
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    if job == "extract":
        caa.extract_vectors(model, pairs, prompt_format="base")
    else:
        caa.sweep(model, vectors, pairs, multipliers=(1.0,), n_nulls=n_nulls, prompt_format="base")
    done.set()
    watcher.join()
    return {"before": before, "peak": peak[0]}


def _by_length(n: int) -> Any:
    """So many of the same 1,000 pairs, evenly spread over their lengths."""
    import caa_lens as caa

    longest_first = sorted(subjects.pairs(1000), key=lambda pair: len(pair.prompt), reverse=True)
    return caa.ContrastDataset.from_pairs(longest_first[:: 1000 // n])


def made_up_vectors(model: Any) -> Any:
    """Vectors for a sweep's cells, without running the model."""
    import torch

    import caa_lens as caa
    from caa_lens.vectors.vectors import Provenance

    layers = tuple(range(model.cfg.n_layers))
    return caa.SteeringVectors(torch.randn(len(layers), model.cfg.d_model), layers, Provenance.unknown(), "custom")


def main() -> None:
    """Print the rows, or measure one case for `run`."""
    if sys.argv[1:2] == ["--measure"]:
        folder, job, n, n_nulls = sys.argv[2:]
        sys.stdout.write(json.dumps(measure(folder, job, int(n), int(n_nulls))) + "\n")
        return
    for each in run(ROUNDS):
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
