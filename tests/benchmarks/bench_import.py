"""What `import caa_lens` takes after torch's own import, and how long `caa-lens --help` takes.

    python tests/benchmarks/bench_import.py

The first is timed inside fresh processes that have imported torch; the second is the whole command.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from typing import Any

from measure import ROUNDS, interleaved

TIMED = "import time, torch; start = time.perf_counter(); import caa_lens; print(time.perf_counter() - start)"


def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Two rows, in seconds."""
    added = median(float(_python("-c", TIMED)) for _ in range(rounds))
    times = interleaved({"--help": lambda: _python("-m", "caa_lens.cli.app", "--help")}, rounds)
    return [
        _row("`import caa_lens` after torch, seconds", added, 0.1),
        _row("`caa-lens --help`, seconds", times.median("--help"), 0.5),
    ]


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


def _row(job: str, seconds: float, most: float) -> dict[str, Any]:
    return {"job": job, "measured": seconds, "target": f"under {most:g}", "met": seconds < most}


def main() -> None:
    """Print the rows."""
    for each in run():
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
