"""Extraction, sweep and generation against plain Hugging Face passes, by ratio within this process.

    python tests/benchmarks/bench_speed.py [--size small] [--device cpu] [--dtype float32] [--rounds 5]

`run.py` runs this among the others and writes the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import plain_paths
import subjects
import torch
from measure import ROUNDS, Times, fastest, interleaved

import caa_lens as caa

N_PAIRS, N_ITEMS = 256, 50
MULTIPLIERS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
BATCH_TOKENS = [512, 1024, 2048, 4096]
CELLS_TIMED = 3  # plain cells are alike: so many are timed, spread over the layers, and the rest is multiplication


def extraction(model: Any, plain: Any, rounds: int, device: str) -> list[dict[str, Any]]:
    """`extract_vectors` for all layers against the floor: the prompts once through the blocks, no logits."""
    pairs = subjects.pairs(N_PAIRS)
    texts = prompt_ids(model, pairs)
    prepared = floor_batches(plain, texts, device)
    times = interleaved(
        {
            "floor": lambda: plain_paths.prompt_pass(plain, prepared),
            "caa_lens": lambda: caa.extract_vectors(model, pairs, prompt_format="base"),
        },
        rounds,
    )
    return [row("extraction, all layers, 256 pairs, in floors", times, "caa_lens", "floor", "at most", 1.25)]


def sweep(model: Any, plain: Any, rounds: int, device: str) -> list[dict[str, Any]]:
    """`sweep` over every layer x 7 multipliers x 50 items against one prompt pass, and against a pass per cell."""
    items = subjects.pairs(N_ITEMS, "test")
    vectors = caa.extract_vectors(model, items, prompt_format="base")
    texts = [ids[:-1] for ids in prompt_ids(model, items)]  # what is read are the logits before the letter
    prepared = floor_batches(plain, texts, device)
    n_layers = len(vectors.layers)
    n_cells = n_layers * (len(MULTIPLIERS) - 1) + 1  # multiplier 0 is the same at every layer
    some = [(layer, vectors[layer].values) for layer in range(0, n_layers, n_layers // CELLS_TIMED)][:CELLS_TIMED]

    def batched() -> None:
        for layer, delta in some:
            plain_paths.batched_cell(plain, prepared, layer, delta)

    def one_by_one() -> None:
        for layer, delta in some:
            plain_paths.cell_one_by_one(plain, texts, layer, delta, device)

    jobs: dict[str, Any] = {
        "prompt pass": lambda: plain_paths.prompt_pass(plain, prepared),
        "caa_lens": lambda: caa.sweep(model, vectors, items, multipliers=MULTIPLIERS, n_nulls=0, prompt_format="base"),
        "batched": batched,
        "one by one": one_by_one,
    }
    times = interleaved(jobs, rounds)
    scaled = Times({name: [s * n_cells / len(some) for s in times.seconds[name]] for name in ("batched", "one by one")})
    times = Times({**times.seconds, **scaled.seconds})
    title = f"sweep, {n_layers} layers x 7 multipliers x 50 items"
    return [
        row(f"{title}, in prompt passes", times, "caa_lens", "prompt pass", "at most", 2.2),
        row(f"{title}, batched full passes in sweeps", times, "batched", "caa_lens", "at least", 20),
        row(f"{title}, one text at a time in sweeps", times, "one by one", "caa_lens", "at least", 60),
    ]


def generation(model: Any, rounds: int) -> list[dict[str, Any]]:
    """`generate` steered against unsteered, and seven multipliers in one call against seven calls."""
    prompts = [pair.prompt for pair in subjects.pairs(32, "test")]
    vectors = caa.extract_vectors(model, subjects.pairs(8), prompt_format="base")
    vector = vectors[len(vectors.layers) // 2]
    options: Any = {"max_new_tokens": 32, "prompt_format": "base", "batch_size": 32}
    few, ways = prompts[:8], {multiplier: vector * multiplier for multiplier in MULTIPLIERS}

    def together() -> None:
        caa.generate(model, few, steer=ways, **{**options, "batch_size": len(few) * len(ways)})

    def apart() -> None:
        for recipe in ways.values():
            caa.generate(model, few, steer=recipe, **options)

    jobs = {
        "unsteered": lambda: caa.generate(model, prompts, **options),
        "steered": lambda: caa.generate(model, prompts, steer=vector, **options),
        "seven in one call": together,
        "seven calls": apart,
    }
    times = interleaved(jobs, rounds)
    return [
        row("generation, steered tokens/s by unsteered", times, "unsteered", "steered", "at least", 0.95),
        row(
            "generation, seven calls by one call for seven multipliers",
            times,
            "seven calls",
            "seven in one call",
            "",
            None,
        ),
    ]


def floor_batches(plain: Any, texts: list[tuple[int, ...]], device: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches with which a prompt pass is fastest, tried on a part of the texts."""
    some = texts[:48]
    size = fastest(
        lambda tokens: plain_paths.prompt_pass(plain, plain_paths.batches(some, tokens, device)), BATCH_TOKENS
    )
    return plain_paths.batches(texts, size, device)


def prompt_ids(model: Any, pairs: Any) -> list[tuple[int, ...]]:
    """Each prompt with its answer up to the letter, as the plain paths run it."""
    from caa_lens.prompts import format_prompt

    found: list[tuple[int, ...]] = []
    for pair in pairs:
        formatted = format_prompt(model, pair.prompt, pair.positive, prompt_format="base")
        found.append(formatted.ids[: formatted.position("answer_letter") + 1])
    return found


def row(job: str, times: Times, name: str, to: str, sense: str, target: float | None) -> dict[str, Any]:
    """One line of the table."""
    return {
        "job": job,
        "measured": times.ratio(name, to),
        "spread": times.spread(name, to),
        "target": f"{sense} {target:g}" if target is not None else "",
        "met": None if target is None else (times.ratio(name, to) <= target) == (sense == "at most"),
        "seconds": {key: times.median(key) for key in times.seconds},
    }


def run(size: str, device: str, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """All three, on one model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = subjects.write_model(Path(scratch) / size, size)
        model: Any = caa.load_model(folder, dtype=dtype, device=device)
        plain = plain_paths.load(folder, getattr(torch, dtype), device)
        found = extraction(model, plain, rounds, device)
        found += sweep(model, plain, rounds, device)
        return found + generation(model, rounds)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", default="small", choices=list(subjects.SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    for each in run(given.size, given.device, given.dtype, given.rounds):
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
