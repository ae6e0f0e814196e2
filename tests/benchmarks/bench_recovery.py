"""How well each estimator recovers the planted directions, by the number of contrast pairs.

    python tests/benchmarks/bench_recovery.py [--model organism-chat] [--draws 5]

A draw is a seeded sample of pairs without replacement from a behaviour's `generate` set. Every pair is run through the
model once; an estimator (`caa_lens.extraction.estimators`) is a function of the sampled pairs' activations at the
planted layer, and all see the same samples. Printed are the mean over behaviours and draws of the cosine with the
planted direction, and the standard deviation over draws of the mean over behaviours; nothing where an estimator needs
more pairs.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

import torch
from torch import Tensor

import caa_lens as caa
from caa_lens.extraction import estimators
from caa_lens.organism import ground_truth

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 300)
Estimator = Callable[[Tensor, Tensor, int], Tensor]


def random_direction(positive: Tensor, negative: Tensor, seed: int) -> Tensor:
    """The null: a direction that no pair was looked at for."""
    return torch.randn(positive.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _unseeded(estimator: estimators.Estimator) -> Estimator:
    return lambda positive, negative, seed: estimator(positive, negative)


ESTIMATORS: dict[str, Estimator] = {name: _unseeded(each) for name, each in estimators.ESTIMATORS.items()}
ESTIMATORS["random vector"] = random_direction
LEAST_PAIRS = {"lda": 2}


def recovery(model_name: str, sizes: Sequence[int], draws: int) -> dict[str, dict[int, tuple[float, float]]]:
    """Mean cosine, and its standard deviation over draws, by estimator and number of pairs."""
    truth = ground_truth(model_name)
    model = caa.load_model(model_name)
    cosines: dict[tuple[str, int, int], list[float]] = {}
    for index, (behavior, planted) in enumerate(truth.items()):
        layer = planted.layers[0]
        activations = caa.extract_activations(model, caa.load_contrast_pairs(behavior), layers=[layer])
        positive, negative = activations.positive[:, 0], activations.negative[:, 0]
        for n in sizes:
            for draw in range(draws):
                seed = 1_000_000 * draw + 1000 * n + index
                rows = torch.tensor(random.Random(seed).sample(range(len(positive)), n))
                for name, estimate in ESTIMATORS.items():
                    if n < LEAST_PAIRS.get(name, 1):
                        continue
                    found = estimate(positive[rows], negative[rows], seed)
                    cosine = torch.cosine_similarity(found, planted[layer].values.double(), dim=0)
                    cosines.setdefault((name, n, draw), []).append(float(cosine))
    table: dict[str, dict[int, tuple[float, float]]] = {}
    for name in ESTIMATORS:
        for n in sizes:
            if n >= LEAST_PAIRS.get(name, 1):
                means = [fmean(cosines[name, n, draw]) for draw in range(draws)]
                table.setdefault(name, {})[n] = (fmean(means), pstdev(means))
    return table


def as_markdown(table: dict[str, dict[int, tuple[float, float]]]) -> str:
    """A row per number of pairs, a column per estimator."""
    sizes = sorted({n for column in table.values() for n in column})
    lines = [f"| pairs | {' | '.join(table)} |", "|---|" + "---|" * len(table)]
    for n in sizes:
        cells = ["{:.3f} ± {:.3f}".format(*column[n]) if n in column else "" for column in table.values()]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism-chat", help="a bundled model, or a folder that training wrote")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    sys.stdout.write(as_markdown(recovery(options.model, SIZES, options.draws)))


if __name__ == "__main__":
    main()
