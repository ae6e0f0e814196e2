"""What `import caa_lens` adds to torch's own import, and how long `caa-lens --help` takes.

python tests/benchmarks/bench_import.py
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from measure import ROUNDS, interleaved


def run(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Two rows, in seconds."""
    times = interleaved(
        {
            "torch": lambda: _python("-c", "import torch"),
            "torch and caa_lens": lambda: _python("-c", "import torch, caa_lens"),
            "--help": lambda: _python("-m", "caa_lens.cli", "--help"),
        },
        rounds,
    )
    added = times.median("torch and caa_lens") - times.median("torch")
    return [
        _row("`import caa_lens` after torch, seconds added", added, 0.1),
        _row("`caa-lens --help`, seconds", times.median("--help"), 0.5),
    ]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def _row(job: str, seconds: float, most: float) -> dict[str, Any]:
    return {"job": job, "measured": seconds, "target": f"under {most:g}", "met": seconds < most}


def main() -> None:
    """Print the rows."""
    for each in run():
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
