"""Extraction by other libraries, each in an environment of its own: none of them can be installed beside caa_lens.

    python tests/benchmarks/peers.py [--rounds 5] [--environments FOLDER]

Each worker times its library beside the same floor in its own process, so what is compared are ratios to the floor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import plain_paths
import subjects
import torch
from bench_speed import N_PAIRS, floor_batches, prompt_ids
from measure import ROUNDS, interleaved

import caa_lens as caa

HERE = Path(__file__).parent
PEERS = {"steering-vectors": "steering-vectors==0.12.*", "repeng": "repeng==0.4.*"}


def environment(folder: Path, requirement: str) -> Path:
    """Make an environment with this library, once, with the torch that runs here."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}", requirement], check=True)
        (folder / ".installed").touch()
    return python


def run(rounds: int, environments: Path) -> list[dict[str, Any]]:
    """One row a library: its time by that of `extract_vectors`, both in floors, and how well the vectors agree."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = subjects.write_model(Path(scratch) / "small")
        model: Any = caa.load_model(folder)
        plain = plain_paths.load(folder)
        pairs = subjects.pairs(N_PAIRS)
        ids = prompt_ids(model, pairs)
        texts = Path(scratch) / "texts.json"
        texts.write_text(json.dumps([_texts(model, pair) for pair in pairs]), encoding="utf-8")
        prepared = floor_batches(plain, ids, "cpu")
        times = interleaved(
            {
                "floor": lambda: plain_paths.prompt_pass(plain, prepared),
                "caa_lens": lambda: caa.extract_vectors(model, pairs, prompt_format="base"),
            },
            rounds,
        )
        ours, vectors = times.ratio("caa_lens", "floor"), caa.extract_vectors(model, pairs, prompt_format="base")
        del model, plain
        for library, requirement in PEERS.items():
            out = Path(scratch) / f"{library}.pt"
            python = environment(environments / library, requirement)
            worker = [
                str(python),
                str(HERE / "peer_worker.py"),
                library,
                str(folder),
                str(texts),
                str(out),
                str(rounds),
            ]
            subprocess.run(worker, check=True, cwd=HERE)
            theirs = torch.load(out)
            cosine = min(
                float(torch.cosine_similarity(vector.double(), vectors[layer].values.double(), dim=0))
                for layer, vector in theirs["vectors"].items()
            )
            speed = theirs["ratio"] / ours
            found.append(
                {
                    "job": f"extraction, {library} {theirs['version']} (batch {theirs['batch_size']}) by caa_lens",
                    "measured": speed,
                    "spread": f"{theirs['spread']} floors",
                    "target": "at least 2.5",
                    "met": speed >= 2.5,
                    "cosine": cosine,
                    "agrees": cosine > 0.9999,
                    "layers": len(theirs["vectors"]),
                    "seconds": {library: theirs["seconds"], "caa_lens": times.median("caa_lens")},
                }
            )
    return found


def _texts(model: Any, pair: Any) -> list[str]:
    """Both sides up to the letter, as text that gives the same ids: the libraries take strings."""
    from caa_lens.prompts import format_prompt

    sides: list[str] = []
    for answer in (pair.positive, pair.negative):
        formatted = format_prompt(model, pair.prompt, answer, prompt_format="base")
        ids = formatted.ids[: formatted.position("answer_letter") + 1]
        text = str(model.tokenizer.decode(ids[1:]))
        if tuple(model.tokenizer(text).input_ids) != tuple(ids):
            raise RuntimeError(f"this text does not give its own token ids back: {text[:80]!r}")
        sides.append(text)
    return sides


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--environments", type=Path, default=HERE.parents[1] / ".venv-peers")
    given = parser.parse_args()
    for each in run(given.rounds, given.environments):
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()
