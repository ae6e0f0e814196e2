"""All benchmarks, into one committed page.

    python tests/benchmarks/run.py [--out docs/benchmarks.md] [--only speed,peers,memory,import,techniques,scaling]

Takes about 40 minutes on two cores, which should have nothing else to do. Each part's rows are kept in a JSON file
beside the page as soon as they are there, so a run that was stopped goes on with ``--only`` and loses nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_import
import bench_memory
import bench_scaling
import bench_speed
import bench_techniques
import peers
import subjects
from measure import ROUNDS, machine

ROOT = Path(__file__).parents[2]

INTRODUCTION = """# Benchmarks

Written by `make bench` (`tests/benchmarks/run.py`). Nothing here is a timed test: speed is measured by ratio, jobs that
are compared run in turns in one process, and a figure is the median of the rounds' ratios, beside the smallest and the
largest. That every fast path is exact is tested against plain passes in `tests/engine/test_packing.py` and
`tests/engine/test_branching.py`.

Measured on {dates} on {machines}. Model: random Llama weights, d_model 512, 12 layers, 8 heads, vocabulary 32,000,
float32. Pairs: {origin}, seven behaviours pooled.

The **floor**, or prompt pass, is Hugging Face's own model with PyTorch's fused attention: the prompts once through the
blocks, sorted by length, at its best batch size, without logits and without a cache.
"""

PEERS = """## Other libraries

Each runs in an environment, and so in a process, of its own beside the same floor, and what the table divides are the
two ratios to the floor. repeng is timed without the PCA that it makes of what it has read, and its last layer is left
out: there it reads the stream after the final norm. The cosine is between their mean difference and that of caa_lens.
"""


def main() -> None:
    """Run what is asked for, and write the page from all rows there are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--only", default=None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv-peers")
    given = parser.parse_args()
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "import": lambda: bench_import.run(given.rounds),
        "speed": lambda: bench_speed.run("small", "cpu", "float32", given.rounds),
        "peers": lambda: peers.run(given.rounds, given.environments),
        "memory": lambda: bench_memory.run(given.rounds),
        "techniques": lambda: bench_techniques.run(given.rounds),
        "scaling": bench_scaling.run,
    }
    asked = given.only.split(",") if given.only else list(parts)
    if unknown := set(asked) - set(parts):
        parser.error(f"--only names {', '.join(sorted(unknown))}: give some of {', '.join(parts)}")
    kept = given.out.with_suffix(".json")
    results: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for part in asked:
        results[part] = {
            "rows": parts[part](),
            "machine": machine(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if "scaling" in asked:
        bench_scaling.plot(results["scaling"]["rows"], given.out.with_name("scaling.png"))
    given.out.write_text(page(results), encoding="utf-8")


def page(results: dict[str, Any]) -> str:
    """The Markdown page."""
    machines = sorted({part["machine"] for part in results.values()})
    dates = sorted({part["date"] for part in results.values()})
    found = [INTRODUCTION.format(dates=" and ".join(dates), machines="; ".join(machines), origin=subjects.origin())]
    found += ["| job | measured | rounds | target | met |", "|---|---|---|---|---|"]
    for name in ("speed", "peers", "memory", "import"):
        found += [_line(row) for row in results.get(name, {"rows": []})["rows"]]
    if "peers" in results:
        found += ["", *_peers(results["peers"]["rows"])]
    else:
        found += ["", "Other libraries are not measured on this page: `make bench ARGS='--only peers'` adds them."]
    if "memory" in results:
        found += ["", *_memory(results["memory"]["rows"])]
    if "techniques" in results:
        found += ["", "## What each technique gains", "", "Time without it by time with it; predicted by counting"]
        found[-1] += " multiply-adds (`tests/benchmarks/bench_techniques.py`)."
        found += ["", "| technique | predicted | measured | remark |", "|---|---|---|---|"]
        found += [
            f"| {row['job']} | {row['predicted']:.2f} | {row['measured']:.2f} | {row['remark']} |"
            for row in results["techniques"]["rows"]
        ]
    if "scaling" in results:
        found += [
            "",
            "## Scaling",
            "",
            "![Time against pairs, items, layers, multipliers and prompt length](scaling.png)",
        ]
        found += ["", "| series | sizes | median seconds | exponent |", "|---|---|---|---|"]
        for row in results["scaling"]["rows"]:
            seconds = ", ".join(f"{each:.2f}" for each in row["seconds"])
            found.append(f"| {row['job']} | {', '.join(map(str, row['sizes']))} | {seconds} | {row['exponent']:.2f} |")
    return "\n".join(found) + "\n"


def _line(row: dict[str, Any]) -> str:
    met = {True: "yes", False: "**no**", None: ""}[row.get("met")]
    return f"| {row['job']} | {row['measured']:.2f} | {row.get('spread', '')} | {row['target']} | {met} |"


def _peers(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        PEERS,
        "| library | layers compared | smallest cosine | its seconds | caa_lens' seconds |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = row["job"].partition(",")[2].partition("(")[0].strip()
        name = theirs.partition(" ")[0]
        seconds = f"{row['seconds'][name]:.1f} | {row['seconds']['caa_lens']:.1f}"
        lines.append(f"| {theirs} | {row['layers']} | {row['cosine']:.7f} | {seconds} |")
    return lines


def _memory(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Memory",
        "",
        "Resident memory of a process that holds the model, median of several processes. The job's own part is the",
        "rise during it, and is what the table above compares. Both sets of pairs have the same spread of lengths,",
        "and the same longest one. What rises in a sweep is one pass's logits, which are most where short prompts are",
        "run together: among 1,000 items there are fuller batches of those than among 100.",
        "`LOGIT_BYTES` in `caa_lens/engine/memory.py` bounds them.",
    ]
    lines += ["", "| job | peak, MiB | the job's own part, MiB |", "|---|---|---|"]
    for row in rows:
        peak, own = (" / ".join(map(str, row[key])) for key in ("mib", "own_mib"))
        lines.append(f"| {row['job'].removeprefix('peak memory, ')} | {peak} | {own} |")
    return lines


if __name__ == "__main__":
    main()
